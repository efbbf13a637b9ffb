"""Confidence intervals: published values, and agreement with SciPy and statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_armory.statistics.intervals import (
    UNBOUNDED,
    clustered_error,
    clustered_interval,
    mean_interval,
    wilson,
)

PUBLISHED = [
    ((81, 263), (0.255288519878, 0.366209576983)),
    ((15, 148), (0.0623863995307, 0.160487241723)),
    ((0, 20), (0, 0.161125158053)),
    ((1, 29), (0.00611321429276, 0.171755218793)),
]
SAMPLES = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=2, max_size=40)
CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@pytest.mark.parametrize(("counts", "expected"), PUBLISHED)
def test_wilson_has_the_published_values(
    counts: tuple[int, int], expected: tuple[float, float]
) -> None:
    assert wilson(*counts) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5000), st.floats(0, 1), CONFIDENCES)
def test_wilson_agrees_with_scipy(n: int, share: float, confidence: float) -> None:
    successes = round(share * n)
    expected = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx(
        (expected.low, expected.high), abs=1e-9
    )


@settings(deadline=None, max_examples=40)
@given(SAMPLES, CONFIDENCES)
def test_the_mean_agrees_with_scipy(values: list[float], confidence: float) -> None:
    found = mean_interval(values, confidence)
    if np.ptp(values) == 0:
        assert found == pytest.approx((values[0], values[0]))
        return
    expected = scipy.stats.t.interval(
        confidence, len(values) - 1, np.mean(values), scipy.stats.sem(values)
    )
    assert found == pytest.approx(expected, abs=1e-9, rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(SAMPLES, CONFIDENCES)
def test_groups_of_one_are_no_groups(values: list[float], confidence: float) -> None:
    found = clustered_interval(values, range(len(values)), confidence)
    assert found == pytest.approx(mean_interval(values, confidence), rel=1e-9, abs=1e-9)


def test_samples_of_one_group_are_worth_one() -> None:
    values = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0], 20)
    groups = np.repeat(["a", "b", "c", "d", "e"], 20)
    assert clustered_interval(values, groups) == pytest.approx(mean_interval([0, 1, 1, 0, 1]))


def test_the_clustered_error_of_the_worked_example() -> None:
    found = clustered_error([0, -1, 1, 0, -1, -1, 0, 0, 1, -1], list("aabbccddee"))
    assert found == pytest.approx((0.25495097568, 5), abs=1e-9)


def test_values_alike_but_for_rounding_have_no_spread() -> None:
    for low, high in (mean_interval([0.1] * 3), clustered_interval([0.1] * 6, list("aabbbc"))):
        assert low == high == pytest.approx(0.1)


def test_one_value_or_one_group_tells_no_spread() -> None:
    assert mean_interval([1.0]) == clustered_interval([0, 1, 1], ["a"] * 3) == UNBOUNDED


def test_what_has_no_interval_is_refused() -> None:
    for call, message in (
        (lambda: wilson(3, 2), "3 successes of 2"),
        (lambda: wilson(0, 0), "0 successes of 0"),
        (lambda: mean_interval([]), "no values"),
        (lambda: mean_interval([1.0, math.nan]), "must not be NaN"),
        (lambda: mean_interval([[1.0]]), "one dimension"),
        (lambda: clustered_interval([1.0, 2.0], ["a"]), "2 values, and groups of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("values", [[1e200, 0.0, 1.0], [1e308, 1e308], [1e308, -1e308]])
def test_values_that_are_too_large_to_be_squared_have_no_interval(values: list[float]) -> None:
    for low, high in (mean_interval(values), clustered_interval(values, range(len(values)))):
        assert not (math.isfinite(low) and math.isfinite(high))
