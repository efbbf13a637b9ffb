"""Searching a store's runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from pytest_armory.store.connection import Connection
from pytest_armory.store.experiments import Experiments
from pytest_armory.store.runs import StoredRun, stored_run

PAGE = 250
"""Runs per page: MLflow allocates some 60 kB of objects for each before it returns them all."""

IDS = 100
"""Runs per search by id, which sends all of their ids."""


class RunSearch:
    """Searches of a store's runs; deleted ones are found only where they are asked for."""

    def __init__(self, connection: Connection, experiments: Experiments) -> None:
        self._connection = connection
        self._experiments = experiments

    def runs(
        self,
        experiment_ids: Iterable[str],
        condition: str,
        newest: bool = False,
        most: int | None = None,
    ) -> list[StoredRun]:
        """Runs by MLflow's filter string, the oldest or the newest first; a request per page."""
        return list(self.each(experiment_ids, condition, newest, most))

    def each(
        self,
        experiment_ids: Iterable[str],
        condition: str,
        newest: bool = False,
        most: int | None = None,
        deleted: bool = False,
    ) -> Iterator[StoredRun]:
        """The same one by one: a page is requested when a run of it is asked for."""
        from mlflow.entities import ViewType

        ids = list(experiment_ids)
        if not ids:
            return iter(())
        search = partial(
            self._connection.client.search_runs,
            ids,
            filter_string=condition,
            run_view_type=ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
            max_results=min(most or PAGE, PAGE),
            order_by=[f"attributes.start_time {'DESC' if newest else 'ASC'}"],
        )
        found = self._connection.pages("searching runs", search)
        return map(stored_run, islice(found, most))

    def runs_of_session(self, session: str, experiment_ids: Iterable[str]) -> list[StoredRun]:
        """Every run of a session, session runs included, by start."""
        return self.runs(experiment_ids, _of_session(session))

    def open_of_session(self, session: str, experiment_ids: Iterable[str]) -> list[StoredRun]:
        """The runs of a session that are still ``RUNNING``."""
        return self.runs(
            experiment_ids, f"attributes.status = 'RUNNING' AND {_of_session(session)}"
        )

    def inside_of_session(self, session: str, experiment_ids: Iterable[str]) -> list[StoredRun]:
        """The runs that code has opened inside a session's evaluations."""
        return self.runs(
            experiment_ids, f"{_of_session(session)} AND tags.`armory.opened_in` LIKE '%'"
        )

    def has_deleted(self, session: str, experiment_ids: Iterable[str]) -> bool:
        """Whether a run of a session was deleted."""
        return any(self.each(experiment_ids, _of_session(session), most=1, deleted=True))

    def by_id(self, run_ids: Sequence[str], experiment_ids: Sequence[str]) -> list[StoredRun]:
        """Those of the runs that the experiments have; a request for each hundred."""
        parts = [run_ids[i : i + IDS] for i in range(0, len(run_ids), IDS)]
        conditions = [f"attributes.run_id IN ({', '.join(map(repr, part))})" for part in parts]
        return [run for one in conditions for run in self.runs(experiment_ids, one)]

    def session_runs(self, session: str, *experiment_ids: str) -> list[StoredRun]:
        """The session runs in experiments: one each, or several if jobs started at once."""
        mine = f"{_of_session(session)} AND tags.`armory.kind` = 'session'"
        return self.runs(experiment_ids, mine)

    def latest_sessions(self, most: int) -> list[StoredRun]:
        """The session runs that started last, the newest first."""
        condition = "tags.`armory.kind` = 'session'"
        return self.runs(self._experiments.ids(), condition, newest=True, most=most)

    def open_runs(self) -> list[StoredRun]:
        """Every run of any session that is still ``RUNNING``."""
        mine = "tags.`armory.session` LIKE '%'"
        return self.runs(self._experiments.ids(), f"attributes.status = 'RUNNING' AND {mine}")

    def runs_with_tag(self, tag: str) -> list[StoredRun]:
        """Every run that carries a tag, by start."""
        return self.runs(self._experiments.ids(), f"tags.`{tag}` LIKE '%'")

    def children(self, run: StoredRun) -> list[StoredRun]:
        """The children of a run that are in its experiment."""
        return self.runs([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'")

    def find(self, run_id: str) -> StoredRun | None:
        """The run of that id, or None; a deleted one is none."""
        run = find_entity(self._connection, run_id)
        return None if run is None else stored_run(run)


def _of_session(session: str) -> str:
    return f"tags.`armory.session` = '{session}'"


def find_entity(connection: Connection, run_id: str) -> Any:
    """The run of that id as MLflow's own ``Run``, or None; a deleted one is none."""
    from mlflow.exceptions import MlflowException

    def read() -> Any:
        try:
            return connection.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None

    run = connection.call_without_budget("reading a run", read)
    return run if run is not None and run.info.lifecycle_stage == "active" else None
