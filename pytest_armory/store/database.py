"""The local SQLite database: its URI as SQLAlchemy writes it, and its schema made once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pytest_armory.destination import prepare_database
from pytest_armory.store._mlflow import (
    import_mlflow,
    translated,
    unheard,
)


def sqlite_uri(path: Path) -> str:
    """The tracking URI of a database file, right for any character in its path."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def import_database_store() -> Any:
    """MLflow's class for databases, imported early: it warns then, which is nobody's test's."""
    with unheard():
        import_mlflow()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    return SqlAlchemyStore


def ensure_database(path: Path, artifacts: Path) -> None:
    """Make MLflow's database at ``path`` if it is missing; safe for many processes at once."""
    prepare_database(path, partial(_migrate, artifacts=artifacts))


def _migrate(path: Path, *, artifacts: Path) -> None:
    database_store = import_database_store()
    with unheard(), translated("making the local database", str(path)):
        # The artifact root is that of the Default experiment, for ever: not beside the caller.
        store = database_store(sqlite_uri(path), artifacts.as_uri())
        store.engine.dispose()
