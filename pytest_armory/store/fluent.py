"""The one place that touches MLflow's fluent state: tracking URI and active runs.

``mlflow.start_run(run_id=…)`` would cost three requests and ``mlflow.end_run`` one that cannot be
moved; so a run that was made through the client is put on, and taken off, the stack that
``mlflow.active_run()`` reads. The stack is private to MLflow: the CI matrix runs the oldest and
the newest supported version against it.
"""

from __future__ import annotations

from typing import Any

from pytest_armory.store._mlflow import import_mlflow


def use_tracking_uri(uri: str) -> None:
    """Let ``mlflow.*`` calls of this process, and of its children, go to ``uri``."""
    import_mlflow().set_tracking_uri(uri)


def forget_tracking_uri() -> None:
    """Let MLflow choose its URI again, by its environment."""
    import_mlflow().set_tracking_uri(None)


def activate(run: Any) -> None:
    """Make ``run``, an ``mlflow.entities.Run``, this thread's active run."""
    from mlflow.tracking import fluent

    fluent._active_run_stack.get().append(fluent.ActiveRun(run))


def deactivate(run_id: str) -> list[str]:
    """Take the run off this thread's stack; returns the ids of runs left open above it."""
    from mlflow.tracking import fluent

    stack = fluent._active_run_stack.get()
    ids = [run.info.run_id for run in stack]
    if run_id not in ids:
        return []  # the test ended it itself
    above = ids[ids.index(run_id) + 1 :]
    del stack[ids.index(run_id) :]
    return above
