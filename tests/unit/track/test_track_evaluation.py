"""track_evaluation in a script: one context, one MLflow run, whatever happens inside."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from conftest import artifacts_of
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.tracking import fluent
from tracked_runs import Read, evaluate

from pytest_armory.errors import (
    ArmoryUsageError,
    TrackingError,
    TrackingWarning,
)
from pytest_armory.store import open_store
from pytest_armory.track import (
    EvaluationRun,
    current_run,
    get_current_params,
    track_call,
    track_evaluation,
    track_metrics,
    track_param,
    tracking_context,
)

pytestmark = pytest.mark.usefixtures("armory_home", "tracking_elsewhere")


def load(**kwargs: Any) -> None:
    """A loader."""


# --- A run ---------------------------------------------------------------------------------------


def test_a_run_holds_what_was_recorded_before_and_inside(
    only: Callable[..., Run], client: MlflowClient
) -> None:
    track_param("before", 1)
    with track_evaluation("digits", description="A note.", run_name="first", tags={"n": 1}) as run:
        track_call(load, split="test")
        track_metrics({"accuracy": 0.5})
        assert only().info.status == "RUNNING"
    stored = only()
    assert stored.info.run_id == run.run_id
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "first")
    assert client.get_experiment(stored.info.experiment_id).name == "digits"
    assert stored.data.params == {
        "before": "1",
        "load._func": "test_track_evaluation.load",
        "load.split": "test",
    }
    assert stored.data.metrics == {"accuracy": 0.5}
    assert stored.data.tags["mlflow.note.content"] == "A note."
    assert stored.data.tags["n"] == "1"
    assert stored.data.tags["armory.kind"] == "evaluation"


def test_mlflow_finds_the_last_run_where_its_tracking_uri_is_that_of_the_run(
    monkeypatch: pytest.MonkeyPatch, armory_home: Path
) -> None:
    """As Armory's own tests read what an evaluation has stored."""
    fluent._last_active_run_id.set(None)  # that of an earlier test of this thread
    with track_evaluation("digits"):
        pass
    assert mlflow.last_active_run() is None  # the URI in force is not the Armory home's
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{armory_home / 'own.db'}")
    with track_evaluation("digits") as outer:
        track_param("n", 42)
        with track_evaluation("digits"):
            assert mlflow.active_run().info.run_id != outer.run_id
        assert mlflow.last_active_run().info.run_id == outer.run_id
    assert mlflow.last_active_run().info.run_id == outer.run_id
    assert mlflow.last_active_run().data.params == {"n": "42"}
    with pytest.raises(ValueError, match="enough"), track_evaluation("digits") as failed:
        raise ValueError("enough")
    assert mlflow.last_active_run().info.run_id == failed.run_id


def test_a_run_that_is_killed_says_what_it_was_before(only: Callable[..., Run]) -> None:
    track_param("before", 1)
    with track_evaluation("digits"):
        assert only().data.params == {"before": "1"}


def test_parameters_recorded_inside_are_forgotten_after(read_runs: Read) -> None:
    track_param("before", 1)
    for i in range(2):
        with track_evaluation("digits"):
            track_param("inside", i)
    assert get_current_params() == {"before": 1}
    assert [run.data.params["inside"] for run in read_runs()] == ["0", "1"]


def test_a_tracking_context_inside_is_not_the_runs(only: Callable[..., Run]) -> None:
    with track_evaluation("digits"), tracking_context():
        track_param("apart", 1)
        track_metrics({"a": 1})  # but the run is
    assert only().data.params == {}
    assert only().data.metrics == {"a": 1.0}


def test_the_default_name_is_the_experiments(only: Callable[..., Run]) -> None:
    with track_evaluation("digits"):
        pass
    assert only().info.run_name == "digits"


def test_artifacts_are_beside_the_database(armory_home: Path, only: Callable[..., Run]) -> None:
    with track_evaluation("digits") as run:
        run.log_dict({"a": [1]}, "deep/a.json")
    (path,) = artifacts_of(only()).values()
    assert armory_home / "mlruns" / "artifacts" in path.parents
    assert json.loads(path.read_text()) == {"a": [1]}


def test_a_decorator_opens_a_run_for_each_call(read_runs: Read) -> None:
    @track_evaluation("digits")
    def evaluate(value: float) -> None:
        track_metrics({"value": value})

    evaluate(1)
    evaluate(2)
    assert [run.data.metrics["value"] for run in read_runs()] == [1.0, 2.0]


@pytest.mark.parametrize("name", ["", None, 3])
def test_the_name_must_be_one(name: Any, read_runs: Read) -> None:
    with pytest.raises(ArmoryUsageError, match="the name must be the experiment's"):
        evaluate(name=name)
    assert read_runs() == []


def test_a_script_without_pytest(tmp_path: Path, armory_home: Path, read_runs: Read) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pytest_armory import track_call, track_evaluation, track_metrics\n"
        "def load(split): return split\n"
        "with track_evaluation('script', description='By hand.'):\n"
        "    track_call(load, split='test')\n"
        "    track_metrics({'a': 1})\n"
        "print('pytest' in sys.modules)\n"
        "class Log:\n"
        "    def __init__(self): self.me, self.file = self, open('log.txt', 'w')\n"
        "log = Log()\n"
        "log.file.write('written by garbage')\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert (tmp_path / "log.txt").read_text() == "written by garbage"
    (run,) = read_runs()
    assert run.data.params == {"load._func": "__main__.load", "load.split": "test"}
    assert run.data.tags["mlflow.source.name"] == str(script)
    assert run.info.status == "FINISHED"
    assert [p.name for p in armory_home.iterdir()] == ["mlruns"]


# --- How it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "FAILED"),
        (AssertionError("no"), "FAILED"),
        (pytest.fail.Exception("no"), "FAILED"),  # which is no Exception
        (KeyboardInterrupt(), "KILLED"),
        (asyncio.CancelledError(), "KILLED"),
        (GeneratorExit(), "KILLED"),
        (SystemExit(), "FINISHED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(1), "FAILED"),
        (SystemExit("no"), "FAILED"),
    ],
    ids=repr,
)
def test_what_leaves_it_is_its_status(
    error: BaseException, status: str, only: Callable[..., Run]
) -> None:
    def fail(_: EvaluationRun) -> None:
        track_metrics({"a": 1})
        raise error

    with pytest.raises(type(error)) as raised:
        evaluate(fail)
    assert raised.value is error
    assert only().info.status == status
    assert only().data.metrics == {"a": 1.0}
    assert current_run() is None


def failing_store(monkeypatch: pytest.MonkeyPatch, run: EvaluationRun) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no space left at http://user:secret@host")

    assert run.destination is not None
    for method in ("log_batch", "log_metric", "set_tag"):
        monkeypatch.setattr(open_store(run.destination).connection.client, method, refuse)


def test_a_store_that_fails_raises_in_a_script(
    monkeypatch: pytest.MonkeyPatch, only: Callable[..., Run]
) -> None:
    def body(run: EvaluationRun) -> None:
        failing_store(monkeypatch, run)
        track_metrics({"a": 1})

    with pytest.raises(TrackingError, match="no space left") as raised:
        evaluate(body)
    assert "secret" not in str(raised.value)
    assert only().info.status == "FAILED"


def test_a_store_that_fails_does_not_hide_the_evaluations_own_error(
    monkeypatch: pytest.MonkeyPatch, only: Callable[..., Run]
) -> None:
    def body(run: EvaluationRun) -> None:
        failing_store(monkeypatch, run)
        track_param("a", 1)
        raise ZeroDivisionError

    with (
        pytest.warns(TrackingWarning, match="no space left") as caught,
        pytest.raises(ZeroDivisionError),
        track_evaluation("digits") as run,
    ):
        body(run)
    assert caught[0].filename == __file__
    assert only().info.status == "FAILED"


# --- Nested --------------------------------------------------------------------------------------


def test_a_nested_evaluation_is_a_child_with_the_parameters_so_far(read_runs: Read) -> None:
    with track_evaluation("outer") as outer:
        track_param("a", 1)
        with track_evaluation("inner"):
            track_param("b", 2)
            track_metrics({"m": 1})
        track_metrics({"m": 2})
    parent, child = read_runs()
    assert child.data.tags["mlflow.parentRunId"] == outer.run_id == parent.info.run_id
    assert "mlflow.parentRunId" not in parent.data.tags
    assert (parent.data.params, parent.data.metrics) == ({"a": "1"}, {"m": 2.0})
    assert (child.data.params, child.data.metrics) == ({"a": "1", "b": "2"}, {"m": 1.0})


def test_a_nested_evaluation_is_stored_where_its_parent_is(database: str, read_runs: Read) -> None:
    evaluate(lambda _: evaluate(uri="sqlite:///nowhere.db"), uri=database)
    assert len(read_runs(database)) == 2
    assert not Path("nowhere.db").exists()


def test_the_run_of_an_mlflow_projects_job_is_the_parent(
    monkeypatch: pytest.MonkeyPatch, only: Callable[..., Run]
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "a" * 32)
    with track_evaluation("digits"):
        pass
    assert only().data.tags["mlflow.parentRunId"] == "a" * 32


def test_evaluations_at_once_in_a_pool_are_apart(read_runs: Read) -> None:
    barrier = threading.Barrier(2, timeout=20)

    def evaluate(i: int) -> None:
        with track_evaluation("digits", run_name=str(i)):
            barrier.wait()
            track_param("i", i)
            track_metrics({"m": i})
            mlflow.log_metric("fluent", i)
            barrier.wait()
        assert mlflow.active_run() is None

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(evaluate, range(2)))
    for run in read_runs():
        i = run.info.run_name
        assert run.data.params == {"i": i}
        assert run.data.metrics == {"m": float(i), "fluent": float(i)}
        assert "mlflow.parentRunId" not in run.data.tags


def test_evaluations_at_once_in_two_tasks_end_in_any_order(read_runs: Read) -> None:
    async def first(opened: asyncio.Event, other: asyncio.Event, ended: asyncio.Event) -> None:
        with track_evaluation("digits", run_name="first"):
            opened.set()
            await other.wait()
        ended.set()

    async def second(opened: asyncio.Event, other: asyncio.Event, ended: asyncio.Event) -> None:
        await opened.wait()
        with track_evaluation("digits", run_name="second") as run:
            other.set()
            await ended.wait()
            assert mlflow.active_run().info.run_id == run.run_id
            assert [run.info.status for run in read_runs()] == ["FINISHED", "RUNNING"]

    async def main() -> None:
        events = [asyncio.Event() for _ in range(3)]
        await asyncio.gather(first(*events), second(*events))

    asyncio.run(main())
    assert mlflow.active_run() is None
    for run in read_runs():
        assert run.info.status == "FINISHED"
        assert not {"mlflow.parentRunId", "armory.left_open_in"} & run.data.tags.keys()
