"""The only module that changes the fluent API's state: tracking URI and active runs.

``mlflow.start_run(run_id=…)`` would cost three requests and ``mlflow.end_run`` one that cannot be
moved; so a run that was made through the client is put on, and taken off, the stack that
``mlflow.active_run()`` reads. The stack and the URI that was set are private to MLflow: the CI
matrix runs the oldest and the newest supported version against it.

A plain ``mlflow.start_run()`` raises where a run is active. Without us none would be, so it opens a
child of our run instead.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Collection
from dataclasses import dataclass
from functools import wraps
from types import ModuleType
from typing import Any

from pytest_armory.environment import put
from pytest_armory.store._mlflow import import_mlflow
from pytest_armory.store.runs import finite_or_not, last_values
from pytest_armory.store.translation import translated

_URI = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class FluentState:
    """The fluent API's state before a run was activated.

    ``uri`` is the tracking URI that was set, ``thread`` the thread that has activated the run,
    ``depth`` the run's index in that thread's stack of active runs, and ``last`` the id of the run
    that the thread had ended last.
    """

    uri: str | None
    thread: int
    depth: int
    last: str | None


_chosen: list[tuple[str, str]] = []
"""The experiment that the user has set with ``mlflow.set_experiment``, and the URI it is at."""

_substitute = ""
"""The experiment that is used in place of that one in another store."""

_EXPERIMENT = "_active_experiment_id"

_ours: set[str] = set()
"""The runs that were put on a stack of active runs by :func:`activate` or :func:`replace`."""


def activate(run: Any, uri: str) -> FluentState:
    """Make ``run``, an ``mlflow.entities.Run``, this thread's active run, and ``uri`` MLflow's."""
    stack = _stack()
    state = FluentState(_configured_uri(), threading.get_ident(), len(stack), _last_ended())
    _note_experiment(import_mlflow().get_tracking_uri())
    _set_uri(uri)
    _use_experiment(uri, run.info.experiment_id)
    _nest_plain_runs()
    _ours.add(run.info.run_id)
    stack.append(_fluent().ActiveRun(run))
    return state


def deactivate(run_id: str, uri: str, state: FluentState) -> list[str]:
    """Take the run off its thread's stack and put MLflow's URI back, unless the code changed it.

    Returns the runs that stand above it, or in its place where the code has ended it and logged on:
    a fluent call without an active run opens one.
    """
    _ours.discard(run_id)
    _note_experiment(uri)
    if _configured_uri() == uri:
        _set_uri(state.uri)
    if state.thread != threading.get_ident():
        return []
    stack = _stack()
    left = [run.info.run_id for run in stack[state.depth :]]
    stack[:] = [run for run in stack if run.info.run_id != run_id]
    return [left_id for left_id in left if left_id != run_id]


def is_innermost(run_id: str, state: FluentState) -> bool:
    """Whether no other run stands above it on this thread's stack, if that is its own."""
    top = _stack()[-1:]
    return state.thread != threading.get_ident() or all(run.info.run_id == run_id for run in top)


def replace(run_id: str, other: Any, uri: str, state: FluentState) -> FluentState:
    """Put another run, of another store, in the place of an active one; returns its state."""
    if state.thread == threading.get_ident():
        stack = _stack()
        active = _fluent().ActiveRun(other)
        _ours.add(other.info.run_id)
        stack[:] = [active if run.info.run_id == run_id else run for run in stack]
    _note_experiment(import_mlflow().get_tracking_uri())
    _set_uri(uri)
    _use_experiment(uri, other.info.experiment_id)
    return state


def _note_experiment(uri: str) -> None:
    """Note an experiment that was set since the last call, while ``uri`` was the tracking URI."""
    chosen = getattr(_fluent(), _EXPERIMENT)
    if chosen is not None and chosen not in [_substitute, *(known for known, _ in _chosen)]:
        _chosen[:] = [(chosen, uri)]


def _use_experiment(uri: str, own: str) -> None:
    """Have MLflow use the chosen experiment in its own store only, and elsewhere ``own``.

    In another store the same id is an unrelated experiment's, or none's.
    """
    global _substitute
    if _chosen:
        chosen, where = _chosen[0]
        _substitute = own if where != uri else ""
        setattr(_fluent(), _EXPERIMENT, _substitute or chosen)


def _set_uri(uri: str | None) -> None:
    """Set MLflow's URI, but leave the environment variable, which MLflow would change as well."""
    variable = os.environ.get(_URI)
    import_mlflow().set_tracking_uri(uri)
    put({_URI: variable})


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


def own_metrics(since: float, state: FluentState | None = None) -> dict[str, float]:
    """What this thread's own code has logged since then, to the run that it has opened last.

    In seconds since the epoch; ``state`` is that of our own run, if one is active. Raises
    :class:`TrackingError`.
    """
    stack = _stack()
    run_id = _last_ended() if not stack or stack[-1].info.run_id in _ours else stack[-1].info.run_id
    if run_id is None or (state is not None and run_id == state.last):
        return {}
    mlflow = import_mlflow()
    with translated("reading a run", "MLflow's tracking URI"):
        mlflow.flush_async_logging()
        try:
            run = mlflow.get_run(run_id)
        except mlflow.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # it is at another URI
                return {}
            raise
    began = since * 1000 - 1
    if run.info.start_time >= began:
        return {m.key: finite_or_not(m.value) for m in last_values(run)}
    # A run that MLflow opens by itself for the first value stays open into the next test.
    ask = mlflow.MlflowClient().get_metric_history
    new = {key: [m for m in ask(run_id, key) if m.timestamp >= began] for key in run.data.metrics}
    last = {key: max(v, key=lambda m: (m.step, m.timestamp)) for key, v in new.items() if v}
    return {key: finite_or_not(m.value) for key, m in last.items()}


def use_tracking_uri(uri: str) -> None:
    """Let ``mlflow.*`` calls of this process, and of its children, go to ``uri`` from now on."""
    import_mlflow().set_tracking_uri(uri)


def _fluent() -> ModuleType:
    from mlflow.tracking import fluent

    module: ModuleType = fluent
    return module


def _nest_plain_runs() -> None:
    """Replace MLflow's ``start_run`` by one that opens a child where a run of ours is active."""
    fluent, mlflow = _fluent(), import_mlflow()
    original = fluent.start_run
    if hasattr(original, "by_armory"):
        return
    parameters = inspect.signature(original)

    @wraps(original)
    def start_run(*args: Any, **kwargs: Any) -> Any:
        stack = _stack()
        if stack and stack[-1].info.run_id in _ours:
            given = parameters.bind(*args, **kwargs)
            given.arguments["nested"] = True
            args, kwargs = given.args, given.kwargs
        return original(*args, **kwargs)

    start_run.by_armory = True  # type: ignore[attr-defined] # a mark
    fluent.start_run = mlflow.start_run = start_run  # type: ignore[attr-defined] # its name for users


def _last_ended() -> str | None:
    """The run that this thread has ended last."""
    last: str | None = _fluent()._last_active_run_id.get()
    return last


def _stack() -> list[Any]:
    stack: list[Any] = _fluent()._active_run_stack.get()
    return stack


def _configured_uri() -> str | None:
    """The URI that was set, or None, where ``mlflow.get_tracking_uri`` gives a default."""
    from mlflow.tracking._tracking_service import utils

    uri: str | None = utils._tracking_uri
    return uri
