"""What the reporting process knows of a session: its attempts, its session runs, its end.

It knows no pytest: a session that was killed is closed by the same means, see :mod:`recovery`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_armory import __version__, destination, leases
from pytest_armory.errors import TrackingError
from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.reports import Summary, markdown, outcome_counts

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun, StoreRun


@dataclass(frozen=True)
class Identity:
    """What every process of a session knows of it.

    ``shard`` is the :func:`~pytest_armory.leases.process_name` of the process that reports, and
    ``tags`` are for each of the session's runs.
    """

    session: str
    shard: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    command: str = ""
    job_run: str | None = None


def process_tags() -> dict[str, str]:
    """The tags that say which process opened a run; its lease says whether that lives."""
    return {"armory.host": leases.host_name(), "armory.process": leases.process_name()}


class SessionRuns:
    """The session run of each experiment: opened with its first evaluation, closed at the end."""

    def __init__(self, where: destination.Destination, identity: Identity) -> None:
        self.where = where
        self.identity = identity
        self.problems: list[str] = []
        self._runs: dict[str, Any] = {}

    def parent_of(self, experiment_id: str) -> str | None:
        """The id of an experiment's session run, opened if need be; None if that failed."""
        from pytest_armory.store import open_store

        if experiment_id not in self._runs:
            try:
                self._runs[experiment_id] = open_store(self.where).create_run(
                    experiment_id, f"session {self.identity.session}", self._tags()
                )
            except TrackingError as error:
                self.problems.append(str(error))
                self._runs[experiment_id] = None
        run = self._runs[experiment_id]
        return run.run_id if run is not None else None

    def _tags(self) -> dict[str, str]:
        job = {"mlflow.parentRunId": self.identity.job_run} if self.identity.job_run else {}
        return {
            **self.identity.tags,
            **job,
            **process_tags(),
            "armory.kind": "session",
            "armory.version": __version__,
            "armory.command": self.identity.command,
            "mlflow.source.name": self.identity.command,
            "mlflow.source.type": "LOCAL",
        }

    def close(self, summary: Summary, status: str) -> None:
        """Write counts and summary to every session run and close it."""
        from pytest_armory.store import open_store

        for run in filter(None, self._runs.values()):
            try:
                close_session_run(open_store(self.where), run, summary, status)
            except TrackingError as error:
                self.problems.append(str(error))

    @property
    def experiment_ids(self) -> list[str]:
        """The experiments this session has runs in."""
        return list(self._runs)

    def open_with(self) -> list[str]:
        """How to look at the session: its pages on the server, or the command that serves them."""
        from pytest_armory.store import open_store

        runs = [run for run in self._runs.values() if run is not None]
        if not runs:
            return []
        store = open_store(self.where)
        pages = [store.run_url(run.experiment_id, run.run_id) for run in runs]
        if all(pages):
            return [f"see {page}" for page in pages]
        command = "armory-mlflow-server"
        if self.where.uri is not None:
            command += f" --backend-store-uri {self.where.shown}"
        local = "http://127.0.0.1:5000/#/experiments"
        shown = [f"{local}/{run.experiment_id}/runs/{run.run_id}" for run in runs]
        return [f"see them with `{command}` at {shown[0]}", *(f"and {page}" for page in shown[1:])]


class Ledger:
    """What the reporting process knows: every attempt it was told of, and the session's runs.

    ``each`` says that several workers run each test, as ``--dist=each`` has it.
    """

    def __init__(
        self, where: destination.Destination, identity: Identity, each: bool = False
    ) -> None:
        self.where = where
        self.identity = identity
        self.runs = SessionRuns(where, identity)
        self.planned: set[str] = set()
        """The node ids of every evaluation that was collected, as far as it was told."""
        self.reported: set[str] = set()
        """The node ids of every test that was."""
        self.crashed = False
        """Whether a worker died."""
        self.is_whole = True
        """Whether the store holds the session as it was told at the end."""
        self._each = each
        self._records: dict[tuple[str, int, str], EvaluationRecord] = {}
        self._linked: set[str] = set()

    def take(self, record: EvaluationRecord) -> None:
        """Note an attempt, and put its run under the session's if it is not yet."""
        self._records[record.key] = record
        if record.run_id and not record.parent_id and record.run_id not in self._linked:
            self._linked.add(record.run_id)
            self._link(record.run_id, str(record.experiment_id))

    def _link(self, run_id: str, experiment_id: str) -> None:
        from pytest_armory.store import open_store

        parent = self.runs.parent_of(experiment_id)
        if parent is not None:
            store = open_store(self.where)
            tag = {"mlflow.parentRunId": parent}
            store.later(lambda: store.log_batch(run_id, tags=tag), self._failed)

    def _failed(self, error: TrackingError) -> None:
        self.is_whole = False
        self.runs.problems.append(str(error))

    def finish(self, interrupted: bool, notes: Sequence[str] = ()) -> Summary | None:
        """Close what is open, sum up from what the store holds; None without an evaluation."""
        told = list(self._records.values())
        stored = self._stored(interrupted) if told or self._any_crashed() else []
        if stored is None:  # it cannot be read: then what was told is the best there is
            records, lost = told, [record for record in told if record.run_id is None]
        else:
            ids = {record.run_id for record in stored}
            lost = [record for record in told if record.run_id not in ids]
            records = [*stored, *lost]
        not_run = len(self.planned - self.reported - {record.nodeid for record in records})
        if not records and not not_run:
            return None
        summary = Summary(
            session=self.identity.session,
            where=self.where.shown,
            records=records,
            lost=len(lost),
            not_run=not_run,
            notes=notes,
            commit=self.identity.tags.get("mlflow.source.git.commit", ""),
            branch=self.identity.tags.get("mlflow.source.git.branch", ""),
        )
        status = "KILLED" if interrupted else ("FINISHED" if summary.is_good else "FAILED")
        self.runs.close(summary, status)
        return replace(summary, problems=self._problems(), open_with=self.runs.open_with())

    def _any_crashed(self) -> bool:
        """Whether a worker died that may have left a run nobody told of, in a store that exists."""
        return self.crashed and (self.where.database is None or self.where.database.exists())

    def _problems(self) -> list[str]:
        every = [text for record in self._records.values() for text in record.problems]
        return list(dict.fromkeys([*self.runs.problems, *every]))

    def _stored(self, interrupted: bool) -> list[EvaluationRecord] | None:
        """The session's evaluations as the store holds them, those left open closed first.

        A worker that died says nothing any more, so whatever still runs by now was its; one that
        died before its first report has told of no run, so every experiment is searched for it.
        """
        from pytest_armory.store import open_store

        try:
            store = open_store(self.where)
            store.drain()
            everywhere = self.crashed or not self.where.is_remote
            ids = store.experiment_ids() if everywhere else self.runs.experiment_ids
            runs = store.session_runs(self.identity.session, ids)
            runs = [run for run in runs if run.tags.get("armory.kind") != "session"]
            for run in runs:
                self._settle(store, run, Outcome.INTERRUPTED if interrupted else Outcome.CRASHED)
            runs = [run for run in runs if run.tags.get("armory.kind") == "evaluation"]
            if not self._each:
                number_attempts(store, runs)
            store.drain()
        except TrackingError as error:
            self._failed(error)
            return None
        return [record_of(run, store.run_url(run.experiment_id, run.run_id)) for run in runs]

    def _settle(self, store: Store, run: StoredRun, presumed: Outcome) -> None:
        if run.tags.get("armory.shard") != self.identity.shard:
            return  # another job's of the same session, which may still be at it
        if run.status == "RUNNING":
            try:
                self.runs.problems += close_left(store, run, presumed)
            except TrackingError as error:
                self._failed(error)
        if "mlflow.parentRunId" not in run.tags and run.run_id not in self._linked:
            self._link(run.run_id, run.experiment_id)


# What a session that ends and one that was killed are closed by


def close_left(
    store: Store, run: StoredRun, presumed: Outcome, end: int | None = None
) -> list[str]:
    """Close a run that its process left open; returns what is to be told of it.

    An evaluation ends with the outcome it had written, if it got so far, else with the one that is
    presumed; a run that a test's own code opened and left is closed as ``FINISHED``. ``end`` is in
    milliseconds since the epoch.
    """
    if run.tags.get("armory.kind") != "evaluation":
        return [store.close_stray(run.run_id, run.tags.get("armory.opened_in", ""), end)]
    known = run.tags.get("armory.outcome")
    outcome = Outcome(known) if known in set(Outcome) else presumed
    run.tags["armory.outcome"] = outcome.value
    store.log_batch(run.run_id, tags={"armory.outcome": outcome.value})
    store.close_run(run.run_id, outcome.status, end)
    return []


def close_session_run(
    store: Store, run: StoreRun | StoredRun, summary: Summary, status: str, end: int | None = None
) -> None:
    """Write counts and summary to a session run and close it."""
    text = markdown(summary)
    counts = [(name, value, 0) for name, value in outcome_counts(summary).items()]
    store.log_batch(run.run_id, metrics=counts, tags={"mlflow.note.content": text})
    store.log_files(run, {"summary.md": text})
    store.close_run(run.run_id, status, end)


def number_attempts(store: Store, runs: Sequence[StoredRun]) -> None:
    """Number the attempts at each test by their start; each process has counted its own only.

    A test that crashed on one worker, say, was tried again on another.
    """
    attempts: Counter[str] = Counter()
    for run in runs:
        nodeid = run.tags.get("armory.nodeid", run.name)
        attempts[nodeid] += 1
        number = str(attempts[nodeid])
        if run.tags.get("armory.attempt") != number:
            run.tags["armory.attempt"] = number
            store.log_batch(run.run_id, tags={"armory.attempt": number})


def record_of(run: StoredRun, url: str | None) -> EvaluationRecord:
    """An attempt as the store holds it."""
    outcome = run.tags.get("armory.outcome")
    return EvaluationRecord(
        nodeid=run.tags.get("armory.nodeid", run.name),
        attempt=_attempt_number(run),
        worker=run.tags.get("armory.worker", ""),
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        parent_id=run.tags.get("mlflow.parentRunId"),
        url=url,
        outcome=Outcome(outcome) if outcome in set(Outcome) else None,
        duration=run.metrics.get("duration_seconds", 0.0),
        metrics=run.metrics,
    )


def _attempt_number(run: StoredRun) -> int:
    number = run.tags.get("armory.attempt", "1")
    return int(number) if number.isdigit() else 1  # anybody can set a tag
