"""The lines on unclear gates, on gates without evidence, and on chance."""

from __future__ import annotations

import pytest

from pytest_armory.records import EvaluationRecord, Verdict
from pytest_armory.records.judging_tag import Judging
from pytest_armory.report.evidence import evidence_lines


def gate(verdict: str, state: str = "passed", rule: str = "baseline -2%", **others: str) -> Verdict:
    return Verdict("accuracy", rule, state, 0.9, 0.9, verdict=verdict, **others)  # type: ignore[arg-type]


def record(name: str, *verdicts: Verdict) -> EvaluationRecord:
    return EvaluationRecord(f"test_it.py::{name}", verdicts=verdicts)


UNCLEAR = gate("unclear", evidence="200 samples tell falls of 3 points and more")
PROMISE = "fail a session at most 1 in 20 times"


def test_one_unclear_gate_says_what_it_needs() -> None:
    first, _ = evidence_lines([record("test_a", UNCLEAR)], None, most=1)
    assert first == "unclear: accuracy of test_a; 200 samples tell falls of 3 points and more"


def test_many_unclear_gates_are_one_line() -> None:
    records = [record(f"test_{i}", UNCLEAR) for i in range(5)]
    first, chance = evidence_lines(records, None, most=1)
    assert first == (
        "unclear: accuracy of test_0, accuracy of test_1, accuracy of test_2 and 2 more; of the "
        "first: 200 samples tell falls of 3 points and more; -v has each"
    )
    assert chance.startswith("chance: ")
    assert len(evidence_lines(records, None, most=20)) == 6
    assert evidence_lines(records, None, most=3)[3] == "unclear: 2 more gates"


def test_what_has_no_evidence_is_said_once() -> None:
    verdict = gate("", evidence="the baseline has no samples of it")
    lines = evidence_lines([record("test_a", verdict), record("test_b", verdict)], None, most=1)
    assert lines == ["accuracy: the baseline has no samples of it (test_a, test_b)"]


def test_what_a_verdict_of_not_worse_lacks_is_said() -> None:
    text = "2 samples without a pair are left out"
    lines = evidence_lines([record("test_a", gate("not worse", evidence=text))], None, most=1)
    assert lines[0] == f"accuracy: {text} (test_a)"
    # Another line says this one, of whatever verdict.
    changed = gate("not worse", evidence="the data changed, so other samples are compared")
    assert len(evidence_lines([record("test_a", changed)], None, most=1)) == 1


BOUND = gate("", rule="at_least 0.5")


@pytest.mark.parametrize(
    ("verdicts", "judging", "expected"),
    [
        ([BOUND, gate("")], Judging(gates=1), None),
        ([gate("worse", "failed")], Judging(gates=1),
         f"this gate {PROMISE.replace('fail', 'fails', 1)}"),
        ([gate("worse"), gate("not worse"), BOUND, BOUND, BOUND, gate("")], Judging(gates=2),
         f"these 2 gates {PROMISE}; not covered: 3 bounds, 1 tolerance without samples"),
        ([gate("worse"), gate("worse")], Judging(gates=40),
         f"2 of the session's 40 gates {PROMISE}"),
        ([gate("worse"), gate("worse")], Judging(gates=1),
         # As a late mark's gate is not, or that of a job which collects other tests.
         f"these 2 gates, of which 1 was counted, {PROMISE.replace('20', '10')}"),
        ([gate("worse")], Judging(gates=1, confidence=0.99),
         f"this gate {PROMISE.replace('fail', 'fails', 1).replace('20', '100')}"),
        ([gate("worse")], Judging(gates=1, confidence=0.999999),
         f"this gate {PROMISE.replace('fail', 'fails', 1).replace('20', '1,000,000')}"),
        ([gate("worse"), gate("unclear", "failed", unclear="fail")], Judging(gates=2),
         f"1 of the session's 2 gates {PROMISE.replace('fail', 'fails', 1)}; "
         "not covered: 1 gate that unclear does not pass"),
    ],
)  # fmt: skip
def test_the_promise(verdicts: list[Verdict], judging: Judging, expected: str | None) -> None:
    lines = evidence_lines([record("test_a", *verdicts)], judging, most=1)
    promise = f"chance: if nothing got worse, {expected}"
    assert lines == ([] if expected is None else [promise])
