"""The environment variables that child processes see while a run is MLflow's active run."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_armory import environment
from pytest_armory.track.location import Location

_URI = "MLFLOW_TRACKING_URI"
_RUN_CONTEXT = "MLFLOW_RUN_CONTEXT"

_overrides: list[dict[str, str | None]] = []
"""The variables that each active run sets, the run that was activated last at the end."""

_given: dict[str, str | None] = {}
"""The variables as they were before the first override."""

_changed: dict[str, tuple[str | None, str | None]] = {}
"""Variables that code has changed while they were overridden: the override, and what was given."""

_lock = threading.Lock()


def child_variables(location: Location) -> dict[str, str | None]:
    """What makes runs that the code opens itself find their place, in child processes too.

    They go to the same store and experiment, and MLflow tags each of them with its run context: so
    one that a thread or a forked process leaves open is found again.
    """
    try:
        given = dict(json.loads(os.environ.get(_RUN_CONTEXT) or "{}"))
    except (ValueError, TypeError):
        given = {}  # the user's is unusable; MLflow says so where it reads it
    return {
        _URI: location.store.uri,
        "MLFLOW_EXPERIMENT_ID": location.experiment_id,
        "MLFLOW_EXPERIMENT_NAME": None,  # beside another ID, MLflow raises
        _RUN_CONTEXT: json.dumps({**given, **location.context_tags}),
    }


@contextmanager
def overridden(variables: dict[str, str | None]) -> Iterator[None]:
    """Set environment variables meanwhile; one that the code inside changes stays as it is.

    It is not overridden again until the code restores it, as a fixture of a module does in the end:
    such variables are removed from ``variables``.
    """
    restore_environment()
    with _lock:
        for name in _changed:
            variables.pop(name, None)
        if not _overrides:
            _given.update({name: os.environ.get(name) for name in variables})
        _overrides.append(variables)
        environment.put(variables)
    try:
        yield
    finally:
        with _lock:
            _end_override(variables)
        restore_environment()


def _end_override(variables: dict[str, str | None]) -> None:
    _overrides[:] = [other for other in _overrides if other is not variables]
    before = _overrides[-1] if _overrides else _given
    unchanged = [name for name in variables if os.environ.get(name) == variables[name]]
    environment.put({name: before.get(name, _given[name]) for name in unchanged})
    if not _overrides:
        changed = {name: value for name, value in variables.items() if name not in unchanged}
        _changed.update({name: (value, _given[name]) for name, value in changed.items()})


def change_override(variables: dict[str, str | None], values: dict[str, str | None]) -> None:
    """Give the variables of an override that is in force other values."""
    variables.update({name: values[name] for name in variables})
    environment.put(variables)


def restore_environment() -> None:
    """Restore what was given before, once code has restored the override that it had found."""
    with _lock:
        for name, (override, given) in list(_changed.items()):
            if os.environ.get(name) == override:
                del _changed[name]
                _given[name] = given
                environment.put({name: given})


def given_uri() -> str | None:
    """``MLFLOW_TRACKING_URI`` as it was given, not as active runs override it."""
    uri = os.environ.get(_URI) or None
    return _given[_URI] if uri in [variables.get(_URI, "") for variables in _overrides] else uri
