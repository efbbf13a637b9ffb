"""The tracking URI of MLflow's own calls, and of evaluations without a URI of their own."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_armory.store import destination
from pytest_armory.store.in_force import in_force

_initialized: set[str] = set()
"""The URIs that :func:`init_tracking_uri` has set, not the user's environment."""


def init_tracking_uri(armory_home: str | Path | None = None) -> str:
    """Set MLflow's tracking URI to the database under the Armory home, unless one is set.

    ``MLFLOW_TRACKING_URI`` takes precedence. Returns the tracking URI in use.
    """
    from pytest_armory.store import fluent, open_store

    environ = dict(os.environ)
    if armory_home is not None:
        environ["ARMORY_HOME"] = str(armory_home)
    given = in_force.given()
    if given in _initialized:  # by an earlier call of this function
        given = None
    uri = open_store(destination.resolve(given, environ)).uri
    fluent.use_tracking_uri(uri)
    if given is None:
        _initialized.add(uri)
    return uri


def init_tracking(uri: str | None = None) -> str:
    """Log in to the tracking server if its platform requires it, and set MLflow's tracking URI.

    ``uri`` is the server's, else ``MLFLOW_TRACKING_URI``; without either it is
    :func:`init_tracking_uri`. With ``MANTIK_USERNAME`` and ``MANTIK_PASSWORD``, and no
    ``MLFLOW_TRACKING_TOKEN``, they are exchanged for a token that is renewed, at ``MANTIK_API_URL``
    or https://api.cloud.mantik.ai, whatever the server's address. Inside a job of the platform,
    which provides its token, no call is needed. Returns the tracking URI in use.
    Raises :class:`ArmoryUsageError` and :class:`TrackingError`.
    """
    from pytest_armory.store import fluent, login

    given = uri or in_force.given()
    resolved = destination.resolve(given).uri if given else None
    if resolved is None:
        return init_tracking_uri()
    tracked = login.init_tracking(resolved)
    fluent.use_tracking_uri(tracked)
    return tracked
