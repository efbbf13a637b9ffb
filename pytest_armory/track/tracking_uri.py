"""Where MLflow's own calls, and evaluations without a URI of their own, go."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_armory.store import destination
from pytest_armory.store.in_force import given_uri

_initialized: set[str] = set()
"""The URIs that :func:`init_tracking_uri` has set, not the user's environment."""


def init_tracking_uri(armory_home: str | Path | None = None) -> str:
    """Point MLflow at the database under the Armory home, unless ``MLFLOW_TRACKING_URI`` is set.

    Returns the tracking URI in force.
    """
    from pytest_armory.store import fluent, open_store

    environ = dict(os.environ)
    if armory_home is not None:
        environ["ARMORY_HOME"] = str(armory_home)
    given = given_uri()
    if given in _initialized:  # by an earlier call of this, which is no reason to stay there
        given = None
    uri = open_store(destination.resolve(given, environ)).uri
    fluent.use_tracking_uri(uri)
    if given is None:
        _initialized.add(uri)
    return uri


def init_tracking(uri: str | None = None) -> str:
    """Log in to the tracking server where a platform asks for it, and point MLflow at it.

    ``uri`` is the server's, else ``MLFLOW_TRACKING_URI``; without either it is
    :func:`init_tracking_uri`. With ``MANTIK_USERNAME`` and ``MANTIK_PASSWORD``, and no
    ``MLFLOW_TRACKING_TOKEN``, they are exchanged for a token that is kept fresh. Inside a job of
    the platform, which gets its token from it, nothing needs to be called. Returns the tracking URI
    in force. Raises :class:`ArmoryUsageError` and :class:`TrackingError`.
    """
    from pytest_armory.store import fluent, login

    given = uri or given_uri()
    resolved = destination.resolve(given).uri if given else None
    if resolved is None:
        return init_tracking_uri()
    in_force = login.init_tracking(resolved)
    fluent.use_tracking_uri(in_force)
    return in_force
