"""Runs in the store as records, and how they are closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.records.judging_tag import BASELINE_TEXT, JUDGING, Judging
from pytest_armory.records.tags import (
    KEY,
    OUTCOME,
    Kind,
    decode_attempt,
    decode_judging,
    decode_outcome,
    kind_of,
    origin_of,
)
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.note import as_note
from pytest_armory.report.summary import Summary, of_experiment, outcome_counts
from pytest_armory.session.order import attempts_in_order, test_of
from pytest_armory.values import PARAM_LIMIT, TAG_LIMIT, clip, legal_key, visible

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun, StoreRun


def is_session(run: StoredRun) -> bool:
    """Whether a run is a session run."""
    return kind_of(run.tags) is Kind.SESSION


def is_attempt(run: StoredRun) -> bool:
    """Whether a run is an attempt at a test, and not one that the test's code has opened."""
    return kind_of(run.tags) is Kind.EVALUATION and "armory.nodeid" in run.tags


def is_left_open(run: StoredRun) -> bool:
    """Whether a run has not come to its end, as an attempt that the test's own code has closed.

    ``mlflow.end_run()`` does that, and what its process writes at the end is missing if it died.
    """
    return run.status == "RUNNING" or (is_attempt(run) and OUTCOME not in run.tags)


def first_session_run(runs: Sequence[StoredRun]) -> StoredRun | None:
    """The session run to keep if several were opened: every job selects the same."""
    sessions = [run for run in runs if is_session(run)]
    return min(sessions, key=lambda run: (run.start, run.run_id), default=None)


def recorded_judging(runs: Sequence[StoredRun], problems: list[str]) -> Judging | None:
    """What a session's first job has recorded of its verdicts on its run; None without it."""
    first = first_session_run([run for run in runs if JUDGING in run.tags])
    return decode_judging(first.tags, problems) if first is not None else None


def record_of(store: Store, run: StoredRun) -> EvaluationRecord:
    """An attempt as the store holds it; ``problems`` say what cannot be read."""
    read = decode_attempt(run.tags, run.metrics)
    return EvaluationRecord(
        nodeid=test_of(run),
        attempt=read.attempt,
        worker=read.worker,
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        parent_id=read.parent_id,
        url=store.run_url(run.experiment_id, run.run_id),
        outcome=read.outcome,
        duration=read.duration,
        metrics=run.metrics,
        problems=read.problems,
        chief=read.chief,
        baseline=dict(read.baseline),
        verdicts=read.verdicts,
        digests=dict(read.digests),
        changed=read.changed,
        copy_key=run.tags.get(KEY, ""),
        job=origin_of(run.tags).shard,
    )


def summary_of(store: Store, session: str, runs: Sequence[StoredRun]) -> Summary:
    """A session that has ended, as its runs in the store describe it."""
    source = next((run.tags for run in runs), {})
    problems: list[str] = []
    judging = recorded_judging(runs, problems)
    return Summary(
        session=session,
        where=store.where,
        records=[record_of(store, run) for run in attempts_in_order(filter(is_attempt, runs))],
        commit=source.get("mlflow.source.git.commit", ""),
        branch=source.get("mlflow.source.git.branch", ""),
        baseline=_baseline_text(runs) or (judging.baseline_text if judging is not None else ""),
        judging=judging,
        problems=problems,
    )


def _baseline_text(runs: Sequence[StoredRun]) -> str:
    """What the jobs of a session have said that they were compared with; "" if none has ended."""
    texts = [run.tags.get(BASELINE_TEXT, "") for run in runs if is_session(run)]
    return "; ".join(filter(None, dict.fromkeys(texts)))


def unreadable(records: Sequence[EvaluationRecord]) -> list[tuple[str, str]]:
    """What cannot be read of records from the store: each sentence with its node id."""
    return [(text, record.nodeid) for record in records for text in record.problems]


def unwritten_params(run: StoredRun, record: EvaluationRecord) -> dict[str, str]:
    """Write the parameters that a process knew and had not written to its run yet."""
    # They may come from a journal, which is not trusted.
    known = {legal_key(k): clip(visible(v), PARAM_LIMIT) for k, v in record.params.items()}
    return {key: value for key, value in known.items() if key not in run.params}


def number_attempts(store: Store, runs: Sequence[StoredRun], received: Mapping[str, int]) -> None:
    """Number the attempts at each test, given in order; each process has counted only its own.

    For instance, a test that crashed on one worker was run again on another. ``received`` are
    the numbers of those that were reported, in another store too.
    """
    attempts: Counter[str] = Counter()
    for run in runs:
        nodeid = test_of(run)
        attempts[nodeid] = max(attempts[nodeid] + 1, received.get(run.run_id, 0))
        number = str(attempts[nodeid])
        if run.tags.get("armory.attempt") != number:
            run.tags["armory.attempt"] = number
            store.log_batch(run.run_id, tags={"armory.attempt": number})


def close_left_open(
    store: Store, run: StoredRun, default: Outcome, end: int | None = None
) -> list[str]:
    """Close a run that its process left open; returns sentences for the summary, if any.

    An evaluation ends with the outcome it had written, if any, else with the default; a
    run that a test's own code opened and left is closed as ``FINISHED``. ``end`` is in milliseconds
    since the epoch.
    """
    if is_attempt(run):
        _close_attempt(store, run, decode_outcome(run.tags) or default, end)
    elif kind_of(run.tags) is Kind.EVALUATION:  # one of `track_evaluation` in a script
        store.close_run(run.run_id, default.status, end)
    else:
        return [store.close_users_run(run.run_id, run.tags.get("armory.opened_in", ""), end)]
    return []


def _close_attempt(store: Store, run: StoredRun, outcome: Outcome, end: int | None) -> None:
    run.tags["armory.outcome"] = outcome.value
    metrics = []
    if end is not None and "duration_seconds" not in run.metrics:
        run.metrics["duration_seconds"] = max(0, end - run.start) / 1000
        metrics = [("duration_seconds", run.metrics["duration_seconds"], 0)]
    store.log_batch(run.run_id, tags={"armory.outcome": outcome.value}, metrics=metrics)
    store.close_run(run.run_id, outcome.status, end)


NOTE = "mlflow.note.content"


def closing_requests(
    store: Store,
    run: StoreRun | StoredRun,
    summary: Summary,
    end: int | None = None,
    tags: Mapping[str, str] | None = None,
    waiting: bool = False,
) -> list[Callable[[], None]]:
    """The requests that write counts, note and tags to a session run, and close it.

    ``waiting`` says that it waits for sync.
    """
    name = store.experiments.name_of(run.experiment_id) or ""
    counts = outcome_counts(summary, run.experiment_id, waiting, name)
    metrics = [(name, value, 0) for name, value in counts.items()]
    own = of_experiment(summary.all_records, run.experiment_id, waiting, name)
    noted = {**(tags or {}), NOTE: as_note(summary.text, TAG_LIMIT, own, summary.all_records)}
    return [
        partial(store.log_batch, run.run_id, metrics=metrics, tags=noted),
        partial(store.close_run, run.run_id, summary.verdict.status, end),
    ]


def close_session_run(
    store: Store,
    run: StoreRun | StoredRun,
    summary: Summary,
    end: int | None = None,
    tags: Mapping[str, str] | None = None,
    waiting: bool = False,
) -> None:
    """Write counts and summary to a session run and close it."""
    summary = replace(summary, text=summary.text or to_markdown(summary))
    noted = dict(tags or {})
    if summary.baseline:
        noted[BASELINE_TEXT] = clip(summary.baseline, TAG_LIMIT)
    for request in closing_requests(store, run, summary, end, noted, waiting):
        request()
    store.log_files(run, {"summary.md": summary.text})  # last, since a store may have no space left
