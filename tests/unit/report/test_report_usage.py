"""What the evaluations of a session used together."""

from __future__ import annotations

from math import inf, nan

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.usage import usage_lines


def used(**metrics: float) -> EvaluationRecord:
    return EvaluationRecord("t", metrics={n.replace("_", "/", 1): v for n, v in metrics.items()})


def test_a_total_says_how_many_traces_are_not_in_it() -> None:
    known = used(tokens_total=20.0, cost=0.5, traces=4.0, traces_without_tokens=2.0)
    repeated = used(tokens_total=1.0, cost=0.5, traces=1.0, traces_without_tokens=0.0)
    all_repeats = {f"all_repeats/{name}": 2 * v for name, v in repeated.metrics.items()}
    repeated.metrics.update(all_repeats)
    unknown = used(traces=9.0, traces_without_tokens=9.0)
    assert usage_lines([known, repeated]) == [
        "used: 22 tokens, cost 1.5 USD; 2 of 6 traces without tokens"
    ]
    assert usage_lines([repeated]) == ["used: 2 tokens, cost 1 USD"]
    assert usage_lines([unknown]) == ["used: tokens unknown, cost unknown"]
    assert usage_lines([EvaluationRecord("t")]) == []


def test_counts_of_traces_that_are_no_numbers_cost_no_summary() -> None:
    """Such as a test may log itself, under these names."""
    known = used(tokens_total=20.0, cost=0.5, traces=4.0, traces_without_tokens=2.0)
    odd = used(tokens_total=1.0, cost=0.5, traces=nan, traces_without_tokens=inf)
    expected = "used: 21 tokens, cost 1 USD; 2 of 4 traces without tokens"
    assert usage_lines([known, odd]) == [expected]
