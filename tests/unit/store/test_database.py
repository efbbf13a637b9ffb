"""Databases: what MLflow does beside a local one when it is opened, and what one refuses."""

from __future__ import annotations

from types import ModuleType

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import ProgrammingError

from pytest_armory.errors import (
    LoginRefusedError,
    StoreRefusedError,
    StoreUnreachableError,
    TrackingError,
)
from pytest_armory.store.database import _make_no_folder_here
from pytest_armory.store.translation import as_tracking_error


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


@pytest.mark.parametrize(
    ("code", "sqlstate", "kind", "says"),
    [
        ("BAD_REQUEST", "42501", LoginRefusedError, "permission denied for table runs"),
        ("TEMPORARILY_UNAVAILABLE", None, StoreUnreachableError, "DriverError: permission denied"),
        ("BAD_REQUEST", "23505", StoreRefusedError, "MlflowException: "),
    ],
)
def test_what_is_said_of_a_databases_own_error(
    code: str, sqlstate: str | None, kind: type[TrackingError], says: str
) -> None:
    """A role that may not write is as a login that is refused: evaluations wait."""
    driver = type("DriverError", (Exception,), {"pgcode": sqlstate})
    refused = ProgrammingError("INSERT", {}, driver("permission denied for table runs"))
    error = MlflowException(refused)
    error.error_code, error.__cause__ = code, refused
    known = as_tracking_error(error)
    assert type(known) is kind
    assert str(known).startswith(says)


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("MySQLdb", "is not installed; `pip install mysqlclient` does that"),
        ("a.driver", "is not installed; install the package that has it"),
    ],
)
def test_a_driver_that_is_not_installed(module: str, advice: str) -> None:
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert str(as_tracking_error(error)) == f"the module {module!r} {advice}"
