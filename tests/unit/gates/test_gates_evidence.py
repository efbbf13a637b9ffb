"""Worse, not worse, unclear: from what is known of chance to verdict, state and sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pytest_armory.gates.evidence import Known, Terms, is_time, samples_for
from pytest_armory.gates.parse import parse_tolerance
from pytest_armory.gates.verdicts import failure_text, judge, judge_again
from pytest_armory.records import EvaluationRecord, Verdict
from pytest_armory.statistics.comparison import Sample, compare


def flips(worse: int, better: int, n: int, right: int, higher_is_worse: bool = False) -> Any:
    """The comparison of answers, and the two accuracies, this run's first."""
    old = np.array([1.0] * right + [0.0] * (n - right))
    new = old.copy()
    new[:worse] = 0
    new[right : right + better] = 1
    if higher_is_worse:
        new, old = 1 - new, 1 - old
    found = compare(
        Sample(range(n), new), [Sample(range(n), old)], paired=True, higher_is_worse=higher_is_worse
    )
    return found, float(new.mean()), float(old.mean())


def judged(
    tolerance: str,
    value: float,
    base: float | None,
    known: Known,
    terms: Terms = Terms(),  # noqa: B008
) -> Verdict:
    (verdict,) = judge(
        {"accuracy": value},
        tolerances={"accuracy": parse_tolerance(tolerance)},
        baseline=None if base is None else {"accuracy": base},
        known={"accuracy": known},
        terms=terms,
    )
    return verdict


def judged_flips(tolerance: str, *counts: int, terms: Terms = Terms(), **known: Any) -> Verdict:  # noqa: B008
    found, value, base = flips(*counts)
    return judged(tolerance, value, base, Known(found, **known), terms)


CASES = [
    # worse, better, n, right before; verdict, state
    ((24, 4, 797, 769), "worse", "failed"),
    ((7, 2, 200, 190), "unclear", "passed"),  # 2.5 points down, as nine coins may fall
    ((9, 0, 200, 190), "worse", "failed"),
    ((4, 2, 200, 190), "unclear", "passed"),
    ((0, 0, 200, 190), "not worse", "passed"),
    ((0, 8, 200, 190), "not worse", "passed"),
    ((5, 20, 200, 170), "not worse", "passed"),
    ((20, 22, 200, 170), "unclear", "passed"),  # a rise, of which chance may be more
    ((10, 8, 2000, 1900), "not worse", "passed"),
    ((60, 10, 2000, 1900), "worse", "failed"),
    ((100, 70, 2000, 1900), "unclear", "passed"),  # a fall for sure, but perhaps within 2 %
]


@pytest.mark.parametrize(("counts", "verdict", "state"), CASES, ids=str)
def test_the_verdict_of_flips(counts: tuple[int, ...], verdict: str, state: str) -> None:
    found = judged_flips("-2%", *counts)
    assert (found.verdict, found.state) == (verdict, state)
    assert (found.worse, found.better) == counts[:2]
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value - found.baseline <= found.high  # type: ignore[operator]


@pytest.mark.parametrize(("counts", "verdict", "state"), CASES, ids=str)
def test_it_is_the_same_for_mistakes(counts: tuple[int, ...], verdict: str, state: str) -> None:
    found, value, base = flips(*counts, higher_is_worse=True)
    amount = 0.02 * (1 - base)  # as much as 2 % of the right answers
    mistakes = judged(f"+{amount}", value, base, Known(found))
    answers = judged_flips("-2%", *counts)
    assert (mistakes.verdict, mistakes.state, mistakes.p) == (verdict, state, answers.p)
    assert (mistakes.low, mistakes.high) == pytest.approx((-answers.high, -answers.low))  # type: ignore[operator]
    assert mistakes.evidence == answers.evidence.replace("fall", "rise")


@pytest.mark.parametrize(
    ("policy", "unclear_fall", "unclear_rest"),
    [("pass", "passed", "passed"), ("measured", "failed", "passed"), ("fail", "failed", "failed")],
)
def test_what_unclear_does(policy: str, unclear_fall: str, unclear_rest: str) -> None:
    terms = Terms(unclear=policy)
    fall, rest = (judged_flips("-2%", *c, 200, 190, terms=terms) for c in ((7, 2), (4, 2)))
    assert (fall.state, rest.state) == (unclear_fall, unclear_rest)
    assert fall.verdict == rest.verdict == "unclear"
    assert judged_flips("-2%", 9, 0, 200, 190, terms=terms).state == "failed"
    assert judged_flips("-2%", 0, 0, 200, 190, terms=terms).state == "passed"


def test_chance_is_shared_by_the_gates() -> None:
    counts = (9, 1, 200, 190)
    assert judged_flips("-2%", *counts).verdict == "worse"
    assert judged_flips("-2%", *counts, terms=Terms(gates=40)).verdict == "unclear"
    assert Terms(gates=40).alpha == pytest.approx(0.05 / 40)
    assert Terms(0.9, 0).alpha == pytest.approx(0.1)


def test_without_samples_nothing_changes() -> None:
    for value, base in ((0.9, 0.95), (0.95, 0.95), (0.94, 0.95), (0.9, 0.0)):
        plain = judge(
            {"accuracy": value},
            tolerances={"accuracy": parse_tolerance("-2%")},
            baseline={"accuracy": base},
        )
        terms = Terms(gates=9, unclear="fail")
        found = judged("-2%", value, base, Known(history=[0.9] * 20), terms)
        assert [replace(found, unclear="")] == plain


def test_samples_that_cannot_be_read_are_not_judged() -> None:
    known = Known(unreadable="cannot be compared: no file")
    found = judged("-2%", 0.9, 0.9, known)
    assert (found.state, found.text, found.unread) == ("unjudged", known.unreadable, False)
    found = judged("-2%", 0.5, 0.9, known)
    assert found.text == "cannot be compared: no file; by the change alone it is missed"
    assert (found.state, found.unread) == ("unjudged", True)


def test_a_baseline_without_samples_is_said() -> None:
    found = judged("-2%", 0.5, 0.9, Known(remark="the baseline has no samples"))
    assert (found.state, found.verdict) == ("failed", "")
    assert found.evidence == "the baseline has no samples"


# Earlier sessions


def test_a_history_may_explain_a_fall_from_eight_sessions_on() -> None:
    scattered = [0.95, 0.88, 0.93, 0.90, 0.94, 0.89, 0.95, 0.91]
    for history, verdict in ((scattered[:7], "worse"), (scattered, "unclear")):
        found = judged_flips("-2%", 12, 0, 200, 190, history=history)
        assert found.verdict == verdict
    assert "8 earlier sessions scatter by" in found.evidence
    assert found.method.endswith("t over 8 sessions")
    steady = [0.95 + 0.001 * (i % 2) for i in range(8)]
    found = judged_flips("-2%", 12, 0, 200, 190, history=steady)
    assert (found.verdict, found.state) == ("worse", "failed")
    assert "8 earlier sessions do not scatter as far" in found.evidence


def test_a_history_that_scatters_leaves_a_rest_unclear() -> None:
    scattered = [0.95, 0.88, 0.93, 0.90, 0.94, 0.89, 0.95, 0.91]
    assert judged_flips("-2%", 0, 0, 2000, 1900).verdict == "not worse"
    assert judged_flips("-2%", 0, 0, 2000, 1900, history=scattered).verdict == "unclear"


HISTORY = [0.90, 0.91, 0.89, 0.92, 0.90]


@pytest.mark.parametrize(
    ("tolerance", "value", "history", "state"),
    [
        ("-noise", 0.878, HISTORY, "passed"),
        ("-noise", 0.877, HISTORY, "failed"),
        ("-noise", 0.99, HISTORY, "passed"),
        ("+noise", 0.93, HISTORY, "passed"),
        ("+noise", 0.931, HISTORY, "failed"),
        ("+noise", 0.5, HISTORY, "passed"),
        ("-noise", 0.5, HISTORY[:4], "unjudged"),
        ("-noise", 0.5, [], "unjudged"),
        ("-noise", 0.5, [*HISTORY[:4], float("nan")], "unjudged"),
        ("-noise", float("nan"), HISTORY, "unjudged"),
        ("-noise", 0.9, [0.9] * 5, "passed"),
        ("-noise", float(np.float32(0.9)), [0.9] * 5, "passed"),
        ("-noise", 0.899, [0.9] * 5, "failed"),
        ("-noise", 0.5, [0.5] * 19 + [0.4, 99.0], "passed"),  # the newest twenty
    ],
)
def test_noise(tolerance: str, value: float, history: list[float], state: str) -> None:
    found = judged(tolerance, value, 0.9, Known(history=history))
    assert found.state == state
    expected = {"passed": "not worse", "failed": "worse", "unjudged": ""}
    assert found.verdict == expected[state]


def test_noise_says_what_it_allows_and_needs() -> None:
    found = judged("-noise", 0.87, 0.9, Known(history=HISTORY))
    assert found.text == 'fell 0.03 below the baseline\'s 0.9; "-noise" allows 0.8774'
    assert found.limit == pytest.approx(0.877373242173, abs=1e-9)
    assert found.evidence == "5 earlier sessions do not scatter as far (p 0.026)"
    few = judged("-noise", 0.87, 0.9, Known(history=HISTORY[:1]))
    assert few.text == 'has 1 earlier session; "-noise" needs 5'
    none = judged("-noise", 0.87, None, Known())
    assert (none.state, none.text) == ("unjudged", "has no baseline run")


def test_times_scatter_on_a_logarithmic_scale() -> None:
    (found,) = judge(
        {"time/predict_seconds": 3.0},
        tolerances={"time/predict_seconds": parse_tolerance("+noise")},
        baseline={"time/predict_seconds": 1.0},
        known={"time/predict_seconds": Known(history=[0.5, 1.0, 2.0, 1.0, 1.4])},
    )
    assert found.method == "t over 5 sessions, of logarithms"
    assert found.state == "passed"
    names = ("time/predict_seconds", "duration_seconds", "samples_per_second", "latency_ms", "ms")
    assert all(map(is_time, names))
    assert not any(map(is_time, ("accuracy", "items", "sometimes", "msgs", "lifetime_value")))


# Sentences


def test_a_missed_gate_says_what_it_rests_on() -> None:
    found = judged_flips("-2%", 24, 4, 797, 769)
    assert failure_text([found]).splitlines() == [
        "1 gate missed: accuracy 0.9398 fell 2.6 % below the baseline's 0.9649; "
        '"-2%" allows 0.9456',
        "  worse: of 797 samples 24 got worse, 4 better (p 0.00005); the fall is 1.5 to 3.7 points",
    ]


def test_several_missed_gates_each_say_it() -> None:
    first = judged_flips("-2%", 24, 4, 797, 769)
    second = replace(judged_flips("-0", 9, 0, 200, 190), metric="recall")
    bound = replace(
        first, metric="loss", rule="at_most 1", verdict="", evidence="", text="is above"
    )
    lines = failure_text([first, second, bound]).splitlines()
    assert lines[0] == "3 gates missed: accuracy, recall, loss"
    assert [line.split()[0] for line in lines[1:]] == [
        "accuracy",
        "worse:",
        "recall",
        "worse:",
        "loss",
    ]


def test_a_fall_of_more_than_all_is_none_that_samples_tell() -> None:
    found = judged_flips("-2%", 1, 0, 2, 2, terms=Terms(gates=12))
    needs = "2 samples are too few to tell a fall, 2 points need about 7,600"
    assert (found.verdict, found.evidence) == ("unclear", needs)


def test_unclear_says_what_it_would_need() -> None:
    found = judged_flips("-2%", 4, 2, 200, 193)
    assert found.evidence == (
        "200 samples tell falls of 3 points and more, 1.9 points need about 500"
    )
    assert found.needed is not None
    assert 400 < found.needed <= 500
    near = judged_flips("-2%", 100, 70, 2000, 1900)
    assert near.evidence == (
        "2,000 samples tell falls of 1.6 points and more, 1.9 points need about 1,500: "
        "the fall is near that"
    )
    one = judged_flips("-0.01", 4, 2, 200, 193)
    assert one.evidence.startswith(
        "200 samples tell falls of 3 points and more, 1 point needs about"
    )
    nothing = judged_flips("-0", 4, 2, 200, 193)
    assert nothing.needed is None
    assert nothing.evidence == (
        "200 samples tell falls of 3 points and more, and no number of samples tells every fall of "
        "more than 0 points"
    )


@pytest.mark.parametrize(
    ("worse", "n", "verdict", "left_out"),
    [
        (0, 300, "not worse", 1),
        (1, 200, "unclear", 60),
        (20, 200, "worse", 60),
    ],
)
def test_samples_without_a_pair_are_counted(
    worse: int, n: int, verdict: str, left_out: int
) -> None:
    old = np.ones(n)
    new = old[: n - left_out].copy()
    new[:worse] = 0
    comparison = compare(Sample(range(len(new)), new), [Sample(range(n), old)], paired=True)
    found = judged("-2%", float(new.mean()), 1.0, Known(comparison))
    which = "1 sample without a pair is" if left_out == 1 else "60 samples without a pair are"
    assert (found.verdict, found.evidence.rpartition("; ")[2]) == (verdict, f"{which} left out")


@pytest.mark.parametrize(
    ("new", "text"),
    [
        ([0.8], "one sample, or one group, tells no fall"),
        ([0.0], "1 sample tells falls of 73 points and more, 2 points need about 140"),
        ([0.8, 0.7, 0.6], "3 samples of one change are too few to tell a fall"),
    ],
)
def test_so_few_samples_that_chance_is_not_known(new: list[float], text: str) -> None:
    old = [value + 0.1 if value else 1.0 for value in new]
    known = Known(compare(Sample(new, new), [Sample(new, old)], paired=True))
    found = judged("-2%", float(np.mean(new)), float(np.mean(old)), known)
    assert (found.verdict, found.evidence) == ("unclear", text)


@pytest.mark.parametrize("policy", ["pass", "fail", "measured"])
def test_what_unclear_does_is_that_of_the_test_where_it_is_judged_again(policy: str) -> None:
    """A marker's `unclear` is in no session run: it is read from the verdicts."""
    found = judged_flips("-2%", 7, 2, 200, 190, terms=Terms(unclear=policy))
    assert found.state == ("passed" if policy == "pass" else "failed")
    record = EvaluationRecord("test_it.py::test", metrics={"accuracy": 0.925}, verdicts=(found,))
    known = {"accuracy": Known(flips(7, 2, 200, 190)[0])}
    assert judge_again(record, {"accuracy": 0.95}, known).verdicts == (found,)


def test_it_fails_where_unclear_fails_and_says_so() -> None:
    found = judged_flips("-2%", 4, 2, 200, 193, terms=Terms(unclear="fail"))
    assert failure_text([found]).splitlines() == [
        '1 gate missed: accuracy 0.955 fell 1 % below the baseline\'s 0.965; "-2%" allows 0.9457, '
        "and whether it is worse is unclear",
        "  unclear: 200 samples tell falls of 3 points and more, 1.9 points need about 500",
    ]


def test_scores_are_reported_in_their_own_unit() -> None:
    old = np.arange(50) / 10
    new = old - 0.5 + 0.1 * (np.arange(50) % 2)
    comparison = compare(Sample(range(50), new), [Sample(range(50), old)], paired=True)
    found = judged("-0.1", float(old.mean()) - 0.45, float(old.mean()), Known(comparison))
    assert found.evidence.startswith("of 50 samples 50 got worse, 0 better (p below 0.000001)")
    assert found.evidence.endswith("; the fall is 0.44 to 0.46")


@pytest.mark.parametrize("tiny", [1e-320, 1e-200, 1e-12])
def test_a_tolerance_that_no_number_of_samples_tells(tiny: float) -> None:
    found, value, base = flips(3, 1, 50, 45)
    assert samples_for(found, tiny, 0.05) is None
    verdict = judged(
        "-2%", value, base, Known(compare(Sample([1], [tiny]), [Sample([1], [tiny])], paired=True))
    )
    assert verdict.verdict in ("worse", "unclear", "not worse")


@pytest.mark.parametrize(
    ("tolerance", "value", "state"),
    [("+noise", np.inf, "failed"), ("-noise", np.inf, "passed"), ("-noise", -np.inf, "failed")],
)
def test_an_infinite_value_is_judged_by_noise(tolerance: str, value: float, state: str) -> None:
    history = [0.90, 0.91, 0.89, 0.92, 0.90]
    assert judged(tolerance, value, 0.9, Known(history=history)).state == state
