"""The jobs of one session, such as the shards of a CI matrix, and the session over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_armory.records import JobEnd, Outcome
from pytest_armory.records.job_tags import JobEnds, decode_job_ends
from pytest_armory.report.summary import Summary, latest
from pytest_armory.session.stored_records import is_session
from pytest_armory.values import short_hash

if TYPE_CHECKING:
    from pytest_armory.store import StoredRun


def ends_of(runs: Sequence[StoredRun], but: str = "") -> JobEnds:
    """The ends of a session's jobs so far, without that of one shard."""
    sessions = [run for run in runs if is_session(run)]
    return decode_job_ends({k: v for run in sessions for k, v in run.tags.items()}, but)


def with_other_jobs(summary: Summary, ends: Sequence[JobEnd], own: JobEnd) -> Summary:
    """A summary, completed by the ends of the session's other jobs; ``own`` is this one's.

    A job that was retried may have run what its predecessor did not, or skipped it by a mark. Or it
    has not run it either, which the summary counts already.
    """
    last = latest(summary.all_records)
    done = {*own.skipped_hashes, *(one for end in ends for one in end.skipped_hashes)}
    done |= {short_hash(record.nodeid) for record in last} if ends else set()
    not_run = [set(end.not_run) - done for end in ends]
    incomplete = [end for end, ids in zip(ends, not_run, strict=True) if ids or end.not_run_more]
    problems = [problem for end in ends for problem in end.problems]
    return replace(
        summary,
        interrupted=own.interrupted
        or any(end.interrupted for end in incomplete)
        or any(record.outcome is Outcome.INTERRUPTED for record in last),
        others_not_run=len(set().union(*not_run).difference(own.not_run))
        + sum(end.not_run_more for end in ends),
        others_problems=list(dict.fromkeys(problems)),
    )


def has_changed(before: Summary, after: Summary) -> bool:
    """Whether another job, or an evaluation of one, has ended between two reads."""
    return before is not after and _progress(before) != _progress(after)


def _progress(summary: Summary) -> tuple[object, ...]:
    ended = {(record.run_id, record.outcome) for record in summary.all_records}
    return ended, summary.interrupted, summary.others_not_run, tuple(summary.others_problems)
