"""Closing the runs that a killed process left open: ``pytest-armory recover``, and every session.

Only a run whose process is dead is closed, and that which reports its session too: their leases say
it. A session that has lost a worker closes that one's run itself, and a worker that has lost its
session its own; then the session run is closed. Runs of other machines, or of
another Armory home, are only named: whoever knows that they are over closes them by their session's
ID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_armory.errors import StoreUnreachableError, TrackingError
from pytest_armory.records import Outcome
from pytest_armory.records.job_end import JobEnd
from pytest_armory.records.job_tags import job_hash
from pytest_armory.records.tags import Journal, decode_journal, origin_of
from pytest_armory.report.sentences import with_tests
from pytest_armory.report.summary import Summary
from pytest_armory.session import leases, shard_notes
from pytest_armory.session.jobs import ends_of, with_other_jobs
from pytest_armory.session.stored_records import (
    close_left_open,
    close_session_run,
    is_left_open,
    is_session,
    summary_of,
    unreadable,
    unwritten_params,
)
from pytest_armory.store import Store, StoredRun, open_store
from pytest_armory.store.destination import Destination, lease_folders
from pytest_armory.values import redact_text


@dataclass(frozen=True)
class Recovery:
    """What was closed, and what is still open: by a process alive, or by one not known here.

    ``problems`` say what could not be read of what was closed; ``ended`` are the sessions that have
    ended by themselves, as with a server out of reach.
    """

    closed: Sequence[StoredRun] = ()
    alive: Sequence[StoredRun] = ()
    unknown: Sequence[StoredRun] = ()
    problems: Sequence[str] = ()
    ended: AbstractSet[str] = frozenset()


def recover(where: Destination, session: str | None = None) -> Recovery:
    """Close the runs whose processes on this machine are dead, as ``KILLED``; safe at any time.

    With ``session``, close every run of that session except those of living processes of this
    machine. After a :class:`TrackingError`, the rest can be recovered later.
    """
    if not where.exists:
        return Recovery()
    folder, *others = lease_folders(where)
    with leases.recovering(folder) as is_alone:
        if not is_alone:
            raise TrackingError(
                f"another process is closing the runs at {where.display_uri}; see what is left "
                "with `pytest-armory recover` when it has finished"
            )
        return _recover(where, *_survey(folder, *others), session)


def left_open(where: Destination, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Those of some open runs that :func:`recover` closes: their processes here are dead."""
    dead, alive = _survey(*lease_folders(where))
    return list(_by_owner(runs, dead.keys(), alive, None).closed)


def recover_dead(where: Destination, own: str | None = None) -> Recovery:
    """The same in a running session, without a request if no process is dead.

    Runs of the session ``own`` itself are left open: they are closed at its end. Another process
    that is doing it is left to it.
    """
    if not where.exists:
        return Recovery()
    folder, *others = lease_folders(where)
    with leases.recovering(folder) as is_alone:
        dead, alive = _survey(folder, *others) if is_alone else ({}, set())
        return _recover(where, dead, alive, own=own) if dead else Recovery()


def _survey(*folders: Path) -> tuple[Mapping[str, leases.DeadLease], AbstractSet[str]]:
    """The leases of dead processes in several folders, and the names of living ones."""
    found = [leases.survey(folder) for folder in folders]
    alive = {process for _, names in found for process in names}
    dead = {process: lease for leases_, _ in found for process, lease in leases_.items()}
    return {process: dead[process] for process in dead.keys() - alive}, alive


def _recover(
    where: Destination,
    dead: Mapping[str, leases.DeadLease],
    alive: AbstractSet[str],
    session: str | None = None,
    own: str | None = None,
) -> Recovery:
    store = open_store(where)
    runs = store.search.open_runs()
    origins = [origin_of(run.tags) for run in runs]
    kept = {o.process for o in origins if o.session == own or o.reporter in alive}
    kept |= {origin_of(run.tags).process for run in _still_worked_at(runs, alive)}
    over = {process: lease for process, lease in dead.items() if process not in kept}
    recovery = _by_owner(runs, over.keys(), alive, session)
    ended = _ended(recovery.closed, over)
    closing = _Closing(store, over)
    closed = closing.close(recovery.closed)
    folder = lease_folders(where)[0]
    for process, lease in over.items():
        # That of a process which tracks to a server may be needed there, too.
        if process not in closing.kept and lease.path.parent == folder:
            lease.remove()
    problems = list(dict.fromkeys(closing.problems))
    return replace(recovery, closed=closed, problems=problems, ended=ended)


def _ended(runs: Sequence[StoredRun], dead: Mapping[str, leases.DeadLease]) -> AbstractSet[str]:
    """The sessions of some runs of which the process that reported has noted their end."""
    origins = [origin_of(run.tags) for run in runs]
    reporters = {origin.reporter for origin in origins} & dead.keys()
    ended = {process for process in reporters if decode_journal(dead[process].journal).end}
    return {origin.session for origin in origins if origin.reporter in ended}


def _by_owner(
    runs: Sequence[StoredRun],
    dead: AbstractSet[str],
    alive: AbstractSet[str],
    session: str | None,
) -> Recovery:
    """Open runs by what is known of their processes; session runs come after evaluations."""
    closed, living, unknown = [], [], []
    worked_at = _still_worked_at(runs, alive)
    for run in runs:
        origin = origin_of(run.tags)
        if origin.process in alive or origin.reporter in alive or run in worked_at:
            living.append(run)
        elif origin.process in dead or origin.session == session:
            closed.append(run)
        else:
            unknown.append(run)
    closed.sort(key=is_session)  # which sums up the others
    return Recovery(closed, living, unknown)


def _still_worked_at(runs: Sequence[StoredRun], alive: AbstractSet[str]) -> list[StoredRun]:
    """The session runs of jobs of which a worker lives on, and closes its own run in a moment."""
    jobs = {origin.shard for run in runs if (origin := origin_of(run.tags)).process in alive}
    return [run for run in runs if is_session(run) and origin_of(run.tags).shard in jobs]


_ENDED = Journal(end=JobEnd())
"""In place of the journal of a process that has closed its session run itself."""


class _Closing:
    """Closes runs that were left open, with the data in their processes' journals."""

    def __init__(self, store: Store, dead: Mapping[str, leases.DeadLease]) -> None:
        self._store = store
        self._dead = dead
        self._journals: dict[str, Journal] = {}
        self._ends: dict[str, int] = {}
        """When the last evaluation of each session ended, in milliseconds since the epoch."""
        self._summaries: dict[str, Summary] = {}
        self.problems: list[str] = []
        """What could not be read or closed."""
        self.kept: set[str] = set()
        """The processes of which a run may be open yet."""

    def close(self, runs: Sequence[StoredRun]) -> list[StoredRun]:
        """Close them, each session by itself, its evaluations first; returns the sessions' runs.

        One that cannot be closed is left for the next time. Raises
        :class:`StoreUnreachableError`, which is no single session's failure.
        """
        sessions: dict[str, list[StoredRun]] = {}
        for run in runs:
            sessions.setdefault(origin_of(run.tags).session, []).append(run)
        closed: list[StoredRun] = []
        for session, its_runs in sessions.items():
            try:
                its_runs = [*self._closed_by_tests(session, its_runs), *its_runs]
                self._close_all_of(session, its_runs)
            except StoreUnreachableError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a store holds of it
                self._note(session, [f"not all of it could be closed: {_as_text(error)}"])
                self.kept.update(origin_of(run.tags).process for run in its_runs)
            else:
                closed += its_runs
        return closed

    def _closed_by_tests(self, session: str, runs: Sequence[StoredRun]) -> list[StoredRun]:
        """Attempts of dead processes that are not open, and have no outcome."""
        dead = {origin_of(run.tags).process for run in runs} | self._dead.keys()
        every = self._store.search.runs_of_session(session, self._store.experiments.ids())
        left = [run for run in every if run.status != "RUNNING" and is_left_open(run)]
        return [run for run in left if origin_of(run.tags).process in dead]

    def _close_all_of(self, session: str, runs: Sequence[StoredRun]) -> None:
        """Close runs of one session; its session runs that are closed are summed up again."""
        for run in runs:
            journal = self._journal_of(run)
            record = journal.record
            known = record is not None and record.run_id == run.run_id
            params = unwritten_params(run, record) if record is not None and known else {}
            self._store.log_batch(run.run_id, params=params, tags={"armory.recovered": "true"})
            if is_session(run):
                self._close_session(run, journal)
            else:
                self._close_evaluation(run)
        if session in self._ends:  # one of its evaluations was closed
            self.sum_up_again(session, {run.run_id for run in runs})

    def _journal_of(self, run: StoredRun) -> Journal:
        origin = origin_of(run.tags)
        lease = self._dead.get(origin.process)
        if lease is None:
            return Journal()
        if lease.process not in self._journals:
            self._journals[lease.process] = decode_journal(lease.journal)
            self._note(origin.session, self._journals[lease.process].problems)
        return self._journals[lease.process]

    def _last_seen(self, run: StoredRun) -> int:
        lease = self._dead.get(origin_of(run.tags).process)
        return max(lease.seen if lease else 0, run.seen)

    def _close_evaluation(self, run: StoredRun) -> None:
        session, end = origin_of(run.tags).session, self._last_seen(run)
        close_left_open(self._store, run, Outcome.INTERRUPTED, end)
        self._ends[session] = max(end, self._ends.get(session, 0))

    def _close_session(self, run: StoredRun, journal: Journal) -> None:
        session = origin_of(run.tags).session
        if session not in self._summaries:  # one for the session runs of all its experiments
            self._summaries[session] = self._summary_of(session, journal)
        end = max(self._last_seen(run), run.end or 0, self._ends.get(session, 0))
        summary = self._summaries[session]
        if "running" in run.metrics:  # by a job of several: what it counted is over
            summary = replace(summary, records_of_all_jobs=summary.records)
        close_session_run(self._store, run, summary, end)

    def sum_up_again(self, session: str, closed: AbstractSet[str] = frozenset()) -> None:
        """Write the counts and the summary of the session runs that have ended, but for some."""
        every = self._store.search.runs_of_session(session, self._store.experiments.ids())
        ended = shard_notes.notes_of(every).ended
        for run in filter(is_session, every):
            # One that is open is summed up by the job that opened it, unless that has ended with
            # the store out of reach: then its end was uploaded with another job's session run.
            job = job_hash(origin_of(run.tags).shard)
            if run.run_id not in closed and (run.status != "RUNNING" or job in ended):
                self._ends[session] = max(self._ends.get(session, 0), ended.get(job, 0))
                self._close_session(run, _ENDED)

    def _summary_of(self, session: str, journal: Journal) -> Summary:
        """As its process's journal says, if it came to its end; else interrupted."""
        runs = self._store.search.runs_of_session(session, self._store.experiments.ids())
        summary, ended = summary_of(self._store, session, runs), ends_of(runs)
        self._note(session, [*ended.problems, *with_tests(unreadable(summary.records))])
        own = journal.end
        ends = [*ended.ends, *([own] if own else [])]
        return with_other_jobs(summary, ends, JobEnd(own is None or own.interrupted))

    def _note(self, session: str, problems: Sequence[str]) -> None:
        self.problems += [f"session {session}: {problem}" for problem in problems]


def _as_text(error: Exception) -> str:
    text = redact_text(" ".join(str(error).split()))[:300]
    return text if isinstance(error, TrackingError) else f"{type(error).__name__}: {text}"


def sum_up_again(where: Destination, session: str) -> Sequence[str]:
    """Write the counts and the summary of a session of several jobs, as the store holds it now.

    Returns what cannot be read. Raises :class:`TrackingError`.
    """
    closing = _Closing(open_store(where), {})
    closing.sum_up_again(session)
    return closing.problems


def notes_of(recovery: Recovery) -> list[str]:
    """The notes of a session that has closed runs of earlier ones."""
    sessions = dict.fromkeys(origin_of(run.tags).session for run in recovery.closed)
    closed = [
        f"session {session} {'has ended' if session in recovery.ended else 'was killed'}: "
        f"closed {_count(recovery.closed, session)} it left open"
        for session in sessions
    ]
    return [*closed, *recovery.problems]


def _count(runs: Sequence[StoredRun], session: str) -> str:
    count = sum(origin_of(run.tags).session == session for run in runs)
    return f"{count:,} run" if count == 1 else f"{count:,} runs"
