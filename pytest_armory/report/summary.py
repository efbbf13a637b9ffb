"""The summary of a session: records, verdict and counts."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_armory.records import (
    EvaluationRecord,
    Outcome,
    Verdict,
    count_outcomes,
    is_one_of_each_test,
    last_attempts,
)
from pytest_armory.records.judging_tag import Judging
from pytest_armory.records.tags import session_count
from pytest_armory.report.usage import usage_totals


class SessionVerdict(enum.Enum):
    """The verdict of a session: its sign, and the status of its run."""

    PASSED = ("✅", "FINISHED")
    FAILED = ("❌", "FAILED")
    INTERRUPTED = ("🛑", "KILLED")
    RUNNING = ("⏳", "FINISHED")
    """Nothing has failed so far, and another of its jobs is running."""
    INCOMPLETE = ("⚠️", "FINISHED")
    """Nothing has failed, and something is missing, as a shard that never came."""

    def __init__(self, sign: str, status: str) -> None:
        self.sign = sign
        self.status = status


@dataclass(frozen=True)
class Summary:
    """The summary of a session. ``records`` are those in the store, in order of start.

    Where several jobs contribute to the session, ``records_of_all_jobs`` are those of all of them,
    and ``others_…`` is what only the others know; ``interrupted`` is true if any of them was.
    ``where`` is the store's display URI, ``open_with`` the lines that say how to look at the
    session there; ``lost`` evaluations are not stored, ``waiting`` ones are recorded locally.
    ``resumed`` ones have passed before and were skipped.
    ``text`` is the Markdown as others may have edited it. ``judged_again`` says that the gates were
    judged after the tests. ``judging`` is what verdicts depend on. ``store_option`` is the option,
    if any, that our commands need to find the store. ``incomplete`` says that something is known to
    be missing of the session as a whole.
    """

    session: str
    where: str
    records: Sequence[EvaluationRecord]
    open_with: Sequence[str] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    lost: int = 0
    waiting: int = 0
    not_run: int = 0
    resumed: int = 0
    commit: str = ""
    branch: str = ""
    baseline: str = ""
    records_of_all_jobs: Sequence[EvaluationRecord] = ()
    interrupted: bool = False
    others_not_run: int = 0
    others_problems: Sequence[str] = ()
    text: str = ""
    judged_again: bool = False
    judging: Judging | None = None
    store_option: str = ""
    incomplete: bool = False

    @property
    def verdict(self) -> SessionVerdict:
        """The verdict of the session over all its jobs so far."""
        last = latest(self.all_records)
        outcomes = {record.outcome for record in last}
        if self.interrupted:
            return SessionVerdict.INTERRUPTED
        missed = self.judged_again and missed_gates(last)
        if missed or any(outcome and not outcome.is_good for outcome in outcomes):
            return SessionVerdict.FAILED
        if not all(outcomes):
            return SessionVerdict.RUNNING
        return SessionVerdict.INCOMPLETE if self.incomplete else SessionVerdict.PASSED

    @property
    def all_records(self) -> Sequence[EvaluationRecord]:
        """The records of all jobs."""
        return self.records_of_all_jobs or self.records

    def of_all_jobs(self) -> Summary:
        """The summary of all jobs as if they were one."""
        return replace(
            self,
            records=self.all_records,
            not_run=self.not_run + self.others_not_run,
            problems=[*self.problems, *self.others_problems],
            others_not_run=0,
            others_problems=(),
        )


def latest(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """The last attempt at every evaluation: :func:`last_attempts`."""
    if is_one_of_each_test(records):
        return [*records]
    return last_attempts(records, lambda record: record.place)


def is_good(record: EvaluationRecord) -> bool:
    """Whether an attempt has ended and does not fail the session."""
    return record.outcome is not None and record.outcome.is_good


def missed_gates(
    records: Sequence[EvaluationRecord],
) -> list[tuple[EvaluationRecord, Verdict]]:
    """The missed gates of all attempts that were not expected to fail."""
    judged = (record for record in records if record.verdicts)
    return [(record, verdict) for record in judged for verdict in missed_by(record)]


def missed_by(record: EvaluationRecord) -> list[Verdict]:
    """The gates that an attempt missed, which was not expected to fail."""
    if record.outcome is Outcome.XFAILED:
        return []
    return [verdict for verdict in record.verdicts if verdict.state == "failed"]


def outcome_counts(
    summary: Summary, experiment_id: str, waiting: bool = False, name: str = ""
) -> dict[str, float]:
    """A session run's metrics: how many evaluations there were, how each ended, what they used.

    Those of its experiment, then those of the session. ``waiting`` says whether the experiment is
    that of the local database, where others have the ids; ``name`` is its name, if it is known.
    """
    summary = summary.of_all_jobs()
    last = latest(summary.records)
    is_shared = bool(summary.records_of_all_jobs)  # another job may be running
    own = _counts(of_experiment(last, experiment_id, waiting, name), is_shared)
    whole = {**_counts(last, is_shared), "not_run": summary.not_run}
    whole["evaluations"] += summary.not_run
    totals = {**own, **{session_count(name): count for name, count in whole.items()}}
    of_it = of_experiment(summary.records, experiment_id, waiting, name)
    session = {session_count(name): value for name, value in usage_totals(summary.records).items()}
    counts = {name: float(count) for name, count in totals.items()}
    return {**counts, **usage_totals(of_it), **session}


def _counts(records: Sequence[EvaluationRecord], is_shared: bool) -> dict[str, int]:
    running = {"running": sum(record.outcome is None for record in records)} if is_shared else {}
    return {
        "evaluations": len(records),
        **dict.fromkeys((outcome.value for outcome in Outcome), 0),
        **count_outcomes(records),
        "gates_missed": len(missed_gates(records)),
        "gates_unread": sum(verdict.unread for one in records for verdict in one.verdicts),
        **running,
    }


def of_experiment(
    records: Sequence[EvaluationRecord], experiment_id: str, waiting: bool, name: str
) -> list[EvaluationRecord]:
    """The records of one experiment, both at a server and in the local database."""

    def is_here(record: EvaluationRecord) -> bool:
        return record.experiment_id == experiment_id and record.waiting == waiting

    names = {name, *(record.experiment for record in records if is_here(record))} - {""}
    return [record for record in records if record.experiment in names or is_here(record)]
