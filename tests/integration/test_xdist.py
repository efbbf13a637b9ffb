"""Every way of distributing gives the same runs, one session run, and a summary of all."""

from __future__ import annotations

import pytest
from conftest import Evals

MANY = """
    import pytest
    from pytest_armory import track_metrics
    def load(n): return n
    @pytest.fixture(scope="module")
    def data(track_call): return track_call(load, n=1)
    @pytest.mark.evaluation
    @pytest.mark.parametrize("i", range(4))
    def test_a(data, i): track_metrics({"accuracy": i / 4})
    @pytest.mark.evaluation
    class TestIt:
        @pytest.mark.xdist_group("one")
        def test_b(self, data): pass
        @pytest.mark.xdist_group("one")
        def test_c(self): assert 0
    def test_plain(): pass
"""

MODES = [
    ("-n2", "--dist=load"),
    ("-nauto", "--maxprocesses=2", "--dist=loadgroup"),
]


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_the_same_runs_however_they_are_distributed(evals: Evals, mode: tuple[str, ...]) -> None:
    evals.write(MANY)
    result = evals.run(*mode)
    result.assert_outcomes(passed=6, failed=1)
    runs = evals.runs()
    assert {name.partition("@")[0]: run.info.status for name, run in runs.items()} == {
        **{f"test_a[{i}]": "FINISHED" for i in range(4)}, "test_b": "FINISHED", "test_c": "FAILED",
    }  # fmt: skip
    (session,) = evals.sessions()
    assert session.data.metrics["evaluations"] == 6
    for name, run in runs.items():
        assert run.data.tags["mlflow.parentRunId"] == session.info.run_id
        assert run.data.tags["armory.worker"] in ("gw0", "gw1")
        assert run.data.params.get("load.n") == (None if "test_c" in name else "1")
    result.stdout.fnmatch_lines(["*6 evaluations: 5 passed, 1 failed, tracked to *"])
    evals.check_invariant(result, attempts=6)


def test_dist_alone_distributes_nothing(evals: Evals) -> None:
    """It stands in many an ini file, for the day that ``-n`` is given."""
    evals.pytester.makeini("[pytest]\naddopts = --dist=loadgroup")
    evals.write(MANY)
    result = evals.run()
    result.assert_outcomes(passed=6, failed=1)
    evals.check_invariant(result, attempts=6)


@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
def test_stopping_at_the_first_failure_is_no_interruption(
    evals: Evals, way: tuple[str, ...]
) -> None:
    evals.write(MANY)
    evals.run("-x", *way)
    assert [run.info.status for run in evals.sessions()] == ["FAILED"]
    assert "RUNNING" not in {run.info.status for run in evals.read()}


def test_each_worker_runs_everything(evals: Evals) -> None:
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    result = evals.run("--dist=each", "--tx", "2*popen")
    result.assert_outcomes(passed=2)
    runs = [r for r in evals.read() if r.data.tags["armory.kind"] == "evaluation"]
    assert {run.data.tags["armory.worker"] for run in runs} == {"gw0", "gw1"}
    assert len(evals.sessions()) == 1
    result.stdout.fnmatch_lines(["*2 evaluations: 2 passed, tracked to *"])
    result.stdout.fnmatch_lines_random(["  test_a (gw0)  passed *", "  test_a (gw1)  passed *"])


def test_the_summary_is_what_the_store_holds(evals: Evals) -> None:
    """A run that somebody deleted meanwhile is not reported as stored."""
    evals.pytester.makepyfile(
        conftest="""
        import os, pytest
        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish(session):
            if hasattr(session.config, "workerinput"):
                return
            from mlflow import MlflowClient
            client = MlflowClient(f"sqlite:///{os.environ['ARMORY_HOME']}/mlruns/mlflow.db")
            for run in client.search_runs(["0", "1"], "attributes.run_name = 'test_gone'"):
                client.delete_run(run.info.run_id)
        """
    )
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        def test_gone(): pass
        def test_there(): pass
    """)
    for way in ((), ("-n1",)):
        result = evals.run(*way)
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["not stored: 1 evaluation"])
