"""What tests of the tracking API share: the runs of the home's database, and another database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pytest_armory.store.database import sqlite_uri
from pytest_armory.track import EvaluationRun, track_evaluation, tracking_context

Read = Callable[..., list[Run]]
Steps = Callable[[Run, str], list[tuple[int, float]]]


@pytest.fixture
def tracking_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tracking context of its own, in a working folder in which nothing may appear.

    Something would when MLflow falls back to its default.
    """
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with tracking_context():
        yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def only(read_runs: Read) -> Callable[..., Run]:
    """The one run of the home's database, or of another."""

    def read(uri: str | None = None) -> Run:
        (run,) = read_runs(uri)
        return run

    return read


@pytest.fixture
def database(tmp_path: Path, database_template: Path) -> str:
    """The URI of another database than the home's."""
    path = tmp_path / "other.db"
    path.write_bytes(database_template.read_bytes())
    return sqlite_uri(path)


def evaluate(body: Callable[[EvaluationRun], object] = lambda _: None, **options: Any) -> None:
    """An evaluation in one statement."""
    with track_evaluation(**{"name": "digits", **options}) as run:
        body(run)


@pytest.fixture
def client(armory_home: Path) -> MlflowClient:
    """Asks the home's database."""
    return MlflowClient(sqlite_uri(armory_home / "mlruns" / "mlflow.db"))
