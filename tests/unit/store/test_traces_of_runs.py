"""What traces say, whatever stands in their metadata: anyone may have written it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_armory.store.traces import usage_of

TOKENS, COST = "mlflow.trace.tokenUsage", "mlflow.trace.cost"


def info(**metadata: str) -> SimpleNamespace:
    """A trace that took a quarter of a second."""
    return SimpleNamespace(trace_metadata=metadata, request_time=2000, execution_duration=250)


def test_a_trace() -> None:
    problems: list[str] = []
    tokens = '{"input_tokens": 3, "output_tokens": 2.0, "total_tokens": 5, "cached": "x"}'
    found = usage_of(info(**{TOKENS: tokens, COST: '{"total_cost": 0.5}'}), problems)
    assert found == (2.0, 0.25, 3, 2, 5, 0.5)
    found = usage_of(info(**{TOKENS: '{"input_tokens": null}', COST: "{}"}), problems)
    assert found == usage_of(info(), problems) == (2.0, 0.25, None, None, None, None)
    assert problems == []


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        (TOKENS, "many", "it is not JSON"),
        (TOKENS, "[3]", "it is not an object"),
        (TOKENS, '{"input_tokens": "3"}', "it has a field input_tokens that is not a number"),
        (TOKENS, '{"total_tokens": NaN}', "it has a field total_tokens that is not a count"),
        (TOKENS, '{"total_tokens": -1}', "it has a field total_tokens that is not a count"),
        (COST, '{"total_cost": Infinity}', "it has a field total_cost that is not finite"),
    ],
)
def test_what_cannot_be_read_is_left_out_and_named_once(name: str, text: str, why: str) -> None:
    problems: list[str] = []
    for _ in range(2):
        assert usage_of(info(**{name: text}), problems) == (2.0, 0.25, None, None, None, None)
    assert problems == [f"a trace's {name} cannot be read: {why}"]
