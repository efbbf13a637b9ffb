"""A session as a whole, over all its jobs, as the store holds it now: what is missing of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import time

from pytest_armory.records import JobEnd
from pytest_armory.records.job_tags import job_hash
from pytest_armory.records.tags import KEY, REMOTE_RUN, decode_session_counts, origin_of
from pytest_armory.report.rows import title
from pytest_armory.report.sentences import with_tests
from pytest_armory.report.summary import SessionVerdict, Summary, latest
from pytest_armory.report.text import age, plural
from pytest_armory.session.jobs import ends_of, with_other_jobs
from pytest_armory.session.order import attempts_in_order, test_of
from pytest_armory.session.recovery import left_open
from pytest_armory.session.resume import waiting_runs
from pytest_armory.session.shard_notes import Unfinished, notes_of, state_of
from pytest_armory.session.stored_records import (
    is_attempt,
    is_left_open,
    is_session,
    record_of,
    summary_of,
    unreadable,
)
from pytest_armory.session.superseded import superseded
from pytest_armory.store import Store, StoredRun
from pytest_armory.store.destination import Destination, resolve
from pytest_armory.sync.tags import RECOVERED, sync_command
from pytest_armory.values import short_hash


@dataclass(frozen=True)
class WholeSession:
    """The summary of all jobs; ``missing`` are sentences on what keeps it from being whole.

    ``is_open`` says that some of this may still come: a shard that never came, or one at work. What
    a killed process of this machine has left open does not.
    """

    summary: Summary
    missing: Sequence[str] = ()
    is_open: bool = False

    @property
    def has_passed(self) -> bool:
        """Whether every evaluation has run, and none has failed."""
        return self.summary.verdict is SessionVerdict.PASSED


def read_session(
    store: Store, session: str, where: Destination, store_option: str
) -> WholeSession | None:
    """The session as it stands; None if the store has nothing of it.

    ``where`` is the store's destination, ``store_option`` what a command needs to find it.
    """
    runs = store.search.runs_of_session(session, store.experiments.ids())
    session_runs = [run for run in runs if is_session(run)]
    attempts = [run for run in runs if is_attempt(run)]
    if not session_runs and not attempts:
        return None
    ended = ends_of(runs)
    summary = _summary(store, session, runs, ended.ends)
    done = {short_hash(record.nodeid) for record in summary.records}
    done |= {one for end in ended.ends for one in end.skipped_hashes}
    still_open = list(filter(is_left_open, (*attempts, *session_runs)))
    dead = left_open(where, still_open) if still_open else []
    waiting = waiting_runs(where, resolve(None), session)[0] if dead else []
    continued = _continued(dead, waiting)
    over = {run.run_id: _OVER[run.run_id in continued] for run in dead}
    killed = [run for run in dead if run.run_id not in continued]
    closed = [run for run in runs if RECOVERED in run.tags]  # by others than their jobs
    killed_jobs = {job_hash(origin_of(run.tags).shard) for run in (*dead, *closed)}
    shards = state_of(notes_of(runs), done, killed_jobs)
    running = [run for run in attempts if run in still_open]
    at_work = [run for run in still_open if run.run_id not in over]
    missing = [
        *shards.problems,
        *map(_unfinished, shards.unfinished),
        *_running(store, running, over),
        *([_never_run(summary)] if summary.not_run and not shards.unfinished else []),
        *_waiting(ended.ends, attempts),
        *superseded(attempts),
    ]
    if at_work and not (running or shards.is_open):
        missing.append(f"the session is still at work: {_where(session_runs[0])}")
    if waiting:
        missing.append(_to_upload(waiting, where))
    if killed:
        missing.append(_to_recover(killed, store_option))
    return WholeSession(
        replace(
            summary,
            problems=list(dict.fromkeys([*missing, *summary.problems, *ended.problems])),
            store_option=store_option,
            incomplete=bool(missing),
        ),
        missing,
        is_open=bool(at_work or shards.is_open),
    )


def _summary(
    store: Store, session: str, runs: Sequence[StoredRun], ends: Sequence[JobEnd]
) -> Summary:
    session_runs = [run for run in runs if is_session(run)]
    summary = summary_of(store, session, runs)
    was_interrupted = any(run.status == "KILLED" for run in session_runs)
    summary = with_other_jobs(summary, ends, JobEnd(was_interrupted))
    counts = [decode_session_counts(run.metrics).numbers.get("not_run", 0) for run in session_runs]
    pages = [store.run_url(run.experiment_id, run.run_id) for run in session_runs]
    return replace(
        summary.of_all_jobs(),
        not_run=summary.others_not_run if ends else max(counts, default=0),
        open_with=[f"see {page}" for page in pages if page],
        problems=[
            *summary.problems,
            *summary.others_problems,
            *with_tests(unreadable(summary.records)),
        ],
    )


def _to_upload(waiting: Sequence[StoredRun], where: Destination) -> str:
    return (
        f"{plural(sum(map(is_attempt, waiting)), 'evaluation')} of this session recorded here, "
        f"while the server was out of reach: `{sync_command(where.display_uri)}` uploads them"
    )


def _to_recover(killed: Sequence[StoredRun], store_option: str) -> str:
    return (
        f"{plural(len(killed), 'run')} left open by a process that was killed on this "
        f"machine: `pytest-armory recover{store_option}` closes what it left"
    )


def _unfinished(one: Unfinished) -> str:
    shard = f"{one.note.index}/{one.note.number}"
    if one.has_ended:
        count = plural(one.never_run, "evaluation")
        return f"shard {shard} has ended, and {count} of it never ran, or could not be stored"
    began = f"shard {shard} has not ended: it began {_ago(one.note.began)} on {one.note.host}"
    if not one.never_run:
        return began
    count = plural(one.never_run, "evaluation")
    return f"{began}, and {count} of it never began, or could not be stored"


def _waiting(ends: Sequence[JobEnd], attempts: Sequence[StoredRun]) -> Iterator[str]:
    """What waited to be synced when jobs ended, is not in the store, and has not run again."""
    stored = {short_hash(run.tags[KEY]) for run in attempts if KEY in run.tags}
    began = {short_hash(test_of(run)): run.start for run in attempts_in_order(attempts)}
    hosts: dict[str, set[str]] = {}
    for end in ends:
        for test, run in end.waiting_hashes:
            if run not in stored and began.get(test, 0) < end.ended:
                hosts.setdefault(end.host, set()).add(run)
    for host, runs in sorted(hosts.items()):
        yield (
            f"{plural(len(runs), 'run')} of this session waited on {host or 'another machine'} to "
            "be uploaded, and cannot be judged here; run `pytest-armory sync` there"
        )


def _continued(dead: Sequence[StoredRun], waiting: Sequence[StoredRun]) -> set[str]:
    """The ids of runs that were left open at a server since they went on in what waits here."""
    jobs = {origin_of(run.tags).shard for run in waiting}
    sessions = {run.run_id for run in dead if is_session(run) and origin_of(run.tags).shard in jobs}
    return sessions | {run.tags.get(REMOTE_RUN, "") for run in waiting}


_OVER = {False: "was killed", True: "waits here to be uploaded"}
"""How a run stands that a process has left open, by whether it was recorded locally to its end."""


def _running(store: Store, runs: Sequence[StoredRun], over: Mapping[str, str]) -> Iterator[str]:
    records = [record_of(store, run) for run in attempts_in_order(runs)]
    open_ones = {record.run_id for record in latest(records)}
    for run in runs:
        if run.run_id in open_ones:
            state = over.get(run.run_id, "is still running")
            yield f"{title(record_of(store, run))} {state}: {_where(run)}"


def _where(run: StoredRun) -> str:
    return f"it began {_ago(run.start)} on {run.tags.get('armory.host', 'an unknown machine')}"


def _ago(milliseconds: int) -> str:
    return age(time() - milliseconds / 1000)


def _never_run(summary: Summary) -> str:
    return f"{plural(summary.not_run, 'evaluation')} never ran"
