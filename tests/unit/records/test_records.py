"""Records cross process boundaries as one string of builtins, and come back the same."""

from __future__ import annotations

import json
import math

import execnet
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_armory.records import (
    EvaluationRecord,
    Outcome,
    Verdict,
    count_outcomes,
    from_wire,
    to_wire,
)

text = st.text(st.characters(), max_size=30)
maybe_float = st.none() | st.floats()
verdicts = st.builds(
    Verdict,
    metric=text,
    rule=text,
    state=st.sampled_from(["passed", "failed", "unjudged"]),
    value=maybe_float,
    limit=maybe_float,
    baseline=maybe_float,
    text=text,
    higher_is_worse=st.none() | st.booleans(),
)
records = st.builds(
    EvaluationRecord,
    nodeid=text,
    attempt=st.integers(1, 99),
    worker=text,
    run_id=st.none() | text,
    experiment_id=st.none() | text,
    parent_id=st.none() | text,
    url=st.none() | text,
    outcome=st.none() | st.sampled_from(Outcome),
    duration=st.floats(0, 1e9),
    metrics=st.dictionaries(st.sampled_from(["a", "b/c", "d e"]), st.floats()),
    problems=st.lists(text, max_size=3).map(tuple),
    verdicts=st.lists(verdicts, max_size=3).map(tuple),
)


def comparable(record: EvaluationRecord) -> str:
    return repr(record)  # NaN is not equal to itself


@given(records)
def test_there_and_back(record: EvaluationRecord) -> None:
    wire = to_wire(record)
    assert type(wire) is str
    assert wire.isascii()
    assert comparable(from_wire(wire)) == comparable(record)


@given(records)
def test_execnet_takes_it(record: EvaluationRecord) -> None:
    assert execnet.loads(execnet.dumps(to_wire(record))) == to_wire(record)


def test_foreign_numbers_become_builtins() -> None:
    record = EvaluationRecord("n", metrics={"a": np.float32(0.5), "b": math.inf})  # type: ignore[dict-item]
    back = from_wire(to_wire(record))
    assert back.metrics == {"a": 0.5, "b": math.inf}
    assert {type(value) for value in back.metrics.values()} == {float}
    assert json.loads(to_wire(record))["metrics"]["a"] == 0.5


def test_verdicts_keep_what_is_no_finite_number() -> None:
    verdict = Verdict("m", "at_most 2", "failed", math.nan, math.inf, -math.inf, "is é", True)
    back = from_wire(to_wire(EvaluationRecord("n", verdicts=(verdict,))))
    assert repr(back.verdicts) == repr((verdict,))
    assert type(back.verdicts[0]) is Verdict


@pytest.mark.parametrize("bad", ["", "{}", "[]", '{"nodeid": "a", "outcome": "odd"}'])
def test_what_is_no_record_is_refused(bad: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        from_wire(bad)


def test_outcomes_are_counted_in_their_order() -> None:
    given = [Outcome.FAILED, Outcome.PASSED, Outcome.FAILED, None]
    found = count_outcomes(EvaluationRecord("n", outcome=outcome) for outcome in given)
    assert list(found.items()) == [("passed", 1), ("failed", 2)]
