"""Logins: MLflow's basic-auth app, tokens, Mantik; and that no secret is left anywhere."""

from __future__ import annotations

import os
import socket
import sqlite3
import struct
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from conftest import Evals
from loopback import Handler, listening
from mantik import PASSWORD, USER, Clock, mantik_platform
from mlflow import MlflowClient
from outages import reset
from servers import ADMIN, Proxy, proxied

from pytest_armory.cli import main as commands
from pytest_armory.store.database import sqlite_uri

SOURCE = """
    import mlflow, pytest
    from pytest_armory import track_metrics
    @pytest.mark.evaluation(name="logins")
    def test_a():
        track_metrics({"accuracy": 1})
        mlflow.log_metric("own", 2)
"""


@contextmanager
def asking_for_a_password() -> Iterator[tuple[int, list[bytes]]]:
    """The port of what speaks as PostgreSQL and lets nobody in; and what it was sent."""
    sent: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                with listener.accept()[0] as client, client.makefile("rb") as received:
                    head = received.read(8)
                    if head[4:] == struct.pack("!I", 80877103):  # asks for TLS
                        client.sendall(b"N")
                        head = received.read(8)
                    received.read(struct.unpack("!I", head[:4])[0] - 8)
                    client.sendall(b"R" + struct.pack("!II", 8, 3))
                    size = received.read(5)[1:]
                    sent.append(received.read(struct.unpack("!I", size)[0] - 4) if size else b"")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], sent
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(300)  # until it has read what was sent


def everything_below(*folders: Path) -> bytes:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in files)


@pytest.mark.parametrize("way", [("-p", "no:xdist"), ("-n1",)], ids=["one", "n1"])
def test_a_server_with_basic_auth(
    evals: Evals, auth_server: str, monkeypatch: pytest.MonkeyPatch, way: Sequence[str]
) -> None:
    user, password = ADMIN
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    evals.write(SOURCE)
    result = evals.run("--armory-tracking-uri", auth_server, "-o", "armory_budget=60", *way)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 evaluation: 1 passed, tracked to *", f"see {auth_server}/#/*"])
    assert "warning" not in result.stdout.str()
    client = MlflowClient(auth_server)
    experiment = client.get_experiment_by_name("logins")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    found = [run for run in runs if run.info.run_name == "test_a"]
    assert {(r.data.metrics["accuracy"], r.data.metrics["own"]) for r in found} == {(1, 2)}


@pytest.mark.parametrize("way", [("-p", "no:xdist"), ("-n1",)], ids=["one", "n1"])
def test_an_environment_that_a_test_clears(
    evals: Evals, auth_server: str, monkeypatch: pytest.MonkeyPatch, way: Sequence[str]
) -> None:
    """It has no login meanwhile, or a wrong one: what is measured is written once it is back."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN[1])
    evals.write("""
        import os, pytest
        from unittest import mock
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(name="cleared")
        @pytest.mark.parametrize("name", ["all", "MLFLOW_TRACKING_PASSWORD"])
        @pytest.mark.parametrize("value", [None, "wrong"])
        def test_a(name, value, evaluation_run):
            if name == "all": name = "MLFLOW_TRACKING_TOKEN" if value else name
            with mock.patch.dict(os.environ, clear=name == "all"):
                os.environ.pop(name, None)
                if value: os.environ[name] = value
                evaluation_run.log_text("a", "a.txt")
                track_metrics({"x": 1})
        def test_b():
            track_metrics({"x": 1})
            assert 0
    """)
    args = (*way, "-o", "armory_budget=60")
    result = evals.run("--armory-tracking-uri", auth_server, *args)
    result.assert_outcomes(passed=4, failed=1)
    assert "warning" not in result.stdout.str()
    client = MlflowClient(auth_server)
    experiment = client.get_experiment_by_name("cleared")
    runs = [r for r in client.search_runs([experiment.experiment_id])
            if r.data.tags["armory.session"] in result.stdout.str()]  # fmt: skip
    mine = [run for run in runs if "armory.nodeid" in run.data.tags]
    assert [run.data.metrics["x"] for run in mine] == [1] * 5
    evals.check_invariant(result, 5, *args, there=runs)


def test_a_password_in_the_uri_is_taken_and_never_shown(evals: Evals, auth_server: str) -> None:
    user, password = ADMIN
    uri = auth_server.replace("://", f"://{user}:{password}@")
    evals.write(SOURCE.replace("mlflow.log_metric", "pytest.fail('show me')\n        mlflow.x"))
    result = evals.run("--armory-tracking-uri", uri, "-o", "armory_budget=60", "--junitxml=j.xml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["the tracking URI holds a password, which others may read *"])
    shown = result.stdout.str() + result.stderr.str()
    assert password not in shown
    assert password.encode() not in everything_below(evals.pytester.path, evals.home)


def test_what_mlflow_raises_in_a_test_holds_no_password(
    evals: Evals, auth_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells the URI that it was given, and pytest shows that wherever it shows a traceback."""
    user, password = ADMIN
    monkeypatch.delenv("SICK", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def fault(proxy: Proxy, handler: Handler) -> bool:
        # Not what the plugin sends in the background meanwhile.
        is_tests = "SICK" in os.environ and "experiments/search" in handler.path
        return is_tests and reset(proxy, handler)

    with proxied(auth_server) as proxy:
        proxy.fault = fault
        evals.write("""
            import mlflow, os, pytest
            @pytest.mark.evaluation(name="raises", description="of https://u:S3cretOfMine@h/")
            @pytest.mark.parametrize("url", ["https://u:S3cretOfMine@h/x", "https://u:Other@h/x"])
            def test_a(url):
                try:
                    os.environ["SICK"] = "1"
                    mlflow.search_experiments()
                finally:
                    del os.environ["SICK"]
        """)
        uri = proxy.url.replace("://", f"://{user}:{password}@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        result = evals.run("--junitxml=j.xml", "-o", "armory_budget=60")
        result.assert_outcomes(failed=2)
        # MLflow's variables hold it then, which is pytest's output; what we store of it has none.
        evals.run("--showlocals", "-o", "armory_budget=60").assert_outcomes(failed=2)
        assert os.environ["MLFLOW_TRACKING_URI"] == uri
        assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
    shown = result.stdout.str() + (evals.pytester.path / "j.xml").read_text()
    assert "API request to http" in shown
    assert password not in shown
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    client = MlflowClient(auth_server)
    experiment = client.get_experiment_by_name("raises")
    runs = client.search_runs([experiment.experiment_id])
    assert len({run.data.tags.get("armory.nodeid") for run in runs}) == 3
    basic = b64encode(f"{user}:{password}".encode()).decode()
    for run in runs:
        assert "S3cretOfMine" not in str(run.to_dictionary())
        for file in client.list_artifacts(run.info.run_id):
            path = client.download_artifacts(run.info.run_id, file.path)
            text = Path(path).read_text()
            assert password not in text
            assert basic not in text


def test_a_login_by_the_credentials_file(
    evals: Evals, auth_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own, ``~/.mlflow/credentials``."""
    user, password = ADMIN
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username = {user}\nmlflow_tracking_password = {password}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    evals.write(SOURCE)
    result = evals.run("--armory-tracking-uri", auth_server, "-o", "armory_budget=60")
    result.assert_outcomes(passed=1)
    assert "warning" not in result.stdout.str()
    assert f"see {auth_server}/#/" in result.stdout.str()
    assert password not in result.stdout.str()


@pytest.mark.parametrize("workers", [("-p", "no:xdist"), ("-n1",)], ids=["no-xdist", "n1"])
def test_a_login_of_ones_own_that_fails(
    evals: Evals, nobody: str, workers: tuple[str, ...]
) -> None:
    """As one that is refused: every evaluation waits, also those of a worker that logs in alone."""
    evals.pytester.makeconftest("""
        import os
        class Login:
            def token(self):
                if "PYTEST_XDIST_WORKER" in os.environ or not os.path.exists("workers"):
                    raise RuntimeError("the service of tokens is away")
                return "abc"
        def pytest_armory_login(uri):
            return Login()
    """)
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        def test_a(): pass
        def test_b(): assert 0
    """)
    if workers == ("-n1",):
        (evals.pytester.path / "workers").touch()
    result = evals.run("--armory-tracking-uri", nobody, "-o", "armory_budget=1", *workers)
    text = result.stdout.str()
    assert f"2 evaluations: 1 passed, 1 failed, recorded locally for {nobody}" in text
    assert f"waiting for {nobody}: 2 evaluations, recorded locally" in text
    assert "the login failed: RuntimeError: the service of tokens is away" in text
    evals.check_invariant(result, 2, *workers)


def test_a_login_that_is_refused(
    evals: Evals, auth_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told at once, in one line, and nothing is lost."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wr0ng-s3cret")
    evals.write(SOURCE)
    result = evals.run("--armory-tracking-uri", auth_server)
    result.assert_outcomes(passed=1)
    reported = [line for line in result.stdout.lines if line.startswith("warning: ")]
    assert len(reported) == 1
    assert auth_server in reported[0]
    assert (
        "the login of 'admin' was refused (UNAUTHENTICATED); check MLFLOW_TRACKING_" in reported[0]
    )
    result.stdout.fnmatch_lines(["waiting for *: 1 evaluation, recorded locally"])
    assert "wr0ng-s3cret" not in result.stdout.str() + result.stderr.str()
    assert b"wr0ng-s3cret" not in everything_below(evals.pytester.path, evals.home)


@pytest.mark.parametrize("way", [("-p", "no:xdist"), ("-n1",)], ids=["one", "n1"])
def test_mantik(
    evals: Evals,
    mlflow_server: str,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    way: Sequence[str],
) -> None:
    """The controller logs in once; a token shorter than the session is kept fresh everywhere."""
    evals.pytester.makeconftest(clock.source)
    late = 'from conftest import clock; clock.sleep(2.5); mlflow.log_metric("late", 3)'
    evals.write(f"{SOURCE}        {late}\n")
    monkeypatch.setenv("MANTIK_USERNAME", USER)
    monkeypatch.setenv("MANTIK_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "else")
    with mantik_platform(mlflow_server, life=2.0, clock=clock, leeway=2.5) as platform:
        monkeypatch.setenv("MANTIK_API_URL", platform.url)
        platform.rotates = False  # else processes take each other's refresh token, and log in again
        result = evals.run("--armory-tracking-uri", platform.url, *way, "--junitxml=j.xml")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines([f"1 evaluation: 1 passed, tracked to {platform.url}/tracking"])
        assert "warning" not in result.stdout.str()
        assert platform.refused == 0
        assert platform.asked.count("create") == 1
        first = platform.tracked[0][1]
        for ended_with in ("runs/log-metric", "runs/update"):  # the test's own, the session run's
            sent = [auth for path, auth in platform.tracked if path.endswith(ended_with)]
            assert sent[-1] != first
        assert {auth.partition(" ")[0] for _, auth in platform.tracked} == {"Bearer"}
        left = everything_below(evals.pytester.path, evals.home)
        shown = (result.stdout.str() + result.stderr.str()).encode()
        for secret in platform.secrets:
            assert secret.encode() not in left + shown


def test_syncing_to_mantik(
    evals: Evals,
    mlflow_server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What waits for the platform, and what was recorded elsewhere: both log in by themselves."""
    evals.write(SOURCE)
    monkeypatch.setenv("MANTIK_USERNAME", USER)
    monkeypatch.setenv("MANTIK_PASSWORD", PASSWORD)
    with mantik_platform(mlflow_server) as platform:
        monkeypatch.setenv("MANTIK_API_URL", platform.url)
        platform.answer["create"] = 503
        result = evals.run("--armory-tracking-uri", platform.url, "-o", "armory_budget=1")
        result.stdout.fnmatch_lines(["waiting for *: 1 evaluation, recorded locally"])
        line = f"pytest-armory sync --armory-tracking-uri {platform.url}"
        result.stdout.fnmatch_lines([f"bring them there with `{line}`"])
        platform.answer.clear()
        capsys.readouterr()
        assert commands.main(["sync"]) == 1  # as MLFLOW_TRACKING_URI does not name it
        assert f"if they are for this one: `{line}/tracking`" in capsys.readouterr().err
        assert platform.asked == ["create"]
        assert commands.main(line.split()[1:]) == 0
        assert f"uploaded 2 runs to {platform.url}/tracking" in capsys.readouterr().out
        evals.run().assert_outcomes(passed=1)
        capsys.readouterr()
        assert commands.main(["sync", "--to", platform.url]) == 0
        assert f"uploaded 2 runs to {platform.url}/tracking" in capsys.readouterr().out
        assert commands.main(["sync", "--to", platform.url]) == 0
        assert "is not there yet" in capsys.readouterr().out
        without, *rest = (auth.partition(" ")[0] for _, auth in platform.tracked)
        assert (without, {*rest}) == ("", {"Bearer"})


@pytest.mark.parametrize("status", [200, 302, 307])
def test_an_upload_to_another_origin_carries_no_credentials(
    evals: Evals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    status: int,
) -> None:
    """Whatever their source: basic auth, a token, Mantik's, MLflow's file; nor does a redirect."""
    seen: list[tuple[str, str | None]] = []

    def elsewhere(handler: Handler) -> None:
        seen.append((handler.path, handler.headers.get("Authorization")))
        handler.give(401, b"Unauthorized", Content_Type="text/plain")

    def in_force(handler: Handler) -> None:
        authorization = (handler.headers.get("Authorization") or "").partition(" ")[0]
        seen.append((handler.path, authorization))
        handler.give(status, b"{}", Location=f"{other}{handler.path}")

    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = u\nmlflow_tracking_password = of-the-file\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    evals.write(SOURCE)
    with listening(elsewhere) as other, listening(in_force) as own:
        result = evals.run("--armory-tracking-uri", other, "-o", "armory_budget=1")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", own)
        seen.clear()
        capsys.readouterr()
        assert commands.main(["sync"]) == 1  # with the file alone
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-t0ken")
        assert commands.main(["sync"]) == 1
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "her-passw0rd")
        monkeypatch.setenv("MANTIK_USERNAME", USER)
        monkeypatch.setenv("MANTIK_PASSWORD", PASSWORD)
        monkeypatch.setenv("MANTIK_API_URL", other)
        before = dict(os.environ)
        assert commands.main(["sync"]) == 1
        line = f"if they are for this one: `pytest-armory sync --armory-tracking-uri {other}`"
        assert capsys.readouterr().err.count(line) == 3
        assert seen
        assert {authorization for _, authorization in seen} == {None}
        assert dict(os.environ) == before
        seen.clear()
        commands.main(["sync", "--to", own])
        assert seen[0][1] == "Basic"
        assert {a for _, a in seen} == ({"Basic"} if status == 200 else {"Basic", None})
        seen.clear()
        monkeypatch.delenv("MANTIK_API_URL")
        assert commands.main(["sync", "--armory-tracking-uri", other]) == 1
        basic = b64encode(b"ann:her-passw0rd").decode()
        assert {authorization for _, authorization in seen} == {f"Basic {basic}"}
    evals.check_invariant(result, 1)


def test_files_outside_the_home_are_sent_to_no_server_that_only_a_run_names(
    evals: Evals,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The database names the folder, too: it could be one of private keys."""
    evals.write(SOURCE)
    proxy.fault = reset
    result = evals.run("--armory-tracking-uri", proxy.url, "-o", "armory_budget=1")
    proxy.fault = None
    private = evals.home / "mlruns" / "artifacts" / ".." / ".." / "private"
    private.mkdir()
    (private / "id_rsa").write_text("secret")
    with closing(sqlite3.connect(evals.home / "mlruns" / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET artifact_uri = ?", (private.as_uri(),))
    capsys.readouterr()
    assert commands.main(["sync"]) == 1
    out = capsys.readouterr().out
    assert f"`pytest-armory sync --armory-tracking-uri {proxy.url}`" in out
    assert not proxy.count("id_rsa")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
    assert commands.main(["sync"]) == 0
    assert proxy.count("id_rsa")
    evals.check_invariant(result, 1)


def sent_to_a_database(evals: Evals, named: bool) -> set[bytes]:
    """What `sync` sends to a database that a waiting run names, and maybe the user."""
    with asking_for_a_password() as (port, sent):
        uri = f"postgresql+psycopg2://127.0.0.1:{port}/mlflow"
        with closing(sqlite3.connect(evals.home / "mlruns" / "mlflow.db")) as database, database:
            sql = "UPDATE tags SET value = ? WHERE key = 'armory.destination'"
            database.execute(sql, (uri,))
        assert commands.main(["sync", *(["--armory-tracking-uri", uri] if named else [])]) == 1
    return {*sent}


def test_an_upload_to_another_database_is_without_the_password_of_the_environment(
    evals: Evals, nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Libpq would send it to whatever host a run's tag names."""
    pytest.importorskip("psycopg2")
    evals.write(SOURCE)
    result = evals.run("--armory-tracking-uri", nobody, "-o", "armory_budget=1")
    monkeypatch.setenv("PGUSER", "ann")
    monkeypatch.setenv("PGPASSWORD", "her-passw0rd")
    assert sent_to_a_database(evals, named=False) == {b""}
    line = (
        "if they are for this one: `pytest-armory sync --armory-tracking-uri postgresql+psycopg2:/"
    )
    assert line in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    assert sent_to_a_database(evals, named=False) == {b""}
    assert sent_to_a_database(evals, named=True) == {b"her-passw0rd\0"}
    evals.check_invariant(result, 1)


def test_artifacts_of_a_waiting_run_at_another_server_are_asked_for_without_credentials(
    evals: Evals, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run in the database names where its artifacts are, as its tag names a server."""
    asked: list[str | None] = []

    def elsewhere(handler: Handler) -> None:
        asked.append(handler.headers.get("Authorization"))
        handler.give(200, b'{"files": []}', Content_Type="application/json")

    evals.write(SOURCE)
    proxy.fault = reset
    result = evals.run("--armory-tracking-uri", proxy.url, "-o", "armory_budget=1")
    proxy.fault = None
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "her-passw0rd")
    with listening(elsewhere) as other:
        database = sqlite3.connect(evals.home / "mlruns" / "mlflow.db")
        with closing(database), database:
            at = f"{other}/api/2.0/mlflow-artifacts/artifacts/x"
            database.execute("UPDATE runs SET artifact_uri = ?", (at,))
        commands.main(["sync", "--armory-tracking-uri", proxy.url])
    assert asked
    assert {*asked} == {None}
    evals.check_invariant(result, 1)


@pytest.mark.parametrize(
    "answer",
    [(302, b"", {"Location": "/login"}), (404, b"<html>", {}), (200, b"<html>log in</html>", {})],
    ids=["redirect-to-a-login", "hidden", "login-page"],
)
def test_a_refusal_that_is_a_page_names_the_line_too(
    evals: Evals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: tuple[int, bytes, dict[str, str]],
) -> None:
    """What stands in front of a server refuses in its own way those who are not logged in."""

    def gateway(handler: Handler) -> None:
        status, content, headers = answer
        if handler.path == "/login":
            status, content, headers = 200, b"<html>log in</html>", {}
        handler.give(status, content, **headers)

    evals.write(SOURCE)
    with listening(gateway) as other:
        result = evals.run("--armory-tracking-uri", other, "-o", "armory_budget=1")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-t0ken")
        capsys.readouterr()
        assert commands.main(["sync"]) == 1
        line = f"if they are for this one: `pytest-armory sync --armory-tracking-uri {other}`"
        assert line in capsys.readouterr().err
        assert commands.main(["sync", "--armory-tracking-uri", other]) == 1
        assert line not in capsys.readouterr().err
    evals.check_invariant(result, 1)


def test_a_database_whose_user_was_stripped(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evals.write(SOURCE)
    evals.run("--armory-tracking-uri", "local")
    client = MlflowClient(sqlite_uri(evals.home / "mlruns" / "mlflow.db"))
    run = evals.run_of("test_a")
    client.set_tag(run.info.run_id, "armory.destination", "postgresql://[redacted]@127.0.0.1:9/x")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert commands.main(["sync"]) == 1
    said = capsys.readouterr().err
    assert "postgresql://[redacted]@127.0.0.1:9/x needs is not stored with its runs" in said
    assert "give it whole, as in `pytest-armory sync --armory-tracking-uri URI`" in said


def test_a_mantik_login_that_cannot_be_renewed(
    evals: Evals, mlflow_server: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluations after that wait, with the reason."""
    evals.pytester.makeconftest(clock.source)
    evals.write("""
        import pytest
        from conftest import clock
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(name="not renewed")
        def test_a(): clock.sleep(3)
        def test_b(): track_metrics({"x": 1})
    """)
    monkeypatch.setenv("MANTIK_USERNAME", USER)
    monkeypatch.setenv("MANTIK_PASSWORD", PASSWORD)
    with mantik_platform(mlflow_server, life=2, clock=clock, leeway=3) as platform:
        platform.answer["refresh"] = 500
        monkeypatch.setenv("MANTIK_API_URL", platform.url)
        result = evals.run("--armory-tracking-uri", platform.url)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([
        "waiting for *: 2 evaluations, recorded locally", "warning: * failed: HTTP 500; try later*",
    ])  # fmt: skip
    assert [run.data.metrics["x"] for run in evals.read() if run.info.run_name == "test_b"] == [1]


def test_a_mantik_login_that_is_refused(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    evals.write(SOURCE)
    monkeypatch.setenv("MANTIK_USERNAME", USER)
    monkeypatch.setenv("MANTIK_PASSWORD", "wr0ng-s3cret")
    with mantik_platform() as platform:
        monkeypatch.setenv("MANTIK_API_URL", platform.url)
        result = evals.run("--armory-tracking-uri", platform.url)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([
        "waiting for *: 1 evaluation, recorded locally",
        "warning: the login of * failed: HTTP 401; check MANTIK_USERNAME and MANTIK_PASSWORD*",
    ])  # fmt: skip
    assert "wr0ng-s3cret" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("status", "text"),
    [(401, "(UNAUTHENTICATED); check *clock"), (403, "(PERMISSION_DENIED); check what * may do *")],
)
def test_a_mantik_token_that_mlflow_refuses(
    evals: Evals, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, status: int, text: str
) -> None:
    """The message is about the token, not about MLflow's own credentials that it replaces."""
    evals.write(SOURCE)
    monkeypatch.setenv("MANTIK_USERNAME", USER)
    monkeypatch.setenv("MANTIK_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    with mantik_platform(mlflow_server) as platform:
        monkeypatch.setattr(platform, "lets_in", lambda _: False)
        platform.refusal = status
        monkeypatch.setenv("MANTIK_API_URL", platform.url)
        result = evals.run("--armory-tracking-uri", platform.url)
    result.assert_outcomes(passed=1)
    who = f"the token of '{USER}' from {platform.url}"
    result.stdout.fnmatch_lines([
        "waiting for *: 1 evaluation, recorded locally",
        f"warning: * {who} was refused {text} (test_a)",
    ])  # fmt: skip
    assert "somebody" not in result.stdout.str()


def test_half_a_mantik_login_is_refused(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    evals.write(SOURCE)
    monkeypatch.setenv("MANTIK_USERNAME", USER)
    monkeypatch.setenv("MANTIK_API_URL", "http://127.0.0.1:9")
    result = evals.run("--armory-tracking-uri", "http://127.0.0.1:9")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*MANTIK_PASSWORD*"])


def test_an_address_of_mantiks_api_without_a_scheme(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evals.write(SOURCE)
    monkeypatch.setenv("MANTIK_USERNAME", USER)
    monkeypatch.setenv("MANTIK_PASSWORD", PASSWORD)
    monkeypatch.setenv("MANTIK_API_URL", "api.cloud.mantik.ai")
    result = evals.run("--armory-tracking-uri", "http://127.0.0.1:9")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*MANTIK_API_URL is 'api.cloud.mantik.ai', and *; set it as in *"])
    assert commands.main(["sessions", "--armory-tracking-uri", "http://127.0.0.1:9"]) == 2
    assert "MANTIK_API_URL is" in capsys.readouterr().err


@pytest.mark.parametrize("way", [("-p", "no:xdist"), ("-n1",)], ids=["one", "n1"])
def test_mantiks_password_is_for_no_other_server(
    evals: Evals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: Sequence[str],
) -> None:
    """MLflow's own credentials are the only ones there; what waits has the address that was given.

    The commands and the next server that is asked do the same.
    """
    user, password = "ann", "her-passw0rd"
    seen: list[tuple[str, str, bytes]] = []

    def server(handler: Handler) -> None:
        seen.append((handler.path, handler.headers.get("Authorization", ""), handler.body))
        handler.give(401, b"Unauthorized", Content_Type="text/plain")

    evals.write(SOURCE)
    monkeypatch.setenv("MANTIK_USERNAME", USER)
    monkeypatch.setenv("MANTIK_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with listening(server) as url:
        result = evals.run("--armory-tracking-uri", url, "-o", "armory_budget=1", *way)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines([f"waiting for {url}: 1 evaluation, recorded locally"])
        assert commands.main(["sessions", "--armory-tracking-uri", url]) == 2
        assert commands.main(["recover", "--armory-tracking-uri", f"{url}/tracking"]) == 2
    assert {path for path, _, _ in seen if "/mantik/" in path} == set()
    basic = b64encode(f"{user}:{password}".encode()).decode()
    assert {authorization for _, authorization, _ in seen} == {f"Basic {basic}"}
    assert not any(PASSWORD.encode() in body for _, _, body in seen)
    evals.check_invariant(result, 1, *way)
    capsys.readouterr()


PLANTED = "planted-s3cret-0123456789abcdef"


def test_no_secret_is_left_anywhere(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parameters, tags, the command line, failures of the store, JUnit, Markdown, artifacts."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PLANTED)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PLANTED)
    evals.write(f"""
        import pytest
        from pytest_armory import track_call
        def load(n, api_key, url): return n
        @pytest.mark.evaluation(tags={{"token": "{PLANTED}", "fine": "yes"}})
        def test_a(evaluation_run):
            track_call(load, n=1, api_key="{PLANTED}", url="https://me:{PLANTED}@example.org/x")
            evaluation_run.log_params({{"model": {{"password": "{PLANTED}"}}}})
            evaluation_run.log_dict({{"n": 1}}, "n.json")
    """)
    (evals.pytester.path / "test_it.py").rename(evals.pytester.path / "test_named.py")
    source = (evals.pytester.path / "test_named.py").read_bytes()
    uri = f"http://me:{PLANTED}@127.0.0.1:9"
    args = ("--junitxml=j.xml", "--armory-summary=s.md", "-p", "no:cacheprovider", "-rA", "-v")
    result = evals.run("--armory-tracking-uri", uri, "-o", "armory_budget=1", *args)
    result.assert_outcomes(passed=1)
    run = evals.run_of("test_a")
    assert run.data.params["load.api_key"] == "[redacted]"
    assert run.data.params["load.n"] == "1"
    (session,) = evals.sessions()
    assert "--armory-tracking-uri" in session.data.tags["armory.command"]
    shown = (result.stdout.str() + result.stderr.str()).encode()
    left = everything_below(evals.home)
    for path in evals.pytester.path.glob("*"):
        if path.is_file() and path.read_bytes() != source:
            left += path.read_bytes()
    assert PLANTED.encode() not in left + shown
    assert b"recorded locally" in shown


def test_what_is_a_secret_can_be_said(evals: Evals) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation(tags={"patient": "Jane"})
        def test_a(evaluation_run):
            evaluation_run.log_params({"cohort": {"Patient": "Jane"}, "password": "x", "n": 1})
    """)
    evals.run("-o", "armory_redact=patient").assert_outcomes(passed=1)
    run = evals.run_of("test_a")
    assert run.data.params == {"cohort.Patient": "[redacted]", "password": "[redacted]", "n": "1"}
    assert run.data.tags["patient"] == "[redacted]"


def test_redaction_can_be_switched_off(evals: Evals) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        def test_a(evaluation_run):
            evaluation_run.log_params({"password": "x", "uri": "http://me:pw@host/", "n": 1})
    """)
    evals.run("-o", "armory_redaction=false").assert_outcomes(passed=1)
    params = evals.run_of("test_a").data.params
    assert params == {"password": "x", "uri": "http://me:pw@host/", "n": "1"}
