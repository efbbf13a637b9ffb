"""The counts of a session run: those of its experiment, and those of its session."""

from __future__ import annotations

from dataclasses import replace

import pytest
from summaries import summary

from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.report.summary import outcome_counts


def record(test: str, experiment_id: str, name: str = "", **more: object) -> EvaluationRecord:
    given = {"outcome": Outcome.PASSED, **more}
    return EvaluationRecord(
        f"t.py::{test}",
        experiment_id=experiment_id,
        experiment=name,
        **given,  # type: ignore[arg-type]
    )


RECORDS = [
    record("a", "5", "one"),
    record("b", "2", "one", waiting=True),
    record("c", "2", "two", outcome=Outcome.FAILED),
    record("d", "2", "two", outcome=Outcome.FAILED),
    record("d", "2", "two"),  # run again
    record("e", "7"),
    record("f", None, "two", outcome=Outcome.ERROR),  # type: ignore[arg-type] - no run
]


@pytest.mark.parametrize(
    ("experiment_id", "waiting", "expected"),
    [
        ("5", False, {"evaluations": 2, "passed": 2}),
        ("2", True, {"evaluations": 2, "passed": 2}),
        ("2", False, {"evaluations": 3, "passed": 1, "failed": 1, "error": 1}),
        ("7", False, {"evaluations": 1, "passed": 1}),
        ("9", False, {}),
    ],
    ids=["server", "local", "the same id", "no name", "none"],
)
def test_counts_are_of_one_experiment_wherever_it_is(
    experiment_id: str, waiting: bool, expected: dict[str, float]
) -> None:
    given = replace(summary(RECORDS), not_run=2)
    counts = outcome_counts(given, experiment_id, waiting)
    assert {name: n for name, n in counts.items() if n and "/" not in name} == expected
    whole = {name.removeprefix("session/"): n for name, n in counts.items() if "/" in name and n}
    assert whole == {"evaluations": 8, "passed": 4, "failed": 1, "error": 1, "not_run": 2}
    assert "running" not in counts
    assert "session/running" in outcome_counts(
        replace(given, records_of_all_jobs=RECORDS), experiment_id
    )
