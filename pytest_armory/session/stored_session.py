"""A session as a store holds it at its end, once the runs left open in it are closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from typing import TYPE_CHECKING

from pytest_armory.errors import TrackingError
from pytest_armory.records import EvaluationRecord, JobEnd, Outcome
from pytest_armory.records.job_tags import job_hash
from pytest_armory.records.tags import OUTCOME, origin_of
from pytest_armory.report.summary import Summary, latest
from pytest_armory.session import leases
from pytest_armory.session.identity import Identity
from pytest_armory.session.jobs import ends_of
from pytest_armory.session.order import attempts_in_order, in_order_of_attempts
from pytest_armory.session.reported import ReportedAttempts
from pytest_armory.session.session_runs import SessionRuns
from pytest_armory.session.shard_notes import newest_jobs, notes_of, state_of, twice
from pytest_armory.session.stored_records import (
    close_left_open,
    is_attempt,
    is_left_open,
    is_session,
    number_attempts,
    record_of,
    unwritten_params,
)
from pytest_armory.store.destination import lease_folders
from pytest_armory.sync.tags import RECOVERED, waiting_for

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun


WAIT = 1.0
"""Seconds for workers to end, of a session that was interrupted."""


@dataclass(frozen=True)
class Ending:
    """How a session ends.

    ``crashes`` says when workers crashed, in milliseconds since the epoch; ``each`` whether every
    worker has run every test, as with ``--dist=each``; ``is_doubtful`` whether evaluations may have
    been stored that were not reported; ``under_way`` are the node ids of those that workers have
    begun and not ended.
    """

    interrupted: bool = False
    crashes: Mapping[str, int] = field(default_factory=dict)
    each: bool = False
    is_doubtful: bool = False
    under_way: Set[str] = frozenset()


@dataclass(frozen=True)
class StoredSession:
    """A session's evaluations in the store: those of this job, and those of its other jobs.

    ``unread`` are the ids of runs of this job that could not be read from the store;
    ``continued`` those of runs that continued locally when their server became unreachable;
    ``ends`` is how the other jobs ended, ``problems`` what cannot be read of all this; ``shards``
    are sentences about shards that have run twice.
    """

    own: Sequence[EvaluationRecord] = ()
    others: Sequence[EvaluationRecord] = ()
    unread: Set[str] = frozenset()
    continued: Set[str] = frozenset()
    ends: Sequence[JobEnd] = ()
    problems: Sequence[str] = ()
    shards: Sequence[str] = ()

    def and_local(self, local: StoredSession) -> StoredSession:
        """What a server holds, together with what was recorded locally."""
        return StoredSession(
            in_order_of_attempts([*self.own, *local.own]),
            [*self.others, *local.others],
            (self.unread | local.unread) - local.continued,
            local.continued,
            [*self.ends, *local.ends],
            [*self.problems, *local.problems],
            [*self.shards, *local.shards],
        )


def close_and_read(
    session_runs: SessionRuns,
    reported: ReportedAttempts,
    ending: Ending,
    continued: Set[str] = frozenset(),
) -> StoredSession:
    """Close what is left open of a session in one store, and read the session.

    ``continued`` are runs that continued in another store: they stay open. Failures are noted with
    ``session_runs``.
    """
    from pytest_armory.store import open_store

    unread = reported.run_ids(session_runs.is_waiting)
    if not session_runs.is_in_reach:
        return StoredSession(unread=unread)  # each evaluation concerned has reported it
    if unread and _is_removed(session_runs):
        return StoredSession()
    try:
        store = open_store(session_runs.where)
        store.background.drain()
        alive = _live_processes(session_runs) if ending.interrupted else frozenset()
        every = _every_run(session_runs, store, ending)
        if workers := _may_write(session_runs, every, alive, ending.under_way):
            alive = (alive - workers) | _await_end(session_runs, workers)
            every = _every_run(session_runs, store, ending)
        runs = [run for run in every if not is_session(run) and run.run_id not in continued]
        session_runs.merge_duplicates(store, every)
        for run in runs:
            close_if_left_open(session_runs, store, run, reported, ending, alive)
        attempts = [run for run in runs if is_attempt(run)]
        if not ending.each:
            numbers = reported.numbers
            attempts = attempts_in_order(attempts, numbers, session_runs.identity.shard)
            number_attempts(store, attempts, numbers)
        store.background.drain()
    except TrackingError as error:
        session_runs.note_failure(error)
        return StoredSession(unread=unread)
    return _as_records(session_runs, store, every, attempts)


def _every_run(session_runs: SessionRuns, store: Store, ending: Ending) -> list[StoredRun]:
    """The runs of a session by now, also those in experiments that a worker has made meanwhile."""
    ids = searched(session_runs, store, everywhere=ending.is_doubtful)
    return _runs_of(session_runs, store, ids)


def _runs_of(session_runs: SessionRuns, store: Store, ids: Sequence[str]) -> list[StoredRun]:
    """The runs of a session in one store.

    The local database may hold runs of the same session's ID that wait for another server, or none.
    """
    identity = session_runs.identity
    every = store.search.runs_of_session(identity.session, ids)
    waiting = {run.run_id for run in waiting_for(every, session_runs.waits_for)}
    return [run for run in every if run.run_id in waiting or is_own(identity, run)]


def _live_processes(session_runs: SessionRuns) -> Set[str]:
    """The other processes that are alive, as a worker is where Ctrl-C reached its controller alone.

    Looked up before runs are read: of a process that is dead by then, they are as it left them.
    """
    found = [leases.survey(folder)[1] for folder in lease_folders(session_runs.where)]
    return {process for alive in found for process in alive} - {leases.process_name()}


def _may_write(
    session_runs: SessionRuns, runs: Sequence[StoredRun], alive: Set[str], under_way: Set[str]
) -> Set[str]:
    """Those of some processes that may still write to runs of this job, or open one.

    A process that has opened one may be about to open its next. Any process may be that of a test
    under way that has none: its worker may not have had one before.
    """
    own = [run for run in runs if is_own(session_runs.identity, run)]
    opened = {run.tags.get("armory.nodeid", "") for run in own}
    return alive & {origin_of(run.tags).process for run in own} if under_way <= opened else alive


def _await_end(session_runs: SessionRuns, processes: Set[str]) -> Set[str]:
    """Wait for workers that are closing their own runs; which of them live on.

    A second Ctrl-C ends the controller before they have ended.
    """
    deadline = monotonic() + WAIT
    while processes and monotonic() < deadline:
        sleep(0.05)
        processes = processes & _live_processes(session_runs)
    return processes


def _is_removed(session_runs: SessionRuns) -> bool:
    """Whether the database was removed, which is noted."""
    where = session_runs.where
    if where.exists:
        return False
    session_runs.note_failure(f"{where.display_uri} is gone: something has removed it meanwhile")
    return True


def searched(session_runs: SessionRuns, store: Store, everywhere: bool = False) -> list[str]:
    """The experiments that may have runs of the session.

    A worker that crashed before its first report has reported no experiment: all are searched.
    """
    is_remote = session_runs.where.is_remote
    return session_runs.experiment_ids if is_remote and not everywhere else store.experiments.ids()


def close_if_left_open(
    session_runs: SessionRuns,
    store: Store,
    run: StoredRun,
    reported: ReportedAttempts,
    ending: Ending,
    alive: Set[str] = frozenset(),
) -> None:
    """Close a run if it is left open, but for one of a process ``alive``, which does so itself.

    Not that of a worker which xdist has given up.
    """
    if not is_own(session_runs.identity, run):
        return  # its job may still be running
    is_given_up = run.tags.get("armory.worker", "") in ending.crashes
    is_over = is_given_up or origin_of(run.tags).process not in alive
    if is_left_open(run) and is_over:
        try:
            session_runs.problems += _close(store, run, reported.of_run(run.run_id), ending)
        except TrackingError as error:
            session_runs.note_failure(error)
    # Not the run of a fixture wider than a test, which has no parent.
    if "mlflow.parentRunId" not in run.tags and (is_attempt(run) or "armory.opened_in" in run.tags):
        session_runs.link(run.run_id, run.experiment_id)


def _close(
    store: Store, run: StoredRun, record: EvaluationRecord | None, ending: Ending
) -> list[str]:
    default = Outcome.INTERRUPTED if ending.interrupted else Outcome.CRASHED
    if record is not None and record.outcome is not None:
        default = record.outcome  # its worker ended before it wrote that
    if is_attempt(run):  # also where a request fails: no process is at work on it
        run.tags.setdefault(OUTCOME, default.value)
    if record is not None and record.params:
        store.log_batch(run.run_id, params=unwritten_params(run, record))
    end = ending.crashes.get(run.tags.get("armory.worker", ""))
    return close_left_open(store, run, default, end)


def _as_records(
    session_runs: SessionRuns,
    store: Store,
    every: Sequence[StoredRun],
    attempts: Sequence[StoredRun],
) -> StoredSession:
    identity, waiting = session_runs.identity, session_runs.is_waiting
    ended = ends_of(every, identity.shard)
    found = [(run, replace(record_of(store, run), waiting=waiting)) for run in attempts]
    continued = {run.tags.get("armory.remote_run_id", "") for run in attempts}
    return StoredSession(
        own=[replace(record, job="") for run, record in found if is_own(identity, run)],
        others=[record for run, record in found if not is_own(identity, run)],
        continued=continued - {""},
        ends=ended.ends,
        problems=ended.problems,
        shards=twice(notes_of(every)),
    )


def read_other_jobs(session_runs: SessionRuns) -> StoredSession:
    """The evaluations of the session's other jobs so far, and how those ended."""
    from pytest_armory.store import open_store

    identity = session_runs.identity
    try:
        store = open_store(session_runs.where)
        runs = _runs_of(session_runs, store, session_runs.experiment_ids)
    except TrackingError as error:
        session_runs.note_failure(error)
        return StoredSession()
    others = [run for run in runs if is_attempt(run) and not is_own(identity, run)]
    return _as_records(session_runs, store, runs, others)


def awaits_shards(of_session: Sequence[StoredRun]) -> bool:
    """Whether a shard of the session has not come, or not ended, by what they have noted."""
    return state_of(notes_of(of_session), ()).is_open


def drop_recovered(
    session_runs: SessionRuns, summary: Summary, of_session: Sequence[StoredRun] = ()
) -> None:
    """Delete the mark of `recover` from the session runs, if a later job has completed them.

    Not where the killed job is a shard that has not run again: the mark says that nothing more
    comes of it. ``of_session`` are the session runs if they have been read.
    """
    from pytest_armory.store import open_store

    outcomes = {record.outcome for record in latest(summary.all_records)}
    if summary.interrupted or summary.not_run or outcomes & {None, Outcome.INTERRUPTED}:
        return
    runs = of_session or session_runs_of(session_runs)
    shards = newest_jobs(notes_of(runs))
    try:
        for run in runs:
            if RECOVERED in run.tags and job_hash(origin_of(run.tags).shard) not in shards:
                open_store(session_runs.where).delete_tag(run.run_id, RECOVERED)
    except TrackingError as error:
        session_runs.note_failure(error)


def session_runs_of(session_runs: SessionRuns) -> Sequence[StoredRun]:
    """Those of all jobs as the store has them now; none if it cannot be read, which is noted."""
    from pytest_armory.store import open_store

    if not session_runs.is_in_reach:
        return ()
    session, ids = session_runs.identity.session, session_runs.experiment_ids
    try:
        runs = open_store(session_runs.where).search.session_runs(session, *ids)
    except TrackingError as error:
        session_runs.note_failure(error)
        return ()
    return waiting_for(runs, session_runs.waits_for)


def is_own(identity: Identity, run: StoredRun) -> bool:
    """Whether a run was opened by this job, and not by another job of the same session."""
    return origin_of(run.tags).shard == identity.shard
