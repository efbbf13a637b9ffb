"""What surrounds a session: other commands at work, stopped processes, file systems, redirects."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Evals, printed_verdicts, verdicts
from faults import PATIENCE, Session
from forked import Command
from loopback import Handler
from mlflow import MlflowClient
from mlflow.entities import Run
from servers import Proxy

from pytest_armory.cli import main as commands
from pytest_armory.store import open_store
from pytest_armory.store.circuit import _circuits

Start = Callable[..., Session]
ONE, WORKER = ("-p", "no:xdist"), ("-n1",)


def runs_at(server: str, name: str) -> list[Run]:
    """The runs of an experiment at a server; none where there is no such experiment."""
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


TESTS = """
    import os, pytest, time
    from pathlib import Path
    from pytest_armory import track_metrics
    pytestmark = pytest.mark.evaluation(name="NAME")
    def test_first(): track_metrics({"x": 1})
    def test_waits(mark):
        track_metrics({"x": 2})
        mark(f"pid-{os.getpid()}")
        mark("waits")
        while not (Path(__file__).parent / "marks" / "go").exists(): time.sleep(0.02)
    def test_last(): track_metrics({"x": 3})
"""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name} {time.monotonic_ns()}"


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_server_that_redirects(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str, code: int
) -> None:
    """What a redirect keeps as it is is stored at its target; any other waits."""

    def redirect(_: Proxy, handler: Handler) -> bool:
        handler.give(code, Location=f"{mlflow_server}{handler.path}")
        return True

    proxy.fault = redirect
    evals.pytester.makeini(f"[pytest]\narmory_budget = {3 if code <= 302 else 30}")
    evals.write(f"""
        import pytest
        pytestmark = pytest.mark.evaluation(name="{name}")
        def test_a(evaluation_run): evaluation_run.log_metrics({{"x": 1}})
        def test_b(): assert 0
    """)
    result = evals.run("--armory-tracking-uri", proxy.url)
    result.assert_outcomes(passed=1, failed=1)
    there = runs_at(mlflow_server, name)
    waiting = [run for run in evals.read() if "armory.nodeid" in run.data.tags]
    assert len(waiting) == (0 if code > 302 else 2)
    assert ("recorded locally" in result.stdout.str()) == bool(waiting)
    evals.check_invariant(result, 2, there=there)


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_sync_and_recover_while_a_session_is_at_work(
    evals: Evals,
    start: Start,
    fork_server: Callable[[], str],
    mlflow_server: str,
    nobody: str,
    capsys: pytest.CaptureFixture[str],
    name: str,
    way: tuple[str, ...],
) -> None:
    """They leave what is at work alone; two syncs at once upload everything once."""
    evals.write(TESTS.replace("NAME", name))
    session = start(*way, "--armory-tracking-uri", nobody)
    session.wait_for("waits")
    assert commands.main(["recover", "--armory-tracking-uri", "local"]) == 0
    assert commands.main(["sync", "--to", mlflow_server]) == 1
    assert "not ended yet" in capsys.readouterr().err
    (session.marks / "go").touch()
    assert session.wait() == 0, session.output
    open_store.cache_clear()
    _circuits.clear()
    command = (fork_server(), "pytest_armory.cli.main", "sync", "--to", mlflow_server)
    with open(os.devnull, "w") as log:
        files = (log.fileno(), log.fileno())
        syncs = [Command(*command, folder=evals.pytester.path, files=files) for _ in range(2)]
    codes = sorted(sync.wait(PATIENCE) for sync in syncs)
    assert codes[0] == 0
    assert commands.main(["sync", "--to", mlflow_server]) == 0
    there = runs_at(mlflow_server, name)
    names = [str(r.info.run_name) for r in there if r.data.tags["armory.kind"] == "evaluation"]
    assert sorted(names) == ["test_first", "test_last", "test_waits"]
    assert len(there) == 4
    assert {run.info.status for run in there} == {"FINISHED"}
    evals.check_accounted(3)
    off = start(*way, track=False)
    (off.marks / "go").touch()
    assert off.end == session.end


@pytest.mark.parametrize(
    ("way", "stopped"),
    [(ONE, "group"), (WORKER, "group"), (WORKER, "worker")],
    ids=["one", "n1", "worker"],
)
def test_a_process_that_is_stopped_is_not_dead(
    evals: Evals,
    start: Start,
    capsys: pytest.CaptureFixture[str],
    name: str,
    way: tuple[str, ...],
    stopped: str,
) -> None:
    """All of them, or the worker alone, whose controller lives on."""
    evals.write(TESTS.replace("NAME", name))
    session = start("test_it.py", *way)
    session.wait_for("waits")
    # Until nobody writes to the database: who is stopped then keeps it locked.
    session.wait_for_setup("test_waits")
    (worker,) = (int(mark.name[4:]) for mark in session.marks.glob("pid-*"))

    def send(number: int) -> None:
        session.send(number) if stopped == "group" else os.kill(worker, number)

    send(signal.SIGSTOP)
    assert commands.main(["recover"]) == 0
    assert "nothing to close" in capsys.readouterr().out
    other_file = "import pytest\n@pytest.mark.evaluation\ndef test_other(): pass"
    evals.pytester.makepyfile(test_other=other_file)
    other = evals.run("test_other.py")
    other.assert_outcomes(passed=1)
    assert "was killed" not in other.stdout.str()
    send(signal.SIGCONT)
    (session.marks / "go").touch()
    assert session.wait() == 0, session.output
    assert "3 evaluations: 3 passed" in session.output
    evals.check_accounted(4)
    off = start("test_it.py", *way, track=False)
    (off.marks / "go").touch()
    assert off.end == session.end


RUBBISH = {
    "deleted": "shutil.rmtree(LEASES)",
    "emptied": "[path.unlink() for path in LEASES.iterdir()]",
    "a-file": "shutil.rmtree(LEASES); LEASES.write_text('')",
    "rubbish": """[
            (LEASES / "a.lease").mkdir(), (LEASES / "b.lease").write_bytes(bytes(range(256))),
            (LEASES / "%zz%3A.lease").symlink_to("/dev/zero"), os.mkfifo(LEASES / "p%3A1%3A.lease"),
            (LEASES / "c.lease").symlink_to(LEASES / "c.lease"), (LEASES / "x").write_text("x"),
        ]""",
    "not-readable": "LEASES.chmod(0)",
}


@pytest.mark.parametrize("what", RUBBISH)
@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_a_folder_of_leases_that_is_broken(evals: Evals, what: str, way: tuple[str, ...]) -> None:
    """During a session, which goes on; the next one starts, and so does recovery."""
    evals.write(f"""
        import os, shutil, pytest
        from pathlib import Path
        LEASES = Path(os.environ["ARMORY_HOME"]) / "mlruns" / "leases"
        pytestmark = pytest.mark.evaluation
        def test_a(): pass
        def test_b():
            if os.environ.get("BREAK"): {RUBBISH[what]}
        def test_c(): pass
        def test_d(): assert 0
    """)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BREAK", "1")
        result = evals.run(*way, subprocess=True)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["4 evaluations: 3 passed, 1 failed, *"])
    evals.check_accounted(4)
    again = evals.run(*way, subprocess=True)
    assert (again.ret, verdicts(again)) == (result.ret, verdicts(result))
    assert commands.main(["recover"]) == 0
    evals.check_invariant(again, 8, *way, subprocess=True)
    leases: Path = evals.home / "mlruns" / "leases"
    leases.chmod(0o755)


NO_LOCKS = """
    import errno, fcntl
    def flock(*_): raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = flock
"""


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_a_home_on_a_file_system_without_locks(evals: Evals, way: tuple[str, ...]) -> None:
    evals.pytester.makeconftest(NO_LOCKS)
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        def test_a(): pass
        def test_b(): assert 0
    """)
    result = evals.run(*way, subprocess=True)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["2 evaluations: 1 passed, 1 failed, *"])
    evals.check_invariant(result, 2, *way, subprocess=True)


@pytest.mark.parametrize("args", [("-x", "-n2"), ("-n4", "--maxprocesses=1"), ("-x", "-n1"),
                                  ("--maxfail=2", "-n2")], ids=" ".join)  # fmt: skip
def test_limits_of_xdist(evals: Evals, args: tuple[str, ...]) -> None:
    """Every evaluation is a run, or counted as not run; verdicts are pytest's."""
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(8))
        def test_a(i): assert i % 3 != 1
    """)
    args = (*args, "-v")
    result = evals.run(*args)
    stored = len(evals.runs())
    (session,) = evals.sessions()
    assert session.data.metrics["session/evaluations"] == 8
    assert session.data.metrics["session/not_run"] == 8 - stored
    assert session.info.status == "FAILED"
    evals.check_accounted(stored)
    assert result.ret in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    if "-n4" in args:
        evals.check_invariant(result, stored, *args)
        return
    off = evals.run(*args, track=False)
    assert off.ret == result.ret
    both = printed_verdicts(off.stdout.str()) | printed_verdicts(result.stdout.str())
    assert len(both) == len(dict(both)) >= 2  # which ran depends on when workers hear of the end


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
@pytest.mark.parametrize("remote", [False, True], ids=["local", "server"])
def test_gevent_has_patched_the_process(
    evals: Evals, proxy: Proxy, name: str, way: tuple[str, ...], remote: bool
) -> None:
    pytest.importorskip("gevent")
    evals.pytester.makeconftest("from gevent import monkey\nmonkey.patch_all()")
    evals.write(f"""
        import gevent, pytest
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(name="{name}")
        def test_a():
            jobs = [gevent.spawn(track_metrics, {{f"x{{i}}": i}}) for i in range(3)]
            gevent.joinall(jobs, raise_error=True)
        def test_b(): assert 0
    """)
    uri = ("--armory-tracking-uri", proxy.url) if remote else ()
    result = evals.run(*way, *uri, subprocess=True)
    if "no active workers available" in result.stdout.str():
        pytest.skip("xdist lost a worker that gevent has patched, as it does without us")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["2 evaluations: 1 passed, 1 failed, tracked to *"])
    assert threading.active_count() < 50
    there = runs_at(proxy.server, name) if remote else ()
    evals.check_accounted(2, there=there)
    if way == ONE:  # of workers see above
        evals.check_invariant(result, 2, *way, there=there, subprocess=True)


@pytest.mark.parametrize("code", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_a_signal_that_ends_what_gevent_has_patched(
    evals: Evals, start: Start, name: str, code: int
) -> None:
    """The signal comes in gevent's loop, where nothing may be waited for."""
    pytest.importorskip("gevent")
    with (evals.pytester.path / "conftest.py").open("a") as conftest:
        conftest.write("\nfrom gevent import monkey\nmonkey.patch_all()\n")
    evals.write(f"""
        import pytest, time
        pytestmark = pytest.mark.evaluation(name="{name}")
        def test_first(): pass
        def test_waits(mark):
            mark("waits")
            time.sleep({PATIENCE})
    """)
    session = start(*ONE)
    session.wait_for("waits")
    session.send(code)
    assert session.wait() == -code
    assert "2 evaluations: 1 passed, 1 interrupted, tracked to" in session.output
    evals.check_accounted(2)
    off = start(*ONE, track=False)
    off.wait_for("waits")
    off.send(code)
    assert off.wait() == -code


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_json_is_patched_while_a_server_is_tracked_to(
    evals: Evals, mlflow_server: str, name: str, way: tuple[str, ...]
) -> None:
    """Our requests have functions of their own, the test's have what it patched; all is stored."""
    evals.write(f"""
        import json, pytest, requests
        from unittest import mock
        from pytest_armory import track_metrics, track_samples
        pytestmark = pytest.mark.evaluation(name="{name}", at_least={{"x": 0}})
        @pytest.fixture(scope="module", params=["no-json"])
        def dumps(request):
            with mock.patch("json.dumps", return_value="{{}}"): yield
        def test_loads():
            with mock.patch("json.loads", side_effect=json.JSONDecodeError("patched", "", 0)):
                track_metrics({{"x": 1}})
        def test_dumps(dumps, evaluation_run):
            evaluation_run.log_table({{"a": [1]}}, "table.json")
            track_samples({{"correct": [1, 0]}})
            track_metrics({{"x": 2}})
        def test_dumps_again(dumps): track_metrics({{"x": 3}})
        def test_counts(monkeypatch):
            seen = mock.Mock(wraps=json.dumps)
            monkeypatch.setattr("requests.models.complexjson.dumps", seen)
            track_metrics({{"x": 4}})
            assert not seen.called
            requests.Request("POST", "http://localhost", json={{"a": 1}}).prepare()
            seen.assert_called_once_with({{"a": 1}}, allow_nan=False)
            assert json.dumps is seen
        def test_own_calls(monkeypatch):
            track_metrics({{"x": 5}})
            monkeypatch.delattr(json, "loads")
            response = requests.Response()
            response._content = b"{{}}"
            with pytest.raises(AttributeError, match="loads"): response.json()
        def test_failed(dumps): assert 0
    """)
    result = evals.run(*way, "--armory-tracking-uri", mlflow_server, subprocess=True)
    result.assert_outcomes(passed=5, failed=1)
    text = result.stdout.str()
    assert "6 evaluations: 5 passed, 1 failed" in text
    assert "warning: " not in text
    there = runs_at(mlflow_server, name)
    values = {str(run.info.run_name): run.data.metrics.get("x") for run in there}
    assert [values[f"test_{test}"] for test in ("loads", "counts", "own_calls")] == [1, 4, 5]
    assert [values[f"test_dumps{test}[no-json]"] for test in ("", "_again")] == [2, 3]
    evals.check_invariant(result, 6, *way, there=there, subprocess=True)


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_what_requests_need_is_a_mock_while_a_server_is_tracked_to(
    evals: Evals, mlflow_server: str, name: str, way: tuple[str, ...]
) -> None:
    """It gets no request of ours, and those of a test's own; all is stored at once."""
    evals.write(f"""
        import functools, os, pytest, requests
        from mlflow import MlflowClient
        from unittest import mock
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(name="{name}", at_least={{"x": 0}})
        @pytest.mark.parametrize("target", [
            "requests.Session.request", "requests.Session.send", "requests.Session.get_adapter",
            "requests.adapters.HTTPAdapter.send", "urllib3.HTTPConnectionPool.urlopen",
            "urllib3.HTTPConnectionPool.ConnectionCls"])
        def test_requests(target, evaluation_run, tmp_path):
            file = tmp_path / "file.txt"
            file.write_text(target)
            with mock.patch(target) as seen:
                evaluation_run.log_table({{"a": [1]}}, "table.json")
                evaluation_run.log_artifact(file)
                track_metrics({{"x": 1}})
                seen.assert_not_called()
                try: requests.get("{mlflow_server}", timeout=5)
                except Exception: pass  # the mock's response is none
                seen.assert_called()
            file.unlink()
        @pytest.mark.parametrize("target", ["threading.Thread", "threading.Thread.start"])
        def test_threads(target):
            with mock.patch(target): track_metrics({{"x": 1}})
        @pytest.mark.parametrize("name", ["adapters.HTTPAdapter.send", "Session"])
        def test_a_fake_of_ones_own(name, monkeypatch):
            seen = []
            def fake(*args, **kwargs): seen.append(args)
            monkeypatch.setattr(f"requests.{{name}}", fake)
            track_metrics({{"x": 1}})
            assert not seen
        def test_client_of_ones_own(monkeypatch):
            seen = mock.Mock(side_effect=ZeroDivisionError)
            client = MlflowClient("{mlflow_server}")
            client.get_experiment("0")
            track_metrics({{"x": 1}})
            monkeypatch.setattr("requests.Session.send", seen)
            with pytest.raises(Exception, match="failed with exception"): client.get_experiment("0")
            seen.assert_called_once()
        def test_a_wrapper_for_all(monkeypatch, evaluation_run):
            seen = mock.Mock()
            send = requests.Session.send
            @functools.wraps(send)
            def traced(*args, **kwargs): return (seen(), send(*args, **kwargs))[1]
            monkeypatch.setattr("requests.Session.send", traced)
            wrapper = functools.partialmethod(requests.Session.request, timeout=60)
            monkeypatch.setattr("requests.Session.request", wrapper)
            track_metrics({{"x": 1}})
            evaluation_run.log_metrics({{"traced": seen.call_count}})
        def test_bad(): assert 0
        @pytest.fixture(scope="module", params=["wide"])
        def wide(request):
            with mock.patch("requests.Session.send") as seen: yield
            seen.assert_not_called()
        def test_wide(wide): track_metrics({{"x": 1}})
        @pytest.fixture(scope="module", params=["environment"])
        def broken(request):
            with mock.patch.object(os.environ, "get", side_effect=KeyError("patched")): yield
        def test_broken(broken): track_metrics({{"x": 1}})
        def test_after(): track_metrics({{"x": 1}})
    """)
    result = evals.run(*way, "--armory-tracking-uri", mlflow_server, subprocess=True)
    result.assert_outcomes(passed=15, failed=1)
    text = result.stdout.str()
    assert "16 evaluations: 15 passed, 1 failed" in text
    assert "waiting" not in text
    assert "warning: " not in text
    there = runs_at(mlflow_server, name)
    mine = [run for run in there if "armory.nodeid" in run.data.tags]
    assert [run.data.metrics.get("x") for run in mine].count(1) == 15
    assert [value for run in mine if (value := run.data.metrics.get("traced"))] == [1]
    files = [MlflowClient(mlflow_server).list_artifacts(run.info.run_id) for run in mine]
    assert sum({"file.txt", "table.json"} <= {file.path for file in one} for one in files) == 6
    evals.check_invariant(result, 16, *way, there=there, subprocess=True)


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_what_is_put_off_changes_nothing_that_was_written_later(
    evals: Evals,
    mlflow_server: str,
    name: str,
    way: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As while a test has cleared the environment, and with it the login; a file waits for sync."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "not-needed")
    evals.write(f"""
        import os, pytest, time
        from unittest import mock
        from pytest_armory import track_metrics
        from pytest_armory.store.background import _instances
        def is_all_tried():
            return all(future.done() for one in _instances for future, _ in one._pending)
        pytestmark = pytest.mark.evaluation(name="{name}", at_least={{"x": 0}})
        def test_a_later_value_stands(evaluation_run, tmp_path):
            file = tmp_path / "file.txt"
            file.write_text("as it was")
            with mock.patch.dict(os.environ, clear=True):
                evaluation_run.set_tags({{"last": "no"}})
                evaluation_run.log_metrics({{"last": 2, "x": 1}})
                evaluation_run.log_metrics({{"last": 1}})
                evaluation_run.log_text("no", "last.txt")
                evaluation_run.log_artifact(file)
                while not is_all_tried(): time.sleep(0.02)  # in the background
            file.unlink()
            evaluation_run.set_tags({{"last": "yes"}})
            evaluation_run.log_text("yes", "last.txt")
        def test_bad(): assert 0
    """)
    result = evals.run(*way, "--armory-tracking-uri", mlflow_server, subprocess=True)
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    assert "waiting" not in text
    assert "warning: writing" not in text
    assert (
        "MLFLOW_TRACKING_TOKEN is unset meanwhile; not there: file.txt; recorded locally, `" in text
    )
    there = runs_at(mlflow_server, name)
    later = next(run for run in there if run.info.run_name == "test_a_later_value_stands")
    assert (later.data.tags["last"], later.data.metrics["last"]) == ("yes", 1)
    text = MlflowClient(mlflow_server).download_artifacts(later.info.run_id, "last.txt")
    assert Path(text).read_text() == "yes"
    evals.check_invariant(result, 2, *way, there=there, subprocess=True)


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_what_a_wide_fixture_breaks_is_no_outage_for_later_tests(
    evals: Evals,
    mlflow_server: str,
    name: str,
    way: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What begins while it is there waits; what began before or begins later is at the server."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "not-needed")
    mark = f"import pytest\npytestmark = pytest.mark.evaluation(name='{name}')\n"
    track = "from pytest_armory import track_metrics\n"
    later = "def test_later(): track_metrics({'x': 3})\ndef test_bad(): assert 0\n"
    first = """
import os
from unittest import mock
@pytest.fixture(scope="module", autouse=True)
def wide():
    with mock.patch.dict(os.environ):
        del os.environ["MLFLOW_TRACKING_TOKEN"]
        yield
def test_before(): track_metrics({"x": 1})
def test_meanwhile(): track_metrics({"x": 2})
"""
    evals.write(mark + track + first, test_later=mark + track + later)
    args = ("test_it.py", "test_later.py", *way)
    result = evals.run("--armory-tracking-uri", mlflow_server, *args, subprocess=True)
    result.assert_outcomes(passed=3, failed=1)
    text = result.stdout.str()
    assert f"waiting for {mlflow_server}: 1 evaluation, recorded locally" in text
    assert "MLFLOW_TRACKING_TOKEN is unset meanwhile (test_meanwhile)" in text
    there = {str(run.info.run_name): run for run in runs_at(mlflow_server, name)}
    assert there["test_before"].data.metrics["x"] == 1
    assert there["test_later"].data.metrics["x"] == 3
    assert "test_meanwhile" not in there
    (session,) = (run for run in there.values() if run.data.tags["armory.kind"] == "session")
    assert session.info.status == "FAILED"
    evals.check_invariant(result, 4, *args, there=[*there.values()], subprocess=True)
    assert commands.main(["sync", "--to", mlflow_server]) == 0
    brought = runs_at(mlflow_server, name)
    assert len([run for run in brought if "armory.nodeid" in run.data.tags]) == 4
