"""Closing what a process left open that was killed: ``pytest-armory recover``, and every session.

Only a run whose process is known to be dead is closed, and its lease tells that. Runs of other
machines, or of another Armory home, are for somebody who knows: they are named, and closed by
their session's ID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_armory.records import Outcome, from_wire
from pytest_armory.report.summary import Summary
from pytest_armory.session import leases
from pytest_armory.session.ledger import (
    JobEnd,
    close_left,
    close_session_run,
    ends_of,
    is_session,
    summary_of,
    with_other_jobs,
)
from pytest_armory.store import Store, StoredRun, open_store
from pytest_armory.store.destination import Destination, lease_folder


@dataclass(frozen=True)
class Recovery:
    """What was closed, and what is still open: by a living process, or by one nobody here knows."""

    closed: Sequence[StoredRun] = ()
    alive: Sequence[StoredRun] = ()
    unknown: Sequence[StoredRun] = ()


def recover(where: Destination, session: str | None = None) -> Recovery:
    """Close the runs whose processes died on this machine, as ``KILLED``; safe at any time.

    With ``session``, close every run of that session which no living process here holds, wherever
    it was opened. Raises :class:`TrackingError`, and what was left may be recovered later.
    """
    if where.database is not None and not where.database.exists():
        return Recovery()
    dead, alive = leases.survey(lease_folder(where))
    return _recover(where, dead, alive, session)


def recover_dead(where: Destination, own: str | None = None) -> Recovery:
    """The same for a session at work, without a request when no process has died.

    What died of the session ``own`` itself is left: how it ended is decided at its end.
    """
    dead, alive = leases.survey(lease_folder(where))
    return _recover(where, dead, alive, own=own) if dead else Recovery()


def _recover(
    where: Destination,
    dead: Sequence[leases.Lease],
    alive: set[str],
    session: str | None = None,
    own: str | None = None,
) -> Recovery:
    left = set(dead)
    try:
        store = open_store(where)
        runs = store.search.open_runs()
        kept = {r.tags.get("armory.process") for r in runs if r.tags["armory.session"] == own}
        over = {one.process: one for one in dead if one.process not in kept}
        found = _closed(store, runs, over, alive, session)
        for lease in over.values():
            left.remove(lease)
            lease.release()
        return found
    finally:
        for lease in left:
            lease.unlock()


def _closed(
    store: Store,
    runs: Sequence[StoredRun],
    dead: Mapping[str, leases.Lease],
    alive: set[str],
    session: str | None,
) -> Recovery:
    closed, living, unknown = [], [], []
    for run in runs:
        process = run.tags.get("armory.process", "")
        if process in alive:
            living.append(run)
        elif process in dead or run.tags["armory.session"] == session:
            closed.append(run)
        else:
            unknown.append(run)
    closed.sort(key=is_session)  # which holds the sum of the others
    ends: dict[str, int] = {}
    summaries: dict[str, Summary] = {}
    for run in closed:
        name = run.tags["armory.session"]
        lease = dead.get(run.tags.get("armory.process", ""))
        end = max(lease.seen if lease else 0, run.seen)
        tags = {"armory.recovered": "true"}
        store.log_batch(run.run_id, params=_unwritten(run, lease), tags=tags)
        if not is_session(run):
            close_left(store, run, Outcome.INTERRUPTED, end)
            ends[name] = max(end, ends.get(name, 0))
            continue
        if name not in summaries:  # one for the session runs of all its experiments
            runs = store.search.runs_of_session(name, store.experiments.ids())
            summaries[name] = _ended(summary_of(store, name, runs), runs, lease)
        close_session_run(store, run, summaries[name], max(end, ends.get(name, 0)))
    return Recovery(closed, living, unknown)


def _ended(summary: Summary, runs: Sequence[StoredRun], lease: leases.Lease | None) -> Summary:
    """As its process has left it to be written, if it came to its end; else it was interrupted."""
    own = JobEnd.from_text(lease.journal) if lease else None
    ends = [*ends_of(runs), *([own] if own else [])]
    return with_other_jobs(summary, ends, interrupted=own is None or own.interrupted)


def _unwritten(run: StoredRun, lease: leases.Lease | None) -> dict[str, str]:
    """The parameters that a process knew of its evaluation, and did not come to write."""
    try:
        record = from_wire(lease.journal) if lease else None
    except (ValueError, TypeError, KeyError):  # it said nothing yet, or died over it
        record = None
    if record is None or record.run_id != run.run_id:
        return {}
    return {key: value for key, value in record.params.items() if key not in run.params}


def notes_of(recovery: Recovery) -> list[str]:
    """What a session says that has closed runs of earlier ones."""
    sessions = dict.fromkeys(run.tags["armory.session"] for run in recovery.closed)
    return [
        f"session {session} was killed: closed {_count(recovery.closed, session)} it left open"
        for session in sessions
    ]


def _count(runs: Sequence[StoredRun], session: str) -> str:
    count = sum(run.tags["armory.session"] == session for run in runs)
    return f"{count:,} run" if count == 1 else f"{count:,} runs"
