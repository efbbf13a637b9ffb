"""The places where MLflow's own code is made to ask us.

Its stack, ``start_run``, its reading of ``MLFLOW_TRACKING_URI``, and the beginning of a trace. They
stay for the life of the process, and do nothing while no run of ours is active.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FunctionType
from typing import Any

from pytest_armory.store.stack import fluent_api, note_read

Stacks = dict[int, list[Any]]
"""The active runs of each thread, the innermost last."""


def watch_stack(bring_up_to_date: Callable[[], None], shown: Callable[[Stacks], Stacks]) -> None:
    """Call ``bring_up_to_date`` before MLflow reads its stack; ``shown`` is what traces see.

    Neither may raise: the call is the test's.
    """
    variable = fluent_api()._active_run_stack
    if hasattr(variable.get, "by_armory"):
        return
    get, get_all = type(variable).get, type(variable).get_all_thread_values

    def up_to_date() -> list[Any]:
        note_read()
        bring_up_to_date()
        stack: list[Any] = get(variable)
        return stack

    def of_all_threads() -> Stacks:
        note_read()
        bring_up_to_date()
        return shown(get_all(variable))

    up_to_date.by_armory = True  # type: ignore[attr-defined] # a mark
    variable.get, variable.get_all_thread_values = up_to_date, of_all_threads


def watch_variable(read: Callable[[], str | None]) -> None:
    """Have MLflow read ``MLFLOW_TRACKING_URI`` by ``read``."""
    from mlflow.environment_variables import MLFLOW_TRACKING_URI

    MLFLOW_TRACKING_URI.get_raw = read


def watch_traces(begins: Callable[[str], None]) -> None:
    """Call ``begins`` with the id of each trace whose first span has begun; it may not raise."""
    from mlflow.tracing.trace_manager import InMemoryTraceManager

    register = InMemoryTraceManager.register_trace
    if hasattr(register, "by_armory"):
        return

    def register_trace(manager: Any, otel_trace_id: int, trace_info: Any, **kwargs: Any) -> Any:
        begins(trace_info.trace_id)
        return register(manager, otel_trace_id, trace_info, **kwargs)

    register_trace.by_armory = True  # type: ignore[attr-defined] # a mark
    InMemoryTraceManager.register_trace = register_trace


Opening = Callable[[inspect.BoundArguments], AbstractContextManager[Callable[[Any], None]]]


def watch_start_run(opening: Opening) -> None:
    """Enter ``opening`` while MLflow's ``start_run`` runs: it may change its arguments.

    What it gives is called with the run that was opened. The function itself is changed, and not
    what its names refer to: modules have imported it by name, and users have wrapped it.
    """
    function = fluent_api().start_run
    if hasattr(function, "by_armory"):
        return
    signature = inspect.signature(function)
    original = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    original.__kwdefaults__ = function.__kwdefaults__

    def start_run(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:
            return original(*args, **kwargs)  # which says what is wrong in MLflow's words
        with opening(given) as note:
            run = original(*given.args, **given.kwargs)
        note(run)
        return run

    function.__globals__["_start_run_by_armory"] = start_run
    function.__code__ = _ask_armory.__code__
    function.__defaults__ = function.__kwdefaults__ = None
    function.__signature__ = signature  # which inspect reads
    function.by_armory = True  # a mark


def _ask_armory(*args: Any, **kwargs: Any) -> Any:
    return _start_run_by_armory(*args, **kwargs)  # type: ignore[name-defined] # noqa: F821 - MLflow's
