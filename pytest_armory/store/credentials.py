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
)


def are_for(where: Destination, in_force: Destination | None) -> bool:
    """Whether the process's credentials are for a destination, given the one in force.

    They are for no server without one. What is no server, as a database, is sent none of them.
    """
    if not where.is_server:
        return True
    if in_force is None or not in_force.is_server:
        return False
    return origin(str(where.uri)) == origin(str(in_force.uri))


def withheld() -> AbstractContextManager[None]:
    """Meanwhile, requests of MLflow carry no credentials of this process, whatever their source."""
    ours = {"MLFLOW_TRACKING_AUTH": PROVIDER, INHERITED: WITHHELD}
    return changed({**dict.fromkeys(_CREDENTIALS), **ours})
