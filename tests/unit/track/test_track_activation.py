"""A run as MLflow's active run, for its own calls and for child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from conftest import artifacts_of
from mlflow.entities import Run
from tracked_runs import Read, evaluate

from pytest_armory.store.database import sqlite_uri
from pytest_armory.track import (
    init_tracking_uri,
    track_evaluation,
)

pytestmark = pytest.mark.usefixtures("armory_home", "tracking_elsewhere")


def test_mlflows_active_run_is_as_before(read_runs: Read, armory_home: Path) -> None:
    assert mlflow.active_run() is None
    with track_evaluation("digits") as run:
        assert mlflow.active_run().info.run_id == run.run_id
        with track_evaluation("inner") as inner:
            assert mlflow.active_run().info.run_id == inner.run_id
        assert mlflow.active_run().info.run_id == run.run_id
    assert mlflow.active_run() is None
    init_tracking_uri()
    with mlflow.start_run() as own:
        with track_evaluation("digits"):
            mlflow.log_metric("a", 1)
        assert mlflow.active_run().info.run_id == own.info.run_id
    assert [run.data.metrics for run in read_runs()] == [{}, {}, {}, {"a": 1.0}]
    assert list(armory_home.iterdir()) == [armory_home / "mlruns"]


def test_a_store_of_ones_own_stands_after_an_evaluation_inside(tmp_path: Path) -> None:
    own = sqlite_uri(tmp_path / "own.db")
    with track_evaluation("digits") as run:
        mlflow.set_tracking_uri(own)
        with track_evaluation("inner") as inner:
            assert mlflow.active_run().info.run_id == inner.run_id
        assert mlflow.get_tracking_uri() == own
        assert mlflow.active_run() is None
        mlflow.set_tracking_uri(None)
        assert mlflow.active_run().info.run_id == run.run_id


def end_and_log_on() -> None:
    mlflow.end_run()
    mlflow.log_metric("late", 1)


@pytest.mark.parametrize(
    "inside",
    [mlflow.end_run, end_and_log_on, lambda: mlflow.start_run(nested=True)],
    ids=["ended", "ended and logged on", "left open"],
)
def test_mlflows_active_run_is_as_before_whatever_was_done_to_it(
    inside: Callable[[], object], read_runs: Read
) -> None:
    init_tracking_uri()
    with mlflow.start_run() as own:
        evaluate(lambda _: inside())
        assert mlflow.active_run().info.run_id == own.info.run_id
    assert {run.info.status for run in read_runs()} == {"FINISHED"}


def test_two_arguments_at_once_in_a_pool(database: str, read_runs: Read) -> None:
    barrier = threading.Barrier(2, timeout=20)

    def evaluate(uri: str | None) -> None:
        if uri is None:
            barrier.wait()
        with track_evaluation("digits", run_name=uri and "given", uri=uri):
            if uri is not None:
                barrier.wait()
            barrier.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(evaluate, [database, None]))
    assert [run.info.run_name for run in read_runs(database)] == ["given"]
    assert [run.info.run_name for run in read_runs()] == ["digits"]
    assert "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.parametrize("given", [None, "http://127.0.0.1:1"])
def test_the_variable_of_the_tracking_uri_is_the_users(
    given: str | None, armory_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = sqlite_uri(armory_home / "mlruns" / "mlflow.db")
    with track_evaluation("digits"):
        assert "MLFLOW_TRACKING_URI" not in os.environ
        assert mlflow.get_tracking_uri() == uri
        if given:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
            assert mlflow.get_tracking_uri() == given
    assert os.environ.get("MLFLOW_TRACKING_URI") == given


def asked(code: str, **variables: str) -> str:
    """What a child process prints that has a copy of our environment."""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **variables}
    return subprocess.check_output(command, env=environment, text=True).strip()


def test_child_processes_find_the_store_meanwhile(armory_home: Path) -> None:
    uri = sqlite_uri(armory_home / "mlruns" / "mlflow.db")
    read = "from pytest_armory.store.in_force import in_force; print(in_force.environment())"
    with track_evaluation("digits"):
        assert asked("import mlflow; print(mlflow.get_tracking_uri())") == uri
        assert asked(read) == uri
        assert asked(read, MLFLOW_TRACKING_URI="sqlite:///own.db") == "sqlite:///own.db"
        assert asked(read.replace("environment", "given")) == uri
    assert asked(read) == "None"


def test_mlflows_own_calls_land_in_the_run(tmp_path: Path, only: Callable[..., Run]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_text("b")
    (tmp_path / "a.txt").write_text("a")
    with track_evaluation("digits"):
        mlflow.log_param("p", 1)
        mlflow.log_metric("m", 2.0, step=3)
        mlflow.set_tag("t", "x")
        mlflow.log_artifact(str(tmp_path / "a.txt"))
        mlflow.log_artifacts(str(tmp_path / "folder"), "sub")
        mlflow.log_dict({"c": 1}, "c.json")
    run = only()
    assert (run.data.params, run.data.metrics) == ({"p": "1"}, {"m": 2.0})
    assert run.data.tags["t"] == "x"
    assert list(artifacts_of(run)) == ["a.txt", "c.json", "sub/b.txt"]


@pytest.mark.filterwarnings("ignore:`y_pred` was renamed:FutureWarning")  # MLflow's use of sklearn
def test_autologging_lands_in_the_run(only: Callable[..., Run]) -> None:
    from sklearn.linear_model import LogisticRegression

    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        with track_evaluation("digits"):
            LogisticRegression(C=3.0).fit([[0.0], [1.0]], [0, 1])
    finally:
        mlflow.sklearn.autolog(disable=True)
    assert only().data.params["C"] == "3.0"
    assert "training_score" in only().data.metrics
