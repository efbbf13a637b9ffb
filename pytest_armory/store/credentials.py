"""Credentials belong to one origin: that of the tracking URI in force."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pytest_armory.environment import changed
from pytest_armory.store.destination import Destination
from pytest_armory.store.login import INHERITED, PROVIDER, WITHHELD
from pytest_armory.values.origin import origin

_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MANTIK_USERNAME",
    "MANTIK_PASSWORD",
    "PGPASSWORD",
    "PGSERVICE",
    "MYSQL_PWD",
)


def are_for(where: Destination, in_force: Destination | None) -> bool:
    """Whether the process's credentials are for a destination, given the one in force.

    They are for no server, and no database across a network, without one. A file is sent none.
    """
    if not (where.is_server or where.is_database):
        return True
    return in_force is not None and _origin(where) == _origin(in_force)


def _origin(where: Destination) -> object:
    try:
        return origin(str(where.uri))
    except ValueError:  # of a database: it may have several hosts
        return where.uri


def withheld() -> AbstractContextManager[None]:
    """Meanwhile, requests of MLflow carry no credentials of this process, whatever their source.

    Nor does a login at a database, but for those of a file that names hosts, as ``~/.pgpass``.
    """
    ours = {"MLFLOW_TRACKING_AUTH": PROVIDER, INHERITED: WITHHELD}
    return changed({**dict.fromkeys(_CREDENTIALS), **ours})
