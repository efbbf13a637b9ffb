"""Where a run is stored: at its destination, or in the local database if that is unreachable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from pytest_armory.errors import TrackingError

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoreRun
    from pytest_armory.store.destination import Destination

_INHERITED = ("armory.session", "armory.shard", "armory.process")


@dataclass(frozen=True)
class Location:
    """A run, and the store that holds it."""

    store: Store
    run: StoreRun

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self.run.run_id

    @property
    def experiment_id(self) -> str:
        """MLflow's id of the run's experiment."""
        return self.run.experiment_id

    @property
    def url(self) -> str | None:
        """The run's page on the tracking server, or None without a server."""
        return self.store.run_url(self.run.experiment_id, self.run.run_id)

    @property
    def context_tags(self) -> dict[str, str]:
        """The tags of runs that are opened inside this one, by which they are found."""
        inherited = {name: self.run.tags[name] for name in _INHERITED if name in self.run.tags}
        return {**inherited, "armory.opened_in": self.run.run_id}


def unknown_experiment(experiment_id: str, where: str) -> TrackingError:
    """The error for an experiment given by its id, where ids are of another database by now."""
    return TrackingError(
        f"{where} has another database than before, in which the experiment {experiment_id} may be "
        "somebody else's: nothing is stored there; give its name, as in --armory-experiment NAME"
    )


@dataclass(frozen=True)
class LocalFallback:
    """The local run to open for an evaluation whose destination is unreachable.

    It waits in the database ``local`` until ``pytest-armory sync`` uploads it; its ``tags`` say
    where to.
    """

    local: Destination
    name: str
    tags: Mapping[str, str]
    experiment: str

    def local_experiment_id(self) -> str:
        """The id of the experiment in the local database, created if need be."""
        from pytest_armory.store import open_store

        return open_store(self.local).experiments.id_of(self.experiment)

    def open(self, tags: Mapping[str, str]) -> Location:
        """Open the local run, with these tags besides its own. Raises :class:`TrackingError`."""
        from pytest_armory.store import open_store

        experiment_id = self.local_experiment_id()
        store = open_store(self.local)
        return Location(store, store.create_run(experiment_id, self.name, {**self.tags, **tags}))

    def keep_files(self, owner: Location, files: Mapping[str, str | bytes | Path]) -> None:
        """Keep artifacts of a run locally until they are uploaded."""
        from pytest_armory.store import open_store
        from pytest_armory.store.waiting_files import keep_for_upload

        where = self.tags["armory.destination"]
        keep_for_upload(open_store(self.local), where, owner.run, files)

    def open_again(self, first: Location) -> Location:
        """Open a run again in a store that has lost it. Raises :class:`TrackingError`."""
        experiments = first.store.experiments
        experiments.forget()
        if "armory.experiment_id" in self.tags:
            raise unknown_experiment(self.tags["armory.experiment_id"], first.store.where)
        tags = {k: v for k, v in first.run.tags.items() if k != "mlflow.parentRunId"}
        tags["armory.key"] = token_hex(16)
        experiment_id = experiments.id_of(self.experiment)
        return Location(first.store, first.store.create_run(experiment_id, self.name, tags))

    def open_continuation(self, first: Location) -> Location:
        """Open the local run in which a run continues whose server became unreachable."""
        return self.open({**first.run.tags, "armory.remote_run_id": first.run_id})
