"""What a plain tracked evaluation costs: the modules that are imported, the calls to MLflow."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from conftest import Evals
from mlflow import MlflowClient

SPY = """
import sys

class Spy:
    # Who imports what: the first frame that is not of the import system.
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while frame is not None and "importlib" in frame.f_globals.get("__name__", "importlib"):
            frame = frame.f_back
        importer = frame.f_globals.get("__name__", "") if frame is not None else ""
        if importer.partition(".")[0] == "pytest_armory" and not name.startswith("pytest_armory"):
            ours.add(name)
        return None

ours = set()
sys.meta_path.insert(0, Spy())

def pytest_unconfigure():
    print("ours:", *sorted(ours))
    print("modules:", *sorted(sys.modules))
"""

UNUSED = (
    *("engine", "cli", "statistics.comparison", "statistics.bootstrap", "statistics.means"),
    *("gates.known", "gates.functions", "gates.flips", "tables.arrow", "tables.files"),
    *("tables.zstd", "report.page", "report.charts", "report.trend", "session.details"),
    *("session.page", "session.history", "session.shards", "session.comparison", "sync.upload"),
    *("plugin.sharding", "plugin.devices", "session.devices", "store.traces", "store.transfer"),
)
"""Modules of features that a plain evaluation does not use."""


def test_a_plain_evaluation_imports_nothing_of_what_it_does_not_use(evals: Evals) -> None:
    evals.write(
        """
        import pytest
        from pytest_armory import track_metrics, track_param
        @pytest.mark.evaluation
        @pytest.mark.parametrize("n", [1, 2])
        def test_a(n):
            track_param("k", n)
            track_metrics({"accuracy": n / 2})
        """,
        spy=SPY,
    )
    args = evals.arguments("-s", "-p", "spy", "-p", "no:xdist", "-p", "no:asyncio")
    result = evals.pytester.runpytest_subprocess(*args)
    result.assert_outcomes(passed=2)
    found = {
        name: line.split()[1:] for line in result.outlines for name in [line.partition(":")[0]]
    }
    imported = {name.partition(".")[0] for name in found["ours"]}
    assert imported - {*sys.stdlib_module_names} == {"mlflow", "sqlalchemy", "filelock"}
    prefix = "pytest_armory."
    names = [name.removeprefix(prefix) for name in found["modules"] if name.startswith(prefix)]
    assert [name for name in names if name.startswith(UNUSED)] == []


PLAIN = """
import pytest
from pytest_armory import track_metrics
@pytest.mark.evaluation
@pytest.mark.parametrize("n", range({count}))
def test_a(n): track_metrics({{f"m{{i}}": n for i in range(10)}})
"""

EACH = {"create_run": 1, "log_batch": 2, "set_terminated": 1}
"""The calls of each evaluation with parameters and metrics."""

OF_THE_SESSION = {
    # Its own run: opened, its counts and summary, closed.
    "create_run": 1,
    "log_batch": 1,
    "set_terminated": 1,
    # At its end: what is still open, what was deleted, what was opened inside evaluations.
    "search_experiments": 1,
    "search_runs": 3,
}
"""Those of the session, whatever the number of its evaluations."""


def test_an_evaluation_costs_four_calls_and_the_session_a_fixed_number(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counting(name: str) -> None:
        method = getattr(MlflowClient, name)

        def call(client: MlflowClient, *args: object, **kwargs: object) -> object:
            calls[name] += 1
            return method(client, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, call)

    for name, member in vars(MlflowClient).items():
        if callable(member) and not name.startswith("_"):
            counting(name)
    of_sessions = []
    for count in (1, 1, 3):  # the first one makes the experiment
        evals.write(PLAIN.format(count=count))
        calls.clear()
        evals.run("-p", "no:xdist").assert_outcomes(passed=count)
        of_sessions.append(calls - Counter({name: count * n for name, n in EACH.items()}))
    assert of_sessions[1] == of_sessions[2] == Counter(OF_THE_SESSION)


def test_a_worker_that_gets_no_evaluation_does_not_import_mlflow(evals: Evals) -> None:
    """It takes seconds; nor does it open the store. A worker that gets one later does so then."""
    evals.pytester.makeconftest("""
        import sys
        def pytest_sessionfinish(session):
            if hasattr(session.config, "workerinput"):
                session.config.workeroutput["seen"] = "mlflow" in sys.modules
        def pytest_testnodedown(node, error):
            print("worker", node.gateway.id, "mlflow:", node.workeroutput["seen"])
    """)
    evals.write("""
        import pytest
        @pytest.mark.xdist_group("a")
        def test_plain(): pass
        @pytest.mark.xdist_group("a")
        def test_second(tmp_path): pass
        @pytest.mark.xdist_group("b")
        @pytest.mark.evaluation
        def test_evaluation(evaluation_run): assert evaluation_run.run_id
        @pytest.mark.xdist_group("b")
        def test_last(): pass
    """)
    args = evals.arguments("-s", "-n2", "--dist=loadgroup")
    result = evals.pytester.runpytest_subprocess(*args)
    result.assert_outcomes(passed=4)
    seen = [line.split()[-1] for line in result.outlines if "worker gw" in line]
    assert sorted(seen) == ["False", "True"]
    evals.check_accounted(1)
