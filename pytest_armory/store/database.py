"""The local SQLite database: its URI as SQLAlchemy writes it, and its schema made once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pytest_armory.destination import prepare_database
from pytest_armory.store._mlflow import import_mlflow, quiet_migration, translated


def sqlite_uri(path: Path) -> str:
    """The tracking URI of a database file, right for any character in its path."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def configure_mappers() -> None:
    """Do now what SQLAlchemy does at the first query, for it warns then, in the user's test."""
    import mlflow.store.tracking.dbmodels.models
    import sqlalchemy.orm

    assert mlflow.store.tracking.dbmodels.models  # imported for what it declares
    sqlalchemy.orm.configure_mappers()


def ensure_database(path: Path, artifacts: Path) -> None:
    """Make MLflow's database at ``path`` if it is missing; safe for many processes at once."""
    prepare_database(path, partial(_migrate, artifacts=artifacts))


def _migrate(path: Path, *, artifacts: Path) -> None:
    import_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with quiet_migration(), translated("making the local database", str(path)):
        # The artifact root is that of the Default experiment, for ever: not beside the caller.
        store = SqlAlchemyStore(sqlite_uri(path), artifacts.as_uri())
        store.engine.dispose()
