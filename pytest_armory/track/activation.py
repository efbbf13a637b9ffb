"""A run as MLflow's active run, so that ``mlflow.log_*`` of its thread and children land in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pytest_armory.errors import TrackingError
from pytest_armory.track.location import Location

if TYPE_CHECKING:
    from pytest_armory.store.active_run import ActiveRun


class Activation:
    """One run while it is active.

    ``problems`` takes a sentence for what MLflow itself could not do for the run in the background.
    ``keep_uri`` leaves a tracking URI in force that is the user's own: then the run is not active
    before that ends.
    """

    def __init__(self, location: Location, problems: list[str], *, keep_uri: bool) -> None:
        from pytest_armory.store import active_run, stack

        store = location.store
        self.problems = problems
        self.run: ActiveRun = active_run.activate(
            location.run.entity, store.uri, location.context_tags, problems, keep_uri=keep_uri
        )
        self._location = location
        self._stop_monitoring: Callable[[], None] | None = None
        self._all_reads = stack.all_reads
        self._reads = stack.all_reads()
        self.monitor()

    @property
    def was_used(self) -> bool:
        """Whether other code may have written to the run: it has asked for the active run."""
        return self._stop_monitoring is not None or self._all_reads() != self._reads

    def monitor(self) -> None:
        """Start MLflow's system metrics where its own switch is on by now."""
        from pytest_armory.store.monitor import is_switched_on, system_metrics

        if self._stop_monitoring is not None or not is_switched_on():
            return
        try:
            location = self._location
            self._stop_monitoring = system_metrics(location.run_id, location.store.uri)
        except TrackingError as error:
            self.problems.append(str(error))

    def replace(self, location: Location) -> None:
        """Make another store's run the active one, unless the code has a run open inside this one.

        That one is at the first store, and what the code calls goes on there.
        """
        if self.run.is_innermost():
            self.run.replace(location.run.entity, location.store.uri, location.context_tags)

    def close(self) -> list[str]:
        """Make active what was so before; the ids of runs that the code has left open."""
        try:
            if self._stop_monitoring is not None:
                self._stop_monitoring()
        except TrackingError as error:
            self.problems.append(str(error))
        return self.run.close()


def own_metrics(since: float, inside: Activation | None = None) -> Mapping[str, float]:
    """What code has logged since then by ``mlflow.*`` itself, to a run that it has opened itself.

    ``since`` is in seconds since the epoch; ``inside`` is our own active run, if there is one.
    """
    from pytest_armory.store import fluent

    return fluent.own_metrics(since, inside.run if inside is not None else None)
