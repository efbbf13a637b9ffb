"""The two places where MLflow's own code is made to ask us: its stack, and ``start_run``.

Both stay for the life of the process, and do nothing while no run of ours is active.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from pytest_armory.store._mlflow import import_mlflow

Stacks = dict[int, list[Any]]
"""The active runs of each thread, the innermost last."""


def watch_stack(bring_up_to_date: Callable[[], None], shown: Callable[[Stacks], Stacks]) -> None:
    """Call ``bring_up_to_date`` before MLflow reads its stack; ``shown`` is what traces see."""
    from mlflow.tracking import fluent

    variable = fluent._active_run_stack
    if hasattr(variable.get, "by_armory"):
        return
    get, get_all = type(variable).get, type(variable).get_all_thread_values

    def up_to_date() -> list[Any]:
        bring_up_to_date()
        stack: list[Any] = get(variable)
        return stack

    def of_all_threads() -> Stacks:
        bring_up_to_date()
        return shown(get_all(variable))

    up_to_date.by_armory = True  # type: ignore[attr-defined] # a mark
    variable.get, variable.get_all_thread_values = up_to_date, of_all_threads


Opening = Callable[[inspect.BoundArguments], AbstractContextManager[Callable[[Any], None]]]


def watch_start_run(opening: Opening) -> None:
    """Enter ``opening`` while MLflow's ``start_run`` runs: it may change its arguments.

    What it gives is called with the run that was opened.
    """
    from mlflow.tracking import fluent

    mlflow, original = import_mlflow(), fluent.start_run
    if hasattr(original, "by_armory"):
        return
    signature = inspect.signature(original)

    @wraps(original)
    def start_run(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        with opening(given) as note:
            run = original(*given.args, **given.kwargs)
        note(run)
        return run

    start_run.by_armory = True  # type: ignore[attr-defined] # a mark
    fluent.start_run = start_run
    mlflow.start_run = start_run  # type: ignore[attr-defined] # its name for users
