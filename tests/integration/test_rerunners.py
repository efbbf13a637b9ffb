"""Together with the other plugins that run a test again: each has its own way round pytest's.

The outcome of an attempt is what was reported of it to pytest itself. What each does:

- *pytest-rerunfailures* runs the whole protocol again and reports each attempt (``rerun``);
- *pytest-retry* calls ``setup``, ``call`` and ``teardown`` again inside ``makereport`` of the call,
  and reports the attempts before the last as ``retried``;
- *flaky* wraps ``pytest_runtest_protocol`` and runs setup, call and teardown again, unreported;
- *pytest-repeat* and *pytest-flakefinder* parametrize: each repetition is a test of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Evals, counts_of, text_of, verdicts

from pytest_armory.cli import main as commands

Row = tuple[str, str, str, str]


def history(evals: Evals) -> list[Row]:
    """What became of every attempt: name, number, outcome, status; sorted by the first two."""
    runs = [run for run in evals.read() if run.data.tags["armory.kind"] == "evaluation"]
    return sorted(
        (
            run.data.tags["armory.nodeid"].removeprefix("test_it.py::"),
            run.data.tags["armory.attempt"],
            run.data.tags["armory.outcome"],
            run.info.status,
        )
        for run in runs
    )


def check(evals: Evals, result: pytest.RunResult, *args: str, subprocess: bool = False) -> None:
    """The verdicts are those with tracking off, nothing is reported as wrong, no run is open."""
    wrong = ("warning:", "not stored:")
    assert [line for line in result.outlines if line.startswith(wrong)] == []
    assert [run.info.status for run in evals.read() if run.info.status == "RUNNING"] == []
    off = evals.run(*args, track=False, subprocess=subprocess)
    assert (off.ret, verdicts(off)) == (result.ret, verdicts(result))


def seconds(evals: Evals) -> list[bool]:
    """Whether each attempt's run says how long it took."""
    runs = [run for run in evals.read() if run.data.tags["armory.kind"] == "evaluation"]
    return ["duration_seconds" in run.data.metrics for run in runs]


FLAKY = """
    import pytest
    from pytest_armory import track_metrics
    seen = []
    @pytest.mark.evaluation
    def test_flaky():
        seen.append(1)
        track_metrics({"seen": len(seen)})
        assert len(seen) == 3, f"no, {len(seen)}"
    @pytest.mark.evaluation
    def test_hopeless(): assert 0, "never"
    @pytest.mark.evaluation
    def test_good(): pass
"""

ATTEMPTS = [
    ("test_flaky", "1", "failed", "FAILED"),
    ("test_flaky", "2", "failed", "FAILED"),
    ("test_flaky", "3", "passed", "FINISHED"),
    ("test_good", "1", "passed", "FINISHED"),
    ("test_hopeless", "1", "failed", "FAILED"),
    ("test_hopeless", "2", "failed", "FAILED"),
    ("test_hopeless", "3", "failed", "FAILED"),
]


def check_attempts(evals: Evals) -> None:
    assert history(evals) == ATTEMPTS
    assert all(seconds(evals))
    runs = {
        (run.info.run_name, run.data.tags["armory.attempt"]): run
        for run in evals.read()
        if run.data.tags["armory.kind"] == "evaluation"
    }
    assert [runs["test_flaky", n].data.metrics["seen"] for n in ("1", "2", "3")] == [1, 2, 3]
    for n in ("1", "2"):
        assert f"no, {n}" in text_of(runs["test_flaky", n], "failure.txt")
        assert "never" in text_of(runs["test_hopeless", n], "failure.txt")
    (session,) = evals.sessions()
    assert counts_of(session) == {"evaluations": 3, "passed": 2, "failed": 1}


SET_BACK = """
    import itertools, time
    import pytest_armory.store.runs as runs
    hours = itertools.count()
    runs.time_ns = lambda: time.time_ns() - next(hours) * 3600 * 10**9
"""


def test_a_clock_that_is_set_back(
    evals: Evals, each_way: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before every request: attempts are in the order in which their process counted them.

    So they are for who reads them later, with nothing but the store.
    """
    evals.pytester.makeconftest(SET_BACK)
    evals.write(FLAKY)
    args = (*each_way, "-p", "rerunfailures", "--reruns=2")
    result = evals.run(*args, subprocess=True)
    result.stdout.fnmatch_lines(["3 evaluations: 2 passed, 1 failed (4 earlier attempts)*"])
    check_attempts(evals)
    capsys.readouterr()
    assert commands.main(["report"]) == 1
    assert "3 evaluations: 2 passed, 1 failed (4 earlier attempts)" in capsys.readouterr().out
    check(evals, result, *args, subprocess=True)


def test_a_clock_that_is_set_back_when_a_worker_has_crashed(evals: Evals) -> None:
    """In setup, so that nothing of it was reported, and its test was given to another."""
    evals.pytester.makeconftest(SET_BACK)
    evals.write("""
        import os, pathlib, pytest
        pytestmark = pytest.mark.evaluation
        @pytest.fixture
        def once():
            if not pathlib.Path("crashed").exists():
                pathlib.Path("crashed").touch()
                os._exit(1)
        def test_a(once): pass
    """)
    args = ("-n1", "--dist=loadfile")
    result = evals.run(*args, subprocess=True)
    rows = history(evals)
    assert [(number, outcome) for _, number, outcome, _ in rows] == [
        ("1", "crashed"),
        ("2", "passed"),
    ]
    (session,) = evals.sessions()
    assert session.data.metrics["passed"] == 1
    assert session.data.metrics["crashed"] == 0
    result.stdout.fnmatch_lines(["1 evaluation: 1 passed (1 earlier attempt)*"])
    (evals.pytester.path / "crashed").unlink()
    evals.check_invariant(result, 2, *args, subprocess=True)


def test_an_attempt_that_is_lost_is_still_the_earlier_one(evals: Evals) -> None:
    evals.write("""
        import pytest
        from unittest import mock
        seen = []
        @pytest.fixture
        def once():
            seen.append(1)
            yield
        @pytest.mark.evaluation
        def test_a(once): assert len(seen) == 2
    """)
    evals.pytester.makeconftest("""
        from pytest_armory.errors import TrackingError
        from pytest_armory.store.client import Store
        create, calls = Store.create_run, []
        def create_run(self, *args):
            calls.append(1)
            if len(calls) == 2:  # after that of the session
                raise TrackingError("full")
            return create(self, *args)
        Store.create_run = create_run
    """)
    args = ("-p", "rerunfailures", "--reruns=2")
    result = evals.run(*args, subprocess=True)
    result.stdout.fnmatch_lines(["1 evaluation: 1 passed (1 earlier attempt)*", "not stored: 1 *"])
    assert [number for _, number, _, _ in history(evals)] == ["2"]
    evals.check_invariant(result, 2, *args, lost=1, subprocess=True)


# pytest-retry; its state is the process's

RETRY = ("-p", "pytest-retry", "--retries=2")


@pytest.fixture
def retry() -> None:
    pytest.importorskip("pytest_retry")


@pytest.mark.usefixtures("retry")
def test_retries_are_attempts(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(FLAKY)
    args = (*each_way, *RETRY)
    result = evals.run(*args, subprocess=True)
    assert result.ret == 1
    check_attempts(evals)
    check(evals, result, *args, subprocess=True)


@pytest.mark.usefixtures("retry")
def test_retries_of_some_tests_and_of_fixtures_that_fail(evals: Evals) -> None:
    evals.write("""
        import pytest, time
        pytestmark = pytest.mark.evaluation
        tries = {"setup": 0, "body": 0, "teardown": 0, "fixture": 0}
        @pytest.fixture
        def fails_once():
            tries["setup"] += 1
            if tries["setup"] == 1: raise RuntimeError("setup")
        @pytest.fixture
        def made():
            tries["fixture"] += 1
            yield tries["fixture"]
        @pytest.fixture
        def fails_after():
            yield
            raise RuntimeError("teardown")
        @pytest.mark.flaky(retries=1)
        def test_setup(fails_once): pass
        @pytest.mark.flaky(retries=1)
        def test_body(made):
            time.sleep(0.05)
            tries["body"] += 1
            assert tries["body"] == 2
            assert made == 2
        @pytest.mark.flaky(retries=1)
        def test_teardown(fails_after): pass
        @pytest.mark.flaky(retries=1, condition=False)
        def test_never(): assert 0
        def test_unmarked(): assert 0
    """)
    args = ("-p", "no:xdist", "-p", "pytest-retry")
    result = evals.run(*args, subprocess=True)
    found = {(name, number): outcome for name, number, outcome, _ in history(evals)}
    assert found["test_body", "1"] == "failed"
    assert found["test_body", "2"] == "passed"
    took = [
        r.data.metrics["duration_seconds"] for r in evals.read() if r.info.run_name == "test_body"
    ]
    assert [0.05 <= one < 5 for one in took] == [True, True]
    assert found["test_setup", "1"] == "error"
    assert found["test_teardown", "1"] == "error"
    assert found["test_never", "1"] == found["test_unmarked", "1"] == "failed"
    assert "crashed" not in found.values()
    check(evals, result, *args, subprocess=True)


@pytest.mark.usefixtures("retry")
def test_a_gate_that_is_missed_is_retried(evals: Evals) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        seen = []
        @pytest.mark.evaluation(at_least={"accuracy": 0.5})
        def test_a():
            seen.append(1)
            track_metrics({"accuracy": 0.4 * len(seen)})
    """)
    args = ("-p", "no:xdist", *RETRY)
    result = evals.run(*args, subprocess=True)
    assert verdicts(result) == {"passed": 1, "retried": 1}
    assert history(evals) == [
        ("test_a", "1", "failed", "FAILED"),
        ("test_a", "2", "passed", "FINISHED"),
    ]
    check(evals, result, *args, subprocess=True)


# flaky

FLAKY_PLUGIN = ("-p", "flaky", "--force-flaky", "--max-runs=3")


@pytest.fixture
def flaky() -> None:
    pytest.importorskip("flaky")


@pytest.mark.usefixtures("flaky")
def test_flaky_runs_are_attempts(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(FLAKY)
    args = (*each_way, *FLAKY_PLUGIN)
    result = evals.run(*args)
    assert result.ret == 1
    check_attempts(evals)
    check(evals, result, *args)


@pytest.mark.usefixtures("flaky")
def test_flaky_wants_several_passes(evals: Evals) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.flaky(max_runs=3, min_passes=2)
        def test_a(): pass
    """)
    args = ("-p", "no:xdist", "-p", "flaky")
    result = evals.run(*args)
    assert verdicts(result) == {"passed": 1}
    assert history(evals) == [
        ("test_a", "1", "passed", "FINISHED"),
        ("test_a", "2", "passed", "FINISHED"),
    ]
    check(evals, result, *args)


# pytest-flakefinder

FINDER = ("-p", "flakefinder", "--flake-finder", "--flake-runs=3")


@pytest.fixture
def flakefinder() -> None:
    pytest.importorskip("pytest_flakefinder")


@pytest.mark.usefixtures("flakefinder")
def test_copies_of_a_test_are_evaluations(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write("""
        import pytest
        seen = []
        @pytest.mark.evaluation
        @pytest.mark.parametrize("eps", [0.1])
        def test_a(eps):
            seen.append(1)
            assert len(seen) != 2
    """)
    args = (*each_way, *FINDER)
    result = evals.run(*args)
    assert verdicts(result) == {"passed": 2, "failed": 1}
    assert sorted(row[2:] for row in history(evals)) == [
        ("failed", "FAILED"),
        ("passed", "FINISHED"),
        ("passed", "FINISHED"),
    ]
    assert all(seconds(evals))
    (session,) = evals.sessions()
    assert counts_of(session) == {"evaluations": 3, "passed": 2, "failed": 1}
    check(evals, result, *args)


# pytest-repeat: its own steps are in test_with_plugins


@pytest.mark.parametrize("scope", ["function", "class", "module", "session"])
def test_repetitions_in_any_order(evals: Evals, scope: str) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        def test_a(): pass
        @pytest.mark.evaluation
        def test_b(): assert 0
    """)
    args = ("-p", "no:xdist", "--count=2", f"--repeat-scope={scope}")
    result = evals.run(*args)
    assert [row[1:] for row in history(evals)] == [
        *[("1", "passed", "FINISHED")] * 2,
        *[("1", "failed", "FAILED")] * 2,
    ]
    check(evals, result, *args)


# A rerunner of one's own: an ordinary wrapper round the protocol


def test_a_protocol_that_runs_twice(evals: Evals) -> None:
    """Whatever is not reported to pytest did not happen to it; our runs say it still."""
    evals.write(
        """
        import pytest
        seen = []
        @pytest.mark.evaluation
        def test_a():
            seen.append(1)
            assert len(seen) == 2
        """,
        conftest="""
        import pytest
        from _pytest.runner import runtestprotocol
        def pytest_runtest_protocol(item, nextitem):
            hook = item.ihook
            hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            if any(report.failed for report in reports):
                item._initrequest()
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
            for report in reports: hook.pytest_runtest_logreport(report=report)
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            return True
        """,
    )
    args = ("-p", "no:xdist")
    result = evals.run(*args)
    assert verdicts(result) == {"passed": 1}
    assert history(evals) == [
        ("test_a", "1", "failed", "FAILED"),
        ("test_a", "2", "passed", "FINISHED"),
    ]
    assert all(seconds(evals))
    check(evals, result, *args)
