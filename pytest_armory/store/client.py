"""Runs, batches and searches: each method here is one request, or says how many it makes."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic, sleep, time_ns
from typing import Any, TypeVar

from pytest_armory.environment import changed
from pytest_armory.errors import LoginRefusedError, StoreUnreachableError, TrackingError
from pytest_armory.store import fluent
from pytest_armory.store._mlflow import (
    import_mlflow,
    is_unwell,
    may_be_passing,
    quietly,
    translated,
)
from pytest_armory.store.circuit import WITHOUT_RETRIES, circuit_of
from pytest_armory.store.database import (
    ensure_database,
    explain_faults,
    import_database_store,
    sqlite_uri,
    tune,
)
from pytest_armory.store.destination import Destination
from pytest_armory.values import TAG_LIMIT, clip, redact_text, visible

T = TypeVar("T")

PAGE = 250
"""Runs in an answer: MLflow makes some 60 kB of objects of each before it is done with all."""

NAME_LIMIT = 250
"""What the database's column for a run's name holds."""


@dataclass(frozen=True)
class StoreRun:
    """A run that was made here; ``entity`` is MLflow's own ``Run``."""

    run_id: str
    experiment_id: str
    artifact_uri: str
    tags: Mapping[str, str]
    entity: Any

    @property
    def parent_id(self) -> str | None:
        """The id of the run it was opened under, if any."""
        return self.tags.get("mlflow.parentRunId")


@dataclass(frozen=True)
class StoredRun:
    """A run as the store holds it.

    ``start``, ``end`` and ``seen``, when its last metric was logged or it began, are in
    milliseconds since the epoch.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    start: int
    end: int | None
    seen: int
    artifact_uri: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


class Store:
    """MLflow at one destination, for one process."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.where = destination.display_uri
        self._experiments: dict[str, str] = {}
        self._background: ThreadPoolExecutor | None = None
        self._pending: list[tuple[Future[None], Callable[[TrackingError], None]]] = []
        self.circuit = circuit_of(destination.display_uri)
        with translated("opening the store", self.where), quietly():
            if destination.database and destination.artifacts:
                # First, for importing MLflow takes seconds, and it may be refused.
                ensure_database(destination.database, destination.artifacts)
            import_mlflow()
            from mlflow import MlflowClient

            if destination.database:
                self.uri = destination.uri or sqlite_uri(destination.database)
                import_database_store()
                explain_faults(destination.database)
                tune(destination.database, self.circuit)
            else:
                self.uri = str(destination.uri)
            self._client = MlflowClient(self.uri)
            self._pid = os.getpid()
            self._told: set[int] = set()
            if destination.database:
                self.client.get_experiment("0")  # MLflow opens a database at its first query
        _stores.add(self)

    @property
    def client(self) -> Any:
        """MLflow's client, for the process that opened it."""
        self._check_process()
        return self._client

    def _check_process(self) -> None:
        if os.getpid() == self._pid:
            return
        text = (
            f"process {os.getpid()} was forked from the one that tracks to {self.where}, and does "
            "not write there; return what it measured, and log it in the parent process"
        )
        if os.getpid() not in self._told:  # who waits for the parent's summary hears nothing of it
            self._told.add(os.getpid())
            sys.stderr.write(f"armory: {text}\n")
        raise TrackingError(text)

    def _ask(self, doing: str, work: Callable[[], T], size: int = 0) -> T:
        """Do one call, within its budget where it crosses a network."""
        self._check_process()
        try:
            with translated(doing, self.where):
                if not self.destination.is_remote:
                    return self.circuit.watch(work)
                deadline = monotonic() + self.circuit.budget
                return self.circuit.call(partial(_retry, work, deadline), size)
        except StoreUnreachableError as error:
            if not self.circuit.is_open:
                self.circuit.trip(str(error), for_good=isinstance(error, LoginRefusedError))
            raise

    # Experiments

    def experiment_id(self, name: str) -> str:
        """The id of the experiment of that name, made if need be; asked once per process."""
        if name not in self._experiments:
            self._experiments[name] = self._ask(
                f"opening the experiment {name!r}",
                lambda: self._find_experiment(name) or self._make_experiment(name),
            )
            if not self._experiments[name]:
                del self._experiments[name]
                raise self._no_server("opening an experiment", "an experiment without an ID")
        return self._experiments[name]

    def _find_experiment(self, name: str) -> str | None:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the experiment {name!r} at {self.where} was deleted; bring it back with "
                f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`, or give "
                "the evaluations another name"
            )
        return str(experiment.experiment_id)

    def _make_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        artifacts = self.destination.artifacts
        try:
            # Without a location, that of a SQLite store is ./mlruns of whoever came first.
            location = artifacts.as_uri() if artifacts else None
            return str(self.client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = self._find_experiment(name)  # another process won the race
            if found is None:
                raise
            return found

    def experiment_ids(self) -> list[str]:
        """The id of every experiment that is not deleted; one request per 1,000 of them."""
        found: list[str] = []
        token: str | None = None
        while True:
            search = partial(self.client.search_experiments, max_results=1000, page_token=token)
            page = self._ask("searching experiments", search)
            found.extend(experiment.experiment_id for experiment in page)
            token = page.token
            if not token:
                return found

    # Runs

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> StoreRun:
        """Open a run with its tags; never twice under one ``armory.key``, if it is given one."""
        create = partial(
            self.client.create_run,
            experiment_id,
            start_time=milliseconds(),
            tags=_as_stored(tags),
            run_name=clip(visible(redact_text(name)), NAME_LIMIT),
        )
        key = tags.get("armory.key")
        run = self._ask(
            "opening a run", lambda: self._create_idempotently(create, experiment_id, key)
        )
        if not run.info.run_id:
            raise self._no_server("opening a run", "a run without an ID")
        return StoreRun(
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            artifact_uri=run.info.artifact_uri,
            tags=dict(tags),
            entity=run,
        )

    def _no_server(self, doing: str, answer: str) -> StoreUnreachableError:
        """The error for an answer that MLflow reads something from, but nothing of its own."""
        reason = (
            f"{doing} failed at {self.where}: it is no MLflow server, it answered with {answer}"
        )
        self.circuit.trip(reason)
        return StoreUnreachableError(reason)

    def _create_idempotently(
        self, create: Callable[[], Any], experiment_id: str, key: str | None
    ) -> Any:
        """Create a run where the answer may be lost: before another try, look whether it is there.

        MLflow would send the same request again, and have two runs.
        """
        if key is None or not self.destination.is_remote:
            return create()
        deadline = monotonic() + self.circuit.budget
        while True:
            try:
                with changed(WITHOUT_RETRIES):
                    return create()
            except Exception as error:
                if not may_be_passing(error) or monotonic() > deadline:
                    raise
            sleep(random.uniform(0.2, 0.6))
            condition = f"tags.`armory.key` = '{key}'"
            found = self.client.search_runs([experiment_id], condition, max_results=1)
            if found:
                return found[0]

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
            self._write,
            run_id,
            [Metric(name, value, now, step) for name, value, step in metrics],
            [Param(key, value) for key, value in (params or {}).items()],
            [RunTag(key, value) for key, value in _as_stored(tags or {}).items()],
        )
        self._ask("writing to a run", write)

    def _write(self, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
        """One batch, never in a thread of MLflow's, which the environment may ask for."""
        if self.destination.is_remote or params or len(metrics) + len(tags) > 2:
            self.client.log_batch(run_id, metrics, params, tags, synchronous=True)
            return
        # To a database a batch of two costs half as much again as both alone.
        for metric in metrics:
            value, time_, step = metric.value, metric.timestamp, metric.step
            self.client.log_metric(run_id, metric.key, value, time_, step, synchronous=True)
        for tag in tags:
            self.client.set_tag(run_id, tag.key, tag.value, synchronous=True)

    def close_run(self, run_id: str, status: str, end: int | None = None) -> None:
        """Set a run's final status and its end in milliseconds since the epoch."""
        self._ask("closing a run", lambda: self.client.set_terminated(run_id, status, end))

    def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted."""
        self._ask("deleting a run", lambda: self.client.delete_run(run_id))

    def log_files(self, run: StoreRun | StoredRun, files: Mapping[str, str | bytes | Path]) -> None:
        """Store artifacts by their path in the run, from text, bytes or a file on disk."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        def store_one(path: str, file: Path) -> None:
            repository = get_artifact_repository(run.artifact_uri, tracking_uri=self.uri)
            repository.log_artifact(str(file), path.rpartition("/")[0] or None)

        doing = "storing artifacts"
        with translated(doing, self.where), tempfile.TemporaryDirectory() as folder:
            for path, content in files.items():
                name = path.rpartition("/")[2]
                local = content if isinstance(content, Path) else Path(folder, name)
                if isinstance(content, bytes):
                    local.write_bytes(content)
                elif isinstance(content, str):
                    local.write_text(content, encoding="utf-8", errors="backslashreplace")
                size = local.stat().st_size
                self._ask(doing, partial(store_one, path, local), size)

    def metrics_of(self, run_id: str) -> Mapping[str, float]:
        """The last value of each of a run's metrics."""
        self.flush()
        run = self._ask("reading a run", lambda: self.client.get_run(run_id))
        return _stored(run).metrics

    def session_runs(self, session: str, experiment_ids: Iterable[str]) -> list[StoredRun]:
        """Every run of a session, session runs included, by start; a request per page."""
        return self.search(experiment_ids, f"tags.`armory.session` = '{session}'")

    def session_runs_of(self, session: str, experiment_id: str) -> list[StoredRun]:
        """The session's own runs in an experiment: one, but for jobs that began at once."""
        mine = f"tags.`armory.session` = '{session}' AND tags.`armory.kind` = 'session'"
        return self.search([experiment_id], mine)

    def open_runs(self) -> list[StoredRun]:
        """Every run of any session that is still ``RUNNING``."""
        mine = "tags.`armory.session` LIKE '%'"
        return self.search(self.experiment_ids(), f"attributes.status = 'RUNNING' AND {mine}")

    def latest_sessions(self, most: int) -> list[StoredRun]:
        """The session runs that started last, the newest first."""
        condition = "tags.`armory.kind` = 'session'"
        return self.search(self.experiment_ids(), condition, newest=True, most=most)

    def search(
        self,
        experiment_ids: Iterable[str],
        condition: str,
        newest: bool = False,
        most: int | None = None,
    ) -> list[StoredRun]:
        """Runs by MLflow's filter string, the oldest or the newest first."""
        found: list[StoredRun] = []
        ids = list(experiment_ids)
        token: str | None = None
        while ids:
            search = partial(
                self.client.search_runs,
                ids,
                filter_string=condition,
                max_results=min(most or PAGE, PAGE),
                order_by=[f"attributes.start_time {'DESC' if newest else 'ASC'}"],
                page_token=token,
            )
            page = self._ask("searching runs", search)
            found.extend(_stored(run) for run in page)
            token = page.token
            if not token or (most and len(found) >= most):
                break
        return found[:most]

    def run_url(self, experiment_id: str, run_id: str) -> str | None:
        """Where a browser shows the run, if the destination is a server that has pages."""
        if not self.destination.is_server:
            return None
        base = _without_userinfo(self.uri).rstrip("/")
        return f"{base}/#/experiments/{experiment_id}/runs/{run_id}"

    def close_stray(self, run_id: str, opened_in: str, end: int | None = None) -> str:
        """Close a run that was left open inside another; returns what is to be told of it."""
        self.log_batch(run_id, tags={"armory.left_open_in": opened_in})
        self.close_run(run_id, "FINISHED", end)
        return f"the MLflow run {run_id} was left open inside {opened_in}: closed"

    # The fluent API of the test's own code

    def activate(self, run: StoreRun) -> fluent.FluentState:
        """Let ``mlflow.log_*`` of this thread land in the run."""
        return fluent.activate(run.entity, self.uri)

    def deactivate(self, run: StoreRun, place: fluent.FluentState) -> list[str]:
        """Take the run off again; returns the ids of runs the code left open inside it."""
        return fluent.deactivate(run.run_id, self.uri, place)

    def is_innermost(self, run: StoreRun, place: fluent.FluentState) -> bool:
        """Whether no run that the code has opened itself stands above the run."""
        return fluent.is_innermost(run.run_id, place)

    def replace_active(
        self, run: StoreRun, store: Store, other: StoreRun, place: fluent.FluentState
    ) -> fluent.FluentState:
        """Put another store's run where one of this store is active."""
        return fluent.replace(run.run_id, other.entity, store.uri, place)

    def flush(self) -> None:
        """Wait for what code has logged here in threads of MLflow's."""
        with translated("writing to a run", self.where):
            fluent.flush(self.uri)

    def close_left_open(self, left: Mapping[str, str]) -> list[str]:
        """Close those of the runs, each by the run it was opened in, that nobody has ended yet.

        Returns a sentence for each.
        """
        return [self.close_stray(run_id, left[run_id]) for run_id in fluent.take_open(left)]

    # Requests whose latency is hidden behind the next test

    def later(self, work: Callable[[], None], failed: Callable[[TrackingError], None]) -> None:
        """Do ``work`` at once for a local database, else in the background, in order.

        ``failed`` is called with the error by :meth:`drain`, or at once.
        """
        if not self.destination.is_remote:
            _attempt(work, failed)
            return
        self._collect()
        if self._background is None:
            self._background = ThreadPoolExecutor(1, thread_name_prefix="armory-store")
        self._pending.append((self._background.submit(work), failed))

    def drain(self) -> None:
        """Await what :meth:`later` was given, and end its thread."""
        if self._background is not None:
            self._background.shutdown(wait=True)
            self._background = None
        self._collect()

    def _collect(self) -> None:
        done = [entry for entry in self._pending if entry[0].done()]
        self._pending = [entry for entry in self._pending if not entry[0].done()]
        for future, failed in done:
            _attempt(future.result, failed)

    # What sync asks of the local database

    def runs_with_tag(self, tag: str) -> list[StoredRun]:
        """Every run that carries a tag, by start; a request per page."""
        return self.search(self.experiment_ids(), f"tags.`{tag}` LIKE '%'")

    def runs_inside(self, run: StoredRun) -> list[StoredRun]:
        """The children of a run that are in its experiment."""
        return self.search([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'")

    def find_run(self, run_id: str) -> StoredRun | None:
        """The run of that id, or None; a deleted one is none."""
        run = self.find_entity(run_id)
        return None if run is None else _stored(run)

    def find_entity(self, run_id: str) -> Any:
        """The same as MLflow's own ``Run``."""
        from mlflow.exceptions import MlflowException

        with translated("reading a run", self.where):
            try:
                run = self.client.get_run(run_id)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                return None
        return run if run.info.lifecycle_stage == "active" else None


def _retry(work: Callable[[], T], deadline: float) -> T:
    """Do work again for as long as a server answers that it is not well at the moment."""
    while True:
        try:
            return work()
        except Exception as error:
            if not is_unwell(error) or monotonic() > deadline:
                raise
        sleep(random.uniform(0.2, 0.6))


def _attempt(work: Callable[[], None], failed: Callable[[TrackingError], None]) -> None:
    try:
        work()
    except TrackingError as error:
        failed(error)


_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _drain_all() -> None:
    for store in list(_stores):
        store.drain()


# A fork with our thread alive would copy its locks and make Python warn in the user's test.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_drain_all)


@lru_cache(maxsize=8)
def open_store(destination: Destination) -> Store:
    """The store of a destination; opened once per process, which costs seconds the first time."""
    return Store(destination)


def milliseconds() -> int:
    """Now, in milliseconds since the epoch, as MLflow counts."""
    return time_ns() // 1_000_000


def json_text(value: object) -> str:
    """A JSON artifact's text."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _as_stored(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: clip(visible(value), TAG_LIMIT) for key, value in tags.items()}


def _stored(run: Any) -> StoredRun:
    return StoredRun(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        name=run.info.run_name or "",
        status=run.info.status,
        start=run.info.start_time,
        end=run.info.end_time,
        seen=max([run.info.start_time, *(m.timestamp for m in fluent.last_values(run))]),
        artifact_uri=run.info.artifact_uri,
        metrics={name: fluent.finite_or_not(value) for name, value in run.data.metrics.items()},
        params=dict(run.data.params),
        tags=dict(run.data.tags),
    )


def _without_userinfo(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return redact_text(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}")
