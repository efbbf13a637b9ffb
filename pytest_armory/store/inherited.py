"""What threads and child processes of a tracked test inherit: where the runs belong that they open.

MLflow asks its plugins for the experiment and the tags of a run that code opens without naming
them. These answer from an environment variable, which child processes inherit, and only where the
tracking URI in force is the one that it names: in a store of the test's own an experiment's ID
would mean nothing, or another experiment.

MLflow's entry points import this wherever ``mlflow`` is imported, so it imports next to nothing. In
a child process of a tracked test that is when MLflow gets the tracking URI.
"""

from __future__ import annotations

from typing import Any

from pytest_armory.store.exported import exported


class ExperimentProvider:
    """MLflow's ``default_experiment_provider``: the experiment of the running evaluation."""

    def in_context(self) -> bool:
        """Whether an evaluation is running in the store in force."""
        return bool(_inherited())

    def get_experiment_id(self) -> str | None:
        """The evaluation's experiment."""
        found: str | None = _inherited().get("experiment_id")
        return found


class ContextProvider:
    """MLflow's ``run_context_provider``: the tags by which a run inside an evaluation is known."""

    def in_context(self) -> bool:
        """Whether an evaluation is running in the store in force."""
        return bool(_inherited())

    def tags(self) -> dict[str, str]:
        """The tags of runs that are opened inside it."""
        found: dict[str, str] = _inherited().get("tags", {})
        return found


def _inherited() -> dict[str, Any]:
    known = exported()
    if not known:
        return {}
    from mlflow.tracking import get_tracking_uri

    return known if known.get("uri") == get_tracking_uri() else {}


def _take_over() -> None:
    from pytest_armory.store.in_force import in_force
    from pytest_armory.store.patches import watch_variable

    watch_variable(in_force.environment)


if exported():
    _take_over()
