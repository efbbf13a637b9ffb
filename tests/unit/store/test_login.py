"""Logging in: what asks for it, tokens that renew themselves, and MLflow behind them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import mantik
import mlflow
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from loopback import Handler, listening
from mantik import PASSWORD, USER, Clock, Mantik, mantik_platform
from mlflow import MlflowClient

from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.store import login
from pytest_armory.store.login import Bearer, init_tracking, logged_in, needed, tracking_uri
from pytest_armory.store.tokens import Tokens, inherited
from pytest_armory.values.times import seconds

pytestmark = pytest.mark.usefixtures("credentials")

OURS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_URI", login.TOKEN, login.INHERITED)


@pytest.fixture
def credentials(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """A user of the platform, who is not logged in."""
    monkeypatch.setenv("MANTIK_USERNAME", USER)
    monkeypatch.setenv("MANTIK_PASSWORD", PASSWORD)
    monkeypatch.setattr(login, "_current", None)
    monkeypatch.setattr(login, "_published", set())
    for name in OURS:  # so that what a test leaves there goes
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def platform(credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mantik]:  # noqa: ARG001
    """The token service alone."""
    with mantik_platform() as platform:
        monkeypatch.setenv("MANTIK_API_URL", platform.url)
        yield platform


def tokens_for(platform: Mantik) -> Tokens:
    return Tokens(platform.url, USER, PASSWORD)


def age(tokens: Tokens, **times: float) -> None:
    """Let a token be due for renewal, or expired."""
    assert tokens._grant
    tokens._grant = tokens._grant._replace(**times)


def header(uri: str, login: login.Login, url: str) -> str | None:
    """What a request to `url` says of who sends it."""
    request = requests.Request("GET", url, auth=Bearer(uri, login)).prepare()
    return request.headers.get("Authorization")


OWN = "https://api.cloud.mantik.ai/tracking"

# --- What asks for it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "environment", "expected"),
    [
        ("https://api.cloud.mantik.ai/tracking/", {}, True),
        ("HTTPS://API.Cloud.Mantik.AI", {}, True),
        ("https://cloud.mantik.ai", {}, True),
        ("https://cloud.mantik.ai", {"MANTIK_API_URL": "https://dev.example/v1"}, True),
        ("https://dev.example/tracking", {"MANTIK_API_URL": "https://dev.example:443/v1"}, True),
        ("https://dev.example", {"MANTIK_API_URL": "https://dev.example:8443"}, False),
        ("http://dev.example", {"MANTIK_API_URL": "https://dev.example"}, False),
        ("https://host", {"MANTIK_API_URL": "https://api.cloud.mantik.ai"}, False),
        ("https://host", {}, False),
        ("http://127.0.0.1:5000", {}, False),
        ("https://cloud.mantik.ai.evil.example", {}, False),
        ("https://notcloud.mantik.ai", {}, False),
        ("https://cloud.mantik.ai@evil.example", {}, False),
        ("https://host/cloud.mantik.ai", {}, False),
        ("local", {}, False),
        ("sqlite:////tmp/mlflow.db", {}, False),
        ("databricks", {}, False),
        (OWN, {"MLFLOW_TRACKING_TOKEN": "t"}, False),
        (OWN, {"MLFLOW_TRACKING_TOKEN": ""}, True),
        (OWN, {"MLFLOW_TRACKING_AUTH": "kubernetes"}, False),
        (OWN, {"MLFLOW_TRACKING_AUTH": "armory"}, True),
        (OWN, {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, True),
        (OWN, {"MANTIK_USERNAME": "", "MANTIK_PASSWORD": ""}, False),
        ("local", {"MANTIK_USERNAME": ""}, False),
        ("https://host", {"MANTIK_USERNAME": ""}, False),
        (OWN, {"MANTIK_USERNAME": "", "MLFLOW_TRACKING_TOKEN": "t"}, False),
    ],
)
def test_who_needs_a_login(
    monkeypatch: pytest.MonkeyPatch, uri: str, environment: dict[str, str], expected: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert needed(uri) is expected


@pytest.mark.parametrize("missing", ["MANTIK_USERNAME", "MANTIK_PASSWORD"])
def test_half_a_login_names_the_other_half(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(ArmoryUsageError, match=f"{missing} is not set") as caught:
        needed(OWN)
    assert_no_secret(caught.value, [PASSWORD])


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://api.cloud.mantik.ai", "https://api.cloud.mantik.ai/tracking"),
        ("https://api.cloud.mantik.ai/", "https://api.cloud.mantik.ai/tracking"),
        ("https://cloud.mantik.ai:8443", "https://cloud.mantik.ai:8443/tracking"),
        ("https://dev.example:5000", "https://dev.example:5000/tracking"),
        ("https://api.cloud.mantik.ai/tracking/", "https://api.cloud.mantik.ai/tracking/"),
        ("https://dev.example:5000/mlflow", "https://dev.example:5000/mlflow"),
        ("https://host", "https://host"),
        ("http://user:pass@[::1]:5000", "http://user:pass@[::1]:5000"),
    ],
)
def test_only_the_platforms_bare_host_gets_its_path(
    monkeypatch: pytest.MonkeyPatch, uri: str, expected: str
) -> None:
    monkeypatch.setenv("MANTIK_API_URL", "https://dev.example:5000/v1")
    assert tracking_uri(uri) == tracking_uri(expected) == expected


@pytest.mark.parametrize("api", ["https://api.cloud.mantik.ai", "https://api.host/v1/"])
def test_where_the_tokens_are_made(monkeypatch: pytest.MonkeyPatch, api: str) -> None:
    """As by Mantik's client: never at the tracking URI's host because it is that."""
    assert Tokens.from_environment().api == "https://api.cloud.mantik.ai"
    monkeypatch.setenv("MANTIK_API_URL", api)
    assert Tokens.from_environment().api == api.rstrip("/")


@pytest.mark.parametrize(
    "api",
    ["api.cloud.mantik.ai", "api.host:8443/v1", "http://[", "https://", "u:hidden@host", "ftp://h",
     "http://u:hidden@h:x"],
)  # fmt: skip
@pytest.mark.parametrize("start", [init_tracking, needed])
def test_an_api_that_is_no_address_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, api: str, start: Callable[[str], object]
) -> None:
    monkeypatch.setenv("MANTIK_API_URL", api)
    with pytest.raises(ArmoryUsageError, match=r"MANTIK_API_URL is .*; set it as in MAN") as caught:
        start("http://127.0.0.1:1")
    assert_no_secret(caught.value, [PASSWORD, "hidden"])


# --- Tokens --------------------------------------------------------------------------------------


def test_a_token_is_made_once_and_kept(platform: Mantik) -> None:
    tokens = tokens_for(platform)
    assert tokens.token() == tokens.token() == next(iter(platform.valid))
    assert platform.asked == ["create"]


@pytest.mark.parametrize("rotates", [True, False])
def test_a_token_is_refreshed_before_it_expires(
    platform: Mantik, clock: Clock, rotates: bool
) -> None:
    platform.life, platform.rotates, platform.clock = 100, rotates, clock
    tokens = tokens_for(platform)
    for _ in range(48):  # 336 seconds
        assert platform.lets_in(f"Bearer {tokens.token()}")
        clock.sleep(7)
    assert platform.asked == ["create", "refresh", "refresh", "refresh"]


@pytest.mark.parametrize(("life", "margin"), [(3600, 60), (100, 10), (-5, 0)])
def test_the_margin(platform: Mantik, life: float, margin: float) -> None:
    platform.life = life
    tokens = tokens_for(platform)
    tokens.token()
    assert tokens._grant
    assert tokens._grant.expires_at - tokens._grant.renew_at == pytest.approx(margin, abs=0.5)


@pytest.mark.parametrize("status", [201, 202, 299])
def test_any_success_is_one(platform: Mantik, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    given = platform.grant

    def grant(action: str, body: dict[str, str]) -> tuple[int, dict[str, str]]:
        return status, given(action, body)[1]

    monkeypatch.setattr(platform, "grant", grant)
    platform.rotates = False
    tokens = tokens_for(platform)
    tokens.token()
    for _ in range(2):  # the answer to a refresh has no refresh token: the first one stands
        age(tokens, renew_at=0.0, expires_at=0.0)
        assert platform.lets_in(f"Bearer {tokens.token()}")
    assert platform.asked == ["create", "refresh", "refresh"]


@pytest.mark.parametrize("status", [301, 404, 429, 500, 503])
def test_a_refresh_that_fails_otherwise_sends_no_password(platform: Mantik, status: int) -> None:
    tokens = tokens_for(platform)
    tokens.token()
    age(tokens, renew_at=0.0, expires_at=0.0)
    platform.answer = {"refresh": status}
    with pytest.raises(TrackingError, match=f"HTTP {status}"):
        tokens.token()
    platform.answer = {}
    age(tokens, renew_at=0.0)
    tokens._pause_until = 0.0
    tokens.token()
    assert platform.asked == ["create", "refresh", "refresh"]


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_a_refused_refresh_is_a_new_login(platform: Mantik, status: int) -> None:
    platform.life, platform.answer = 0.05, {"refresh": status}
    tokens = tokens_for(platform)
    first = tokens.token()
    time.sleep(0.06)
    assert tokens.token() != first
    assert platform.asked == ["create", "refresh", "create"]


def test_a_token_that_cannot_be_renewed_serves_until_it_expires(platform: Mantik) -> None:
    tokens = tokens_for(platform)
    first = tokens.token()
    platform.answer = {"refresh": 503, "create": 503}
    age(tokens, renew_at=0.0)
    assert tokens.token() == tokens.token() == first
    age(tokens, expires_at=0.0)
    for _ in range(2):
        with pytest.raises(TrackingError, match=r"HTTP 503; try later"):
            tokens.token()
    assert platform.asked == ["create", "refresh"]  # and no more for a while
    platform.answer = {}
    tokens._pause_until = 0.0
    assert tokens.token() != first


def test_threads_that_ask_at_once_make_one_request(platform: Mantik) -> None:
    platform.delay = 0.1
    tokens = tokens_for(platform)
    for _ in range(3):
        barrier = threading.Barrier(4)

        def ask(barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            return tokens.token()

        with ThreadPoolExecutor(4) as pool:
            given = [pool.submit(ask) for _ in range(4)]
        assert len({future.result() for future in given}) == 1
        age(tokens, renew_at=0.0, expires_at=0.0)
    assert platform.asked == ["create", "refresh", "refresh"]


MOMENT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-04T05:06:07", MOMENT),
        ("2026-03-04 05:06:07", MOMENT),
        ("2026-03-04T05:06", MOMENT - 7),
        ("2026-03-04T05:06:07Z", MOMENT),
        ("2026-03-04T05:06:07z", MOMENT),
        ("2026-03-04T05:06:07.5Z", MOMENT + 0.5),
        ("2026-03-04T05:06:07,123456789Z", MOMENT + 0.123456789),
        ("2026-03-04T05:06:07.250", MOMENT + 0.25),
        ("2026-03-04T07:36:07+02:30", MOMENT),
        ("2026-03-04T07:06:07+02", MOMENT),
        ("2026-03-03T23:06:07.1-0600", MOMENT + 0.1),
    ],
)
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("text", ["", "tomorrow", "1772600767", "2026-13-04T05:06:07Z", "05:06"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever it is, an answer with it is refused
        seconds(text)


@pytest.mark.parametrize("hours", [None, 0, 5.5, -8])
def test_a_token_lives_as_long_as_the_service_says(platform: Mantik, hours: float | None) -> None:
    if hours is not None:
        zone = timezone(timedelta(hours=hours))
        platform.write_time = lambda moment: datetime.fromtimestamp(moment, zone).isoformat()
    tokens = tokens_for(platform)
    tokens.token()
    assert tokens._grant
    assert tokens._grant.expires_at == pytest.approx(time.time() + 3600, abs=5)


# --- What goes wrong -----------------------------------------------------------------------------


def assert_no_secret(error: BaseException, secrets: list[str]) -> None:
    """Neither in the text nor wherever a traceback looks: causes, contexts, local variables."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(
        traceback.TracebackException.from_exception(error, capture_locals=True).format()
    )
    # The first frame is the test's own.
    _, *ours = re.split('/pytest_armory/store/(?:login|tokens).py"', shown)
    assert ours
    for secret in secrets:
        assert secret not in f"{error!r} {ours}"


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "check MANTIK_USERNAME and MANTIK_PASSWORD"),
        (422, "check MANTIK_USERNAME and MANTIK_PASSWORD"),
        (404, "set MANTIK_API_URL to the address of Mantik's API"),
        (302, "set MANTIK_API_URL to the address of Mantik's API"),
        (307, "set MANTIK_API_URL to the address of Mantik's API"),
        (502, "try later, or set MLFLOW_TRACKING_TOKEN"),
    ],
)
def test_a_login_that_is_refused(platform: Mantik, status: int, advice: str) -> None:
    platform.answer = {"create": status}
    with pytest.raises(TrackingError) as caught, logged_in(platform.url):
        pytest.fail("this is not reached")
    expected = f"the login of 'jane' at {platform.url} failed: HTTP {status}; {advice}"
    assert str(caught.value) == expected
    assert_no_secret(caught.value, [PASSWORD])
    assert not {*OURS} & os.environ.keys()


def test_a_wrong_password(platform: Mantik, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANTIK_PASSWORD", "wrong-secret")
    with pytest.raises(TrackingError, match="HTTP 401; check MANTIK_USERNAME and") as caught:
        init_tracking(platform.url)
    assert_no_secret(caught.value, ["wrong-secret"])
    assert platform.asked == ["create"]


def test_an_expired_token_that_cannot_be_renewed_shows_no_secret(platform: Mantik) -> None:
    platform.life = 0.05
    tokens = tokens_for(platform)
    tokens.token()
    time.sleep(0.06)
    platform.answer = {"refresh": 401, "create": 401}
    with pytest.raises(TrackingError, match="HTTP 401") as caught:
        tokens.token()
    assert_no_secret(caught.value, platform.secrets)
    for secret in platform.secrets:
        assert secret not in f"{tokens!r} {tokens._grant!r}"


@pytest.mark.parametrize(
    "api", ["http://127.0.0.1:1", "https://127.0.0.1:1/v1", "http://u:hidden@127.0.0.1:1"]
)
def test_an_api_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, api: str) -> None:
    monkeypatch.setenv("MANTIK_API_URL", api)
    with pytest.raises(TrackingError, match=r"got no answer \(\w+\); set MANTIK_API_URL") as caught:
        init_tracking("http://127.0.0.1:1")
    assert_no_secret(caught.value, [PASSWORD, "hidden"])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "when", ["", "soon", "2026-03-04T05:06:07+99:99", "9999-12-31T23:59-23:59"]
)
def test_an_answer_without_a_usable_time(platform: Mantik, when: str) -> None:
    platform.write_time = lambda _: when
    with pytest.raises(TrackingError, match="got an answer without a usable token") as caught:
        tokens_for(platform).token()
    assert_no_secret(caught.value, platform.secrets)


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"AccessToken": "a"},
        {"AccessToken": "", "ExpiresAt": "2026-03-04T05:06:07"},
        {"AccessToken": "a\r\nX: y", "ExpiresAt": "2026-03-04T05:06:07"},
        {"AccessToken": None, "ExpiresAt": "2026-03-04T05:06:07"},
        {"AccessToken": "a", "ExpiresAt": 1772600767},
    ],
)
def test_an_answer_that_is_none(
    platform: Mantik, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    monkeypatch.setattr(platform, "grant", lambda *_: (200, answer))
    with pytest.raises(TrackingError, match="got an answer without a usable token"):
        tokens_for(platform).token()


def test_the_password_in_netrc_is_not_sent(
    platform: Mantik, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    tokens_for(platform).token()
    assert platform.basic == []


# --- In this process, and in its children --------------------------------------------------------


def test_everything_is_put_back(platform: Mantik, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", platform.url)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "basic-user")
    before = dict(os.environ)
    with logged_in(platform.url) as uri:
        assert uri == os.environ["MLFLOW_TRACKING_URI"] == f"{platform.url}/tracking"
        assert os.environ["MLFLOW_TRACKING_AUTH"] == "armory"
        assert before.items() <= {**os.environ, "MLFLOW_TRACKING_URI": platform.url}.items()
        assert PASSWORD not in os.environ[login.INHERITED]
    assert dict(os.environ) == before
    assert login._current is None
    with pytest.raises(TrackingError, match="nobody is logged in; call"):
        login.AuthProvider().get_auth()


def test_a_job_of_the_platform_asks_for_nothing(
    platform: Mantik, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "MLFLOW_TRACKING_URI": platform.url,
        "MLFLOW_TRACKING_TOKEN": "given",
        "MLFLOW_EXPERIMENT_ID": "1",
        "MLFLOW_RUN_ID": "f" * 32,
    }.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with logged_in(platform.url) as uri:
        assert uri == init_tracking() == platform.url
        assert dict(os.environ) == before
    assert platform.asked == []


@pytest.mark.parametrize("uri", ["local", "sqlite:////tmp/mlflow.db"])
def test_a_database_asks_for_nothing(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    before = dict(os.environ)
    with logged_in(uri) as given:
        assert given == uri
        assert dict(os.environ) == before
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////tmp/other.db")
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:////tmp/other.db"
    assert init_tracking(uri) == uri
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert init_tracking() == "local"


def test_a_second_login_goes_on_from_the_first(platform: Mantik) -> None:
    assert init_tracking(platform.url) == init_tracking() == init_tracking(platform.url)
    with logged_in(platform.url):
        pass
    assert login._current
    assert platform.asked == ["create"]


@pytest.mark.parametrize("change", ["user", "host"])
def test_another_user_or_host_is_another_login(
    platform: Mantik, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    init_tracking(platform.url)
    if change == "user":
        monkeypatch.setenv("MANTIK_USERNAME", "joe")
        with pytest.raises(TrackingError, match="of 'joe' at"):
            init_tracking(platform.url)
        assert platform.asked == ["create", "create"]
    else:
        with mantik_platform() as other:
            monkeypatch.setenv("MANTIK_API_URL", other.url)
            assert init_tracking(other.url) == f"{other.url}/tracking"
            assert other.asked == ["create"]


def test_the_token_goes_to_its_server_only(platform: Mantik) -> None:
    tokens = SimpleNamespace(token=lambda: "t")
    own = "https://Host.example/tracking"
    assert header(own, tokens, "https://host.example/tracking/api/2.0/x") == "Bearer t"
    assert header(own, tokens, "https://host.example:443/") == "Bearer t"
    for other in (
        "http://host.example/tracking",
        "https://host.example:8443/tracking",
        "https://storage.example/bucket?to=https://host.example/tracking",
        "https://host.example.evil.example/tracking",
        "https://host.example@evil.example/tracking",
    ):
        assert header(own, tokens, other) is None
    assert header(platform.url, tokens, f"{platform.url}/tracking") == "Bearer t"
    # and MLflow's own basic auth stays as it is for another server
    request = requests.Request(
        "GET", "https://other.example", auth=Bearer(own, tokens), headers={"Authorization": "B"}
    )
    assert request.prepare().headers["Authorization"] == "B"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "http://127.0.0.1:9/mlflow/"])
def test_another_server_gets_no_login(platform: Mantik, uri: str) -> None:
    before = dict(os.environ)
    with logged_in(uri) as given:
        assert given == uri
        assert dict(os.environ) == before
    assert platform.asked == []


def test_the_users_call_says_whose_server_it_is(platform: Mantik) -> None:
    """As Mantik's client does it: the password to the API, the token to the tracking URI."""
    assert init_tracking("http://tracker.example/mlflow") == "http://tracker.example/mlflow"
    assert os.environ[login.TOKEN] in platform.valid
    with logged_in("http://tracker.example/mlflow"):  # a session, after a call in its conftest.py
        assert os.environ["MLFLOW_TRACKING_AUTH"] == "armory"
    assert not needed("http://other.example")
    assert platform.asked == ["create"]


def test_the_variable_of_the_token_is_renewed_and_goes_to_no_other_server(
    platform: Mantik,
) -> None:
    """MLflow sends the variable's token to whichever server is asked."""
    seen = []

    def elsewhere(handler: Handler) -> None:
        seen.append(handler.headers.get("Authorization"))
        handler.give(200, b"{}", Content_Type="application/json")

    platform.life = 0.5
    with listening(elsewhere) as other, logged_in(platform.url) as uri:
        first = os.environ[login.TOKEN]
        MlflowClient(other).search_experiments()
        time.sleep(0.6)
        requests.Request("GET", uri, auth=login.AuthProvider().get_auth()).prepare()
        assert os.environ[login.TOKEN] in platform.valid
        assert os.environ[login.TOKEN] != first
        assert in_a_child("from mlflow import MlflowClient; "
                          f"MlflowClient({other!r}).search_experiments()") == ""  # fmt: skip
        os.environ[login.TOKEN] = "for the other one"
        MlflowClient(other).search_experiments()
    assert seen == [None, None, "Bearer for the other one"]
    assert login.TOKEN not in os.environ


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_origin_carries_no_token(status: int) -> None:
    seen = []

    def elsewhere(handler: Handler) -> None:
        seen.append(handler.headers.get("Authorization"))
        handler.give(200, b"{}", Content_Type="application/json")

    def tracker(handler: Handler) -> None:
        seen.append((handler.headers.get("Authorization") or "").partition(" ")[0])
        handler.give(status, b"", Location=f"{other}{handler.path}")

    with listening(elsewhere) as other, listening(tracker) as uri:
        init_tracking(uri)
        MlflowClient(uri).search_experiments()
    assert seen == ["Bearer", None]


def test_a_login_of_ones_own(platform: Mantik) -> None:
    mine = SimpleNamespace(token=lambda: "mine")
    with logged_in("http://tracker/mlflow", mine) as uri:
        assert uri == os.environ["MLFLOW_TRACKING_URI"] == "http://tracker/mlflow"
        request = requests.Request("GET", f"{uri}/x", auth=login.AuthProvider().get_auth())
        assert request.prepare().headers["Authorization"] == "Bearer mine"
        assert in_a_child(
            """
            from pytest_armory.store.login import AuthProvider
            auth = AuthProvider().get_auth()
            print(requests.Request("GET", "http://tracker/x", auth=auth).prepare().headers)
            """
        ) == ("{'Authorization': 'Bearer mine'}")
    assert platform.asked == []


def in_a_child(code: str, clock: Clock | None = None, **environment: str) -> str:
    """What a process prints that this one starts."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "import os, requests, time\n" + (clock.source if clock else "") + textwrap.dedent(code),
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_child_goes_on_from_its_parent(platform: Mantik) -> None:
    with logged_in(platform.url):
        printed = in_a_child(
            """
            from pytest_armory.store import login
            with login.logged_in(os.environ["MLFLOW_TRACKING_URI"]):
                tokens = login._current[1]
                print(tokens.token())
                tokens._grant = tokens._grant._replace(renew_at=0.0)
                print(tokens.token())
            print(login.AuthProvider().get_auth()._login.token())
            """
        ).split()
    assert platform.asked == ["create", "refresh"]
    assert printed[:2] == list(platform.valid)
    assert printed[2] in platform.valid  # without the login, from the variable again


@given(
    st.one_of(
        st.sampled_from([login.WITHHELD, "[]", "{}", "null", "[" * 9000, '["u", "a", "n", null]']),
        st.text(),
        st.lists(
            st.one_of(
                st.text(), st.none(), st.floats(), st.lists(st.one_of(st.text(), st.floats()))
            )
        ).map(json.dumps),
        st.tuples(st.text(), st.text(), st.text(), st.lists(st.text(), max_size=5)).map(json.dumps),
    )
)
def test_an_inherited_login_that_cannot_be_read_is_none(text: str) -> None:
    assert inherited(text) is None


@pytest.mark.parametrize("text", ["{", login.WITHHELD, '["http://[", "", "", ["a", "", 1, 1]]'])
def test_a_child_logs_in_itself_where_it_inherits_no_login(
    platform: Mantik, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """As of another version of this package, whose text this one cannot read."""
    monkeypatch.setenv(login.INHERITED, text)
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", login.PROVIDER)
    if text != login.WITHHELD:
        with pytest.raises(TrackingError, match=r"\(ARMORY_ACCESS_TOKENS holds no login\)"):
            login.AuthProvider().get_auth()
    with logged_in(platform.url):
        assert isinstance(login.AuthProvider().get_auth(), Bearer)
    assert platform.asked == ["create"]


def test_the_room_is_light() -> None:
    heavy = "print({'mlflow', 'requests', 'pytest'} & sys.modules.keys())"
    command = f"import sys; import pytest_armory.store.login; {heavy}"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


# --- MLflow --------------------------------------------------------------------------------------


@pytest.fixture
def tracked(mlflow_server: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mantik]:
    """The platform in front of a real MLflow server; its tokens live for a second."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with mantik_platform(mlflow_server, life=1.0, clock=clock) as platform:
        monkeypatch.setenv("MANTIK_API_URL", platform.url)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", platform.url)
        yield platform


@pytest.mark.xdist_group("server")
def test_a_run_over_three_lives_of_a_token(
    tracked: Mantik, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "basic-user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "basic-password")
    (tmp_path / "notes.txt").write_text("from here")
    with logged_in(tracked.url) as uri:
        client = MlflowClient(uri)
        run_id = client.create_run(client.create_experiment("login")).info.run_id
        for step in range(16):
            client.log_metric(run_id, "step", step, step=step)
            clock.sleep(0.2)
        client.log_artifact(run_id, str(tmp_path / "notes.txt"))
        client.set_terminated(run_id)
        assert len(client.get_metric_history(run_id, "step")) == 16
        assert [file.path for file in client.list_artifacts(run_id)] == ["notes.txt"]
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "basic-password"
    assert tracked.refused == 0
    assert tracked.asked[0] == "create"
    assert len(tracked.asked) == 4
    assert set(tracked.asked[1:]) == {"refresh"}
    assert len({sender for _, sender in tracked.tracked}) == len(tracked.asked)
    assert all(sender.startswith("Bearer access-") for _, sender in tracked.tracked)
    with pytest.raises(mlflow.exceptions.MlflowException):  # logged out; the door is shut
        client.get_run(run_id)
    assert tracked.refused == 1


@pytest.mark.xdist_group("server")
def test_the_tests_own_calls_in_a_child(tracked: Mantik, clock: Clock) -> None:
    with logged_in(tracked.url):
        run_id = in_a_child(
            """
            import mlflow
            mlflow.set_experiment("login-child")
            with mlflow.start_run() as run:
                for step in range(16):
                    mlflow.log_metric("step", step, step=step)
                    clock.sleep(0.2)
            print(run.info.run_id)
            """,
            clock,
            PYTHONWARNINGS="error",
        ).split()[-1]
        history = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_metric_history(run_id, "step")
    assert len(history) == 16
    assert tracked.refused == 0
    assert len(tracked.asked) >= 4


@pytest.mark.xdist_group("server")
def test_a_login_that_ends_in_mid_run_is_one_line_from_mlflow(
    tracked: Mantik, clock: Clock
) -> None:
    with logged_in(tracked.url) as uri:
        client = MlflowClient(uri)
        client.search_experiments()
        tracked.answer = {"refresh": 401, "create": 401}
        clock.sleep(1.1)
        with pytest.raises(mlflow.exceptions.MlflowException, match="HTTP 401; check") as caught:
            client.search_experiments()
    shown = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in tracked.secrets if secret in shown]
    assert tracked.refused == 0


@pytest.mark.xdist_group("server")
def test_a_script(tracked: Mantik, clock: Clock) -> None:
    printed = in_a_child(
        """
        from pytest_armory.store.login import init_tracking
        uri = init_tracking()
        import mlflow
        assert mlflow.get_tracking_uri() == uri, mlflow.get_tracking_uri()
        with mlflow.start_run():
            mlflow.log_metric("m", 1)
        print(uri)
        """,
        clock,
    )
    assert printed.split()[-1] == f"{tracked.url}/tracking"
    assert tracked.asked[0] == "create"
    assert tracked.refused == 0


def test_the_double_writes_times_as_the_platform_does() -> None:
    assert mantik.naive(MOMENT) == "2026-03-04T05:06:07"
