"""The session run of each experiment: the parent of its evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING

from pytest_armory import __version__
from pytest_armory.errors import TrackingError
from pytest_armory.records import EvaluationRecord, local_name
from pytest_armory.records.job_tags import job_tags
from pytest_armory.records.tags import PART
from pytest_armory.session.identity import Identity, process_tags
from pytest_armory.session.reproduce import Files, for_another_job
from pytest_armory.session.stored_records import (
    close_session_run,
    closing_requests,
    first_session_run,
)
from pytest_armory.store.destination import Destination
from pytest_armory.store.pages import LOCAL_SERVER, run_page
from pytest_armory.store.translation import ArtifactError, GoneError, MockedError
from pytest_armory.sync.tags import waiting_for, waiting_text

if TYPE_CHECKING:
    from pytest_armory.report.summary import Summary
    from pytest_armory.store import Store, StoredRun, StoreRun
    from pytest_armory.store.circuit import Circuit


class SessionRuns:
    """The session runs in one store: opened with the first evaluation, closed at the end.

    ``waits_for`` is the display URI of the server, if these runs are recorded locally. Failures are
    appended to ``problems``. ``files`` and ``tags`` are stored with each of them, files in the
    database ``local`` if the artifact storage of a server cannot be reached.
    """

    def __init__(
        self,
        where: Destination,
        identity: Identity,
        problems: list[str],
        waits_for: str = "",
        files: Files | None = None,
        local: Destination | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.where = where
        self.identity = identity
        self.problems = problems
        self.waits_for = waits_for
        self._files = {} if files is None else files
        self._local = local
        self._own_tags = {} if tags is None else tags
        self.of_another: StoredRun | None = None
        """The session run that another job has opened, if this one has found one."""
        self.is_complete = True
        """Whether all writes have succeeded so far."""
        self.unclosed: set[str] = set()
        """The experiments whose session run could not be closed."""
        self.cut_off: set[str] = set()  # those that are closed because a signal ends the process
        self._runs: dict[str, StoreRun | StoredRun | None] = {}
        self._linked: set[str] = set()
        self._generation = 0

    @property
    def is_waiting(self) -> bool:
        """Whether these runs wait to be synced."""
        return bool(self.waits_for)

    @property
    def is_in_reach(self) -> bool:
        """Whether requests are sent to the store: False for a server that is unreachable."""
        return not (self.where.is_remote and circuit_at(self.where).is_open)

    @property
    def experiment_ids(self) -> list[str]:
        """The experiments this session has runs in."""
        return list(self._runs)

    def _opened(self) -> list[StoreRun | StoredRun]:
        return [run for run in self._runs.values() if run is not None]

    def parent_of(self, experiment_id: str) -> str | None:
        """The id of an experiment's session run, opened if there is none; None if that failed."""
        from pytest_armory.store import open_store

        generation = generation_at(self.where)
        if generation != self._generation:  # those that are known are of a database that is gone
            self._runs, self._generation = {}, generation
        if experiment_id not in self._runs:
            try:
                self._runs[experiment_id] = self._open(open_store(self.where), experiment_id)
            except TrackingError as error:
                self.problems.append(str(error))
                if not isinstance(error, MockedError):  # else it is opened later
                    self._runs[experiment_id] = None
        run = self._runs.get(experiment_id)
        return run.run_id if run is not None else None

    def take_over(self, runs: Sequence[StoredRun]) -> None:
        """Take over the session runs that earlier jobs have opened: they are closed at the end."""
        for experiment_id in {run.experiment_id for run in runs}:
            here = [run for run in runs if run.experiment_id == experiment_id]
            self._runs.setdefault(experiment_id, first_session_run(here))

    def tag(self, experiment: str, experiment_id: str | None, tags: Mapping[str, str]) -> None:
        """Write tags to the session run of an experiment, by its name, or by its id if it has none.

        Raises :class:`TrackingError`.
        """
        from pytest_armory.store import open_store

        store = open_store(self.where)
        if self.is_waiting:
            name = local_name(experiment, experiment_id)
            run_id = _open_waiting(self, name, experiment_id)
        else:
            if experiment or experiment_id is None:
                experiment_id = store.experiments.id_of(experiment)
            run_id = self.parent_of(experiment_id)
        if run_id is not None:
            store.log_batch(run_id, tags=dict(tags))

    def _open(self, store: Store, experiment_id: str) -> StoreRun | StoredRun:
        """Open a session run, or find the one that another job of the session has opened."""
        existing = self._of_others(store, experiment_id)
        if existing is None:
            name = f"{self.identity.session} session"  # lists show its start
            run = store.create_run(experiment_id, name, self._tags())
            existing = self._of_others(store, experiment_id)
            if existing is None or existing.run_id == run.run_id:
                self._store_files(store, run, self._files)
                return run
            store.delete_run(run.run_id)  # opened at the same time
        self.of_another = existing
        self._store_files(store, existing, for_another_job(self._files, self.identity.shard))
        return existing

    def _store_files(self, store: Store, run: StoreRun | StoredRun, files: Files) -> None:
        if files:
            failed = partial(self._files_failed, run)
            store.background.submit(lambda: store.log_files(run, files), failed)

    def _files_failed(self, run: StoreRun | StoredRun, error: TrackingError) -> None:
        """Keep files for sync that the artifact storage has not taken."""
        from pytest_armory.store import open_store
        from pytest_armory.store.waiting_files import keep_for_upload

        if not isinstance(error, ArtifactError) or self._local is None:
            self.note_failure(error)
            return
        try:
            keep_for_upload(open_store(self._local), self.where.display_uri, run, error.files)
        except TrackingError as second:
            self.note_failure(error)
            self.note_failure(second)
        else:
            self.problems.append(waiting_text(error, self.where.display_uri))

    def _of_others(self, store: Store, experiment_id: str) -> StoredRun | None:
        if not self.identity.shared:
            return None
        runs = store.search.session_runs(self.identity.session, experiment_id)
        return first_session_run(waiting_for(runs, self.waits_for))

    def _tags(self) -> dict[str, str]:
        job = {"mlflow.parentRunId": self.identity.job_run} if self.identity.job_run else {}
        is_remote = self.where.is_remote or self.is_waiting
        return {
            **{name: value for name, value in self.identity.tags.items() if name != PART},
            **job,
            **process_tags(),
            **self._own_tags,
            **({"armory.destination": self.waits_for} if self.is_waiting else {}),
            **({"armory.key": token_hex(16)} if is_remote else {}),
            "armory.kind": "session",
            "armory.version": __version__,
            "armory.command": self.identity.command,
            "mlflow.source.name": "pytest",  # MLflow's pages show only what follows the last slash
            "mlflow.source.type": "LOCAL",
        }

    def link(self, run_id: str, experiment_id: str) -> None:
        """Make an evaluation's run a child of the session run, once."""
        from pytest_armory.store import open_store

        if run_id in self._linked:
            return
        self._linked.add(run_id)
        parent = self.parent_of(experiment_id)
        if parent is not None:
            store = open_store(self.where)
            tag = {"mlflow.parentRunId": parent}
            store.background.submit(lambda: store.log_batch(run_id, tags=tag), self.note_failure)

    def note_failure(self, error: TrackingError | str) -> None:
        """Note that something could not be read or written."""
        self.is_complete = False
        self.problems.append(str(error))

    def merge_duplicates(self, store: Store, runs: Sequence[StoredRun]) -> None:
        """Keep one session run in each experiment, if two jobs opened theirs at once."""
        for experiment_id, own in list(self._runs.items()):
            here = [run for run in runs if run.experiment_id == experiment_id]
            first = first_session_run(here)
            if own is None or first is None or first.run_id == own.run_id:
                continue
            for run in here:
                if run.tags.get("mlflow.parentRunId") == own.run_id:
                    store.log_batch(run.run_id, tags={"mlflow.parentRunId": first.run_id})
            notes = [job_tags(run.tags) for run in here if run.run_id == own.run_id]
            if notes and notes[0]:
                store.log_batch(first.run_id, tags=notes[0])
            self._runs[experiment_id] = self.of_another = first
            store.delete_run(own.run_id)

    def close(self, summary: Summary, tags: Mapping[str, str]) -> None:
        """Write counts and summary to every session run and close it."""
        from pytest_armory.store import open_store

        self.unclosed = {one for one, run in self._runs.items() if run is not None}
        if not self.is_in_reach:
            self.is_complete = False
            return
        for experiment_id, run in list(self._runs.items()):
            try:
                if run is not None:
                    self._close(open_store(self.where), experiment_id, run, summary, tags)
                    self.unclosed.discard(experiment_id)
            except TrackingError as error:
                self.note_failure(error)

    def attach(self, files: Files) -> None:
        """Store files with every session run, when the session has ended."""
        from pytest_armory.store import open_store

        for run in self._opened() if self.is_in_reach else []:
            try:
                open_store(self.where).log_files(run, files)
            except TrackingError as error:
                self._files_failed(run, error)

    def _close(
        self,
        store: Store,
        experiment_id: str,
        run: StoreRun | StoredRun,
        summary: Summary,
        tags: Mapping[str, str],
    ) -> None:
        try:
            close_session_run(store, run, summary, tags=tags, waiting=self.is_waiting)
        except ArtifactError as error:
            self._files_failed(run, error)
        except GoneError as error:  # so are the evaluations that it had
            self.problems.append(f"{error}; the server may have been given another database")
            own = store.search.runs_of_session(self.identity.session, [experiment_id])
            self._runs[experiment_id] = None
            if own:
                again = self._runs[experiment_id] = self._open(store, experiment_id)
                for one in own:
                    store.log_batch(one.run_id, tags={"mlflow.parentRunId": again.run_id})
                close_session_run(store, again, summary, tags=tags, waiting=self.is_waiting)

    def open_with(self) -> list[str]:
        """How to view the session: its pages on the server, or the command that serves them."""
        from pytest_armory.store import open_store

        runs = self._opened()
        if not runs:
            return []
        store = open_store(self.where)
        pages = [store.run_url(run.experiment_id, run.run_id) for run in runs]
        if all(pages):
            return [f"see {page}" for page in pages]
        command = "armory-mlflow-server"
        if self.where.uri is not None:
            command += f" --backend-store-uri {self.where.display_uri}"
        first, *others = [run_page(LOCAL_SERVER, run.experiment_id, run.run_id) for run in runs]
        return [f"see them with `{command}` at {first}", *(f"and {page}" for page in others)]


class ParentRuns:
    """The session runs as a worker finds them: the parents of its runs.

    The controller opens one when an experiment's first evaluation is reported, and links what was
    opened before.
    """

    def __init__(self, where: Destination, session: str) -> None:
        self._where = where
        self._session = session
        self._parents: dict[str, str | None] = {}
        self._generation = 0

    def parent_of(self, experiment_id: str, waiting: bool) -> str | None:
        """The session run of an experiment, searched from its second evaluation on."""
        from pytest_armory.store import open_store

        if waiting:
            return None
        generation = generation_at(self._where)
        if generation != self._generation:
            self._parents, self._generation = {}, generation
        is_known = experiment_id in self._parents
        parent = self._parents.setdefault(experiment_id, None)
        if not is_known or parent is not None:
            return parent
        try:
            runs = open_store(self._where).search.session_runs(self._session, experiment_id)
        except TrackingError:  # opening the run fails too, and reports it
            return None
        first = first_session_run(waiting_for(runs, ""))
        self._parents[experiment_id] = first.run_id if first is not None else None
        return self._parents[experiment_id]


def closing(runs: SessionRuns, summary: Summary) -> list[Callable[[], object]]:
    """The requests that close every session run, each once, to be sent at the same time."""
    from pytest_armory.store import open_store

    if not runs.where.is_remote or not runs.is_in_reach:
        return []
    store = open_store(runs.where)
    opened = [run for run in runs._opened() if run.run_id not in runs.cut_off]
    runs.cut_off.update(run.run_id for run in opened)
    return [
        request
        for run in opened
        for request in closing_requests(store, run, summary, waiting=runs.is_waiting)
    ]


def unclosed_at_server(
    runs: SessionRuns, records: Sequence[EvaluationRecord]
) -> dict[str, str | None]:
    """The experiments whose session runs are open at a server out of reach: names with ids."""
    if not runs.where.is_remote or runs.is_in_reach:
        return {}
    names = {one.experiment_id: one.experiment for one in records if not one.waiting}
    return {names[one]: one for one in runs.unclosed if names.get(one)}


def keep_end(
    waiting: SessionRuns,
    experiments: Mapping[str, str | None],
    summary: Summary,
    tags: Mapping[str, str],
) -> bool:
    """Record locally that a job has ended whose server is out of reach; whether that was to do.

    Else its session runs would stay open, and a session of several jobs would wait for it for ever.
    ``experiments`` are the names of theirs with their ids at the server; ``tags`` are those of the
    job's end.
    """
    done = set(waiting.experiment_ids)  # closed already, as evaluations or a note wait in them
    try:
        for experiment, remote_id in experiments.items():
            _open_waiting(waiting, experiment, remote_id)
    except TrackingError as error:
        waiting.note_failure(error)
    if done == set(waiting.experiment_ids):
        return False
    waiting.close(summary, tags)
    return True


def _open_waiting(runs: SessionRuns, experiment: str, remote_id: str | None) -> str | None:
    """The id of the session run that waits for an experiment, which has an id at its server.

    It is opened if there is none. Raises :class:`TrackingError`.
    """
    from pytest_armory.store import open_store

    store = open_store(runs.where)
    run_id = runs.parent_of(store.experiments.id_of(experiment))
    if run_id is not None and remote_id and experiment == local_name("", remote_id):
        store.log_batch(run_id, tags={"armory.experiment_id": remote_id})
    return run_id


def generation_at(where: Destination) -> int:
    """How often a store was found to be another than before, by this process."""
    from pytest_armory.store import open_store

    try:
        return open_store(where).experiments.generation
    except TrackingError:  # whoever opens it reports that
        return 0


def circuit_at(where: Destination) -> Circuit:
    """The circuit breaker of a destination."""
    from pytest_armory.store.circuit import circuit_of

    return circuit_of(where.display_uri)
