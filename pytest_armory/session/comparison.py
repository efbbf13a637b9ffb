"""A session that has ended, judged again with another baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytest_armory.gates.baselines import Baseline
from pytest_armory.gates.same_data import changed_data
from pytest_armory.gates.verdicts import judge_again
from pytest_armory.records import EvaluationRecord
from pytest_armory.records.tags import decode_session_counts
from pytest_armory.report.summary import Summary
from pytest_armory.session.stored_records import is_attempt, is_session, summary_of
from pytest_armory.store import Store, StoredRun


def compare_session(
    store: Store, session: str, runs: Sequence[StoredRun], baseline: Baseline
) -> Summary:
    """The summary of a session from all of its runs, with its tolerances judged by this baseline.

    How it ended, and what was never run, is in its session runs.
    """
    attempts = [run for run in runs if is_attempt(run)]
    session_runs = [run for run in runs if is_session(run)]
    summary = summary_of(store, session, attempts)
    records = [_compared(record, baseline) for record in summary.records]
    not_run = (decode_session_counts(run.metrics).numbers.get("not_run", 0) for run in session_runs)
    return replace(
        summary,
        records=records,
        baseline=baseline.describe({record.experiment_id for record in records}),
        judged_again=True,
        interrupted=any(run.status == "KILLED" for run in session_runs),
        not_run=max(not_run, default=0),
    )


def _compared(record: EvaluationRecord, baseline: Baseline) -> EvaluationRecord:
    known = baseline.digests_of(record.experiment_id, record.nodeid)
    judged = judge_again(record, baseline.of(record.experiment_id, record.nodeid))
    return replace(judged, changed=changed_data(record.digests, known))
