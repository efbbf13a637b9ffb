"""Prediction bounds, sample sizes, pass@k and pass^k, the bootstrap."""

from __future__ import annotations

import math
from itertools import chain, combinations, count

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import NormalIndPower

from pytest_armory.statistics.bootstrap import LEAST, bootstrap
from pytest_armory.statistics.passes import pass_at, pass_hat
from pytest_armory.statistics.prediction import (
    change_interval,
    prediction_bound,
    prediction_p,
    scatter,
)
from pytest_armory.statistics.sample_size import detectable_fall, needed_samples

NEAR = {"abs": 1e-9, "rel": 1e-9}
HISTORY = [0.90, 0.91, 0.89, 0.92, 0.90]
HISTORIES = st.lists(st.integers(1, 1000).map(float), min_size=3, max_size=20).filter(
    lambda values: len(set(values)) > 1
)
CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99, 0.999])


# Sessions


def test_the_bound_has_the_published_value() -> None:
    assert prediction_bound(HISTORY) == pytest.approx(0.877373242173, **NEAR)


@settings(deadline=None, max_examples=40)
@given(HISTORIES, CONFIDENCES, st.booleans())
def test_the_bound_agrees_with_scipy(history: list[float], confidence: float, log: bool) -> None:
    values = np.log(history) if log else np.array(history)
    error = np.std(values, ddof=1) * np.sqrt(1 + 1 / len(values))
    expected = values.mean() - scipy.stats.t.ppf(confidence, len(values) - 1) * error
    bound = prediction_bound(history, confidence, log=log)
    assert bound == pytest.approx(np.exp(expected) if log else expected, **NEAR)
    if not log or bound > 1e-100:
        assert prediction_p(history, bound, log=log) == pytest.approx(1 - confidence, abs=1e-9)
    upper = prediction_bound(history, confidence, upper=True, log=log)
    turned = [1 / v if log else -v for v in history]
    mirrored = prediction_bound(turned, confidence, log=log)
    assert upper == pytest.approx(1 / mirrored if log else -mirrored, **NEAR)
    if math.isfinite(upper) and upper < 1e100:
        found = prediction_p(history, upper, upper=True, log=log)
        assert found == pytest.approx(1 - confidence, abs=1e-9)


def test_a_history_without_scatter_explains_no_change() -> None:
    assert [prediction_p([0.9] * 5, v) for v in (0.8, 0.9, 0.95)] == [0, 0.5, 1]
    assert [prediction_p([0.9] * 5, v) for v in np.array([0.8, 0.9, 0.95])] == [0, 0.5, 1]


def test_one_session_is_no_history() -> None:
    with pytest.raises(ValueError, match="two values at least; got 1"):
        prediction_bound([0.9])


def test_a_change_between_sessions_scatters_more_than_a_session() -> None:
    assert scatter(HISTORY, 1) == pytest.approx(np.std(HISTORY, ddof=1) * math.sqrt(2))
    one, five = (change_interval(HISTORY, -0.01, n) for n in (1, 5))
    assert one.low < five.low < -0.01 < five.high < one.high


# Sizes


def test_needed_has_the_published_values() -> None:
    assert needed_samples(0.09, 0.018) == 1718
    assert needed_samples(0.18, 0.02) == 2783


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 2), st.integers(2, 10_000), st.sampled_from([0.05, 0.005, 0.00125]))
def test_sizes_agree_with_statsmodels(variance: float, n: int, alpha: float) -> None:
    fall = detectable_fall(variance, n, alpha)
    # A ratio of 0 is its test of one sample.
    size = fall / math.sqrt(variance)
    power = NormalIndPower().power(size, n, alpha, ratio=0, alternative="larger")
    assert power == pytest.approx(0.8, **NEAR)
    assert needed_samples(variance, fall, alpha) in (n, n + 1)


# Repeats


def test_passes_have_the_published_values() -> None:
    assert pass_hat(3, 5, 2) == pytest.approx(0.3, **NEAR)
    assert pass_at(3, 5, 2) == pytest.approx(0.9, **NEAR)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_passes_are_the_shares_of_all_choices(n: int) -> None:
    for right in range(n + 1):
        answers = [i < right for i in range(n)]
        for k in range(1, n + 1):
            choices = list(combinations(answers, k))
            assert pass_hat(right, n, k) == pytest.approx(np.mean([all(c) for c in choices]))
            assert pass_at(right, n, k) == pytest.approx(np.mean([any(c) for c in choices]))


@pytest.mark.parametrize(("right", "n", "k"), [(4, 3, 1), (-1, 3, 1), (1, 3, 0), (1, 3, 4)])
def test_passes_that_cannot_be_are_refused(right: int, n: int, k: int) -> None:
    for function in (pass_at, pass_hat):
        with pytest.raises(ValueError, match=f"{right} right of {n}"):
            function(right, n, k)


# The bootstrap


def test_the_bootstrap_of_a_mean_agrees_with_the_t_interval() -> None:
    change = np.random.default_rng(1).normal(-0.5, 1, 400)
    found = bootstrap(lambda rows: change[rows].mean(), 400, resamples=4000)
    expected = scipy.stats.ttest_1samp(change, 0).confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx(tuple(expected), abs=0.01)


def test_few_resamples_tell_a_small_p_by_their_normal_tail() -> None:
    change = np.random.default_rng(1).normal(-0.25, 1, 400)
    found = bootstrap(lambda rows: change[rows].mean(), 400, resamples=300)
    expected = scipy.stats.norm.sf(-change.mean() / change.std() * 20)
    assert expected < 1e-4  # no count of 300 resamples is below 1/301
    assert np.log(found.lower_p()) == pytest.approx(np.log(expected), rel=0.2)
    assert bootstrap(lambda _: -1.0, 5, resamples=300).lower_p() == pytest.approx(1 / 301)


def test_whole_groups_are_resampled() -> None:
    values = np.repeat(np.random.default_rng(1).normal(0, 1, 40), 25)
    groups = np.repeat(np.arange(40), 25).astype(str)
    mixed = np.random.default_rng(2).permutation(1000)
    found = bootstrap(lambda rows: values[mixed][rows].mean(), 1000, groups[mixed])
    naive = bootstrap(lambda rows: values[rows].mean(), 1000)
    assert found.changes.std() == pytest.approx(values.std() / math.sqrt(40), rel=0.1)
    assert naive.changes.std() == pytest.approx(values.std() / math.sqrt(1000), rel=0.1)


def test_a_change_of_nothing_has_even_odds() -> None:
    assert bootstrap(lambda _: 0.0, 5).lower_p() == pytest.approx(0.5, abs=0.001)


def test_a_resample_without_a_value_is_left_out() -> None:
    calls = count()
    found = bootstrap(lambda _: math.nan if next(calls) % 2 else 1.0, 5)
    assert len(found.changes) == 500
    assert found.are_enough


@pytest.mark.parametrize(
    ("each", "tried", "enough"),
    [(0.01, 1000, True), (0.04, 250, True), (0.06, 9, False), (20, 1, False)],
)
def test_the_time_is_limited(each: float, tried: int, enough: bool) -> None:
    ticks = count()
    found = bootstrap(lambda _: 1.0, 5, clock=lambda: next(ticks) * each)
    assert len(found.changes) == pytest.approx(tried, abs=1)
    assert found.are_enough == enough
    assert found.is_late == (tried < 1000)
    assert LEAST == 200


def test_one_resample_that_takes_long_says_nothing_of_the_time() -> None:
    """On a busy machine; 200 of it would take 60 s."""
    times = chain([0.0, 0.3], count(0.31, 0.001))
    assert len(bootstrap(lambda _: 1.0, 5, clock=lambda: next(times)).changes) == 1000


def test_the_same_seed_gives_the_same_resamples() -> None:
    values = np.arange(50.0)
    first, second = (bootstrap(lambda rows: values[rows].mean(), 50).changes for _ in range(2))
    assert (first == second).all()
