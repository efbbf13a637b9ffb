"""Together with the plugins that rerun, repeat, cut off, shuffle, await or measure tests."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

import pytest
from conftest import Evals, counts_of, text_of, verdicts

from pytest_armory.plugin.attempts import Attempts
from pytest_armory.session.recovery import recover
from pytest_armory.store.destination import resolve

ONE = ("-p", "no:xdist")
TWO = ("-n2",)

Row = tuple[str, str, str, str]

TIME_IS_UP = """
        import signal, threading, time
        def time_is_up(method):
            if method == "signal":
                signal.raise_signal(signal.SIGALRM)
            (one,) = [t for t in threading.enumerate() if t.name.startswith("pytest_timeout")]
            threading.Thread(target=one.function, args=one.args, kwargs=one.kwargs).start()
            time.sleep(600)
"""
"""Lets a test's time limit end when its body says so: on a busy machine it may end before it."""


def run_both(evals: Evals, attempts: int, *args: str, subprocess: bool = False) -> pytest.RunResult:
    """Run tracked; everything is as without tracking, and every attempt is stored."""
    result = evals.run(*args, subprocess=subprocess)
    assert [line for line in result.outlines if line.startswith(("warning:", "not stored:"))] == []
    evals.check_invariant(result, attempts, *args, subprocess=subprocess)
    return result


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


def session_run(evals: Evals) -> tuple[str, dict[str, float]]:
    """The one session run's status, and its counts that are not 0."""
    (session,) = evals.sessions()
    return session.info.status, counts_of(session)


# pytest-rerunfailures

RERUNS = ("-p", "rerunfailures")


def test_reruns_are_attempts_at_one_evaluation(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation
        @pytest.mark.parametrize("eps", [0.1])
        def test_flaky(eps, request):
            attempt = request.node.execution_count
            track_metrics({"seen": attempt, f"in {attempt}": 1})
            assert attempt == 3
    """)
    args = (*each_way, *RERUNS, "--reruns=3")
    result = evals.run(*args, "--junitxml=report.xml")
    evals.check_invariant(result, 3, *args)
    assert (result.ret, verdicts(result)) == (0, {"passed": 1, "rerun": 2})
    assert history(evals) == [
        ("test_flaky[0.1]", "1", "failed", "FAILED"),
        ("test_flaky[0.1]", "2", "failed", "FAILED"),
        ("test_flaky[0.1]", "3", "passed", "FINISHED"),
    ]
    for run in evals.read():
        if (attempt := run.data.tags.get("armory.attempt")) is not None:
            metrics = {n: v for n, v in run.data.metrics.items() if n != "duration_seconds"}
            assert metrics == {"seen": float(attempt), f"in {attempt}": 1}
            assert run.data.params == {"eps": "0.1"}
    assert session_run(evals) == ("FINISHED", {"evaluations": 1, "passed": 1})
    result.stdout.fnmatch_lines([
        "  test_flaky?0.1? * failed *",
        "  test_flaky?0.1? (attempt 2) * failed *",
        "  test_flaky?0.1? (attempt 3) * passed *",
        "1 evaluation: 1 passed (2 earlier attempts), tracked to *",
    ])  # fmt: skip
    assert "1 passed (2 earlier attempts)" in text_of(evals.sessions()[0], "summary.md")
    found = ElementTree.parse(evals.pytester.path / "report.xml").iterfind(".//property")
    reported = [one.get("value") for one in found if one.get("name") == "armory_run_id"]
    assert reported == [
        run.info.run_id for run in evals.read() if "armory.attempt" in run.data.tags
    ]


def test_the_last_attempt_decides_whatever_phase_failed(evals: Evals) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_call
        pytestmark = pytest.mark.evaluation
        def load(n): return n
        @pytest.fixture(scope="module")
        def shared(track_call): return track_call(load, n=1)
        @pytest.fixture
        def breaks(request):
            if request.node.execution_count == 1: raise RuntimeError("not yet")
        @pytest.fixture
        def breaks_later(request):
            yield
            if request.node.execution_count == 1: raise RuntimeError("not yet")
        def test_setup(shared, breaks): pass
        def test_teardown(shared, breaks_later): pass
        def test_hopeless(shared): assert 0
        @pytest.mark.flaky(reruns=0)
        def test_once(): assert 0
    """)
    result = run_both(evals, 8, *ONE, *RERUNS, "--reruns=2")
    assert result.ret == 1
    assert history(evals) == [
        ("test_hopeless", "1", "failed", "FAILED"),
        ("test_hopeless", "2", "failed", "FAILED"),
        ("test_hopeless", "3", "failed", "FAILED"),
        ("test_once", "1", "failed", "FAILED"),
        ("test_setup", "1", "error", "FAILED"),
        ("test_setup", "2", "passed", "FINISHED"),
        ("test_teardown", "1", "error", "FAILED"),
        ("test_teardown", "2", "passed", "FINISHED"),
    ]
    for run in evals.read():
        uses_it = run.info.run_name in ("test_setup", "test_teardown", "test_hopeless")
        assert run.data.params.get("load.n") == ("1" if uses_it else None)
    assert session_run(evals) == ("FAILED", {"evaluations": 4, "passed": 2, "failed": 2})
    result.stdout.fnmatch_lines(["4 evaluations: 2 passed, 2 failed (4 earlier attempts), *"])


def test_a_crashed_test_is_tried_again_on_another_worker(evals: Evals) -> None:
    """Each worker counts its own attempts; the numbers are those of the session.

    A time limit by thread ends the worker, which is a crash; by signal it is a failure.
    """
    evals.write(
        TIME_IS_UP
        + """
        import os, pytest
        pytestmark = pytest.mark.evaluation
        def test_killed(request):
            if request.node.execution_count == 1: os.kill(os.getpid(), signal.SIGKILL)
            assert request.node.execution_count == 3
        @pytest.mark.flaky(reruns=0)
        @pytest.mark.timeout(600, method="thread")
        def test_thread(evaluation_run):
            evaluation_run.log_metrics({"seen": 1})
            time_is_up("thread")
        @pytest.mark.flaky(reruns=0)
        @pytest.mark.timeout(600, method="signal")
        def test_signal(evaluation_run):
            evaluation_run.log_metrics({"seen": 1})
            time_is_up("signal")
        def test_lives(): pass
    """
    )
    result = run_both(evals, 6, *TWO, *RERUNS, "--reruns=2")
    assert (result.ret, verdicts(result)) == (1, {"passed": 2, "failed": 2, "rerun": 2})
    assert history(evals) == [
        ("test_killed", "1", "crashed", "FAILED"),
        ("test_killed", "2", "failed", "FAILED"),
        ("test_killed", "3", "passed", "FINISHED"),
        ("test_lives", "1", "passed", "FINISHED"),
        ("test_signal", "1", "failed", "FAILED"),
        ("test_thread", "1", "crashed", "FAILED"),
    ]
    runs = [run for run in evals.read() if run.info.run_name == "test_killed"]
    workers = [run.data.tags["armory.worker"] for run in runs]
    assert [len(list(group)) for _, group in groupby(workers)] == [1, 2]
    slow = [run for run in evals.read() if run.info.run_name in ("test_signal", "test_thread")]
    assert [run.data.metrics["seen"] for run in slow] == [1, 1]
    counts = {"evaluations": 4, "passed": 2, "failed": 1, "crashed": 1}
    assert session_run(evals) == ("FAILED", counts)
    result.stdout.fnmatch_lines([
        "4 evaluations: 2 passed, 1 failed, 1 crashed (2 earlier attempts), *",
    ])  # fmt: skip


# pytest-repeat


def test_repetitions_are_evaluations_of_their_own(evals: Evals) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.parametrize("eps", [0.1])
        def test_a(eps): pass
    """)
    result = run_both(evals, 3, *ONE, "--count=3")
    result.assert_outcomes(passed=3)
    assert history(evals) == [
        (f"test_a[0.1-{step}-3]", "1", "passed", "FINISHED") for step in (1, 2, 3)
    ]
    for step in (1, 2, 3):
        # The name is pytest-repeat's own for its fixture.
        params = evals.run_of(f"test_a[0.1-{step}-3]").data.params
        assert params == {"eps": "0.1", "__pytest_repeat_step_number": str(step - 1)}
    assert session_run(evals) == ("FINISHED", {"evaluations": 3, "passed": 3})
    result.stdout.fnmatch_lines(["3 evaluations: 3 passed, tracked to *"])


# pytest-timeout


def test_a_time_limit_by_signal_fails_the_test(evals: Evals) -> None:
    evals.write(
        TIME_IS_UP
        + """
        import pytest
        pytestmark = pytest.mark.evaluation
        @pytest.fixture
        def slow(): time_is_up("signal")
        def test_body(evaluation_run):
            evaluation_run.log_metrics({"seen": 1})
            time_is_up("signal")
        def test_fixture(slow): pass
        def test_fast(): pass
    """
    )
    result = run_both(evals, 3, *ONE, "--timeout=600", "--timeout-method=signal")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    assert history(evals) == [
        ("test_body", "1", "failed", "FAILED"),
        ("test_fast", "1", "passed", "FINISHED"),
        ("test_fixture", "1", "error", "FAILED"),
    ]
    assert evals.run_of("test_body").data.metrics["seen"] == 1
    assert "Timeout (>600.0s)" in text_of(evals.run_of("test_body"), "failure.txt")
    result.stdout.fnmatch_lines(["3 evaluations: 1 passed, 1 failed, 1 error, tracked to *"])


@pytest.mark.parametrize("by", ["command", "next-session"])
def test_what_a_time_limit_by_thread_left_is_closed_later(evals: Evals, by: str) -> None:
    """It ends the process on the spot, so nothing can be closed before."""
    evals.write(
        TIME_IS_UP
        + """
        import pytest
        pytestmark = pytest.mark.evaluation
        def test_before(): pass
        @pytest.mark.timeout(600, method="thread")
        def test_slow(evaluation_run):
            evaluation_run.log_metrics({"seen": 1})
            time_is_up("thread")
        def test_after(): pass
    """
    )
    result = evals.run(*ONE, subprocess=True)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*+ Timeout +*", "*Stack of MainThread*", "*time_is_up(?thread?)"])
    ours = {str(run.info.run_name).split()[-1]: run.info.status for run in evals.read()}
    assert ours == {"test_before": "FINISHED", "test_slow": "RUNNING", "session": "RUNNING"}
    dead = evals.sessions()[0].data.tags["armory.session"]

    if by == "command":
        found = recover(resolve(None))
        assert (len(found.closed), found.alive, found.unknown) == (2, [], [])
        assert recover(resolve(None)).closed == []
    else:
        result = evals.run(*ONE, "-k", "test_before")
        result.assert_outcomes(passed=1, deselected=2)
        result.stdout.fnmatch_lines([f"session {dead} was killed: closed 2 runs it left open"])

    first = [run for run in evals.read() if run.data.tags["armory.session"] == dead]
    names = {str(run.info.run_name).split()[-1]: run for run in first}
    assert {name: run.info.status for name, run in names.items()} == {
        "test_before": "FINISHED", "test_slow": "KILLED", "session": "KILLED",
    }  # fmt: skip
    assert names["test_slow"].data.tags["armory.outcome"] == "interrupted"
    assert names["test_slow"].data.metrics["seen"] == 1
    assert counts_of(names["session"]) == {"evaluations": 2, "passed": 1, "interrupted": 1}


@pytest.mark.parametrize("step", ["open", "describe", "finish"])
def test_a_slow_store_is_not_the_tests_time(
    evals: Evals, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-timeout's alarm would go off in our hooks, and be an internal error there."""
    own = getattr(Attempts, step)
    left: list[tuple[float, float]] = []

    def slow(attempts: Attempts, subject: object) -> object:
        if attempts.destination is not None:
            left.append(signal.getitimer(signal.ITIMER_REAL))
        return own(attempts, subject)

    monkeypatch.setattr(Attempts, step, slow)
    evals.write("""
        import signal, pytest
        @pytest.mark.evaluation
        def test_a(): assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 600
        def test_b(): assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 600
    """)
    result = run_both(evals, 1, *ONE, "--timeout=600")
    result.assert_outcomes(passed=2)
    assert {*left} == {(0, 0)}


# pytest-randomly


def test_a_shuffled_order_changes_no_run(evals: Evals) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        def load(n): return n
        @pytest.fixture(scope="session", params=[1, 2])
        def data(request, track_call): return track_call(load, n=request.param)
        @pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(3))
        def test_with(data, i): track_metrics({"product": data * i})
        @pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(3))
        def test_without(i): pass
    """)
    result = run_both(evals, 9, *ONE, "-p", "randomly", "--randomly-seed=3")
    result.assert_outcomes(passed=9)
    result.stdout.fnmatch_lines(["Using --randomly-seed=3", "9 evaluations: 9 passed, tracked *"])
    runs = evals.runs()
    assert list(runs) != sorted(runs)
    assert sorted(runs) == [
        *(f"test_with[{n}-{i}]" for n in (1, 2) for i in range(3)),
        *(f"test_without[{i}]" for i in range(3)),
    ]
    for n in (1, 2):
        for i in range(3):
            run = runs[f"test_with[{n}-{i}]"]
            assert (run.data.params["load.n"], run.data.params["i"]) == (str(n), str(i))
            assert run.data.metrics["product"] == n * i
    assert all(runs[f"test_without[{i}]"].data.params == {"i": str(i)} for i in range(3))


# pytest-asyncio

ASYNC = """
    import asyncio, pytest, pytest_asyncio
    from pytest_armory import track_metrics
    pytestmark = pytest.mark.evaluation
    def load(n): return n
    def load_own(m): return m
    @{fixture}(scope="module")
    async def data(track_call):
        await asyncio.sleep(0)
        yield track_call(load, n=1)
        await asyncio.sleep(0)
    @{fixture}
    async def own(track_call): return track_call(load_own, m=2)
    {mark}
    async def test_a(data, own):
        await asyncio.sleep(0)
        track_metrics({{"sum": data + own}})
    {mark}
    async def test_b(data):
        async def task(n): track_metrics({{f"task {{n}}": n}})
        await asyncio.gather(*map(task, range(3)))
        assert 0
    def test_c(data): pass
"""
MODES = {
    "strict": {"mark": "@pytest.mark.asyncio", "fixture": "pytest_asyncio.fixture"},
    "auto": {"mark": "", "fixture": "pytest.fixture"},
}


@pytest.mark.parametrize("mode", MODES)
def test_coroutines_and_asynchronous_fixtures(evals: Evals, mode: str) -> None:
    evals.write(ASYNC.format(**MODES[mode]))
    result = run_both(evals, 3, *ONE, "-o", f"asyncio_mode={mode}")
    result.assert_outcomes(passed=2, failed=1)
    runs = evals.runs()
    shared = {"load._func": "test_it.load", "load.n": "1"}
    own = {"load_own._func": "test_it.load_own", "load_own.m": "2"}
    assert runs["test_a"].data.params == {**shared, **own}
    assert runs["test_a"].data.metrics["sum"] == 3
    assert runs["test_b"].info.status == "FAILED"
    assert runs["test_b"].data.metrics.keys() >= {"task 0", "task 1", "task 2"}
    assert runs["test_b"].data.params == runs["test_c"].data.params == shared


# pytest-cov, and all of them


def test_all_of_them_in_workers(evals: Evals) -> None:
    evals.write("""
        import asyncio, pytest
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation
        def load(n): return n
        @pytest.fixture(scope="session")
        async def data(track_call): return track_call(load, n=1)
        async def test_a(data, request):
            await asyncio.sleep(0)
            track_metrics({"attempt": request.node.execution_count})
            assert request.node.execution_count == 2
        @pytest.mark.parametrize("i", range(4))
        def test_b(data, i): track_metrics({"i": i})
        def test_c(): pass
    """)
    all_of_them = (
        *RERUNS, "--reruns=1", "--count=2", "--timeout=60", "-o", "asyncio_mode=auto",
        "-p", "randomly", "--randomly-seed=3", "-p", "pytest_cov", "--cov=.", "--cov-report=term",
    )  # fmt: skip
    result = run_both(evals, 14, "-n1", *all_of_them)
    assert (result.ret, verdicts(result)) == (0, {"passed": 12, "rerun": 2})
    assert history(evals) == [
        ("test_a[1-2]", "1", "failed", "FAILED"),
        ("test_a[1-2]", "2", "passed", "FINISHED"),
        ("test_a[2-2]", "1", "failed", "FAILED"),
        ("test_a[2-2]", "2", "passed", "FINISHED"),
        *(
            (f"test_b[{i}-{step}-2]", "1", "passed", "FINISHED")
            for i in range(4)
            for step in (1, 2)
        ),
        ("test_c[1-2]", "1", "passed", "FINISHED"),
        ("test_c[2-2]", "1", "passed", "FINISHED"),
    ]
    for run in evals.read():
        tags, metrics, params = run.data.tags, run.data.metrics, run.data.params
        name = str(run.info.run_name).partition("[")[0]
        assert params.get("load.n") == ("1" if name in ("test_a", "test_b") else None)
        if name == "test_a":
            assert metrics["attempt"] == float(tags["armory.attempt"])
        if name == "test_b":
            assert metrics["i"] == float(params["i"])
    assert session_run(evals) == ("FINISHED", {"evaluations": 12, "passed": 12})
    result.stdout.fnmatch_lines(["test_it.py * 100%", "TOTAL *"])
    result.stdout.fnmatch_lines(["12 evaluations: 12 passed (2 earlier attempts), tracked to *"])
