"""Which store an evaluation is tracked to, and where init_tracking_uri points MLflow."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from tracked_runs import Read, evaluate

from pytest_armory.errors import (
    ArmoryUsageError,
    TrackingError,
)
from pytest_armory.store import destination
from pytest_armory.store.database import sqlite_uri
from pytest_armory.track import (
    init_tracking_uri,
    track_evaluation,
    track_metrics,
)

pytestmark = pytest.mark.usefixtures("armory_home", "tracking_elsewhere")


def test_the_environment_wins_over_the_argument(
    monkeypatch: pytest.MonkeyPatch, database: str, read_runs: Read
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    with track_evaluation("digits", uri="sqlite:///nowhere.db"):
        pass
    assert len(read_runs(database)) == 1
    assert read_runs() == []


def test_the_argument_wins_over_the_home_and_holds_for_one_evaluation(
    database: str, read_runs: Read
) -> None:
    with track_evaluation("first", uri=database):
        pass
    with track_evaluation("second"):
        pass
    with track_evaluation("third", uri=database):
        pass
    assert [run.info.run_name for run in read_runs(database)] == ["first", "third"]
    assert [run.info.run_name for run in read_runs()] == ["second"]


def test_a_relative_database_stays_where_it_was_when_the_folder_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: str, read_runs: Read
) -> None:
    monkeypatch.chdir(tmp_path)
    with track_evaluation("digits", uri="sqlite:///other.db"):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        track_metrics({"a": 1})
    assert [run.data.metrics for run in read_runs(database)] == [{"a": 1.0}]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("name", ["with space", "q?mark", "per%20cent", "ha#sh", "ünï-日本"])
def test_any_character_in_the_home(
    name: str, tmp_path: Path, database_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "homes" / name
    (home / "mlruns").mkdir(parents=True)
    path = home / "mlruns" / "mlflow.db"
    path.write_bytes(database_template.read_bytes())
    monkeypatch.setenv("ARMORY_HOME", str(home))
    with track_evaluation("digits") as run:
        run.log_dict({}, "ours.json")
        mlflow.log_dict({}, "fluent.json")
        uri = mlflow.get_tracking_uri()
    assert destination.resolve(uri).database == path
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    connection.close()
    artifacts = (home / "mlruns" / "artifacts").rglob("*.json")
    assert sorted(p.name for p in artifacts) == ["fluent.json", "ours.json"]
    files = [p for p in home.parent.rglob("*") if p.is_file()]
    assert all(home in p.parents for p in files)  # MLflow itself makes folders of the quoted name


@pytest.mark.parametrize("uri", ["file:runs", "http://user:secret@", Path("runs")])
def test_an_unusable_uri_is_refused(uri: Any) -> None:
    with pytest.raises(ArmoryUsageError, match="cannot be used") as refused:
        evaluate(uri=uri)
    assert "secret" not in str(refused.value)


def test_a_deleted_experiment_is_reported(client: MlflowClient) -> None:
    client.delete_experiment(client.create_experiment("digits"))
    with pytest.raises(TrackingError, match=r"'digits' .* was deleted; .* experiments restore"):
        evaluate()


def test_init_tracking_uri_points_mlflow_at_the_home(
    armory_home: Path, tmp_path: Path, database_template: Path, read_runs: Read
) -> None:
    uri = init_tracking_uri()
    assert uri == mlflow.get_tracking_uri() == sqlite_uri(armory_home / "mlruns" / "mlflow.db")
    other = tmp_path / "other" / "mlruns" / "mlflow.db"
    other.parent.mkdir(parents=True)
    other.write_bytes(database_template.read_bytes())
    assert init_tracking_uri(tmp_path / "other") == sqlite_uri(other)
    with mlflow.start_run():
        pass
    with track_evaluation("digits"):
        pass
    assert len(read_runs(sqlite_uri(other))) == 2
    assert read_runs() == []


def test_init_tracking_uri_leaves_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert init_tracking_uri(tmp_path / "other") == database
    assert not (tmp_path / "other").exists()
