"""What a session has done already: evaluations that passed, and those that were cut short."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_armory.errors import TrackingError
from pytest_armory.gates.past_runs import has_unread_gate
from pytest_armory.records import AttemptPlace, EvaluationRecord, Outcome, last_attempts
from pytest_armory.records.tags import (
    PART,
    REMOTE_RUN,
    attempt_number,
    decode_outcome,
    origin_of,
)
from pytest_armory.report.sentences import with_tests
from pytest_armory.session import leases
from pytest_armory.session.fingerprint import Fingerprint, read_fingerprint
from pytest_armory.session.order import attempts_in_order, test_of
from pytest_armory.session.stored_records import (
    close_left_open,
    is_attempt,
    is_left_open,
    is_session,
    record_of,
)
from pytest_armory.store.destination import Destination, lease_folder

if TYPE_CHECKING:
    from pytest_armory.store import StoredRun

_PASSED = (Outcome.PASSED, Outcome.XFAILED, Outcome.XPASSED)


@dataclass(frozen=True)
class PassedRun:
    """The run of an evaluation that passed, with its fingerprint."""

    run_id: str
    fingerprint: Fingerprint


@dataclass(frozen=True)
class DoneBefore:
    """What a session holds: runs that passed, and left open ones of the same shard, by node id."""

    session: str
    passed: Mapping[str, PassedRun] = field(default_factory=dict)
    left_open: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What is known of a session that is resumed; ``problems`` say what could not be read.

    ``waiting`` are the evaluations that have passed and wait in the local database; ``continued``
    are the ids of runs that some of these began in, at a server that went out of reach.
    """

    done: DoneBefore
    session_runs: Sequence[StoredRun] = ()
    waiting: Sequence[EvaluationRecord] = ()
    continued: Collection[str] = ()
    problems: Sequence[str] = ()


def find_done(where: Destination, local: Destination, session: str, part: str) -> Found:
    """What a session has done, at its destination and in what waits in the local database.

    ``part`` is this job's shard, "" without one. The last attempt of an evaluation counts.
    """
    # Imported here, for a session that is not tracked has no use for it.
    from pytest_armory.sync.tags import waiting_for

    here, problems = _runs_of(where, session)
    runs = waiting_for(here, "")
    waiting, more = waiting_runs(where, local, session)
    problems += more
    alive = leases.survey(lease_folder(where))[1]
    waiting = _with_first_parts(waiting, runs)
    attempts = sorted(filter(is_attempt, [*runs, *waiting]), key=lambda run: run.start)
    passed_runs, unreadable = _passed(attempts)
    done = DoneBefore(session, passed_runs, _left_open(attempts, part, alive))
    passed = {one.run_id for one in done.passed.values()}
    waiting = [run for run in waiting if run.run_id in passed]
    continued = {run.tags.get(REMOTE_RUN, "") for run in waiting}
    session_runs = [run for run in runs if is_session(run)]
    return Found(done, session_runs, _records(local, waiting), continued, [*problems, *unreadable])


def _with_first_parts(waiting: Sequence[StoredRun], stored: Sequence[StoredRun]) -> list[StoredRun]:
    """Runs that wait, with the tags of the runs that they go on from, as a fingerprint."""
    first = {run.run_id: run.tags for run in stored}
    return [
        replace(run, tags={**first.get(run.tags.get(REMOTE_RUN, ""), {}), **run.tags})
        for run in waiting
    ]


def waiting_runs(
    where: Destination, local: Destination, session: str
) -> tuple[list[StoredRun], list[str]]:
    """A session's runs in the local database that wait to be uploaded, and problems."""
    from pytest_armory.sync.tags import SYNCED, waiting_for

    if local.display_uri == where.display_uri:
        return [], []
    found, problems = _runs_of(local, session)
    # What has been uploaded is at the server; what was recorded for another never gets there.
    waiting = [run for run in waiting_for(found, where.display_uri) if SYNCED not in run.tags]
    return waiting, problems


def _records(local: Destination, waiting: Sequence[StoredRun]) -> list[EvaluationRecord]:
    from pytest_armory.store import open_store

    if not waiting:
        return []
    store = open_store(local)
    return [replace(record_of(store, run), waiting=True) for run in waiting]


def _runs_of(where: Destination, session: str) -> tuple[list[StoredRun], list[str]]:
    from pytest_armory.store import open_store

    if not where.exists:
        return [], []
    try:
        store = open_store(where)
        return store.search.runs_of_session(session, store.experiments.ids()), []
    except TrackingError as error:
        return [], [f"what passed before cannot be looked up, and runs again: {error}"]


def _passed(attempts: Sequence[StoredRun]) -> tuple[dict[str, PassedRun], list[str]]:
    """The runs that passed, by node id; and which of their fingerprints cannot be read."""
    passed: dict[str, PassedRun] = {}
    unreadable: list[tuple[str, str]] = []
    others: set[str] = set()  # also what has not passed on one worker of several
    for run in last_attempts(attempts_in_order(attempts), _place_of):
        has_passed = run.status == "FINISHED" and decode_outcome(run.tags) in _PASSED
        if has_passed and not has_unread_gate(run):  # else what could not be read may be by now
            problems: list[str] = []
            passed[test_of(run)] = PassedRun(run.run_id, read_fingerprint(run.tags, problems))
            unreadable += [(problem, test_of(run)) for problem in problems]
        else:
            others.add(test_of(run))
    done = {nodeid: run for nodeid, run in passed.items() if nodeid not in others}
    return done, with_tests(unreadable)


def _place_of(run: StoredRun) -> AttemptPlace:
    tags = run.tags
    job, worker = origin_of(tags).shard, tags.get("armory.worker", "")
    return AttemptPlace(test_of(run), attempt_number(tags), job, worker)


def _left_open(
    attempts: Sequence[StoredRun], part: str, alive: Collection[str]
) -> dict[str, list[str]]:
    """The open runs of this shard; not those of processes that are alive on this machine."""
    found: dict[str, list[str]] = {}
    for run in attempts:
        origin = origin_of(run.tags)
        is_alive = origin.process in alive or origin.reporter in alive
        if is_left_open(run) and run.tags.get(PART, "") == part and not is_alive:
            found.setdefault(run.tags["armory.nodeid"], []).append(run.run_id)
    return found


def close_interrupted(places: Sequence[Destination], run_ids: Sequence[str]) -> None:
    """Close the open runs of an evaluation that is about to run again, as interrupted.

    ``places`` are the stores they may be in. Raises :class:`TrackingError` for one that fails, when
    the others are done.
    """
    failures: list[TrackingError] = []
    for where in places:
        try:
            _close_interrupted_at(where, run_ids)
        except TrackingError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _close_interrupted_at(where: Destination, run_ids: Sequence[str]) -> None:
    from pytest_armory.store import open_store

    if not where.exists:
        return
    store = open_store(where)
    for run in filter(None, map(store.search.find, run_ids)):
        if is_left_open(run):
            store.log_batch(run.run_id, tags={"armory.recovered": "true"})
            close_left_open(store, run, Outcome.INTERRUPTED, run.seen)
