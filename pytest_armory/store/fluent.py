"""The one place that touches MLflow's fluent state: tracking URI and active runs.

``mlflow.start_run(run_id=…)`` would cost three requests and ``mlflow.end_run`` one that cannot be
moved; so a run that was made through the client is put on, and taken off, the stack that
``mlflow.active_run()`` reads. The stack and the URI that was set are private to MLflow: the CI
matrix runs the oldest and the newest supported version against it.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pytest_armory.store._mlflow import import_mlflow, translated

_URI = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Place:
    """Where a run stands among a thread's active runs, and MLflow's URI from before it."""

    uri: str | None
    thread: int
    depth: int


def activate(run: Any, uri: str) -> Place:
    """Make ``run``, an ``mlflow.entities.Run``, this thread's active run, and ``uri`` MLflow's."""
    stack = _stack()
    place = Place(_given_uri(), threading.get_ident(), len(stack))
    import_mlflow().set_tracking_uri(uri)
    stack.append(_fluent().ActiveRun(run))
    return place


def deactivate(run_id: str, uri: str, place: Place) -> list[str]:
    """Take the run off its thread's stack and put MLflow's URI back, unless the code changed it.

    Returns the runs that stand above it, or in its place where the code has ended it and logged on:
    a fluent call without an active run opens one.
    """
    if _given_uri() == uri:
        environment = os.environ.get(_URI)
        import_mlflow().set_tracking_uri(place.uri)
        if environment is not None:  # which that call sets and unsets as well
            os.environ[_URI] = environment
    if place.thread != threading.get_ident():
        return []
    stack = _stack()
    left = [run.info.run_id for run in stack[place.depth :]]
    stack[:] = [run for run in stack if run.info.run_id != run_id]
    return [left_id for left_id in left if left_id != run_id]


def replace(run_id: str, other: Any, uri: str, place: Place) -> Place:
    """Put another run, of another store, in the place of an active one; the place of that."""
    if place.thread == threading.get_ident():
        stack = _stack()
        active = _fluent().ActiveRun(other)
        stack[:] = [active if run.info.run_id == run_id else run for run in stack]
    import_mlflow().set_tracking_uri(uri)
    return place


def flush(uri: str) -> None:
    """Wait for what code has logged to ``uri`` in threads of MLflow's (``synchronous=False``)."""
    from mlflow.tracking._tracking_service import utils

    utils._get_store(uri).flush_async_logging()


def take_open(run_ids: Collection[str]) -> list[str]:
    """Those of the runs that are still active in this thread, no longer so."""
    stack = _stack()
    taken = [run.info.run_id for run in stack if run.info.run_id in run_ids]
    stack[:] = [run for run in stack if run.info.run_id not in taken]
    return taken


def own_metrics(since: float) -> dict[str, float]:
    """What this thread's own code has logged since then, to the run that it has opened last.

    In seconds since the epoch. Raises :class:`TrackingError`.
    """
    mlflow = import_mlflow()
    with translated("reading a run", "MLflow's tracking URI"):
        run = mlflow.active_run() or mlflow.last_active_run()
        if run is None:
            return {}
        mlflow.flush_async_logging()
        # A run that MLflow opens unasked, for the first value, stays open for the next test's.
        began = 0 if run.info.start_time >= since * 1000 - 1 else since * 1000 - 1
        values = last_values(mlflow.get_run(run.info.run_id))
        return {one.key: finite_or_not(one.value) for one in values if one.timestamp >= began}


def last_values(run: Any) -> list[Any]:
    """The last value of each metric of MLflow's ``Run``, with its time.

    MLflow gives those times out by requests for each metric only.
    """
    return list(getattr(run.data, "_metric_objs", None) or [])


def finite_or_not(value: float) -> float:
    """A metric's value as it was logged: MLflow's databases hold the largest float for infinity."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def use_tracking_uri(uri: str) -> None:
    """Let ``mlflow.*`` calls of this process, and of its children, go to ``uri`` from now on."""
    import_mlflow().set_tracking_uri(uri)


def _fluent() -> ModuleType:
    from mlflow.tracking import fluent

    module: ModuleType = fluent
    return module


def _stack() -> list[Any]:
    stack: list[Any] = _fluent()._active_run_stack.get()
    return stack


def _given_uri() -> str | None:
    """The URI that was set, or None: what ``mlflow.get_tracking_uri`` gives is chosen for none."""
    from mlflow.tracking._tracking_service import utils

    uri: str | None = utils._tracking_uri
    return uri
