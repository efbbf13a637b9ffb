"""An attempt that a signal cuts off, with its process: how its run is closed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pytest_armory.plugin.attempt import Attempt, duration_of
from pytest_armory.plugin.lifecycle import outcome_of
from pytest_armory.records import EvaluationRecord, Outcome


def closing_requests(attempt: Attempt) -> tuple[EvaluationRecord, list[Callable[[], object]]]:
    """The record of an attempt that ends now, and the requests that close its run at a server."""
    outcome, duration = outcome_of(attempt.phases), duration_of(attempt)
    location = attempt.run.connection.location
    if location is None or not location.store.destination.is_remote:
        return attempt.to_record(outcome), []
    store, run_id = location.store, location.run_id
    params = attempt.to_record().params
    tags = {"armory.outcome": outcome.value}
    write = partial(store.log_batch, run_id, params=params, metrics=duration, tags=tags)
    close = partial(store.close_run, run_id, outcome.status)
    return attempt.to_record(outcome), [write, close]


def interrupt(attempt: Attempt) -> EvaluationRecord:
    """Close an attempt's run, from another thread, before its process ends by a signal."""
    outcome, duration = outcome_of(attempt.phases), duration_of(attempt)
    writer = attempt.run.writer
    known = writer.params.note(attempt.described)
    sampled = writer.sample_results(is_interrupted=outcome is Outcome.INTERRUPTED)
    writer.write(
        params=known,
        metrics=[*duration, *sampled.values],
        tags={"armory.outcome": outcome.value, **sampled.tags},
    )
    if not outcome.is_good:
        writer.store_files(attempt.failure_files)
    writer.close(outcome.status)
    return attempt.to_record(outcome)
