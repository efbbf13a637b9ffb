"""The one place that touches MLflow's fluent state: tracking URI and active runs.

``mlflow.start_run(run_id=…)`` would cost three requests and ``mlflow.end_run`` one that cannot be
moved; so a run that was made through the client is put on, and taken off, the stack that
``mlflow.active_run()`` reads. The stack is private to MLflow: the CI matrix runs the oldest and
the newest supported version against it.
"""

from __future__ import annotations

import threading
from typing import Any

from pytest_armory.store._mlflow import import_mlflow


def use_tracking_uri(uri: str) -> None:
    """Let ``mlflow.*`` calls of this process, and of its children, go to ``uri``."""
    import_mlflow().set_tracking_uri(uri)


def forget_tracking_uri() -> None:
    """Let MLflow choose its URI again, by its environment."""
    import_mlflow().set_tracking_uri(None)


def activate(run: Any) -> tuple[int, int]:
    """Make ``run``, an ``mlflow.entities.Run``, this thread's active run; its place for later."""
    from mlflow.tracking import fluent

    stack = fluent._active_run_stack.get()
    stack.append(fluent.ActiveRun(run))
    return threading.get_ident(), len(stack) - 1


def deactivate(run_id: str, place: tuple[int, int]) -> list[str]:
    """Take the run off its thread's stack again; returns the runs that were left open inside it.

    They stand above it, or in its place where the code inside has ended it and logged on: a fluent
    call without an active run opens one.
    """
    from mlflow.tracking import fluent

    thread, depth = place
    if thread != threading.get_ident():
        return []
    stack = fluent._active_run_stack.get()
    left = [run.info.run_id for run in stack[depth:]]
    del stack[depth:]
    return [left_id for left_id in left if left_id != run_id]
