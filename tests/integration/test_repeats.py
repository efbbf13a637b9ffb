"""``repeats``: one item, one run, and the body several times in its call phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Evals, artifacts_of
from mlflow import MlflowClient

from pytest_armory.engine import progress
from pytest_armory.plugin import repeating
from pytest_armory.store.database import sqlite_uri
from pytest_armory.track import repeats

SUITE = """
    import asyncio, unittest, warnings
    import mlflow, numpy, pytest
    from pytest_armory import Engine, Evaluation, correct, track_call, track_metrics, track_samples
    pytestmark = pytest.mark.evaluation(name="repeated", repeats=3)
    COUNT = {}
    def turn(name):
        COUNT[name] = COUNT.get(name, -1) + 1
        return COUNT[name]
    def load(n): return n

    @pytest.fixture
    def shared(): return []

    @pytest.mark.evaluation(at_least={"a": 1.0}, at_most={"a": 1.0, "loss": 0.3})
    def test_plain(shared, evaluation_run):
        shared.append(1)
        n = turn("plain")
        track_metrics({"a": n})
        assert len(shared) == n + 1
        track_metrics({"loss": [0.9, 0.6, 0.1 * n]}) if False else None
        for step, value in enumerate([0.9, 0.3 * n]):
            track_metrics({"loss": value}, step=step)
        track_call(load, n=n)
        evaluation_run.log_param("seed", n)
        mlflow.log_metric("own", 10 * n)
        with mlflow.start_run(nested=True):
            mlflow.log_metric("inner", n)

    @pytest.mark.parametrize("x", [1])
    async def test_async(x):
        await asyncio.sleep(0)
        track_metrics({"a": turn("async")})

    class TestCase(unittest.TestCase):
        def setUp(self): self.ready = True
        def test_unittest(self):
            assert self.ready
            track_metrics({"a": turn("unittest")})
        def test_failing(self):
            self.assertLess(turn("failing"), 1)

    def test_fails():
        n = turn("fails")
        track_metrics({"a": n})
        track_samples({"right": [1, n]})
        assert n < 1

    @pytest.mark.evaluation(at_least={"a": 1.5})
    def test_gate():
        track_metrics({"a": turn("gate")})

    @pytest.mark.evaluation(repeats=1)
    def test_once():
        track_metrics({"a": turn("once")})

    @pytest.mark.evaluation(repeats=2)
    def test_samples():
        right = [[1, 0, 1, 1], [1, 1, 0, 1]][turn("samples")]
        track_samples({"right": right}, ids=["a", "b", "c", "d"])
        predictions = numpy.array([[1, 1], [1, 0]][COUNT["samples"]])
        data = (numpy.zeros((2, 1)), numpy.array([1, 1]))
        evaluation = Evaluation(name="e", dataset=data, model=lambda x: predictions,
                                sample_metrics={"correct": correct})
        Engine(evaluation).run()
"""
ASYNC = ("-p", "asyncio", "-o", "asyncio_mode=auto", "-p", "no:anyio")
WAYS = [("-n0",), ("-n1",)]


def history(evals: Evals, run_id: str, key: str) -> list[tuple[int, float]]:
    client = MlflowClient(sqlite_uri(evals.home / "mlruns" / "mlflow.db"))
    values = client.get_metric_history(run_id, key)
    return [(value.step, value.value) for value in sorted(values, key=lambda v: v.timestamp)]


@pytest.mark.parametrize("way", WAYS, ids="".join)
def test_repeats(evals: Evals, way: Sequence[str]) -> None:
    evals.write(SUITE)
    result = evals.run("-p", "no:randomly", *ASYNC, *way)
    result.assert_outcomes(passed=5, failed=3)
    runs = evals.runs()
    ids = {name: run.info.run_id for name, run in runs.items()}
    assert runs["test_plain"].info.status == "FINISHED"
    for name in ("test_plain", "test_async[1]", "test_unittest", "test_gate"):
        assert history(evals, ids[name], "a") == [(0, 0), (1, 1), (2, 2), (3, 1)]
        metrics = runs[name].data.metrics
        assert metrics["a"] == 1
        assert (round(metrics["a/ci_low"], 3), round(metrics["a/ci_high"], 3)) == (-1.484, 3.484)
        assert runs[name].data.tags["armory.repeats"] == "3"
    plain = ids["test_plain"]
    loss = history(evals, plain, "loss")
    assert [step for step, _ in loss] == [0, 1, 0, 1, 0, 1, 2]
    assert loss[-1][1] == pytest.approx(0.3)
    assert history(evals, plain, "own") == [(0, 0), (0, 10), (0, 20), (1, 10)]
    assert history(evals, plain, "inner") == [(0, 0), (1, 1), (2, 2), (3, 1)]
    params = runs["test_plain"].data.params
    assert (params["load.n"], params["seed"]) == ("2", "0")
    assert history(evals, ids["test_fails"], "a") == [(0, 0), (1, 1)]
    assert history(evals, ids["test_fails"], "right") == [(0, 0.5), (1, 1)]
    assert "armory.repeats" not in runs["test_fails"].data.tags
    assert history(evals, ids["test_once"], "a") == [(0, 0)]
    result.stdout.fnmatch_lines(["*a 1 is below *at_least*", "*Warning*"][:1])
    assert "ParameterWarning" not in result.stdout.str()
    assert runs["test_failing"].info.status == "FAILED"


@pytest.mark.parametrize("args", [(), ("--armory-repeats=2",)], ids=["marker", "option"])
def test_repeated_samples(evals: Evals, args: Sequence[str]) -> None:
    evals.write(SUITE)
    result = evals.run("-k", "samples or once", "-p", "no:randomly", *args)
    result.assert_outcomes(passed=2)
    run = evals.run_of("test_samples")
    metrics, run_id = run.data.metrics, run.info.run_id
    assert history(evals, run_id, "right") == [(0, 0.75), (1, 0.75), (2, 0.75)]
    assert history(evals, run_id, "correct") == [(0, 1), (1, 0.5), (2, 0.75)]
    assert (metrics["right/pass_hat_2"], metrics["right/pass_at_2"]) == (0.5, 1.0)
    assert (metrics["correct/pass_hat_2"], metrics["correct/pass_at_2"]) == (0.5, 1.0)
    assert metrics["right/ci_low"] < 0.75 < metrics["right/ci_high"]
    assert "samples.parquet" in artifacts_of(run)
    import pyarrow.parquet as parquet

    table = parquet.read_table(artifacts_of(run)["samples.parquet"]).to_pandas()
    rows = table[table["right"] == table["right"]] if "right" in table else table
    assert sorted(rows["repeat"]) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert sorted(np.unique(rows["sample"])) == ["a", "b", "c", "d"]
    once = evals.run_of("test_once")
    assert ("armory.repeats" in once.data.tags) is bool(args)


def test_cases_with_a_loop_of_their_own_and_traces(evals: Evals) -> None:
    """A ``TestCase`` can run once; all traces of a body are in its run."""
    evals.write("""
        import unittest
        import mlflow, pytest
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(name="turns", repeats=3)
        TURNS = []
        @mlflow.trace
        def answer(question): return question + 1
        class TestLoop(unittest.IsolatedAsyncioTestCase):
            @pytest.fixture(autouse=True)
            def given(self): self.given = 7
            async def asyncSetUp(self): self.turn = len(TURNS)
            async def test_async(self):
                assert not hasattr(self, "left")
                self.left = TURNS.append(self.given)
                with self.subTest("one"):
                    track_metrics({"a": self.turn})
        def test_traces():
            for question in range(2): answer(question)
    """)
    result = evals.run("-p", "no:randomly", subprocess=True)
    result.assert_outcomes(passed=2)
    ids = {name: run.info.run_id for name, run in evals.runs().items()}
    assert history(evals, ids["test_async"], "a") == [(0, 0), (1, 1), (2, 2), (3, 1)]
    run = evals.run_of("test_traces")
    client = MlflowClient(sqlite_uri(evals.home / "mlruns" / "mlflow.db"))
    mine = f"request_metadata.`mlflow.sourceRun` = '{run.info.run_id}'"
    traces = client.search_traces([run.info.experiment_id], filter_string=mine)
    assert len(traces) == 6
    evals.run("--armory-repeats=2", track=False).assert_outcomes(passed=2)


def test_untracked(evals: Evals) -> None:
    evals.pytester.makeini("[pytest]\narmory_repeats = 3")
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(at_least={"a": 1}, at_most={"a": 1})
        def test_a(count=[]):
            count.append(1)
            track_metrics({"a": len(count) - 1})
        @pytest.fixture
        def late(request): request.node.add_marker(pytest.mark.evaluation(at_least={"a": 2}))
        def test_late(late, count=[]):
            count.append(1)
            track_metrics({"a": len(count)})
        def test_plain(count=[]):
            count.append(1)
            assert len(count) == 1
        @pytest.mark.evaluation(at_least={"a": 1})
        def test_large(): track_metrics({"a": 1.7e308})
    """)
    result = evals.run("-p", "no:randomly", track=False)
    result.assert_outcomes(passed=4)
    result.stdout.no_fnmatch_line("armory: warning: *")
    evals.run("-k", "late", track=False).assert_outcomes(passed=1, deselected=3)
    evals.run("-n1", track=False).assert_outcomes(passed=4)
    result = evals.run("--armory-repeats=1", track=False)
    result.assert_outcomes(passed=2, failed=2)


def test_a_terminal_shows_which_repeat_it_is(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    evals.pytester.makeconftest("""
        import pytest
        @pytest.hookimpl(trylast=True)
        def pytest_configure(config):
            reporter = config.pluginmanager.get_plugin("terminalreporter")
            reporter.isatty = type(reporter.isatty)(config.getoption("--terminal"))
        def pytest_addoption(parser):
            parser.addoption("--terminal", action="store_true")
    """)
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        @pytest.mark.parametrize("n", [pytest.param(n, marks=pytest.mark.evaluation(repeats=n))
                                       for n in (3, 50)])
        def test_a(n):
            print("captured")
            track_metrics({"a": 1})
        def test_plain(): pass
    """)
    args = ("-p", "no:randomly", "-v")
    quick = evals.run(*args, "--terminal", track=False)
    monkeypatch.setattr(repeating, "SHOW_SECONDS", 0.0)
    shown = evals.run(*args, "--terminal", track=False)
    shown.stdout.fnmatch_lines(
        [
            "test_it.py::test_a[[]3] 2/3 3/3 PASSED *",
            "test_it.py::test_a[[]50] 5/50 10/50 15/50 * 45/50 50/50 PASSED*",
            "test_it.py::test_plain PASSED *",
        ]
    )
    behind = "\x1b[K\x1b7\x1b[?7l {}/3\x1b[?7h\x1b8"  # the cursor stays where it is
    dots = evals.run(*args[:2], "--terminal", "--color=yes", track=False)
    assert f"test_it.py {behind.format(2)}{behind.format(3)}\x1b[K\x1b[32m." in dots.stdout.str()
    not_captured = evals.run(*args[:2], "--terminal", "--color=yes", "-s", track=False)
    log = evals.run(*args, track=False)
    for result in (quick, log, not_captured):
        result.assert_outcomes(passed=3)
        result.stdout.no_fnmatch_line("*2/3*")


def test_the_newest_progress_is_what_mlflow_shows(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of a metric's values that is, the highest step decides."""
    monkeypatch.setattr(repeats, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    evals.write("""
        import numpy, pytest
        from pytest_armory import Engine, Evaluation
        @pytest.mark.evaluation(repeats=3)
        def test_body(): pass
        @pytest.mark.evaluation(repeats=2)
        def test_engine():
            data = [(numpy.zeros(2), numpy.zeros(2))] * 2
            Engine(Evaluation(name="e", dataset=data, model=lambda x: x, metrics={})).run()
    """)
    evals.run("-p", "no:randomly").assert_outcomes(passed=2)
    ids = {name: run.info.run_id for name, run in evals.runs().items()}
    assert history(evals, ids["test_body"], "progress/repeat") == [(0, 2), (1, 3)]
    engine = ids["test_engine"]
    assert history(evals, engine, "progress/repeat") == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2)]
    assert history(evals, engine, "progress/samples") == [(0, 2), (1, 4), (3, 2), (4, 4)]


def test_with_reruns_and_timeouts(evals: Evals) -> None:
    evals.write("""
        import time, pytest
        from pathlib import Path
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(repeats=3)
        def test_flaky():
            with open("bodies", "a") as file: file.write("x")
            n = len(Path("bodies").read_text())
            track_metrics({"a": n})
            assert n != 2
        @pytest.mark.timeout(1.5)
        def test_slow():
            time.sleep(0.8)
    """)
    result = evals.run("-p", "rerunfailures", "--reruns=1", "-p", "no:randomly", "-k", "flaky")
    assert (evals.pytester.path / "bodies").read_text() == "x" * 5
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1, "deselected": 1}
    attempts = [run for run in evals.read() if run.info.run_name == "test_flaky"]
    assert [run.data.tags["armory.outcome"] for run in attempts] == ["failed", "passed"]
    assert history(evals, attempts[1].info.run_id, "a") == [(0, 3), (1, 4), (2, 5), (3, 4)]
    result = evals.run("-k", "not flaky")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*Timeout*"])


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="the subtests fixture came with pytest 9")
@pytest.mark.parametrize("way", WAYS, ids="".join)
def test_a_failed_subtest_ends_them(evals: Evals, way: Sequence[str]) -> None:
    """Of the fixture as of a ``TestCase``: the body itself has not raised."""
    evals.write("""
        import pytest, unittest
        from pathlib import Path
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(repeats=3)
        def body(name):
            with open(name, "a") as file: file.write("x")
            n = len(Path(name).read_text())
            track_metrics({"a": n})
            return n
        def test_fixture(subtests):
            n = body("fixture")
            with subtests.test(msg="one"): assert n < 2
        class TestCase(unittest.TestCase):
            def test_case(self):
                n = body("case")
                with self.subTest("one"): self.assertLess(n, 2)
    """)
    assert evals.run(*way).ret == 1
    for name in ("fixture", "case"):
        assert (evals.pytester.path / name).read_text() == "xx"
        run = evals.run_of(f"test_{name}")
        assert (run.info.status, run.data.metrics["a"]) == ("FAILED", 2)
        assert "armory.repeats" not in run.data.tags


REFUSED = [
    ("repeats=0", (), "*(repeats=…) must be a whole number from 1 to 1,000*got 0*"),
    ("repeats=True", (), "*(repeats=…) must be a whole number*got True*"),
    ("", ("--armory-repeats", "many"), "*--armory-repeats must be a whole number*got 'many'*"),
]


@pytest.mark.parametrize(("mark", "args", "expected"), REFUSED)
def test_numbers_that_cannot_be_used(
    evals: Evals, mark: str, args: Sequence[str], expected: str
) -> None:
    evals.write(f"import pytest\n@pytest.mark.evaluation({mark})\ndef test_a(): pass")
    result = evals.run(*args, track=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([expected])
    assert Path(evals.home).exists()


def test_ctrl_c_waits_for_what_is_done_between_the_bodies(evals: Evals) -> None:
    """The means of what was repeated are stored, and the test ends as interrupted."""
    evals.pytester.makeconftest("""
        import os, signal
        from pytest_armory.track.repeats import Repeats
        finish = Repeats.finish
        def interrupted(self):
            os.kill(os.getpid(), signal.SIGINT)
            finish(self)
        Repeats.finish = interrupted
        signal.signal(signal.SIGINT, signal.default_int_handler)
    """)
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        values = iter([1, 2, 6])
        @pytest.mark.evaluation(repeats=3)
        def test_a(): track_metrics({"a": next(values)})
    """)
    result = evals.run("-p", "no:xdist", subprocess=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    run = evals.run_of("test_a")
    assert run.data.tags["armory.outcome"] == "interrupted"
    assert run.data.metrics["a"] == 3
    evals.check_accounted(1)


def test_timings_of_several_engines_have_no_intervals(evals: Evals) -> None:
    """Nor has the engine's own number of a second one, whose name it begins with."""
    evals.write("""
        import pytest
        from pytest_armory import Engine, Evaluation, track_metrics
        @pytest.mark.filterwarnings("ignore::pytest_armory.errors.MetricWarning")
        @pytest.mark.evaluation(repeats=2)
        def test_two():
            for name in ("clean", "pgd/l2"):
                metrics = {"a": lambda targets, predictions: 1.0}
                data, same = [([1], [1])], lambda inputs: inputs
                Engine(Evaluation(name=name, dataset=data, model=same, metrics=metrics)).run()
            track_metrics({"judge/errors_per_page": 0.5})
    """)
    result = evals.run()
    result.assert_outcomes(passed=1)
    metrics = evals.run_of("test_two").data.metrics
    intervals = {name for name in metrics if name.endswith("/ci_low")}
    assert "pgd/l2/time/predict_seconds" in metrics
    assert intervals == {"a/ci_low", "pgd/l2/a/ci_low", "judge/errors_per_page/ci_low"}
    evals.check_invariant(result, attempts=1)
