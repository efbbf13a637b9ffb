"""Sessions of our own: a test's replacements get none of their requests, whenever they come."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import requests
from loopback import Handler, listening
from mlflow.utils import request_utils

from pytest_armory.errors import LoginRefusedError
from pytest_armory.store import own_sessions
from pytest_armory.store.artifacts import read_file
from pytest_armory.store.connection import Connection
from pytest_armory.store.destination import resolve
from pytest_armory.store.login import Bearer
from pytest_armory.store.own_requests import keep_apart, own
from pytest_armory.store.tokens import Tokens

PARTS = [".".join(part) for part in (*own_sessions._BOUND, own_sessions._URLOPEN)]
PARTS += [".".join(own_sessions._CONNECTIONS[0]), "os.environ.get"]


LISTING = b'{"files": []}'


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(LISTING)))
        self.end_headers()
        self.wfile.write(LISTING)

    def log_message(self, format: str, *args: object) -> None:
        """Be silent."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True, scope="module")
def _in_use() -> None:
    keep_apart()
    own_sessions.use_own_sessions()


def session_of_mlflow(backoff: float = 1) -> Any:
    return request_utils._get_request_session(0, backoff, 0, (503,), True, True)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("way", ["direct", "proxy"])
def test_what_is_replaced_gets_no_request_of_ours(part: str, way: str, server: str) -> None:
    """Nor where the call had begun before, through a proxy, or with a session made meanwhile."""
    proxies = {"http": server} if way == "proxy" else None
    with own():
        before = session_of_mlflow()
        with mock.patch(part, side_effect=ZeroDivisionError) as seen:
            made = (Tokens.new_session(), session_of_mlflow(random()))
            for session in (before, *made):
                assert session.request("GET", server, proxies=proxies).status_code == 200
        seen.assert_not_called()


def test_what_is_replaced_gets_no_download_of_ours(server: str) -> None:
    """MLflow downloads files in threads of its own."""
    uri = f"{server}/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts"
    connection = Connection(resolve(server))
    with mock.patch("requests.adapters.HTTPAdapter.send") as seen:
        assert read_file(connection, uri, "samples.parquet") == LISTING
    seen.assert_not_called()


def test_what_mlflow_offers_of_its_sessions_is_there() -> None:
    cached = request_utils._cached_get_request_session
    cached.cache_clear()
    assert cached.cache_info().currsize == 0


@pytest.mark.parametrize("part", PARTS)
def test_what_is_replaced_gets_those_of_others(part: str, server: str) -> None:
    """Those of a user's own client, whose session is another one."""
    with own():
        ours = session_of_mlflow()
    theirs = session_of_mlflow()
    assert theirs is session_of_mlflow() is not ours
    with mock.patch(part, side_effect=ZeroDivisionError) as seen:
        with pytest.raises(ZeroDivisionError):
            theirs.request("GET", server)
        seen.assert_called()


@pytest.mark.parametrize("part", PARTS[:-2])
def test_what_wraps_a_part_gets_all(part: str, server: str) -> None:
    """As what traces requests does, and what sets a timeout for all of them."""
    _, name, attribute = part.rsplit(".", 2)
    module = requests if name in ("Session", "HTTPAdapter") else requests.packages.urllib3  # type: ignore[attr-defined] # set by requests
    owner = getattr(requests.adapters if name == "HTTPAdapter" else module, name)
    original = getattr(owner, attribute)
    seen = mock.Mock()

    @functools.wraps(original)
    def traced(*args: Any, **options: Any) -> Any:
        seen()
        return original(*args, **options)

    with mock.patch.object(owner, attribute, traced), own():
        assert own_sessions.mocked_part() == ""
        assert session_of_mlflow().request("GET", server).status_code == 200
    seen.assert_called_once()


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_to_another_origin_has_no_certificate(
    server: str, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Nor has one that follows there; the server's own redirects have it."""
    original = requests.adapters.HTTPAdapter.send
    seen = []

    @functools.wraps(original)
    def noting(self: Any, request: Any, **options: Any) -> Any:
        seen.append((request.url, options["cert"]))
        return original(self, request, **options)

    def respond(handler: Handler) -> None:
        last = handler.path.endswith("/b")
        handler.give(status, b"", Location=f"{server}/c" if last else f"{handler.path}/b")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", noting)
    with own(), listening(respond) as first:
        for session in (session_of_mlflow(), session_of_mlflow(random())):
            assert session.request("GET", f"{first}/a", cert=__file__).status_code == 200
    own_ones = [(f"{first}/{path}", __file__) for path in ("a", "a/b")]
    assert seen == [*own_ones, (f"{server}/c", None)] * 2


def test_what_is_replaced_makes_no_connection_of_ours() -> None:
    """Nor one with TLS, whose class of connections is another."""
    part = ".".join(own_sessions._CONNECTIONS[1])
    own_sessions._own_pool.cache_clear()
    with own(), mock.patch(part) as seen, Tokens.new_session() as session:
        with pytest.raises(requests.ConnectionError):
            session.request("GET", "https://127.0.0.1:1")
        seen.assert_not_called()


@pytest.mark.parametrize("part", PARTS)
def test_what_is_replaced_is_named(part: str) -> None:
    """For calls that others send."""
    assert own_sessions.mocked_part() == ""
    with mock.patch(part):
        assert own_sessions.mocked_part() == part


class _Upgrading(requests.adapters.BaseAdapter):
    """What redirects from http to https of the same host, at the usual ports, and wants a login."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bool]] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **_options: Any) -> Any:
        url, has_login = str(request.url), "Authorization" in request.headers
        self.seen.append((url, has_login))
        answer = requests.Response()
        answer.request, answer.url, answer.raw = request, url, io.BytesIO()
        answer.status_code = 308 if url.startswith("http:") else 200 if has_login else 401
        answer.headers["Location"] = url.replace("http:", "https:")
        return answer

    def close(self) -> None:
        """Nothing is open."""

    @classmethod
    def of(cls, session: requests.Session) -> _Upgrading:
        adapter = cls()
        for scheme in ("http://", "https://"):
            session.mount(scheme, adapter)
        return adapter


def test_a_redirect_to_https_of_the_same_host_has_no_login() -> None:
    """With which `requests` would follow."""
    session = Tokens.new_session()
    adapter = _Upgrading.of(session)
    with pytest.raises(
        LoginRefusedError, match=r"redirects to https://me\.example, another origin,"
    ):
        session.request("GET", "http://me.example/a", headers={"Authorization": "Basic eDp5"})
    assert adapter.seen == [("http://me.example/a", True), ("https://me.example/a", False)]


def test_nor_has_one_of_a_test_the_token_of_mantik() -> None:
    adapter = _Upgrading.of(session := requests.Session())
    bearer = Bearer("http://me.example", SimpleNamespace(token=lambda: "mine"))
    assert session.get("http://me.example/a", auth=bearer).status_code == 401
    assert adapter.seen == [("http://me.example/a", True), ("https://me.example/a", False)]


@pytest.mark.parametrize("status", [200, 401])
def test_a_redirect_that_wants_the_login_says_what_to_give(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "of-ann")
    seen = []

    def elsewhere(handler: Handler) -> None:
        seen.append("Authorization" in handler.headers)
        handler.give(status, b"{}", Content_Type="application/json")

    def first(handler: Handler) -> None:
        seen.append("Authorization" in handler.headers)
        handler.give(308, b"", Location=f"{other}{handler.path}")

    with listening(elsewhere) as other, listening(first) as uri:
        connection = Connection(resolve(uri))
        refused = f"it redirects to {other}, another origin, to which no login goes"
        with nullcontext() if status == 200 else pytest.raises(LoginRefusedError, match=refused):
            connection.call("reading", lambda: connection.client.search_experiments())
    assert seen == [True, False]
