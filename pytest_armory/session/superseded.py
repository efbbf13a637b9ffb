"""Failures that the verdict of another job has replaced, which was no retry of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_armory.records import Outcome
from pytest_armory.records.tags import PART, decode_outcome, origin_of
from pytest_armory.report.sentences import with_tests
from pytest_armory.session.order import attempts_in_order, test_of

if TYPE_CHECKING:
    from pytest_armory.store import StoredRun

AT_ONCE = (
    "failed in a job that ran at the same time as the one whose verdict counts: if these are two "
    "legs of a matrix, give each its own --armory-session"
)
ELSEWHERE = (
    "failed in another experiment than that of the verdict which counts: if these are two tests, "
    "run their jobs with the same rootdir, or give each its own --armory-session"
)


def superseded(attempts: Sequence[StoredRun]) -> list[str]:
    """A sentence for each way in which a failure is no earlier attempt at what then passed.

    Only the last verdict on a node id counts, as of a job that runs again: that begins when the
    first one has ended.
    """
    tests: dict[str, list[StoredRun]] = {}
    for run in attempts_in_order(attempts):
        tests.setdefault(test_of(run), []).append(run)
    spans = _spans(attempts)
    return with_tests(
        (text, nodeid) for nodeid, runs in tests.items() for text in _texts(runs, spans)
    )


def _texts(runs: Sequence[StoredRun], spans: dict[str, tuple[int, int]]) -> Iterator[str]:
    *earlier, last = runs
    for run in earlier:
        outcome, job, last_job = decode_outcome(run.tags), _job(run), _job(last)
        # What was cut off is run again by whoever resumes its session.
        if job == last_job or outcome in (None, Outcome.INTERRUPTED) or outcome.is_good:
            continue
        if run.experiment_id != last.experiment_id:
            yield ELSEWHERE
        elif _is_at_once(spans[job], spans[last_job]) and not _is_same_shard(run, last):
            yield AT_ONCE


def _job(run: StoredRun) -> str:
    return origin_of(run.tags).shard


def _spans(attempts: Sequence[StoredRun]) -> dict[str, tuple[int, int]]:
    """From when to when each job had evaluations at work, in milliseconds since the epoch."""
    spans: dict[str, tuple[int, int]] = {}
    for run in attempts:
        start, end = spans.get(_job(run), (run.start, run.start))
        spans[_job(run)] = min(start, run.start), max(end, run.end or run.start)
    return spans


def _is_at_once(first: tuple[int, int], second: tuple[int, int]) -> bool:
    return first[0] < second[1] and second[0] < first[1]


def _is_same_shard(first: StoredRun, second: StoredRun) -> bool:
    """Whether the notes of both jobs tell it already."""
    return bool(first.tags.get(PART)) and first.tags.get(PART) == second.tags.get(PART)
