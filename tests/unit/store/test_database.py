"""The local database: what MLflow does beside it when it is opened."""

from __future__ import annotations

from types import ModuleType

from pytest_armory.store.database import _make_no_folder_here


def test_older_mlflow_makes_no_folder_in_the_working_directory() -> None:
    made: list[str] = []
    module = ModuleType("mlflow.store.tracking.sqlalchemy_store")
    vars(module)["mkdir"] = made.append
    for _ in range(2):
        _make_no_folder_here(module)
    module.mkdir("./mlruns")
    module.mkdir("/data/artifacts")
    assert made == ["/data/artifacts"]


def test_newer_mlflow_is_left_alone() -> None:
    module = ModuleType("mlflow.store.tracking.sqlalchemy_store")
    _make_no_folder_here(module)
    assert "mkdir" not in vars(module)
