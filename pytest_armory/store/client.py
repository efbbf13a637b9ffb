"""The store of one destination: it creates, writes and closes runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from random import uniform
from time import monotonic, sleep
from types import MappingProxyType
from typing import Any

from pytest_armory.environment import changed
from pytest_armory.records.sample_tag import DatasetIdentity
from pytest_armory.store import fluent
from pytest_armory.store.active_model import linked_to_no_model
from pytest_armory.store.artifacts import has_files, list_files, read_file, store_files
from pytest_armory.store.background import Background
from pytest_armory.store.circuit import WITHOUT_RETRIES
from pytest_armory.store.connection import Connection
from pytest_armory.store.datasets import log_datasets
from pytest_armory.store.destination import Destination
from pytest_armory.store.experiments import Experiments
from pytest_armory.store.pages import run_page
from pytest_armory.store.runs import NAME_LIMIT, StoredRun, StoreRun, milliseconds, stored_run
from pytest_armory.store.search import RunSearch
from pytest_armory.store.stack import take_open
from pytest_armory.store.translation import GoneError, is_transient, translated
from pytest_armory.values import TAG_LIMIT, clip, redact_text, redacted_value, visible


class Store:
    """MLflow at one destination, for one process.

    Each method makes one request, or documents how many. ``experiments``, ``search`` and
    ``background`` are its parts.
    """

    def __init__(self, destination: Destination) -> None:
        self.connection = Connection(destination)
        self.destination = destination
        self.where = self.connection.where
        self.uri = self.connection.uri
        self.experiments = Experiments(self.connection)
        self.search = RunSearch(self.connection, self.experiments)
        self.background = Background(destination.is_remote)

    # Runs

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> StoreRun:
        """Open a run with its tags; if it has an ``armory.key``, never twice with the same."""
        create = partial(
            self.connection.client.create_run,
            experiment_id,
            start_time=milliseconds(),
            tags=_legal_tags(tags),
            run_name=clip(redacted_value(name, 10 * NAME_LIMIT), NAME_LIMIT),
        )
        key = tags.get("armory.key")
        if key is not None and self.destination.is_remote:
            create = partial(_create_idempotently, self.connection, create, experiment_id, key)
        run = self._create_where_it_belongs(experiment_id, create)
        if not run.info.run_id:
            raise self.connection.not_mlflow("opening a run", "a run without an ID")
        return StoreRun(
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            artifact_uri=run.info.artifact_uri,
            tags=dict(tags),
            entity=run,
        )

    def _create_where_it_belongs(self, experiment_id: str, create: Callable[[], Any]) -> Any:
        """Create a run, and undo it if the server was replaced while the request was retried."""
        name = self.experiments.name_of(experiment_id)
        run = self.connection.call("opening a run", create)
        if name is None or not self.connection.was_silent:
            return run
        if self.experiments.look_up(name) == experiment_id:
            return run
        self.delete_run(run.info.run_id)
        raise GoneError(f"the experiment {name!r} is another one at {self.where} than before")

    def log_batch(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Iterable[tuple[str, float, int]] = (),
        tags: Mapping[str, str] | None = None,
        now: int | None = None,
    ) -> None:
        """Write params, metrics (name, value, step) and tags; within MLflow's limits, at once.

        ``now`` is the metrics' time in milliseconds since the epoch.

        One request for up to 100 params, 100 tags and 1,000 entities in all; no request for none.
        """
        from mlflow.entities import Metric, Param, RunTag

        now = now or milliseconds()
        write = partial(
            _write_batch,
            self.connection,
            run_id,
            [Metric(name, value, now, step) for name, value, step in metrics],
            [Param(key, value) for key, value in (params or {}).items()],
            [RunTag(key, value) for key, value in _legal_tags(tags or {}).items()],
        )
        with linked_to_no_model():
            self.connection.call("writing to a run", write)

    def log_files(self, run: StoreRun | StoredRun, files: Mapping[str, str | bytes | Path]) -> None:
        """Store artifacts by their path in the run, from text, bytes or a file on disk."""
        store_files(self.connection, run.artifact_uri, files)

    def list_files(self, run: StoredRun, folder: str = "") -> list[tuple[str, int | None]]:
        """The artifacts in a folder of a run, with their sizes in bytes; None for a folder."""
        return list_files(self.connection, run.artifact_uri, folder)

    def log_datasets(self, run: StoreRun, datasets: Iterable[DatasetIdentity]) -> None:
        """Say which data a run was of; no request for none."""
        log_datasets(self.connection, run, datasets)

    def may_have_tables(self, run: StoreRun) -> bool:
        """Whether code may have stored tables with a run by MLflow; no request."""
        return has_files(run.artifact_uri)

    def read_file(self, artifact_uri: str, path: str) -> bytes:
        """The content of one of a run's artifacts; :class:`TrackingError` if there is none."""
        return read_file(self.connection, artifact_uri, path)

    def close_run(self, run_id: str, status: str, end: int | None = None) -> None:
        """Set a run's final status and its end in milliseconds since the epoch."""
        client = self.connection.client
        self.connection.call("closing a run", partial(client.set_terminated, run_id, status, end))

    def close_users_run(
        self, run_id: str, opened_in: str, end: int | None = None, name: str = ""
    ) -> str:
        """Close a run that was left open inside another, in two requests; a sentence about it.

        ``opened_in`` is empty for one of a fixture wider than a test; ``name`` is what the other
        one is called in the sentence.
        """
        if opened_in:
            self.log_batch(run_id, tags={"armory.left_open_in": opened_in})
        self.close_run(run_id, "FINISHED", end)
        where = f"inside {name or opened_in}" if opened_in else "by a fixture wider than a test"
        return f"the MLflow run {run_id} was left open {where}: closed"

    def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted."""
        client = self.connection.client
        self.connection.call("deleting a run", partial(client.delete_run, run_id))

    def delete_tag(self, run_id: str, name: str) -> None:
        """Delete a tag of a run."""
        client = self.connection.client
        self.connection.call("deleting a tag", partial(client.delete_tag, run_id, name))

    def metrics_of(self, run_id: str) -> Mapping[str, float]:
        """The last value of each of a run's metrics."""
        return stored_run(self.entity(run_id)).metrics

    def entity(self, run_id: str) -> Any:
        """A run as MLflow's own ``Run``."""
        self.flush()
        client = self.connection.client
        return self.connection.call("reading a run", partial(client.get_run, run_id))

    def run_url(self, experiment_id: str, run_id: str) -> str | None:
        """The run's page on the tracking server; None if the destination is not a server."""
        if not self.destination.is_server:
            return None
        return run_page(_without_userinfo(self.uri), experiment_id, run_id)

    # The fluent API of the test's own code

    def flush(self) -> None:
        """Wait for what code has logged asynchronously by MLflow."""
        with translated("writing to a run", self.where):
            fluent.flush(self.uri)

    def close_left_open(
        self, left: Mapping[str, str], names: Mapping[str, str] = MappingProxyType({})
    ) -> list[str]:
        """Close those of the runs that have not ended; they map to the run they were opened in.

        Returns a sentence for each, with what ``names`` calls that run.
        """
        return [
            self.close_users_run(run_id, left[run_id], name=names.get(left[run_id], ""))
            for run_id in take_open(left)
        ]


@lru_cache(maxsize=8)
def open_store(destination: Destination) -> Store:
    """The store of a destination; opened once per process, which costs seconds the first time."""
    return Store(destination)


def _create_idempotently(
    connection: Connection, create: Callable[[], Any], experiment_id: str, key: str
) -> Any:
    """Create a run at a server; after a lost response, search the run before trying again.

    MLflow would send the same request again, and create two runs.
    """
    deadline = monotonic() + connection.circuit.budget
    while True:
        try:
            with changed(WITHOUT_RETRIES):
                return create()
        except Exception as error:
            if not is_transient(error) or monotonic() > deadline:
                raise
        sleep(uniform(0.2, 0.6))
        condition = f"tags.`armory.key` = '{key}'"
        found = connection.client.search_runs([experiment_id], condition, max_results=1)
        if found:
            return found[0]


def _write_batch(
    connection: Connection, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]
) -> None:
    """Write one batch, never asynchronously, which the environment may configure."""
    client = connection.client
    if connection.destination.is_remote or params or len(metrics) + len(tags) > 2:
        client.log_batch(run_id, metrics, params, tags, synchronous=True)
        return
    # With a database, a batch of two takes half as long again as two single writes.
    for metric in metrics:
        value, time, step = metric.value, metric.timestamp, metric.step
        client.log_metric(run_id, metric.key, value, time, step, synchronous=True)
    for tag in tags:
        client.set_tag(run_id, tag.key, tag.value, synchronous=True)


def _legal_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: clip(visible(value), TAG_LIMIT) for key, value in tags.items()}


def _without_userinfo(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return redact_text(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}")
