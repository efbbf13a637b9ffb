"""Errors of our own, in every hook in turn: verdicts and exit status stay, the summary says it."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Iterator
from types import CellType
from typing import Any

import pytest
from conftest import Evals, verdicts

import pytest_armory.plugin.mlflow_fixtures  # noqa: F401 - what sessions import is dropped
from pytest_armory.cli import main as commands
from pytest_armory.plugin import fixture_params, hooks
from pytest_armory.plugin.devices import Devices
from pytest_armory.plugin.reporting import ReportingHooks
from pytest_armory.plugin.running import RunningHooks
from pytest_armory.plugin.sharding import Sharding
from pytest_armory.session import leases

TESTS = """
    import pytest
    pytestmark = pytest.mark.evaluation
    @pytest.fixture
    def data(): return 1
    def test_a(data): pass
    def test_b(data): assert 0
    @pytest.mark.skip
    def test_c(): pass
"""

INTERRUPTED = TESTS + "    def test_d(): raise KeyboardInterrupt\n"
BROKEN_OFF = "def pytest_runtest_logfinish(nodeid): raise ValueError('theirs')"

OPTIONS = {
    "pytest_configure_node": ["-n1"],
    "pytest_xdist_node_collection_finished": ["-n1"],
    "pytest_testnodedown": ["-n1"],
    "pytest_timeout_set_timer": ["--timeout=60"],
    "pytest_xdist_setupnodes": ["-n1"],
}
"""Without them a hook is not called."""

HOLDERS = (hooks, RunningHooks, ReportingHooks, Sharding, Devices)

REGISTERED_BY = {
    "Sharding": ["--armory-shard=1/1", "--armory-session=s"],
    "Devices": ["--armory-devices=0"],
}
"""Our options without which hooks are not registered."""

# What shows the problems that no summary has shown cannot show its own.
SHOW_THE_REST = {("hooks", "pytest_terminal_summary", "before")}


def own_hooks() -> Iterator[tuple[str, str, str]]:
    """Holder, name and what is to break, of every hook of ours."""
    for holder in HOLDERS:
        for name, hook in vars(holder).items():
            if name.startswith("pytest_"):
                label = holder.__name__.rpartition(".")[2]
                yield label, name, "before"
                if inspect.isgeneratorfunction(hook):
                    yield label, name, "after"


def body_of(label: str, name: str) -> CellType:
    """Where a guarded hook keeps the function that it guards."""
    holder: Any = {one.__name__.rpartition(".")[2]: one for one in HOLDERS}[label]
    hook = inspect.getattr_static(holder, name)
    while hasattr(hook, "is_guarded"):  # another decorator may be above the guard
        cell: CellType = hook.__closure__[hook.__code__.co_freevars.index("hook")]
        hook = cell.cell_contents
    return cell


def broken(body: Callable[..., Any], when: str) -> Callable[..., Any]:
    """A hook's function that fails before it does anything, or after its ``yield``."""

    def fails(*_: object) -> object:
        raise ZeroDivisionError("our own")

    def fails_before(*_: object) -> Iterator[None]:
        raise ZeroDivisionError("our own")
        yield

    def fails_after(*args: object) -> Iterator[None]:
        yield from body(*args)
        raise ZeroDivisionError("our own")

    if not inspect.isgeneratorfunction(body):
        return fails
    return fails_before if when == "before" else fails_after


def close_what_was_left() -> None:
    """Close the generators that a broken hook has left open, here and not in a later session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda _: None)  # their own hooks are gone
        gc.collect()


Off = Callable[..., tuple[int, dict[str, int]]]


@pytest.fixture(scope="session")
def known() -> dict[tuple[str, ...], tuple[int, dict[str, int]]]:
    """What the sessions without a plugin of ours have come to, by their sources and arguments."""
    return {}


@pytest.fixture
def off(evals: Evals, known: dict[tuple[str, ...], tuple[int, dict[str, int]]]) -> Off:
    """Exit status and verdicts without a plugin of ours; of the same tests it is run once."""

    def run(*args: str) -> tuple[int, dict[str, int]]:
        files = sorted(evals.pytester.path.glob("*.py"))
        key = (*(path.read_text() for path in files), *args)
        if key not in known:
            unknown = ("-p", "no:armory", "-Wignore::pytest.PytestUnknownMarkWarning")
            result = evals.run(*unknown, *args, track=False)
            known[key] = (int(result.ret), verdicts(result))
        return known[key]

    return run


def check(evals: Evals, off: Off, hook: tuple[str, str, str], *args: str, track: bool) -> None:
    """Break one hook, and compare with a session that has no plugin of ours."""
    expected = off(*args)
    label, name, when = hook
    cell = body_of(label, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell, "cell_contents", broken(cell.cell_contents, when))
        result = evals.run(*args, *REGISTERED_BY.get(label, []), track=track)
    close_what_was_left()
    assert (int(result.ret), verdicts(result)) == expected
    assert ("ZeroDivisionError: our own" in result.stdout.str()) is (hook not in SHOW_THE_REST)
    assert "Traceback" not in result.stderr.str()


TRACKED = [hook for hook in own_hooks() if hook[1] not in ("pytest_addoption",)]
UNTRACKED = [hook for hook in own_hooks() if hook[0] in ("hooks", "RunningHooks")]


@pytest.mark.parametrize("hook", TRACKED, ids="-".join)
def test_of_a_tracked_session(
    evals: Evals, off: Off, hook: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # which has got its device
    name = hook[1]
    evals.write(INTERRUPTED if name == "pytest_keyboard_interrupt" else TESTS)
    if name == "pytest_internalerror":
        evals.pytester.makeconftest(BROKEN_OFF)
    check(evals, off, hook, *OPTIONS.get(name, []), track=True)


@pytest.mark.parametrize("hook", UNTRACKED, ids="-".join)
def test_of_an_untracked_session(evals: Evals, off: Off, hook: tuple[str, str, str]) -> None:
    evals.write(TESTS)
    check(evals, off, hook, *OPTIONS.get(hook[1], []), track=False)


# In a process of its own only: the controller is this one. Nor by the environment, for this process
# may be a worker itself.
BREAK_WORKER = """
    from pytest_armory.plugin import running
    def fail(*args): raise ZeroDivisionError("our own")
    def pytest_configure(config):
        if hasattr(config, "workerinput"):
            {what} = fail
"""

IN_WORKER = [
    "running.RunningHooks._attach",
    "running.RunningHooks._begin",
    "running.RunningHooks.end",
    "running.wire.attach_record",
    "running.xdist.report_to_controller",
]


@pytest.mark.parametrize("what", IN_WORKER)
def test_of_a_worker(evals: Evals, what: str) -> None:
    evals.write(TESTS)
    evals.pytester.makepyfile(conftest=BREAK_WORKER.format(what=what))
    result = evals.run("-n1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert verdicts(result) == {"passed": 1, "failed": 1, "skipped": 1}
    assert result.stdout.str().count("ZeroDivisionError: our own") == 1


@pytest.mark.parametrize("what", ["attempts.reported", "tracked.register"])
def test_a_strict_session_fails(evals: Evals, what: str) -> None:
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    assert evals.run("--armory-strict").ret == 0
    targets = {
        "attempts.reported": "pytest_armory.plugin.attempts.Attempts.reported",
        "tracked.register": "pytest_armory.plugin.tracked.register",
    }
    for args, status in (((), 0), (("--armory-strict",), 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(targets[what], lambda *_: 1 / 0)
            result = evals.run(*args)
        result.assert_outcomes(passed=1)
        assert result.ret == status
        result.stdout.fnmatch_lines(["*warning: tracking failed in *: ZeroDivisionError: *"])


def test_evaluations_that_cannot_be_received_are_not_said_not_to_be_there(evals: Evals) -> None:
    evals.write(TESTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_armory.plugin.wire.detach", failing("detach"))
        result = evals.run("-n1")
    assert verdicts(result) == {"passed": 1, "failed": 1, "skipped": 1}
    result.stdout.fnmatch_lines(["armory: warning: tracking failed in *: in detach"])
    assert "no test that ran is marked" not in result.stdout.str()


NO_END = {
    "reading": "pytest_armory.session.ledger.read_unconfirmed",
    "counting": "pytest_armory.session.ledger.with_other_jobs",
    "closing": "pytest_armory.session.session_runs.SessionRuns.close",
}


@pytest.mark.parametrize("what", NO_END)
@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
def test_an_end_that_fails_is_summed_up_by_what_was_reported(
    evals: Evals, what: str, way: tuple[str, ...]
) -> None:
    """It says its problem once, fails a strict session, and leaves its lease to `recover`."""
    evals.write(TESTS.replace("assert 0", "pass"))
    for args, status in (((), 0), (("--armory-strict",), 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NO_END[what], lambda *_, **__: 1 / 0)
            result = evals.run(*args, *way, "--armory-summary", "summary.md")
        result.assert_outcomes(passed=2, skipped=1)
        assert result.ret == status
        result.stdout.fnmatch_lines(["2 evaluations: 2 passed, tracked to *", "warning: *"])
        assert result.stdout.str().count("ZeroDivisionError") == 1
        assert "2 passed" in (evals.pytester.path / "summary.md").read_text("utf-8")
        assert commands.main(["recover"]) == 0
    assert {run.info.status for run in evals.sessions()} == {"FINISHED"}
    evals.check_accounted(4)


def test_gates_are_judged_where_tracking_cannot_begin(evals: Evals) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation(at_least={"accuracy": 1})
        def test_a(evaluation_run): evaluation_run.log_metrics({"accuracy": 0})
    """)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_armory.plugin.tracked.connect", lambda *_: 1 / 0)
        result = evals.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["armory: warning: tracking failed in *"])


def failing(name: str) -> Callable[..., object]:
    """A function of ours that fails, and says where."""

    def fails(*_: object, **__: object) -> object:
        raise ZeroDivisionError(f"in {name}")

    return fails


# The same in processes of their own: workers, or all.
FAIL_THERE = """
    from pkgutil import resolve_name
    import pytest
    import pytest_armory.plugin.tracked
    def failing(name):
        def fails(*_, **__): raise ZeroDivisionError(f"in {{name}}")
        return fails
    def pytest_configure(config):
        for name, target in {steps!r}.items() if {condition} else ():
            holder, _, attribute = target.rpartition(".")
            setattr(resolve_name(f"pytest_armory.{{holder}}"), attribute, failing(name))
    @pytest.fixture
    def accuracy(): return {accuracy}
"""
IN_WORKERS = 'hasattr(config, "workerinput")'

Steps = dict[str, str]
"""Functions of the package, by names for them."""


def check_said(result: pytest.RunResult, steps: Steps) -> None:
    """Each failure is in the summary, once."""
    output = result.stdout.str()
    assert {name: output.count(f"Error: in {name}") for name in steps} == dict.fromkeys(steps, 1)


def run_failing(evals: Evals, here: Steps, in_workers: Steps, *args: str) -> pytest.RunResult:
    """Run a session in which all these functions fail."""
    failures = FAIL_THERE.format(steps=in_workers, condition=IN_WORKERS, accuracy=0.25)
    evals.pytester.makepyfile(conftest=failures)
    sys.modules.pop("conftest", None)
    with pytest.MonkeyPatch.context() as patch:
        for name, target in here.items():
            patch.setattr(f"pytest_armory.{target}", failing(name))
        result = evals.run(*(["-n1"] if in_workers else []), *args)
    leases._close_held()  # which a later session in this process would have already
    check_said(result, {**here, **in_workers})
    return result


START = {
    "source": "provenance.source_tags",
    "command": "plugin.tracked.redact_argv",
    "checkout": "provenance.checkout_parts",
    "reproduce": "plugin.tracked.command_parts",
    "signals": "plugin.tracked.before_termination",
    "lease": "session.leases.hold",
    "files": "session.reproduce.environment_text",
    "recovery": "session.recovery.recover_dead",
    "plan": "session.ledger.Ledger.take_plan",
}
START_OF_RUNNING = {
    "store": "plugin.attempts.Attempts.prepare",
    "import": "plugin.judging.prepare",
    "gates": "plugin.running.count_gates",
    "left open": "plugin.resuming.Resuming.close_left_open",
    "body": "plugin.attempts.Attempts.begin_body",
    "repeats": "plugin.running.number_of_repeats",
}
WHOLE_START = {"begin": "plugin.process.Process.begin"}
ON_THE_WAY = {
    "touch": "session.leases.Lease.touch",
    "journal": "session.leases.Lease.write_journal",
}
AT_NODES = {"done": "plugin.process.Process.find_done"}


@pytest.mark.parametrize(
    ("here", "in_workers"),
    [
        ({**START, **START_OF_RUNNING}, {}),
        ({**WHOLE_START, "resuming": "plugin.running.RunningHooks._resume"}, {}),
        (ON_THE_WAY, {}),
        ({**START, **AT_NODES}, {**START_OF_RUNNING, "worker's lease": START["lease"]}),
        (WHOLE_START, {"worker's plan": "plugin.wire.attach_plan", **ON_THE_WAY}),
    ],
    ids=["steps", "whole", "way", "n1-steps", "n1-whole"],
)
def test_each_step_of_the_start_may_fail(evals: Evals, here: Steps, in_workers: Steps) -> None:
    """The others are done all the same: the baseline is looked up, and the gate judged by it."""
    evals.write("""
        import pytest
        @pytest.mark.evaluation(baseline={"accuracy": "-0"})
        def test_a(evaluation_run, accuracy): evaluation_run.log_metrics({"accuracy": accuracy})
    """)
    evals.pytester.makeconftest("import pytest\n@pytest.fixture\ndef accuracy(): return 1")
    evals.run().assert_outcomes(passed=1)
    result = run_failing(evals, here, in_workers, "--armory-baseline=latest")
    result.assert_outcomes(failed=1)
    assert len(evals.read()) == 4
    evals.check_accounted(2)


END = {
    "summary": "plugin.ending._write_summary",
    "page": "plugin.ending.SessionEnd._with_page",
    "remarks": "plugin.xdist.share_remarks",
    "release": "session.leases.Lease.release",
}
END_OF_RUNNING = {
    "left open": "store.client.Store.close_left_open",
    "traces": "plugin.mlflow_fixtures.MlflowFixtures.settle",
    "flush": "store.client.Store.flush",
}


@pytest.mark.parametrize(
    ("here", "in_workers"),
    [({**END, **END_OF_RUNNING}, {}), (END, {**END_OF_RUNNING, "lease": END["release"]})],
    ids=["one", "n1"],
)
def test_each_step_of_the_end_may_fail(evals: Evals, here: Steps, in_workers: Steps) -> None:
    evals.write(TESTS.replace("assert 0", "pass"))
    for args, status in (((), 0), (("--armory-strict",), 1)):
        result = run_failing(evals, here, in_workers, "--armory-html=page.html", *args)
        result.assert_outcomes(passed=2, skipped=1)
        assert result.ret == status
        result.stdout.fnmatch_lines(["2 evaluations: 2 passed, tracked to *"])
    assert {run.info.status for run in evals.sessions()} == {"FINISHED"}
    evals.check_accounted(4)


FINISH = {
    "samples": "track.writer.RunWriter.sample_results",
    "changed": "plugin.judging.changed_data_of",
    "known": "plugin.attempts.Attempts.describe",
}


@pytest.mark.parametrize("what", ["parts", "write"])
def test_an_attempt_whose_end_fails(evals: Evals, what: str) -> None:
    """What became of it is stored; of one that was run again inside of its own report, too."""
    pytest.importorskip("pytest_retry")
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        @pytest.mark.flaky(retries=1)
        @pytest.mark.parametrize("eps", [3])
        def test_a(eps, tries=[]):
            tries.append(1)
            assert len(tries) > 1
        def test_b(): raise KeyboardInterrupt
    """)
    steps = FINISH if what == "parts" else {"end": "plugin.attempts.Attempts._write_result"}
    evals.pytester.makeconftest(FAIL_THERE.format(steps=steps, condition=True, accuracy=1))
    result = evals.run("-p", "no:xdist", "-p", "pytest-retry", subprocess=True)
    check_said(result, steps)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    evals.check_accounted(3)
    runs = [run for run in evals.read() if "armory.attempt" in run.data.tags]
    found = sorted((run.data.tags["armory.outcome"], run.data.params.get("eps")) for run in runs)
    eps = None if what == "parts" else "3"
    assert found == [("failed", eps), ("interrupted", None), ("passed", eps)]


def test_values_that_cannot_be_turned_into_text(evals: Evals) -> None:
    """A test that breaks what all of it stands on, for itself and for us."""
    evals.write(TESTS)
    evals.pytester.makeconftest("""
        import json, pytest
        @pytest.fixture(scope="session", autouse=True)
        def broken():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(json.JSONEncoder, "encode", lambda *_, **__: 1 / 0)
                yield
    """)
    result = evals.run()
    assert verdicts(result) == {"passed": 1, "failed": 1, "skipped": 1}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "2 evaluations: 1 passed, 1 failed, *",
            "*warning: tracking failed in *: ZeroDivisionError: *",
        ]
    )
    evals.check_accounted(2)


def test_a_run_that_cannot_be_made_active_is_judged_all_the_same(evals: Evals) -> None:
    """What the test logs is still its run's: a gate on it is neither missed nor passed for it."""
    evals.write("""
        import mlflow, pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(at_least={"a": 1, "b": 1, "c": 1})
        def test_good(evaluation_run):
            evaluation_run.log_metrics({"a": 1})
            track_metrics({"b": 1})
            mlflow.log_metric("c", 1)
        @pytest.mark.evaluation(at_least={"a": 1})
        def test_bad(evaluation_run): evaluation_run.log_metrics({"a": 0})
    """)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_armory.store.active_run.activate", lambda *_, **__: 1 / 0)
        result = evals.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["warning: tracking failed in *: ZeroDivisionError: *"])
    assert evals.run_of("test_good").data.metrics["a"] == 1
    assert evals.run_of("test_bad").data.tags["armory.outcome"] == "failed"


OPENING = {
    "earlier": "pytest_armory.plugin.attempt._with_earlier",
    "mlflow": "pytest_armory.plugin.mlflow_fixtures.MlflowFixtures.keep_uri",
    "parametrized": "pytest_armory.plugin.attempt.Attempt.parametrized",
    "begin": "pytest_armory.plugin.attempts.begin",
}


@pytest.mark.parametrize("what", OPENING)
def test_an_opening_that_fails_opens_no_second_run(evals: Evals, what: str) -> None:
    """The test's body goes on in the one that is open."""
    evals.write(TESTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OPENING[what], lambda *_: 1 / 0)
        result = evals.run()
    assert verdicts(result) == {"passed": 1, "failed": 1, "skipped": 1}
    result.stdout.fnmatch_lines(["*warning: tracking failed in *: ZeroDivisionError: *"])
    evals.check_accounted(2)


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_a_missed_gate_fails_its_test_whatever_fails_after_it(evals: Evals, track: bool) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation(at_least={"a": 1})
        def test_a(evaluation_run): evaluation_run.log_metrics({"a": 0})
    """)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_armory.plugin.attempts.Attempts.end_body", failing("end"))
        result = evals.run(track=track)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*warning: tracking failed in *: in end*"])
    evals.check_accounted(int(track))


RECORDING = {
    "begin": "pytest_armory.plugin.attempts.begin",
    "scope": "pytest_armory.track.context.Scope.__init__",
    "opener": "pytest_armory.plugin.opening.RunOpener.open",
    "open": "pytest_armory.plugin.attempts.Attempts.open",
}


@pytest.mark.parametrize("what", RECORDING)
@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_gates_are_not_judged_where_recording_cannot_begin(
    evals: Evals, what: str, track: bool
) -> None:
    """What the test logs is not known then: its gate would be missed, and it would fail."""
    evals.write("""
        import pytest
        @pytest.mark.evaluation(at_least={"a": 1})
        def test_a(evaluation_run): evaluation_run.log_metrics({"a": 1})
    """)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RECORDING[what], lambda *_, **__: 1 / 0)
        result = evals.run(track=track)
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*warning: its gates are not judged: recording has failed*"])
    lost = int(track and what in ("opener", "open"))
    evals.check_accounted(int(track), lost)
    if lost:
        result.stdout.fnmatch_lines(["1 evaluation: 1 passed, *", "not stored: 1 evaluation"])


def test_runs_whose_session_run_cannot_be_opened(evals: Evals) -> None:
    evals.write(TESTS)
    with pytest.MonkeyPatch.context() as patch:
        target = "pytest_armory.session.session_runs.SessionRuns.parent_of"
        patch.setattr(target, failing("parent"))
        result = evals.run()
    assert verdicts(result) == {"passed": 1, "failed": 1, "skipped": 1}
    result.stdout.fnmatch_lines(["*warning: its run is under no session run: tracking failed *"])
    evals.check_accounted(2)
    assert evals.sessions() == []


def test_an_untracked_session_says_that_gates_are_not_judged(evals: Evals) -> None:
    """It has no summary that would."""
    evals.write("""
        import pytest
        @pytest.mark.evaluation(at_least={"a": 1})
        def test_a(evaluation_run): evaluation_run.log_metrics({"a": 0})
    """)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_armory.plugin.judging.judge_attempt", lambda *_: 1 / 0)
        result = evals.run(track=False)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["armory: warning: its gates are not judged: tracking failed*"])


class Needs(list[Any]):
    """What a fixture requests, which cannot be noted."""

    def append(self, _: object) -> None:
        raise ZeroDivisionError("our own")


class ExecutionThatFails(fixture_params._Execution):
    """The execution of a fixture, with :class:`Needs`."""

    def __init__(self, params: fixture_params.Recorded) -> None:
        super().__init__(params, Needs())


INSIDE = {
    "marker": "pytest_armory.plugin.marker._is_misspelt",
    "case": "pytest_armory.plugin.repeating._state_of_case",
    "repeats": "pytest_armory.track.repeats.Repeats.end_body",
    "start_run": "pytest_armory.store.active_run._place_for",
    "fixture": "pytest_armory.plugin.hooks._remark_unmarked",
    "remarks": "pytest_armory.plugin.hooks.remark_lines",
}


@pytest.mark.parametrize("what", [*INSIDE, "request"])
def test_code_of_ours_inside_of_a_test(
    evals: Evals, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a body that repeats, ``start_run``, our fixture's teardown, its request for another."""
    evals.write("""
        import mlflow, pytest
        @pytest.fixture
        def data(): return 1
        @pytest.fixture
        def more(request, data): return request.getfixturevalue("data")
        @pytest.mark.evaluation(repeats=2)
        def test_a(request):
            request.getfixturevalue("more")
            with mlflow.start_run(nested=True): pass
        @pytest.mark.parametrize("x", [1])
        def test_b(evaluation_run, x): evaluation_run.log_metrics({"a": x})
    """)
    if what == "request":
        monkeypatch.setattr(fixture_params, "_Execution", ExecutionThatFails)
    else:
        monkeypatch.setattr(INSIDE[what], lambda *_: 1 / 0)
    result = evals.run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*warning: *: ZeroDivisionError: *"])
    evals.check_accounted(1)
