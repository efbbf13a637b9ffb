"""Sessions that a signal ends at an exact moment: the summary says what the store holds."""

from __future__ import annotations

import signal
import textwrap
import threading
import time
from collections.abc import Callable

import pytest
from conftest import Evals, artifacts_of
from faults import PATIENCE, SILENT, Session
from loopback import Handler
from mlflow import MlflowClient
from mlflow.entities import Run
from servers import Proxy

from pytest_armory.cli import main as commands

Start = Callable[..., Session]

ONE, WORKER = ("-p", "no:xdist"), ("-n1",)
WAYS = pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])


def add_to_conftest(evals: Evals, source: str) -> None:
    with (evals.pytester.path / "conftest.py").open("a") as conftest:
        conftest.write(source)


def runs_of(uri: str, experiment: str) -> dict[str, Run]:
    """The runs of an experiment by name, the session run as ``session``."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    is_session = {run.info.run_id: run.data.tags["armory.kind"] == "session" for run in runs}
    return {"session" if is_session[r.info.run_id] else str(r.info.run_name): r for r in runs}


THREE = """
    import pytest
    pytestmark = pytest.mark.evaluation
    def test_done(): pass
    def test_last(): pass
    def test_never(): pass
"""

BETWEEN = """
import os, signal
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_logreport(report):
    runs_it = "worker_id" not in vars(report) or "PYTEST_XDIST_WORKER" in os.environ
    if runs_it and (report.when, report.nodeid[-9:]) == ("teardown", "test_last"):
        os.killpg(os.getpgrp(), signal.SIGTERM)
        while True:  # a wait without an end would not wake for a signal that another thread gets
            time.sleep(0.02)
    return (yield)
"""


@WAYS
def test_a_test_that_has_ended_when_the_signal_comes_has_its_outcome(
    evals: Evals, start: Start, mlflow_server: str, way: tuple[str, ...]
) -> None:
    """Its run is closed, but the process that reports has not got the last report of it."""
    evals.write(THREE)
    add_to_conftest(evals, BETWEEN)
    name = f"between {time.monotonic_ns()}"
    session = start("--armory-tracking-uri", mlflow_server, "--armory-experiment", name, *way)
    assert session.wait() == -signal.SIGTERM
    session.gone()
    found = runs_of(mlflow_server, name)
    outcomes = {name: run.data.tags.get("armory.outcome") for name, run in found.items()}
    assert outcomes == {"session": None, "test_done": "passed", "test_last": "passed"}
    session_run = found["session"]
    assert session_run.info.status == "KILLED"
    assert session_run.data.metrics["passed"] == 2
    assert session.output.count("= evaluations =") == 1
    assert "3 evaluations: 2 passed, 1 not run, tracked to" in session.output
    evals.check_accounted(2, there=list(found.values()))
    off = start(*way, track=False)
    assert off.wait() == -signal.SIGTERM  # what a controller has printed by then is chance


def test_what_has_ended_is_known_where_the_server_stops_answering(
    evals: Evals, start: Start, proxy: Proxy, mlflow_server: str
) -> None:
    """Nothing can be read then: the summary is made of what this process knows."""
    gone = threading.Event()

    def wait(_: Proxy, __: Handler) -> bool:
        if (evals.pytester.path / "marks" / "cut").exists():
            gone.wait(PATIENCE)
        return False

    proxy.fault = wait
    evals.write(THREE)
    sent = "        __import__('pytest_armory.store.background').store.background.drain_all()\n"
    cut = f"{sent}        (MARKS / 'cut').touch()\n"
    add_to_conftest(evals, BETWEEN.replace("        os.killpg", f"{cut}        os.killpg"))
    add_to_conftest(evals, textwrap.dedent(SILENT))
    name = f"silent {time.monotonic_ns()}"
    session = start("--armory-tracking-uri", proxy.url, "--armory-experiment", name, *ONE)
    known = "before the store has answered: this is what was reported"
    session.wait_until(lambda: known in session.output)
    session.end_late()
    assert session.wait() == -signal.SIGTERM
    gone.set()
    proxy.settle()
    assert "3 evaluations: 2 passed, 1 not run, tracked to" in session.output
    found = runs_of(mlflow_server, name)
    assert {found[test].data.tags["armory.outcome"] for test in ("test_done", "test_last")} == {
        "passed"
    }
    evals.check_accounted(2, there=[run for name, run in found.items() if name != "session"])


RESUMED = """
import os, signal, threading
from _pytest.terminal import TerminalReporter
begun = threading.Event()
@pytest.hookimpl(wrapper=True)
def pytest_runtest_logreport(report):
    yield
    if (report.when, report.nodeid[-9:]) == ("setup", "test_last"):
        signal.raise_signal(signal.SIGTERM)
        begun.wait(60)
write_sep = TerminalReporter.write_sep
def write_when_captured(reporter, sep, title=None, **markup):
    if title == "evaluations":
        capture = reporter.config.pluginmanager.get_plugin("capturemanager")
        begun.set()
        while not capture._global_capturing.is_started():
            pass
    write_sep(reporter, sep, title, **markup)
TerminalReporter.write_sep = write_when_captured
"""


@pytest.mark.parametrize("capture", ["fd", "sys"])
def test_the_summary_is_not_captured_as_the_output_of_a_test(
    evals: Evals, start: Start, capture: str
) -> None:
    """The main thread goes on with the test, whose output pytest captures."""
    evals.write(THREE)
    add_to_conftest(evals, RESUMED)
    session = start(*ONE, f"--capture={capture}")
    assert session.wait() == -signal.SIGTERM
    assert "3 evaluations: 1 passed, 1 interrupted, 1 not run" in session.output
    evals.check_accounted(2)


FAILED = """
    import pytest
    pytestmark = pytest.mark.evaluation
    @pytest.fixture
    def slow(mark, stay):
        yield
        mark("tearing")
        stay()
    def test_done(): pass
    def test_fails(slow): assert 1 == 2
"""


@WAYS
def test_a_signal_leaves_a_failure_what_it_is(
    evals: Evals, start: Start, way: tuple[str, ...]
) -> None:
    """pytest has printed it by the time the test's fixtures are torn down."""
    evals.write(FAILED)
    session = start(*way)
    session.wait_for("tearing")
    session.wait_for_verdicts("test_done", "test_fails")
    session.send(signal.SIGTERM)
    assert session.wait() == -signal.SIGTERM
    session.gone()
    run = evals.run_of("test_fails")
    assert (run.info.status, run.data.tags["armory.outcome"]) == ("FAILED", "failed")
    assert "assert 1 == 2" in artifacts_of(run)["failure.txt"].read_text()
    assert "2 evaluations: 1 passed, 1 failed, tracked to" in session.output
    evals.check_accounted(2)
    off = start(*way, track=False)
    off.wait_for("tearing")
    off.wait_for_verdicts("test_done", "test_fails")
    off.send(signal.SIGTERM)
    assert off.end == session.end


OUTLIVED = """
    import signal, time
    import pytest
    from conftest import MARKS
    pytestmark = pytest.mark.evaluation
    def test_done(): pass
    def test_long(mark):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # execnet's, some seconds later
        mark("long")
        while not (MARKS / "over").exists():
            time.sleep(0.02)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT-twice", "TERM"])
def test_a_worker_that_outlives_its_controller_closes_its_own_run(
    evals: Evals, start: Start, number: signal.Signals
) -> None:
    """The signal has reached the controller alone: what its worker is doing is not yet known."""
    evals.write(OUTLIVED)
    add_to_conftest(evals, ENDING)
    add_to_conftest(evals, "stored_session.WAIT = 1.0\n")
    session = start(*WORKER)
    session.wait_for("long")
    session.wait_for_verdicts("test_done")
    session.send(number, group=False)
    if number == signal.SIGINT:
        session.wait_for("ending")
        session.send(number, group=False)
    assert session.wait() == -number
    (session.marks / "over").touch()  # first: execnet ends a worker for good 15 s later
    assert "2 evaluations: 1 passed, 1 running" in session.output
    assert "1 evaluation still running in workers" in session.output
    session.gone()
    (session_run,) = evals.sessions()
    assert session_run.info.status == "KILLED"
    run = evals.run_of("test_long")
    assert run.info.status != "RUNNING"
    assert run.data.tags["armory.outcome"] in ("passed", "interrupted")
    evals.check_accounted(2)
    off = start(*WORKER, track=False)
    off.wait_for("long")
    off.wait_for_verdicts("test_done")
    off.send(number, group=False)
    if number == signal.SIGINT:
        off.wait_for("ending")
        off.send(number, group=False)
    (off.marks / "over").touch()
    assert off.end == session.end


ENDING = """
@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        (MARKS / "ending").touch()
"""


BROKEN_OFF = """
    import pytest
    from pytest_armory.plugin.attempts import Attempts
    pytestmark = pytest.mark.evaluation
    def break_off(*_): raise KeyboardInterrupt
    def test_done(): pass
    def test_long():
        Attempts._write_result = break_off
        raise KeyboardInterrupt
"""


@WAYS
def test_what_ctrl_c_has_broken_off_is_not_finished_as_its_process_exits(
    evals: Evals, start: Start, way: tuple[str, ...]
) -> None:
    """MLflow would close what is its active run by then as FINISHED."""
    evals.write(BROKEN_OFF)
    session = start(*way)
    session.gone()
    run = evals.run_of("test_long")
    assert (run.info.status, run.data.tags["armory.outcome"]) == ("KILLED", "interrupted")
    assert "2 evaluations: 1 passed, 1 interrupted" in session.output
    evals.check_accounted(2)


@WAYS
def test_a_signal_that_comes_twice_at_once_is_one(
    evals: Evals, start: Start, way: tuple[str, ...]
) -> None:
    """As `timeout` sends it, to its process and to the group."""
    evals.write(FAILED)
    add_to_conftest(evals, TWICE)
    session = start(*way)
    session.wait_for("tearing")
    session.wait_for_verdicts("test_done", "test_fails")
    session.send(signal.SIGTERM)
    assert session.wait() == -signal.SIGTERM
    session.gone()
    assert "2 evaluations: 1 passed, 1 failed, tracked to" in session.output
    assert [one.info.status for one in evals.sessions()] == ["KILLED"]
    evals.check_accounted(2)


TWICE = """
import signal
from pytest_armory.session import signals
start = signals.start_new_thread
def start_and_send(*args):
    start(*args)
    signal.raise_signal(signal.SIGTERM)
signals.start_new_thread = start_and_send
"""


COROUTINE = """
    import asyncio
    import pytest
    pytestmark = [pytest.mark.evaluation, pytest.mark.asyncio]
    async def test_done(): pass
    async def test_long(mark):
        mark("long")
        await asyncio.sleep(600)
    async def test_never(): pass
"""


@WAYS
def test_ctrl_c_in_a_coroutine(evals: Evals, start: Start, way: tuple[str, ...]) -> None:
    """asyncio has its own handler while one runs, which cancels it."""
    pytest.importorskip("pytest_asyncio")
    evals.write(COROUTINE)

    def interrupted(track: bool) -> Session:
        session = start(*way, track=track)
        session.wait_for("long")
        session.wait_for_verdicts("test_done")
        session.send(signal.SIGINT)
        session.wait()
        session.gone()
        return session

    session = interrupted(track=True)
    assert evals.run_of("test_done").info.status == "FINISHED"
    run = evals.run_of("test_long")
    assert (run.info.status, run.data.tags["armory.outcome"]) == ("KILLED", "interrupted")
    assert "3 evaluations: 1 passed, 1 interrupted, 1 not run" in session.output
    assert [one.info.status for one in evals.sessions()] == ["KILLED"]
    evals.check_accounted(2)
    assert interrupted(track=False).end == session.end


@WAYS
def test_ctrl_c_after_a_signal_that_ends_the_session(
    evals: Evals, start: Start, way: tuple[str, ...]
) -> None:
    """It is being closed by then, and ends by the first one."""
    evals.write(FAILED)
    session = start(*way)
    session.wait_for("tearing")
    session.wait_for_verdicts("test_done", "test_fails")
    session.send(signal.SIGTERM)
    session.send(signal.SIGINT)
    assert session.wait() == -signal.SIGTERM
    session.gone()
    assert "2 evaluations: 1 passed, 1 failed, tracked to" in session.output
    assert session.output.count("= evaluations =") == 1
    assert [one.info.status for one in evals.sessions()] == ["KILLED"]
    evals.check_accounted(2)


AT_ONCE = """
    import signal, sys
    import pytest
    from pytest_armory.session.signals import _Ending
    pytestmark = pytest.mark.evaluation
    def test_done(): pass
    def test_both():
        def interrupt(frame, *_):
            if frame.f_code is _Ending.handle.__code__:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        sys.settrace(interrupt)
        signal.raise_signal(signal.SIGTERM)
"""


def test_ctrl_c_as_the_handler_of_a_signal_begins(evals: Evals, start: Start) -> None:
    """What Python raises at its first instruction nothing in it can catch."""
    evals.write(AT_ONCE)
    session = start(*ONE)
    assert session.wait() == -signal.SIGTERM
    assert "2 evaluations: 1 passed, 1 interrupted, tracked to" in session.output
    assert session.output.count("= evaluations =") == 1
    assert [one.info.status for one in evals.sessions()] == ["KILLED"]
    evals.check_accounted(2)


IMPATIENT = """
from pytest_armory.store.circuit import Circuit
Circuit.time_limit = property(lambda _: 2.0 if (MARKS / "silent").exists() else 60.0)
"""


@WAYS
def test_ctrl_c_at_a_server_that_takes_requests_and_never_answers(
    evals: Evals, start: Start, proxy: Proxy, mlflow_server: str, way: tuple[str, ...]
) -> None:
    """What it has not taken waits; nothing is lost, and nothing is stored twice."""
    silent, gone = threading.Event(), threading.Event()

    def wait(_: Proxy, __: Handler) -> bool:
        return silent.is_set() and gone.wait(PATIENCE)

    proxy.fault = wait  # the server never gets them either
    evals.write(COROUTINE)
    add_to_conftest(evals, IMPATIENT)
    name = f"hole {time.monotonic_ns()}"
    session = start("--armory-tracking-uri", proxy.url, "--armory-experiment", name, *way)
    session.wait_for("long")
    session.wait_for_verdicts("test_done")
    session.wait_until(lambda: runs_of(mlflow_server, name)["test_done"].info.status == "FINISHED")
    (session.marks / "silent").touch()
    silent.set()
    session.send(signal.SIGINT)
    ended = session.wait()
    session.gone()
    assert ended == pytest.ExitCode.INTERRUPTED
    assert "3 evaluations: 1 passed, 1 interrupted, 1 not run" in session.output
    assert "1 evaluation, recorded locally" in session.output
    silent.clear()
    gone.set()
    proxy.settle()
    assert commands.main(["sync", "--armory-tracking-uri", proxy.url]) == 0
    found = runs_of(mlflow_server, name)
    states = {name: (r.info.status, r.data.tags.get("armory.outcome")) for name, r in found.items()}
    assert states == {
        "session": ("KILLED", None),
        "test_done": ("FINISHED", "passed"),
        "test_long": ("KILLED", "interrupted"),
    }
