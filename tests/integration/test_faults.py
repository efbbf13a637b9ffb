"""Sessions that are interrupted, terminated and killed; docs/reliability.md is their table."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import Evals, printed_verdicts
from faults import PATIENCE, SILENT, Session
from loopback import Handler
from mlflow import MlflowClient
from mlflow.entities import Run
from servers import Proxy

from pytest_armory import samples
from pytest_armory.cli import main as commands
from pytest_armory.store.database import sqlite_uri

Start = Callable[..., Session]

LONG = """
    import pytest
    from pytest_armory import track_metrics
    pytestmark = pytest.mark.evaluation
    def load(n): return n
    @pytest.fixture
    def data(track_call): return track_call(load, n=1)
    def test_done(): track_metrics({"accuracy": 1})
    def test_long(mark, stay, data):
        track_metrics({"seen": 1})
        mark("long")
        stay()
    def test_never(mark, stay):
        mark("other")
        stay()
"""

SAMPLED = LONG.replace(
    'track_metrics({"seen": 1})',
    'track_metrics({"seen": 1}); pytest_armory.track_samples({"right": [1, 0, 0, 1]})',
).replace("import pytest\n", "import pytest, pytest_armory\n")

ONE, TWO, WORKER = ("-p", "no:xdist"), ("-n2", "--dist=load"), ("-n1",)


def states(evals: Evals) -> dict[str, tuple[str, str | None]]:
    """Status and outcome of every evaluation."""
    runs = evals.runs().items()
    return {name: (r.info.status, r.data.tags.get("armory.outcome")) for name, r in runs}


def check_samples(evals: Evals) -> None:
    """The long test's run has the rows that it had, and says that there may be more."""
    run = evals.run_of("test_long")
    assert run.data.metrics["right"] == 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(evals.home / "mlruns" / "mlflow.db"))
        frame = samples(run.info.run_id)
    assert (len(frame), frame.attrs["partial"]) == (4, True)
    assert '"partial": true' in run.data.tags["armory.samples"]


def leases(evals: Evals) -> list[Path]:
    return sorted((evals.home / "mlruns" / "leases").glob("*"))


PASSED = ("FINISHED", "passed")
INTERRUPTED = ("KILLED", "interrupted")
CRASHED = ("FAILED", "crashed")


def until_long(session: Session, way: tuple[str, ...]) -> None:
    """Wait until the long tests run, and the reporting process has said what it knows.

    By then it has opened the session run, and knows which runs the tests have.
    """
    session.wait_for("long", *(["other"] if "-n2" in way else []))
    session.wait_for_setup("test_long", *(["test_never"] if "-n2" in way else []))
    session.wait_for_verdicts("test_done")


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (signal.SIGTERM, ONE),
        (signal.SIGTERM, TWO),
        (signal.SIGHUP, ONE),
        (signal.SIGHUP, TWO),
        (signal.SIGXCPU, ONE),
    ],
    ids=["TERM-one", "TERM-n2", "HUP-one", "HUP-n2", "XCPU-one"],
)
def test_a_signal_that_ends_the_job(
    evals: Evals, start: Start, number: signal.Signals, way: tuple[str, ...]
) -> None:
    """A CI runner's time-out: every open run is closed within a second; the signal ends the job."""
    evals.write(SAMPLED)
    session = start(*way)
    until_long(session, way)
    session.send(number)
    assert session.wait() == -number
    session.gone()
    ended = time.time()
    found = states(evals)
    check_samples(evals)
    assert found.pop("test_done") == PASSED
    assert set(found) == ({"test_long"} if way == ONE else {"test_long", "test_never"})
    assert set(found.values()) == {INTERRUPTED}
    for run in [*evals.runs().values(), *evals.sessions()]:
        assert run.info.end_time / 1000 <= ended
    long = evals.run_of("test_long")
    assert long.data.metrics["seen"] == 1
    assert 0 < long.data.metrics["duration_seconds"] < ended - long.info.start_time / 1000
    (sum_of_all,) = evals.sessions()
    assert sum_of_all.info.status == "KILLED"
    assert sum_of_all.data.metrics["session/not_run"] == (1 if way == ONE else 0)
    assert "1 passed, " in session.output
    assert leases(evals) == []
    evals.check_accounted(2 if way == ONE else 3)
    off = start(*way, track=False)
    until_long(off, way)
    off.send(number)
    assert off.end == session.end


SETTING_UP = """
    import pytest
    pytestmark = pytest.mark.evaluation
    @pytest.fixture
    def model(request, mark, stay):
        mark(request.node.name)
        stay()
    def test_done(): pass
    def test_a(model): pass
    def test_b(model): pass
    def test_never(model): pass
"""


def until_begun(session: Session, *names: str) -> None:
    """Wait until tests are set up, and the process that reports knows."""
    session.wait_for(*names)
    session.wait_until(lambda: all(f"::{name}" in session.output for name in names))


@pytest.mark.parametrize(
    ("number", "done"),
    [
        (signal.SIGTERM, False),
        (signal.SIGTERM, True),
        (signal.SIGINT, False),
        (signal.SIGINT, True),
    ],
    ids=["TERM-first", "TERM-later", "INT-first", "INT-later"],
)
def test_a_signal_while_workers_set_up_their_tests(
    evals: Evals, start: Start, number: signal.Signals, done: bool
) -> None:
    """No report says which runs they have opened; if it is the first test, not that there are."""
    evals.write(SETTING_UP if done else SETTING_UP.replace("    def test_done(): pass\n", ""))
    session = start(*TWO)
    until_begun(session, "test_a", "test_b")
    session.send(number)
    ended = session.end
    session.gone()
    found = states(evals)
    assert found.pop("test_done", PASSED) == PASSED
    assert found == dict.fromkeys(("test_a", "test_b"), INTERRUPTED)
    (sum_of_all,) = evals.sessions()
    assert sum_of_all.info.status == "KILLED"
    parents = {run.data.tags["mlflow.parentRunId"] for run in evals.runs().values()}
    assert parents == {sum_of_all.info.run_id}
    counted = "4 evaluations: 1 passed, 2 interrupted, 1 not run"
    assert (counted if done else "2 evaluations: 2 interrupted, tracked") in session.output
    assert ("which of the 3 collected tests are evaluations" in session.output) == (not done)
    assert leases(evals) == []
    evals.check_accounted(2 + done)
    off = start(*TWO, track=False)
    until_begun(off, "test_a", "test_b")
    off.send(number)
    assert off.end == ended


def test_a_controller_that_shuts_down_late_reports_no_crash(evals: Evals, start: Start) -> None:
    """It is told that its workers have ended, which the same signal has done."""
    evals.write(SETTING_UP)
    add_to_conftest(
        evals,
        """
        import os
        from pytest_armory.plugin import tracked
        shut_down = tracked._shut_down
        LEASES = Path(os.environ["ARMORY_HOME"]) / "mlruns" / "leases"
        def late(process, reporting, running):
            while reporting is not None and len([*LEASES.iterdir()]) > 1:
                time.sleep(0.02)
            time.sleep(0.5 * (reporting is not None))
            shut_down(process, reporting, running)
        tracked._shut_down = late
        """,
    )
    session = start(*TWO)
    until_begun(session, "test_a", "test_b")
    session.wait_for_verdicts("test_done")
    session.send(signal.SIGTERM)
    ended = session.end
    session.gone()
    assert states(evals).pop("test_done") == PASSED
    evals.check_accounted(3)
    off = start(*TWO, track=False)
    until_begun(off, "test_a", "test_b")
    off.wait_for_verdicts("test_done")
    off.send(signal.SIGTERM)
    assert off.end == ended


def test_a_signal_while_a_slow_server_opens_the_session_run(
    evals: Evals, start: Start, proxy: Proxy, mlflow_server: str
) -> None:
    """It is closed as soon as it is known; all that is told is that of which a worker has begun."""
    opened: list[str] = []
    asked: list[tuple[str, bytes]] = []
    printed, gone = threading.Event(), threading.Event()

    def wait(_: Proxy, handler: Handler) -> bool:
        if handler.path.endswith("runs/create") and b'"armory.command"' in handler.body:
            opened.append(handler.path)
            printed.wait(PATIENCE)
        elif opened:
            asked.append((handler.path, handler.body))
            gone.wait(PATIENCE)
        return False

    proxy.fault = wait
    evals.write(LONG)
    add_to_conftest(evals, SILENT)
    name = f"opening {time.monotonic_ns()}"
    args = ("-k", "not done", *WORKER)
    session = start("--armory-tracking-uri", proxy.url, "--armory-experiment", name, *args)
    session.wait_until(lambda: bool(opened))
    session.send(signal.SIGTERM)
    session.wait_until(lambda: "= evaluations =" in session.output)
    printed.set()
    session.wait_until(lambda: len(closed_by(asked)) == 2)
    session.end_late()
    assert session.wait() == -signal.SIGTERM
    session.gone()
    gone.set()
    proxy.settle()
    assert re.search(r"test_long +interrupted *$", session.output, re.MULTILINE)
    assert "2 evaluations: 1 interrupted, 1 not run" in session.output
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in found} == {"KILLED"}
    assert sorted(run.data.tags["armory.kind"] for run in found) == ["evaluation", "session"]
    evals.check_accounted(1, there=found)
    off = start(*args, track=False)
    off.wait_for("long")
    off.send(signal.SIGTERM)
    assert off.end == session.end


def closed_by(asked: Sequence[tuple[str, bytes]]) -> set[str]:
    """The runs of which requests have come that write what is known, and that close them."""
    last = (b'"armory.outcome"', b'"mlflow.note.content"')
    update = {body for path, body in asked if path.endswith("runs/update")}
    batch = {body for path, body in asked if any(tag in body for tag in last)}
    return {json.loads(one)["run_id"] for one in update} & {
        json.loads(one)["run_id"] for one in batch
    }


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
@pytest.mark.parametrize("at", ["in-a-test", "in-a-request"])
def test_a_signal_that_ends_the_job_of_a_slow_server(
    evals: Evals, start: Start, proxy: Proxy, mlflow_server: str, way: tuple[str, ...], at: str
) -> None:
    """The summary is printed, and all that is known is closed, before the server has answered."""
    slow, late, gone = threading.Event(), threading.Event(), threading.Event()
    asked: list[tuple[str, bytes]] = []

    def wait(_: Proxy, handler: Handler) -> bool:
        if slow.is_set():
            asked.append((handler.path, handler.body))
            if b'"late"' in handler.body:
                late.set()
            gone.wait(PATIENCE)
        return False

    proxy.fault = wait
    request = """stay(1)
        while not (Path(__file__).parent / "marks" / "slow").exists(): stay(0)
        track_metrics({"late": 1})
        stay()"""
    source = LONG if at == "in-a-test" else LONG.replace("stay()", request, 1)
    evals.write(source.replace("import pytest", "import pytest\n    from pathlib import Path"))
    add_to_conftest(evals, SILENT)
    name = f"slow {time.monotonic_ns()}"
    uri = ("--armory-tracking-uri", proxy.url, "--armory-experiment", name)
    session = start(*uri, *way)
    until_long(session, way)
    client = MlflowClient(mlflow_server)

    def runs() -> dict[str, Run]:
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id])
        kinds = [run.data.tags["armory.kind"] for run in found]
        names = [
            kind if kind == "session" else str(run.info.run_name)
            for kind, run in zip(kinds, found, strict=True)
        ]
        return dict(zip(names, found, strict=True))

    session.wait_until(lambda: runs()["test_done"].info.status == "FINISHED")
    slow.set()
    if at == "in-a-request":
        (session.marks / "slow").touch()
        session.wait_until(late.is_set)
    session.send(signal.SIGTERM)
    closing = f"pytest-armory recover --armory-tracking-uri {proxy.url}`"
    session.wait_until(lambda: closing in session.output and len(closed_by(asked)) == 2)
    session.end_late()
    assert session.wait() == -signal.SIGTERM
    session.gone()
    assert "3 evaluations: 1 passed, 1 interrupted, 1 not run" in session.output
    assert session.output.count("= evaluations =") == 1
    gone.set()
    proxy.settle()
    found = runs()
    assert {run.info.status for run in found.values()} == {"FINISHED", "KILLED"}
    assert found["test_long"].data.tags["armory.outcome"] == "interrupted"
    assert found["test_long"].data.params["load.n"] == "1"
    assert found["test_long"].data.metrics["duration_seconds"] >= (at == "in-a-request")
    assert found["session"].data.metrics["interrupted"] == 1
    assert commands.main(["recover", "--armory-tracking-uri", proxy.url]) == 0
    assert runs().keys() == {"session", "test_done", "test_long"}
    evals.check_accounted(2, there=list(runs().values()))
    off = start(*way, track=False)
    until_long(off, way)
    off.send(signal.SIGTERM)
    assert off.end == session.end


def add_to_conftest(evals: Evals, source: str) -> None:
    with (evals.pytester.path / "conftest.py").open("a") as conftest:
        conftest.write("\n" + textwrap.dedent(source))


def check_ctrl_c(
    evals: Evals, start: Start, way: tuple[str, ...], end: Callable[[Session], object]
) -> None:
    """Every run is closed, and the session ends as with the plugin off."""
    session = start(*way)
    until_long(session, way)
    ended = end(session)
    assert session.wait() in (pytest.ExitCode.INTERRUPTED, -signal.SIGINT)
    session.gone()
    evals.check_accounted(2)
    found = states(evals)
    assert evals.run_of("test_long").data.params["load.n"] == "1"
    check_samples(evals)
    assert found.pop("test_done") == PASSED
    assert set(found.values()) == {INTERRUPTED}
    assert [run.info.status for run in evals.sessions()] == ["KILLED"]
    assert "1 passed, " in session.output
    assert session.output.count("= evaluations =") == 1
    assert leases(evals) == []
    off = start(*way, track=False)
    until_long(off, way)
    assert end(off) == ended
    off.gone()


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_ctrl_c(evals: Evals, start: Start, way: tuple[str, ...], times: int) -> None:
    """Twice: while a fixture is torn down, or xdist waits for its workers."""
    tearing = """
    @pytest.fixture(scope="session", autouse=True)
    def slow(stay, mark):
        yield
        mark("tearing")
        stay(SECONDS)
    """
    evals.write(SAMPLED + tearing.replace("SECONDS", "1" if times == 1 else "20"))
    add_to_conftest(
        evals,
        """
        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish(session):
            if not hasattr(session.config, "workerinput"):
                (MARKS / "ending").touch()
        """,
    )

    def end(session: Session) -> object:
        session.send(signal.SIGINT)
        if times == 2:
            session.wait_for("tearing", "ending")
            session.send(signal.SIGINT)
        return session.end

    check_ctrl_c(evals, start, way, end)


AS_IT_ENDS = """
        class Off:
            @pytest.hookimpl(trylast=True)
            def pytest_sessionfinish(self):
                signal.raise_signal(signal.SIGINT)
        def pytest_configure(config):
            if not (config.option.armory_track or hasattr(config, "workerinput")):
                config.pluginmanager.register(Off())
        """

SECOND = {
    "told": """
        def pytest_keyboard_interrupt():
            signal.raise_signal(signal.SIGINT)
        """,
    "before-the-end": """
        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_sessionfinish():
            signal.raise_signal(signal.SIGINT)
            yield
        """,
    "in-our-hook": """
        from pytest_armory.plugin import xdist
        def share_remarks(config):
            signal.raise_signal(signal.SIGINT)
        xdist.share_remarks = share_remarks
        """,
    "in-a-transaction": """
        from sqlalchemy import event, orm
        @event.listens_for(orm.Session, "before_commit")
        def before_commit(session):
            if Once.told:
                Once.told = False
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
        class Once:
            told = False
        def pytest_keyboard_interrupt():
            Once.told = True
        """
    + AS_IT_ENDS,
    "as-it-ends": """
        def pytest_armory_summary():
            signal.raise_signal(signal.SIGINT)
        """
    + AS_IT_ENDS,
    "as-it-ends-for-long": """
        from pytest_armory import signals
        def pytest_armory_summary():
            signals.PATIENCE = -1.0
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        """
    + AS_IT_ENDS,
}
"""Where a second Ctrl-C meets the process: before pytest has called our hooks for the end, in what
they do, and when they have taken too long.
"""


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
@pytest.mark.parametrize("where", SECOND)
def test_ctrl_c_twice_at_once(evals: Evals, start: Start, way: tuple[str, ...], where: str) -> None:
    """Then pytest does not call our hooks, and xdist does not unconfigure its workers."""
    evals.write(SAMPLED)
    # A worker that xdist does not end lives until its controller ends.
    add_to_conftest(evals, "import signal\nstored_session.WAIT = 1.0")
    add_to_conftest(evals, SECOND[where])

    def end(session: Session) -> object:
        session.send(signal.SIGINT)
        return session.end

    check_ctrl_c(evals, start, way, end)


def test_an_end_that_is_broken_off_for_good_names_what_closes_it(evals: Evals) -> None:
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    evals.pytester.makeconftest("""
        from signal import default_int_handler
        from pytest_armory.session.ledger import Ledger
        Ledger.finish = lambda *_: default_int_handler(2, None)
    """)
    result = evals.run(subprocess=True)
    assert result.ret == -signal.SIGINT
    result.stdout.fnmatch_lines(
        ["armory: cut off: `pytest-armory recover` closes what is left open"]
    )
    assert [run.info.status for run in evals.sessions()] == ["RUNNING"]
    assert commands.main(["recover"]) == 0
    (session,) = evals.sessions()
    assert (session.info.status, session.data.metrics["passed"]) == ("KILLED", 1)
    assert leases(evals) == []
    evals.check_accounted(1)


def test_a_page_that_is_broken_off_leaves_the_session_as_it_was_closed(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    evals.pytester.makeconftest("""
        from signal import default_int_handler
        from pytest_armory.session import page
        page.write_and_store_page = lambda *_: default_int_handler(2, None)
    """)
    step = evals.pytester.path / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    result = evals.run("--armory-html=page.html", subprocess=True)
    assert result.ret == -signal.SIGINT
    result.stdout.fnmatch_lines(["1 evaluation: 1 passed, tracked to *"])
    (session,) = evals.sessions()
    assert session.info.status == "FINISHED"
    assert step.read_text().count("1 evaluation: 1 passed") == 1
    assert leases(evals) == []
    evals.check_accounted(1)


def test_nothing_is_read_where_no_evaluation_was(evals: Evals) -> None:
    evals.write("def test_a(): pass")
    evals.pytester.makeconftest("""
        from pytest_armory.session import ledger
        ledger.close_and_read = lambda *_: print("the store is read")
    """)
    assert (evals.home / "mlruns" / "mlflow.db").exists()
    result = evals.run("--markers", "-n2", subprocess=True)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("the store is read")


def test_a_controller_that_is_interrupted_counts_what_it_was_not_told(evals: Evals) -> None:
    """A worker goes on meanwhile, and xdist takes no report of it."""
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        def test_a(): pass
        def test_b(): pass
    """)
    evals.pytester.makeconftest("""
        import time, pytest
        from pathlib import Path
        B = Path(__file__).with_name("b")
        def pytest_sessionfinish(session):
            B.touch()
        class Controller:
            @pytest.hookimpl(trylast=True)
            def pytest_runtest_logfinish(self):
                while not B.exists():
                    time.sleep(0.02)
                raise KeyboardInterrupt
        def pytest_configure(config):
            if not hasattr(config, "workerinput"):
                config.pluginmanager.register(Controller())
    """)
    result = evals.run("-n1")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["2 evaluations: 2 passed, tracked to *"])
    (session,) = evals.sessions()
    assert (session.info.status, session.data.metrics["passed"]) == ("KILLED", 2)
    evals.check_accounted(2)


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_killed_for_good(
    evals: Evals, start: Start, way: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing can be caught; what tells the truth afterwards is `recover`, or the next session."""
    evals.write(LONG)
    alive = start(*ONE)
    until_long(alive, ONE)
    killed = start(*way)
    until_long(killed, way)
    killed.send(signal.SIGKILL)
    killed.gone()
    died = time.time()

    def runs_of(session: Session) -> list[Run]:
        (name,) = [line for line in session.output.splitlines() if ", session " in line]
        session_id = name.rpartition(" ")[2]
        return [run for run in evals.read() if run.data.tags["armory.session"] == session_id]

    before = {run.info.run_id: run.info.status for run in runs_of(alive)}
    assert "RUNNING" in before.values()
    if way == ONE:
        assert commands.main(["recover"]) == 0
        printed = capsys.readouterr().out
        assert "test_long, interrupted" in printed
        assert "at work on this machine" in printed
    else:
        result = evals.run("-k", "test_done")
        result.stdout.fnmatch_lines(["session * was killed: closed 2 runs it left open"])
    closed = {run.info.run_name: run for run in runs_of(killed)}
    assert {run.info.status for run in closed.values()} == {"FINISHED", "KILLED"}
    assert closed["test_long"].data.tags["armory.outcome"] == "interrupted"
    assert closed["test_long"].data.tags["armory.recovered"] == "true"
    assert closed["test_long"].data.params["load.n"] == "1"
    assert closed["test_long"].info.end_time / 1000 <= died  # not when somebody looked
    assert {run.info.run_id: run.info.status for run in runs_of(alive)} == before
    assert commands.main(["recover"]) == 0
    assert "nothing to close" in capsys.readouterr().out
    alive.send(signal.SIGTERM)
    alive.gone()
    evals.check_accounted(2 + 2 if way == ONE else 2 + 2 + 1)
    (sum_of_all,) = [run for name, run in closed.items() if name.endswith(" session")]
    assert sum_of_all.info.status == "KILLED"
    assert sum_of_all.data.metrics["passed"] == 1
    check_killed_as_off(killed, start, "long", *way)


def check_killed_as_off(killed: Session, start: Start, mark: str, *args: str) -> None:
    """What pytest has printed until it was killed is what it prints with the plugin off."""
    off = start(*args, track=False)
    off.wait_for(mark)
    killed_at = printed_verdicts(killed.output)
    off.wait_until(lambda: printed_verdicts(off.output) >= killed_at)  # later than with one worker
    off.send(signal.SIGKILL)
    off.gone()
    assert off.end == killed.end


CLOSING = """
    import os, time, pytest
    from pathlib import Path
    from pytest_armory import track_metrics
    pytestmark = pytest.mark.evaluation
    def leases():
        at = {n: os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
        return [int(number) for number, path in at.items() if path.endswith(".lease")]
    @pytest.fixture(scope="session")
    def own(tmp_path_factory):
        path = Path(__file__).parent / "own.txt"
        path.write_text("the user's")
        with path.open("r+") as file:
            number = [*leases(), os.dup(1)][0]  # with the plugin off there is none
            os.close(number)
            os.dup2(file.fileno(), number)
            yield path
            os.close(number)
    def test_closes(own, mark):
        track_metrics({"accuracy": 1})
        mark("closed")
        while not (Path(__file__).parent / "marks" / "go").exists():
            time.sleep(0.02)
    def test_after(own): assert own.read_text() == "the user's"
    def test_last(own): assert own.read_text() == "the user's"
"""


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_a_test_that_closes_the_descriptor_of_the_lease(
    evals: Evals, start: Start, capsys: pytest.CaptureFixture[str], way: tuple[str, ...]
) -> None:
    """Its own files stay as they are, and nobody takes the session for dead meanwhile."""
    evals.write(CLOSING)
    session = start(*way)
    session.wait_for("closed")
    assert commands.main(["recover"]) == 0
    assert "nothing to close" in capsys.readouterr().out
    (session.marks / "go").touch()
    assert session.wait() == 0, session.output
    assert states(evals) == dict.fromkeys(("test_closes", "test_after", "test_last"), PASSED)
    assert (evals.pytester.path / "own.txt").read_text() == "the user's"
    assert "\nwarning: " not in session.output
    assert leases(evals) == []
    evals.check_accounted(3)
    off = start(*way, track=False)
    off.wait_for("closed")
    (off.marks / "go").touch()
    assert off.end == session.end


CLOSING_DATABASE = """
    import os, pytest
    from pathlib import Path
    from pytest_armory import track_metrics
    pytestmark = pytest.mark.evaluation
    own = Path(__file__).parent / "own.txt"
    def of_database():
        at = {n: os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
        return [int(number) for number, path in at.items() if "mlflow.db" in path]
    def test_before(): track_metrics({"accuracy": 1})
    def test_closes():
        track_metrics({"accuracy": 1})
        own.write_text("the user's")
        with own.open("r+") as file:
            for number in of_database():
                os.dup2(file.fileno(), number)
        track_metrics({"recall": 1})
    def test_after():
        track_metrics({"accuracy": 1})
        assert own.read_text() == "the user's"
"""


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_a_test_that_closes_the_descriptors_of_the_database(
    evals: Evals, start: Start, way: tuple[str, ...]
) -> None:
    """Its own files stay as they are, and what cannot be stored is counted."""
    evals.write(CLOSING_DATABASE)
    off = start(*way, track=False)
    assert off.wait() == 0, off.output
    session = start(*way)
    assert session.wait() == 0, session.output
    assert off.end == session.end
    assert (evals.pytester.path / "own.txt").read_text() == "the user's"
    assert "a test has closed its file descriptors" in session.output
    assert "\nnot stored: 1 evaluation\n" in session.output
    assert commands.main(["recover"]) == 0
    assert set(states(evals)) == {"test_before", "test_closes"}
    evals.check_accounted(3, lost=1)


ENDED = """
    import mlflow, os, signal, pytest
    pytestmark = pytest.mark.evaluation
    def test_passes(): pass
    def test_ends_its_run():
        mlflow.end_run()
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_a_run_that_its_test_has_ended_is_no_run_that_was_finished(
    evals: Evals, start: Start, capsys: pytest.CaptureFixture[str], way: tuple[str, ...]
) -> None:
    """For MLflow it is finished, but a killed process leaves no outcome: it has not passed."""
    evals.write(ENDED)
    off = start(*way, track=False)
    session = start(*way)
    assert off.wait() == session.wait()
    session.gone()
    if way == WORKER:
        assert "2 evaluations: 1 passed, 1 crashed" in session.output
    else:
        assert commands.main(["report"]) == 1
        assert "2 runs left open by a process that was killed" in capsys.readouterr().out
        assert commands.main(["recover"]) == 0
        assert "test_ends_its_run, interrupted" in capsys.readouterr().out
    expected = ("FAILED", "crashed") if way == WORKER else ("KILLED", "interrupted")
    assert states(evals) == {"test_passes": ("FINISHED", "passed"), "test_ends_its_run": expected}
    (of_all,) = evals.sessions()
    assert (of_all.info.status, of_all.data.metrics[expected[1]]) == (expected[0], 1)
    evals.check_accounted(2)


LOSING = """
    import os, signal, pytest
    pytestmark = pytest.mark.evaluation
    def test_dies(): os.kill(os.getpid(), signal.SIGKILL)
    def test_stays(mark, stay):
        mark("stays")
        stay()
"""


@pytest.mark.parametrize("way", [WORKER, TWO, (*WORKER, "--armory-session", "shared")],
                         ids=["n1", "n2", "shared"])  # fmt: skip
def test_a_live_session_that_has_lost_a_worker_is_left_to_itself(
    evals: Evals, start: Start, capsys: pytest.CaptureFixture[str], way: tuple[str, ...]
) -> None:
    """Neither another session nor `recover` closes that worker's run, until its controller ends."""
    evals.write(LOSING)
    alive = start(*way)
    alive.wait_for("stays")
    alive.wait_for_verdicts("test_dies")  # with two workers they run at the same time
    (evals.pytester.path / "test_other.py").write_text(
        "import pytest\n@pytest.mark.evaluation(name='other')\ndef test_other(): pass\n"
    )
    result = evals.run("test_other.py")
    result.assert_outcomes(passed=1)
    assert "was killed" not in result.stdout.str()
    assert commands.main(["recover"]) == 0
    assert "nothing to close" in capsys.readouterr().out
    (dead,) = [run for run in evals.read() if run.info.run_name == "test_dies"]
    assert "armory.recovered" not in dead.data.tags
    assert dead.data.tags.get("armory.outcome") != "interrupted"
    alive.send(signal.SIGKILL)  # now it is orphaned, as are the others
    alive.gone()
    assert commands.main(["recover"]) == 0
    assert leases(evals) == []
    evals.check_accounted(3)
    (evals.pytester.path / "test_other.py").unlink()
    check_killed_as_off(alive, start, "stays", way[0])


def test_a_session_run_waits_for_the_worker_that_outlives_its_controller(
    evals: Evals, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends some seconds later, and closes its own run: what is summed up then is complete."""
    evals.write(LONG.replace("mark(", "import os; mark(f'pid-{os.getpid()}'); mark("))
    session = start(*WORKER)
    until_long(session, WORKER)
    (worker,) = (int(mark.name[4:]) for mark in session.marks.glob("pid-*"))
    os.kill(worker, signal.SIGSTOP)
    session.send(signal.SIGKILL, group=False)
    assert session.wait() == -signal.SIGKILL
    assert commands.main(["recover"]) == 0
    assert "left alone: 2 open runs of " in capsys.readouterr().out
    os.kill(worker, signal.SIGCONT)
    session.gone()
    assert commands.main(["recover"]) == 0
    assert states(evals) == {"test_done": PASSED, "test_long": INTERRUPTED}
    (sum_of_all,) = evals.sessions()
    assert (sum_of_all.info.status, sum_of_all.data.metrics["interrupted"]) == ("KILLED", 1)
    assert leases(evals) == []
    evals.check_accounted(2)


@pytest.mark.parametrize("first", ["killed", "whole"], ids=["opener", "joiner"])
@pytest.mark.parametrize("way", [ONE, WORKER], ids=["one", "n1"])
def test_a_killed_job_of_a_shared_session_is_summed_up(
    evals: Evals, start: Start, first: str, way: tuple[str, ...]
) -> None:
    """Whichever job has opened the session run, and although another one has closed it."""
    evals.write(LONG)
    (evals.pytester.path / "test_whole.py").write_text(
        "import pytest, time\nfrom pathlib import Path\n@pytest.mark.evaluation\n"
        "def test_whole(mark):\n    mark('whole')\n"
        "    while not (Path(__file__).parent / 'marks' / 'go').exists(): time.sleep(0.02)\n"
    )
    shared = ("--armory-session=shared", *way)
    jobs, marks = {}, {"killed": "long", "whole": "whole"}
    for name in (first, *(marks.keys() - {first})):
        seen = {mark.name for mark in (evals.pytester.path / "marks").glob("*")}
        jobs[name] = start("test_whole.py" if name == "whole" else "test_it.py", *shared)
        jobs[name].wait_for(marks[name])
        jobs[name].wait_for_verdicts(*(["test_done"] if name == "killed" else []))
        for mark in seen:
            (jobs[name].marks / mark).touch()
    (jobs["whole"].marks / "go").touch()
    assert jobs["whole"].wait() == 0, jobs["whole"].output
    jobs["killed"].send(signal.SIGKILL)
    jobs["killed"].gone()
    assert {run.data.metrics["running"] for run in evals.sessions()} == {1}
    assert commands.main(["recover"]) == 0
    for run in evals.sessions():
        counts = run.data.metrics
        assert (counts["running"], counts["interrupted"], counts["passed"]) == (0, 1, 2)
        assert run.info.status == "KILLED"
        assert "1 interrupted" in run.data.tags["mlflow.note.content"]
    before = [run.to_dictionary() for run in evals.sessions()]
    assert commands.main(["recover"]) == 0
    assert [run.to_dictionary() for run in evals.sessions()] == before
    assert leases(evals) == []
    evals.check_accounted(3)
    check_killed_as_off(jobs["killed"], start, "long", "test_it.py", *way)
    off = start("test_whole.py", *way, track=False)
    (off.marks / "go").touch()
    assert off.end == jobs["whole"].end


@pytest.mark.parametrize("first", ["recover", "retry"])
def test_a_killed_job_that_was_run_again_leaves_a_session_that_can_be_the_baseline(
    evals: Evals, start: Start, first: str
) -> None:
    """Whether its runs are closed before the job is run again, or after that."""
    evals.write("""
        import pytest
        from pathlib import Path
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation
        def test_done(): track_metrics({"accuracy": 1})
        def test_long(mark, stay):
            track_metrics({"accuracy": 1})
            mark("long")
            if not (Path(__file__).parent / "again").exists(): stay()
    """)
    killed = start("--armory-session=shared", *ONE)
    until_long(killed, ONE)
    killed.send(signal.SIGKILL)
    killed.gone()
    (evals.pytester.path / "again").touch()
    if first == "recover":
        assert commands.main(["recover"]) == 0
        assert {run.info.status for run in evals.sessions()} == {"KILLED"}
    evals.run("--armory-session=shared").assert_outcomes(passed=2)
    if first == "retry":
        assert commands.main(["recover"]) == 0
    (session,) = evals.sessions()
    counts = session.data.metrics
    assert (session.info.status, counts["passed"], counts["running"]) == ("FINISHED", 2, 0)
    assert counts["interrupted"] == 0
    result = evals.run("--armory-baseline=latest")
    result.stdout.fnmatch_lines(["baseline latest: session shared"])
    evals.check_accounted(6)


def test_tags_of_a_killed_session_that_cannot_be_read(
    evals: Evals, capsys: pytest.CaptureFixture[str]
) -> None:
    """They change no verdict, cost no summary, and fail a strict session of the same name."""
    evals.write("""
        import pytest
        @pytest.mark.evaluation(at_least={"accuracy": 0.9})
        def test_bad(evaluation_run): evaluation_run.log_metrics({"accuracy": 0.5})
        @pytest.mark.evaluation
        def test_good(): pass
    """)
    again = ("-k", "test_good", "--armory-session=s")
    evals.run(*again).assert_outcomes(passed=1)
    client = MlflowClient(sqlite_uri(evals.home / "mlruns" / "mlflow.db"))
    for run in evals.read():
        for name, value in HAND_MADE.items():
            client.set_tag(run.info.run_id, name, value)
        client.log_metric(run.info.run_id, "passed", 1e300)
        client.update_run(run.info.run_id, status="RUNNING")
    folder = evals.home / "mlruns" / "leases"
    folder.mkdir(exist_ok=True)
    (folder / "dead%3A1%3A0.lease").write_text("{")
    assert evals.run(*again).ret == 0
    result = evals.run(*again, "--armory-strict")
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["1 evaluation: 1 passed, *", "warning: the tag armory.ended.0 cannot be read: *"]
    )
    result = evals.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["2 evaluations: 1 passed, 1 failed, *"])
    assert commands.main(["recover"]) == 0
    assert commands.main(["sessions"]) == 0
    assert "1000000" not in capsys.readouterr().out
    evals.check_invariant(result, 5)


HAND_MADE = {
    "armory.process": "dead:1:0",
    "armory.shard": "dead:1:0:x",
    "armory.gates": '[{"state": 3}',
    "armory.ended.0": '{"not_run": "many"}',
}


def test_more_stale_leases_than_descriptors(
    evals: Evals, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    evals.write(LONG)
    session = start()
    until_long(session, ())
    session.send(signal.SIGKILL)
    session.gone()
    (own,) = leases(evals)
    for number in range(1200):
        own.with_name(f"host%3A{number}%3A0123abcd.lease").write_text("")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        assert commands.main(["recover"]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert capsys.readouterr().out.count("closed ") == 2
    assert leases(evals) == []
    evals.check_accounted(2)
    check_killed_as_off(session, start, "long")


def test_runs_of_another_machine_are_named_and_left(
    evals: Evals, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    evals.write(LONG)
    session = start()
    until_long(session, ())
    session.send(signal.SIGKILL)
    session.gone()
    for lease in leases(evals):  # as if the database had been copied here
        lease.unlink()
    assert commands.main(["recover"]) == 0
    printed = capsys.readouterr().out
    assert "nothing to close" in printed
    assert "2 open runs of " in printed
    (session_id,) = {run.data.tags["armory.session"] for run in evals.read()}
    assert f"pytest-armory recover --session {session_id}" in printed
    option = ("--armory-tracking-uri", "local")
    assert commands.main(["recover", *option]) == 0
    advice = f"pytest-armory recover {' '.join(option)} --session {session_id}"
    assert advice in capsys.readouterr().out
    assert commands.main(["recover", "--session", session_id]) == 0
    assert "RUNNING" not in {run.info.status for run in evals.read()}
    assert commands.main(["sessions"]) == 0
    printed = capsys.readouterr().out
    assert "interrupted" in printed
    assert "1 passed, 1 interrupted" in printed


DYING = """
    import ctypes, os, signal, pytest
    from pytest_armory import track_call
    pytestmark = pytest.mark.evaluation
    def load(n): return n
    def kill(): os.kill(os.getpid(), signal.SIGKILL)
    def test_exits(evaluation_run):
        evaluation_run.log_metrics({"before": 1})
        os._exit(0)
    def test_segfaults(evaluation_run):
        evaluation_run.log_metrics({"before": 1})
        ctypes.string_at(0)
    @pytest.fixture
    def data(request, track_call, evaluation_run):
        track_call(load, n=1)
        evaluation_run.log_metrics({"before": 1})
        if "setup" in request.node.name: kill()
        yield
        if "teardown" in request.node.name: kill()
    def test_setup(data): pass
    def test_call(data): kill()
    def test_teardown(data): pass
    def test_after(): pass
"""


def test_a_test_that_takes_its_worker_along(evals: Evals) -> None:
    """In setup, call and teardown; as by the machine out of memory, by an exit and a segfault."""
    evals.write(DYING)
    args = ("-n1", "-p", "no:faulthandler")
    result = evals.run(*args)
    dead = ("test_exits", "test_segfaults", "test_setup", "test_call", "test_teardown")
    assert states(evals) == {"test_after": PASSED, **dict.fromkeys(dead, CRASHED)}
    assert {evals.run_of(name).data.metrics["before"] for name in dead} == {1}
    for name in ("test_call", "test_teardown"):  # killed before anything more was written
        assert evals.run_of(name).data.params["load.n"] == "1"
    (session,) = evals.sessions()
    parents = {run.data.tags["mlflow.parentRunId"] for run in evals.runs().values()}
    assert parents == {session.info.run_id}
    for name in dead:
        assert evals.run_of(name).data.metrics["duration_seconds"] < 30
    result.stdout.fnmatch_lines(["*6 evaluations: 1 passed, 5 crashed, tracked to *"])
    assert leases(evals) == []
    evals.check_invariant(result, 6, *args)


def test_a_worker_that_dies_before_a_run_is_opened(
    evals: Evals, capsys: pytest.CaptureFixture[str]
) -> None:
    """As between two tests: that one is counted, and the session is not complete without it."""
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        def test_before(): pass
        def test_dies(): pass
        def test_after(): pass
    """)
    evals.pytester.makeconftest("""
        import os, pytest
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_setup(item):
            if item.name == "test_dies" and not os.path.exists("again"): os._exit(1)
    """)
    args = ("-n1", "-p", "no:randomly", "--armory-session=s", "--armory-resume")
    result = evals.run(*args)
    result.stdout.fnmatch_lines(
        ["  test_dies    crashed *", "3 evaluations: 2 passed, 1 crashed, *", "not stored: 1 *"]
    )
    (session,) = evals.sessions()
    assert (session.info.status, session.data.metrics["session/crashed"]) == ("FAILED", 1)
    assert commands.main(["report", "s"]) == 1
    assert "1 evaluation never ran" in capsys.readouterr().out
    evals.check_accounted(3, lost=1)
    (evals.pytester.path / "again").touch()
    evals.run(*args).assert_outcomes(passed=1, skipped=2)
    assert commands.main(["report", "s"]) == 0


LOOP = """
    import os, pytest
    pytestmark = pytest.mark.evaluation
    @pytest.mark.parametrize("i", range(6))
    def test_a(i):
        if i == 1: os._exit(1)
"""


@pytest.mark.parametrize(
    "args",
    [
        ("--dist=loadscope", "--max-worker-restart=1"),
        ("--dist=loadfile", "--max-worker-restart=1"),
        ("--maxfail=1", "--max-worker-restart=0"),
    ],
    ids=" ".join,
)
def test_crash_loops(evals: Evals, args: tuple[str, ...]) -> None:
    """By scope and by file xdist gives the test that crashed to the next worker, every time."""
    args = ("-n1", *args)
    evals.write(LOOP)
    result = evals.run(*args)
    crashes = result.stdout.str().count("crashed while running 'test_it.py::test_a[1]'")
    found = [run for run in evals.read() if run.data.tags["armory.kind"] == "evaluation"]
    crashed = [run for run in found if run.data.tags["armory.outcome"] == "crashed"]
    assert {run.info.status for run in crashed} == {"FAILED"}
    assert {run.info.run_name for run in crashed} == {"test_a[1]"}
    attempts = [run.data.tags["armory.attempt"] for run in crashed]
    assert attempts == [str(i + 1) for i in range(len(crashed))]
    assert len(crashed) >= max(crashes // 2, 1)  # each is in the short summary again
    started = {run.data.tags["armory.nodeid"] for run in found}
    (session,) = evals.sessions()
    assert session.data.metrics["session/evaluations"] == 6
    assert session.data.metrics["session/not_run"] == 6 - len(started)
    if len(started) < 6:
        result.stdout.fnmatch_lines([f"*6 evaluations: *, {6 - len(started)} not run*"])
    assert session.info.status == "FAILED"
    assert leases(evals) == []
    evals.check_invariant(result, len(found), *args)


def test_what_never_ran_is_not_counted_if_no_worker_lived_to_report_a_test(evals: Evals) -> None:
    args = ("-n1", "--max-worker-restart=0")
    evals.write("""
        import os, pytest
        pytestmark = pytest.mark.evaluation
        @pytest.fixture
        def model(): os._exit(1)
        @pytest.mark.parametrize("i", range(6))
        def test_a(i, model): pass
    """)
    result = evals.run(*args)
    result.stdout.fnmatch_lines(
        ["1 evaluation: 1 crashed, tracked to *", "no worker has reported which of the 6 *"]
    )
    evals.check_invariant(result, 1, *args)
