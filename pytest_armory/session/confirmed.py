"""The end of a session whose store has confirmed what was reported: only the rest is read.

A process that runs tests knows of each attempt whether the store has acknowledged all of it, and
whether other code may have written to its run. What is so needs no copy, as long as the store is
still the one that has acknowledged it: the session runs are open there, and none of the session's
runs was deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_armory.errors import TrackingError
from pytest_armory.records import EvaluationRecord
from pytest_armory.session.reported import ReportedAttempts
from pytest_armory.session.session_runs import SessionRuns, generation_at
from pytest_armory.session.stored_records import is_attempt, is_session, record_of
from pytest_armory.session.stored_session import (
    Ending,
    StoredSession,
    close_if_left_open,
    searched,
)

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun


def read_unconfirmed(
    session_runs: SessionRuns, reported: ReportedAttempts, ending: Ending
) -> StoredSession | None:
    """Read the runs that were not confirmed, and close what code has left open inside others.

    None where all of the session is to be read: something in it is not as it was reported.
    Failures are noted with ``session_runs``.
    """
    from pytest_armory.store import open_store

    records = reported.records
    is_there = session_runs.is_in_reach and session_runs.where.exists
    if not (is_there and any(r.confirmed for r in records)):
        return None
    if not ending.each and reported.run_by_several_workers:
        return None
    session = session_runs.identity.session
    try:
        store = open_store(session_runs.where)
        store.background.drain()
        ids = searched(session_runs, store)
        still_open = store.search.open_of_session(session, ids)
        if any(map(is_attempt, still_open)) or store.search.has_deleted(session, ids):
            return None
        if not _is_same_store(session_runs, records, still_open):
            return None
        for run in [*still_open, *store.search.inside_of_session(session, ids)]:
            if not is_session(run):
                close_if_left_open(session_runs, store, run, reported, ending)
        unconfirmed = [r.run_id for r in records if r.run_id is not None and not r.confirmed]
        found = {run.run_id: run for run in store.search.by_id(unconfirmed, ids)}
        store.background.drain()
    except TrackingError as error:
        session_runs.note_failure(error)
        return StoredSession(unread=reported.run_ids(waiting=False))
    read = [r if r.confirmed else _as_read(store, found.get(r.run_id or "")) for r in records]
    return StoredSession(own=[record for record in read if record is not None])


def _is_same_store(
    session_runs: SessionRuns, records: Sequence[EvaluationRecord], still_open: Sequence[StoredRun]
) -> bool:
    """Whether the store has the session runs of all experiments, as it had them when it confirmed.

    A server may have been restarted with another database.
    """
    if generation_at(session_runs.where) or not session_runs.is_complete:
        return False
    experiments = {str(record.experiment_id) for record in records if record.run_id}
    if not experiments <= set(session_runs.experiment_ids):
        return False
    parents = {session_runs.parent_of(one) for one in experiments}
    return parents <= {run.run_id for run in still_open if is_session(run)}


def _as_read(store: Store, run: StoredRun | None) -> EvaluationRecord | None:
    return None if run is None else replace(record_of(store, run), job="")
