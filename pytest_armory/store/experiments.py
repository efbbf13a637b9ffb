"""Experiments by name: found, or created if there is none."""

from __future__ import annotations

from functools import partial

from pytest_armory.errors import TrackingError
from pytest_armory.store.connection import Connection


class Experiments:
    """The experiments of a store."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ids: dict[str, str] = {}
        self.generation = 0
        """How often ids that were known have turned out to be of another database."""

    def forget(self) -> None:
        """Look every id up again: one of them is not what it was."""
        self._ids.clear()
        self.generation += 1

    def name_of(self, experiment_id: str) -> str | None:
        """The name that an id was looked up by, if any."""
        return next((name for name, known in self._ids.items() if known == experiment_id), None)

    def id_of(self, name: str) -> str:
        """The id of the experiment of that name, created if need be.

        It is looked up once per process, and again if the server may have been restarted: with an
        empty database the id is another experiment's, or will be.
        """
        known = self._ids.get(name)
        if known is not None and not self._connection.may_be_replaced:
            return known
        return self.look_up(name)

    def look_up(self, name: str) -> str:
        """The same, as it is now."""
        experiment_id = self._connection.call(
            f"opening the experiment {name!r}",
            partial(
                find_or_create_experiment,
                self._connection,
                name,
                ", or give the evaluations another name",
            ),
        )
        if not experiment_id:
            raise self._connection.not_mlflow(
                "opening an experiment", "an experiment without an ID"
            )
        if self._ids.get(name, experiment_id) != experiment_id:
            self.forget()
        self._ids[name] = experiment_id
        return experiment_id

    def ids(self) -> list[str]:
        """The id of every experiment that is not deleted; one request per 1,000 of them."""
        return list(self.names())

    def names(self) -> dict[str, str]:
        """The same with the name of each, by id."""
        search = partial(self._connection.client.search_experiments, max_results=1000)
        found = self._connection.pages("searching experiments", search)
        return {experiment.experiment_id: experiment.name for experiment in found}


def find_or_create_experiment(connection: Connection, name: str, alternative: str = "") -> str:
    """The id of the experiment of that name, in at most three requests.

    Raises :class:`TrackingError` for a deleted one, and what MLflow raises; ``alternative`` is what
    the user may do instead of restoring it.
    """
    return _find(connection, name, alternative) or _create(connection, name, alternative)


def _find(connection: Connection, name: str, alternative: str) -> str | None:
    experiment = connection.client.get_experiment_by_name(name)
    if experiment is None:
        return None
    if experiment.lifecycle_stage == "deleted":
        raise TrackingError(
            f"the experiment {name!r} at {connection.where} was deleted; bring it back with "
            f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`{alternative}"
        )
    return str(experiment.experiment_id)


def _create(connection: Connection, name: str, alternative: str) -> str:
    from mlflow.exceptions import MlflowException

    # By default that of a SQLite store is ./mlruns in the first process's directory.
    artifacts = connection.destination.artifacts
    location = artifacts.as_uri() if artifacts else None
    try:
        return str(connection.client.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        found = _find(connection, name, alternative)  # created by another process meanwhile
        if found is None:
            raise
        return found
