"""How gates judge, what every verdict says, and what a test fails with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pytest_armory.gates.parse import Tolerance, parse_tolerance, parse_tolerances
from pytest_armory.gates.verdicts import failure_text, judge, judge_again, tolerances_of
from pytest_armory.records import EvaluationRecord, Verdict

anything = st.text(st.characters(), max_size=40)
finite = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(0, allow_infinity=False).map(abs)
tolerances = st.builds(Tolerance, amounts, st.booleans(), st.booleans())
names = st.sampled_from(["accuracy", "a/b c", "time/predict_seconds"])
metrics = st.dictionaries(names, st.floats())


def one(value: float | None, base: float | None, tolerance: str) -> Verdict:
    """The verdict of one tolerance on the metric ``m``."""
    (verdict,) = judge(
        {} if value is None else {"m": value},
        tolerances={"m": parse_tolerance(tolerance)},
        baseline={} if base is None else {"m": base},
    )
    return verdict


# Judging bounds


@pytest.mark.parametrize(
    ("kind", "value", "bound", "state", "text"),
    [
        ("at_least", 0.9, 0.9, "passed", "meets at_least 0.9"),
        ("at_least", math.inf, 0.9, "passed", "meets at_least 0.9"),
        ("at_most", 1.5, 2, "passed", "meets at_most 2"),
        ("at_most", -math.inf, 2, "passed", "meets at_most 2"),
        ("at_least", 0.8123, 0.9, "failed", "is below at_least 0.9 by 0.0877"),
        ("at_most", 12345.5, 2, "failed", "is above at_most 2 by 12344"),
        ("at_most", math.inf, 2, "failed", "is above at_most 2 by inf"),
        ("at_least", -math.inf, 2, "failed", "is below at_least 2 by inf"),
        ("at_least", math.nextafter(0.9, 0), 0.9, "failed", "is below at_least 0.9 by 1.11e-16"),
        ("at_least", math.nan, 0.9, "failed", "misses at_least 0.9, as NaN misses every bound"),
        ("at_most", math.nan, 0.9, "failed", "misses at_most 0.9, as NaN misses every bound"),
    ],
)
def test_bound(kind: str, value: float, bound: float, state: str, text: str) -> None:
    (verdict,) = judge({"m": value}, **{kind: {"m": bound}})  # type: ignore[arg-type]
    assert verdict.rule == f"{kind} {bound}"
    assert (verdict.state, verdict.text) == (state, text)
    assert (verdict.limit, verdict.baseline) == (bound, None)
    assert verdict.higher_is_worse is (kind == "at_most")
    assert repr(verdict.value) == repr(value)


@pytest.mark.parametrize(
    ("logged", "text"),
    [
        (["recall_macro", "accuracy"], "was never logged; did you mean 'recall_macro'?"),
        (["RECALL"], "was never logged; did you mean 'RECALL'?"),
        (["f1"], "was never logged; logged were 'f1'"),
        (list("abcdefg"), "was never logged; logged were 'a', 'b', 'c', 'd', 'e' and 2 more"),
        ([], "was never logged"),
    ],
)
def test_a_metric_never_logged(logged: list[str], text: str) -> None:
    found = judge(
        dict.fromkeys(logged, 1.0),
        at_least={"recall": 0},
        at_most={"recall": 9},
        tolerances={"recall": parse_tolerance("-2%")},
        baseline={"recall": 0.5},
    )
    assert [v.rule for v in found] == ["at_least 0", "at_most 9", "baseline -2%"]
    assert {(v.state, v.value, v.text) for v in found} == {("failed", None, text)}


def test_a_metric_of_track_usage_that_was_never_logged() -> None:
    call = "was never logged; `track_usage()`, called after the last answer, logs it"
    assert judge({"f1": 1.0}, at_most={"tokens/total": 9})[0].text == call
    assert judge({"costs": 1.0}, at_most={"cost": 9})[0].text.endswith("did you mean 'costs'?")


# Judging against a baseline


@pytest.mark.parametrize(
    ("value", "base", "tolerance", "state", "text"),
    [
        (0.86, 0.86, "-2%", "passed", "is the baseline's 0.86"),
        (0.9, 0.8, "-2%", "passed", "rose 12 % above the baseline's 0.8"),
        (0.7, 0.71, "-2%", "passed", "fell 1.4 % below the baseline's 0.71; \"-2%\" allows 0.6958"),
        (0.98, 1.0, "-2%", "passed", 'fell 2 % below the baseline\'s 1; "-2%" allows 0.98'),
        (
            0.8123, 0.86, "-2%", "failed",
            "fell 5.5 % below the baseline's 0.86; \"-2%\" allows 0.8428",
        ),
        (
            0.9796, 1, "-2%", "failed",
            "fell 2.04 % below the baseline's 1; \"-2%\" allows 0.98",
        ),
        (2, 1.5, "+20%", "failed", "rose 33 % above the baseline's 1.5; \"+20%\" allows 1.8"),
        (6, 1.5, "+20%", "failed", "rose 300 % above the baseline's 1.5; \"+20%\" allows 1.8"),
        (1, 1.5, "+20%", "passed", "fell 33 % below the baseline's 1.5"),
        (
            0.8, 0.86, "-0.01", "failed",
            "fell 0.06 below the baseline's 0.86; \"-0.01\" allows 0.85",
        ),
        (
            0.8499, 0.86, "-0.01", "failed",
            "fell 0.0101 below the baseline's 0.86; \"-0.01\" allows 0.85",
        ),
        # Of a negative baseline a percentage is of its absolute value.
        (-11, -10, "-5%", "failed", "fell 10 % below the baseline's -10; \"-5%\" allows -10.5"),
        (-10.5, -10, "-5%", "passed", "fell 5 % below the baseline's -10; \"-5%\" allows -10.5"),
        (-9, -10, "+20%", "passed", "rose 10 % above the baseline's -10; \"+20%\" allows -8"),
        (0.01, 0, "+0.01", "passed", "rose 0.01 above the baseline's 0; \"+0.01\" allows 0.01"),
        (1, 0, "-2%", "passed", "rose 1 above the baseline's 0"),
        (0, 0, "-2%", "passed", "is the baseline's 0"),
        (
            0.1, 0, "+5%", "unjudged",
            "has a baseline of 0, which has no percentage; without %, as \"+0.01\", it "
            "can be judged",
        ),
        (math.nan, 0.86, "-2%", "unjudged", "is NaN"),
        (0.86, math.nan, "-2%", "unjudged", "is NaN in the baseline run"),
        (math.nan, math.nan, "-1", "unjudged", "is NaN"),
        (math.inf, math.inf, "-2%", "passed", "is the baseline's inf"),
        (math.inf, 1, "+2%", "failed", "rose inf % above the baseline's 1; \"+2%\" allows 1.02"),
        (5, math.inf, "+2%", "passed", "fell inf below the baseline's inf"),
        (
            5, math.inf, "-2%", "unjudged",
            "has a baseline of inf, which has no percentage; without %, as \"-0.01\", "
            "it can be judged",
        ),
        (5, math.inf, "-1", "failed", "fell inf below the baseline's inf; \"-1\" allows inf"),
        (5, -math.inf, "+1", "failed", "rose inf above the baseline's -inf; \"+1\" allows -inf"),
        (5, -math.inf, "-1", "passed", "rose inf above the baseline's -inf"),
        (
            1, 5e-324, "+2%", "failed",
            "rose inf % above the baseline's 4.941e-324; \"+2%\" allows 4.941e-324",
        ),
        # What a store makes of infinity.
        (
            5, 1.7976931348623157e308, "-2%", "failed",
            "fell 100 % below the baseline's 1.798e+308; \"-2%\" allows 1.762e+308",
        ),
        (None, 0.5, "-2%", "failed", "was never logged"),
        (0.5, None, "-2%", "unjudged", "is not in the baseline run"),
        (None, None, "-2%", "unjudged", "is not in the baseline run, and was never logged"),
    ],
)  # fmt: skip
def test_tolerance_against_a_baseline(
    value: float | None, base: float | None, tolerance: str, state: str, text: str
) -> None:
    verdict = one(value, base, tolerance)
    assert verdict.text == text
    assert verdict.state == state
    assert verdict.rule == f"baseline {tolerance}"
    assert repr(verdict.baseline) == repr(None if base is None else float(base))
    assert verdict.higher_is_worse is tolerance.startswith("+")
    assert verdict.limit is None or not math.isnan(verdict.limit)


@pytest.mark.parametrize(
    ("value", "base", "tolerance", "passed"),
    [
        (0.98, 1.0, "-2%", True),
        (0.931, 0.95, "-2%", True),
        (1.1, 1.0, "+10%", True),
        (0.3, 0.1 + 0.3, "-0.1", True),
        (0.0, 0.1 + 0.2, "-0.3", True),
        (float(np.float32(0.95)), 1.0, "-5%", True),
        (float(np.float32(0.1)), 0.0, "+0.1", True),
        (0.97999, 1.0, "-2%", False),
        (0.9799995, 1.0, "-2%", False),
        # No slack where nothing was computed, and none that a whole number would notice.
        (math.nextafter(0.9, 0), 0.9, "-0%", False),
        (math.nextafter(0.9, 1), 0.9, "+0", False),
        (50_000_001, 50_000_000, "+1", True),
        (50_000_002, 50_000_000, "+1", False),
    ],
)
def test_exactly_on_the_limit_passes(
    value: float, base: float, tolerance: str, passed: bool
) -> None:
    assert (one(value, base, tolerance).state == "passed") is passed


def test_no_baseline_run_is_said_and_does_not_fail() -> None:
    loss = {"accuracy": parse_tolerance("-2%"), "lost": parse_tolerance("+1")}
    found = judge({"accuracy": 0.5, "loss": 1.0}, tolerances=loss, baseline=None)
    assert [(v.state, v.text, v.limit) for v in found] == [
        ("unjudged", "has no baseline run", None),
        (
            "unjudged",
            "has no baseline run, and was never logged; did you mean 'loss'?",
            None,
        ),
    ]


def test_session_tolerances_judge_what_was_logged_and_the_marker_wins() -> None:
    found = judge(
        {"accuracy": 0.9, "loss": 1.2},
        at_most={"loss": 2},
        at_least={"accuracy": 0.5},
        tolerances={"accuracy": parse_tolerance("-20%")},
        session_tolerances=parse_tolerances(["loss: +10%", "f1: -1%", "accuracy: -1%"]),
        baseline={"accuracy": 1.0, "loss": 1.0, "f1": 1.0},
    )
    assert [(v.metric, v.rule, v.state) for v in found] == [
        ("accuracy", "at_least 0.5", "passed"),
        ("loss", "at_most 2", "passed"),
        ("accuracy", "baseline -20%", "passed"),
        ("loss", "baseline +10%", "failed"),
    ]


@given(metrics, metrics | st.none(), st.dictionaries(names, tolerances), st.data())
def test_judging_never_raises_and_holds_only_builtins(
    logged: dict[str, float],
    baseline: dict[str, float] | None,
    wanted: dict[str, Tolerance],
    data: st.DataObject,
) -> None:
    bounds: st.SearchStrategy[Mapping[str, float]] = st.dictionaries(names, finite)
    found = judge(
        {name: np.float64(value) for name, value in logged.items()},
        at_least=data.draw(bounds),
        at_most=data.draw(bounds),
        tolerances=wanted,
        session_tolerances=data.draw(st.dictionaries(names, tolerances)),
        baseline=baseline,
    )
    for verdict in found:
        assert verdict.state in ("passed", "failed", "unjudged")
        assert verdict.text.isprintable()
        assert {type(verdict.value), type(verdict.limit)} <= {float, type(None)}
    assert bool(failure_text(found)) is any(verdict.state == "failed" for verdict in found)


@given(finite, finite, tolerances)
@example(5e-324, 0.0, Tolerance(2.0, True, False))
def test_what_is_not_worse_never_fails(value: float, base: float, tolerance: Tolerance) -> None:
    assume(value <= base if tolerance.higher_is_worse else value >= base)
    (verdict,) = judge({"m": value}, tolerances={"m": tolerance}, baseline={"m": base})
    assert verdict.state == "passed"


numbers = st.floats(allow_nan=False)
close = st.floats(-1e-6, 1e-6)


@given(numbers, numbers | close, numbers, tolerances)
def test_what_is_better_than_a_passing_value_passes(
    value: float, step: float, base: float, tolerance: Tolerance
) -> None:
    better = value - abs(step) if tolerance.higher_is_worse else value + abs(step)
    assume(not math.isnan(better))
    wanted, reference = {"m": tolerance}, {"m": base}
    (first,) = judge({"m": value}, tolerances=wanted, baseline=reference)
    (second,) = judge({"m": better}, tolerances=wanted, baseline=reference)
    assert first.state != "passed" or second.state == "passed"


@given(
    st.floats(0.01, 1e6), st.floats(0, 200), st.booleans(), st.booleans(), st.floats(1.01, 10)
)  # fmt: skip
def test_a_tolerance_allows_what_it_says_and_no_more(
    base: float, amount: float, percent: bool, higher: bool, times: float
) -> None:
    assume(amount == 0 or amount > 1e-6)
    edge = amount * base / 100 if percent else amount
    sign = 1 if higher else -1
    wanted = {"m": Tolerance(amount, percent, higher)}
    for share, passes in ((1, True), (times, amount == 0)):
        value = {"m": base + sign * edge * share}
        (verdict,) = judge(value, tolerances=wanted, baseline={"m": base})
        assert (verdict.state == "passed") is passes


# What a test fails with


def test_failure_text() -> None:
    found = judge(
        {"accuracy": 0.8123, "recall_macro": 0.9, "time/predict_seconds": 1234.5, "fine": 1.0},
        at_least={"accuracy": 0.9, "recall": 0.9, "fine": 0},
        at_most={"time/predict_seconds": 1234},
        tolerances={"accuracy": parse_tolerance("-2%"), "fine": parse_tolerance("-2%")},
        baseline={"accuracy": 0.86},
    )
    assert failure_text(found) == (
        "4 gates missed: accuracy, recall, time/predict_seconds\n"
        "  accuracy              0.8123  is below at_least 0.9 by 0.0877\n"
        "  recall                was never logged; did you mean 'recall_macro'?\n"
        "  time/predict_seconds  1234.5  is above at_most 1234 by 0.5\n"
        "  accuracy              0.8123  fell 5.5 % below the baseline's 0.86; "
        '"-2%" allows 0.8428'
    )


def test_failure_text_of_one() -> None:
    assert failure_text(judge({"m": math.nan}, at_least={"m": 1})) == (
        "1 gate missed: m nan misses at_least 1, as NaN misses every bound"
    )
    assert failure_text([]) == ""
    assert failure_text(judge({"m": 2}, at_least={"m": 1})) == ""


def test_failure_text_says_once_what_was_never_logged() -> None:
    assert failure_text(judge({}, at_least={"m": 1}, at_most={"m": 2})) == (
        "2 gates missed: m was never logged"
    )


def test_failure_text_tells_a_value_from_its_limit() -> None:
    text = failure_text(judge({"m": 0.899999999}, at_least={"m": 0.9}))
    assert text.endswith(" m 0.899999999 is below at_least 0.9 by 1e-09")
    verdict = one(0.8999, 0.90000001, "-0%")
    assert failure_text([verdict]).endswith('"-0%" allows 0.9')


@given(st.dictionaries(anything.filter(str.strip), st.floats(), min_size=1))
def test_no_name_breaks_a_line_of_the_failure(logged: dict[str, float]) -> None:
    found = judge(logged, at_least=dict.fromkeys([*logged, "never\nlogged"], 1e308))
    lines = failure_text(found).splitlines()
    assert all(map(str.isprintable, lines))
    missed = sum(verdict.state == "failed" for verdict in found)
    assert len(lines) == (1 if missed == 1 else 1 + missed)


@pytest.mark.parametrize(
    "gate",
    [
        {"at_least": {"m": 0.5}},
        {"at_most": {"m": 2}},
        {"tolerances": {"m": parse_tolerance("-2%")}},
        {"session_tolerances": {"m": parse_tolerance("-2%")}},
    ],
    ids=lambda gate: next(iter(gate)),
)
@pytest.mark.parametrize("baseline", [None, {"m": 1.0}], ids=["without", "baseline"])
def test_no_gate_on_a_sequence_passes(gate: Any, baseline: dict[str, float] | None) -> None:
    other = {"at_least": {"n": 0.5, **gate.get("at_least", {})}}
    found = judge({"m": 1.0, "n": 1.0}, **{**gate, **other}, baseline=baseline, sequences={"m"})
    assert {(v.metric, v.state) for v in found} == {("m", "failed"), ("n", "passed")}
    (verdict,) = (v for v in found if v.metric == "m")
    assert "log one number, such as its mean" in failure_text([verdict])
    record = EvaluationRecord("a::b", metrics={"m": 1.0}, verdicts=(verdict,))
    assert judge_again(record, {"m": 1.0}).verdicts == (verdict,)


def test_a_rule_of_a_store_that_cannot_be_read_is_not_judged() -> None:
    """Nor does it keep the others from being judged again by another baseline."""
    (good,) = judge({"m": 0.9}, tolerances={"m": parse_tolerance("-2%")}, baseline={"m": 0.9})
    odd = replace(good, metric="n", rule="baseline odd")
    record = EvaluationRecord("a::b", metrics={"m": 0.9, "n": 0.9}, verdicts=(odd, good))
    first, second = judge_again(record, {"m": 1.0, "n": 1.0}).verdicts
    assert (first.metric, first.state, first.text) == (
        "n", "unjudged", "has a tolerance that cannot be read",
    )  # fmt: skip
    assert (second.metric, second.state) == ("m", "failed")
    assert tolerances_of(record) == {"m": parse_tolerance("-2%")}
