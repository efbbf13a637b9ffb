"""A run as MLflow's active run, so that ``mlflow.log_*`` of its thread and children land in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pytest_armory.track import environment
from pytest_armory.track.location import Location

_active: set[str] = set()
"""The ids of all runs that are active now, in whatever thread."""


class Activation:
    """One run while it is active; ``left_open`` are the runs that its code has not ended."""

    def __init__(self, location: Location, variables: dict[str, str | None]) -> None:
        self.left_open: list[str] = []
        self._variables = variables
        self._first = self._current = location
        self.state = location.store.activate(location.run)
        _active.add(location.run_id)

    def replace(self, location: Location) -> None:
        """Make another store's run the active one, unless the code has a run open inside this one.

        That one is at the first store, and what the code calls goes on there.
        """
        before = self._current
        if not before.store.is_innermost(before.run, self.state):
            return
        self.state = before.store.replace_active(
            before.run, location.store, location.run, self.state
        )
        self._current = location
        environment.change_override(self._variables, environment.child_variables(location))
        _active.discard(before.run_id)
        _active.add(location.run_id)

    def end(self) -> None:
        """Make active what was so before, and note what the code has left open."""
        _active.difference_update({self._first.run_id, self._current.run_id})
        left = self._current.store.deactivate(self._current.run, self.state)
        # Not those of a task beside this one, which opened later and has not ended.
        self.left_open = [run_id for run_id in left if run_id not in _active]


@contextmanager
def activated(location: Location) -> Iterator[Activation]:
    """Make a run MLflow's active run meanwhile, for this thread and for child processes."""
    variables = environment.child_variables(location)
    with environment.overridden(variables):
        activation = Activation(location, variables)
        try:
            yield activation
        finally:
            activation.end()


def own_metrics(since: float, inside: Activation | None = None) -> Mapping[str, float]:
    """What code has logged since then by ``mlflow.*`` itself, to a run that it has opened itself.

    ``since`` is in seconds since the epoch; ``inside`` is our own active run, if there is one.
    """
    from pytest_armory.store import fluent

    return fluent.own_metrics(since, inside.state if inside is not None else None)
