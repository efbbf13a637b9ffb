"""The end of a session reads what other code may have written, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Evals

from pytest_armory.store.search import RunSearch

EVERY_WAY = """
import os, sys, threading
import mlflow, pytest
from pytest_armory import Engine, Evaluation, track_evaluation, track_metrics, track_param

pytestmark = pytest.mark.evaluation

@pytest.fixture
def logs():
    yield
    mlflow.log_metric("late", 4)

def test_nothing(): pass
@pytest.mark.parametrize("n", [1])
def test_ours(n, evaluation_run):
    track_param("k", n)
    track_metrics({"a": n})
    evaluation_run.log_metrics({"b": [1, 2]})
    evaluation_run.log_text("text", "text.txt")
    assert evaluation_run.params and evaluation_run.data.metrics
def test_engine():
    evaluation = Evaluation(name="e", dataset=[([1, 2], [1, 2])] * 3,
                            model=lambda x: x, metrics={"right": lambda p, t: float(p == t)})
    Engine(evaluation, progress=False).run()
def test_failed(): assert 0
@pytest.mark.skip
def test_skipped(): pass
def test_inner():
    with track_evaluation("inner") as run:
        run.log_metrics({"c": 1})

def test_fluent_read(): mlflow.log_metric("own", 1)
def test_late_read(logs): pass
def test_client_read(evaluation_run):
    mlflow.MlflowClient().log_metric(evaluation_run.run_id, "own", 2)
def test_thread_read():
    run = mlflow.active_run()
    log = mlflow.MlflowClient().log_metric
    thread = threading.Thread(target=log, args=(run.info.run_id, "own", 3))
    thread.start()
    thread.join()
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_read():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
def test_only_what_other_code_may_have_written_to_is_read(
    evals: Evals, way: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    by_id = RunSearch.by_id

    def noting(search: RunSearch, run_ids: Sequence[str], ids: Sequence[str]) -> object:
        read.extend(run_ids)
        return by_id(search, run_ids, ids)

    monkeypatch.setattr(RunSearch, "by_id", noting)
    evals.write(EVERY_WAY)
    result = evals.run(*way)
    result.assert_outcomes(passed=9, failed=1, skipped=1)
    runs = {run.info.run_id: str(run.info.run_name) for run in evals.read()}
    expected = sorted(name for name in runs.values() if name.endswith("_read"))
    assert sorted(runs[one] for one in read) == expected
    assert len(expected) == 5
    for name, value in (("own", 1), ("own", 2), ("own", 3), ("late", 4)):
        result.stdout.fnmatch_lines([f"* passed *{name} {value}*"])
    evals.check_accounted(11)
