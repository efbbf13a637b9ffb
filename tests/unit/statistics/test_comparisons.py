"""Tests and intervals of differences: published values, and agreement with the references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from pytest_armory.statistics.means import mean_of, welch
from pytest_armory.statistics.proportions import exact_p, mid_p, newcombe, pooled_p, tango

NEAR = {"abs": 1e-9, "rel": 1e-9}
FLIPS = st.tuples(st.integers(0, 300), st.integers(0, 300))
COUNTS = st.tuples(st.integers(1, 2000), st.floats(0, 1)).map(lambda c: (round(c[0] * c[1]), c[0]))
CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99])
VALUES = st.lists(st.integers(-1000, 1000).map(lambda x: x / 10), min_size=3, max_size=40)
SPREAD = VALUES.filter(lambda values: float(np.ptp(values)) > 0.5)

SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
"""Student's data, 1908: hours of sleep gained by two drugs."""


@pytest.mark.parametrize(
    ("worse", "better", "exact", "mid"),
    [
        (150, 86, 3.71593613957e-05, 2.89338951762e-05),
        (7, 1, 0.0703125, 0.0390625),
        (9, 1, 0.021484375, 0.01171875),
        (0, 0, None, 1.0),
    ],
)
def test_mcnemar_has_the_published_values(
    worse: int, better: int, exact: float | None, mid: float
) -> None:
    assert 2 * mid_p(worse, better) == pytest.approx(mid, **NEAR)
    if exact is not None:
        assert 2 * exact_p(worse, better) == pytest.approx(exact, **NEAR)


@settings(deadline=None, max_examples=40)
@given(FLIPS)
def test_mcnemar_agrees_with_statsmodels_and_scipy(flips: tuple[int, int]) -> None:
    more, fewer = max(flips), min(flips)
    reference = mcnemar([[0, more], [fewer, 0]], exact=True).pvalue
    assert min(1.0, 2 * exact_p(more, fewer)) == pytest.approx(reference, **NEAR)
    binomial = scipy.stats.binom(sum(flips), 0.5)
    expected = binomial.sf(flips[0]) + binomial.pmf(flips[0]) / 2 if sum(flips) else 0.5
    assert mid_p(*flips) == pytest.approx(expected, **NEAR)
    assert mid_p(*flips) + mid_p(*flips[::-1]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("better", "worse", "n", "expected"),
    [
        (12, 2, 50, (0.0611124061863, 0.344708748282)),
        (14, 0, 50, (0.174741706659, 0.41665123696)),
    ],
)
def test_tango_has_the_published_values(
    better: int, worse: int, n: int, expected: tuple[float, float]
) -> None:
    assert tango(better, worse, n) == pytest.approx(expected, **NEAR)
    low, high = tango(worse, better, n)
    assert (-high, -low) == pytest.approx(expected, **NEAR)


def test_tango_has_the_printed_digits_of_fagerland() -> None:
    assert tango(1, 7, 21) == pytest.approx((-0.51723228, -0.02600303), abs=5e-9)


@settings(deadline=None, max_examples=60)
@given(FLIPS, st.integers(1, 1000), CONFIDENCES)
def test_the_ends_of_tango_are_where_the_score_is_the_quantile(
    flips: tuple[int, int], same: int, confidence: float
) -> None:
    """The score by the definition: the likelihood is maximized by SciPy, not by the formula."""
    better, worse = flips
    n = better + worse + same
    z = scipy.stats.norm.ppf((1 + confidence) / 2)
    for end, sign in zip(tango(better, worse, n, confidence), (1, -1), strict=True):
        assert -1 <= end <= 1
        low, high = max(0.0, -end), (1 - end) / 2
        roots = np.roots([2 * n, (2 * n - better + worse) * end - better - worse,
                          -worse * end * (1 - end)])  # fmt: skip
        q = float(np.clip(max(roots.real), low, high))
        score = (better - worse - n * end) / math.sqrt(n * (2 * q + end * (1 - end)))
        assert score == pytest.approx(sign * z, rel=1e-6)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((56, 70, 48, 80), (0.0524314724024, 0.333872654037)),
        ((9, 10, 3, 10), (0.170522723935, 0.809017973535)),
        ((5, 56, 0, 29), (-0.0381371479035, 0.192560013855)),
    ],
)
def test_newcombe_has_the_published_values(
    counts: tuple[int, int, int, int], expected: tuple[float, float]
) -> None:
    assert newcombe(*counts) == pytest.approx(expected, **NEAR)


@settings(deadline=None, max_examples=40)
@given(COUNTS, COUNTS, CONFIDENCES)
def test_unpaired_proportions_agree_with_statsmodels(
    first: tuple[int, int], second: tuple[int, int], confidence: float
) -> None:
    expected = confint_proportions_2indep(
        *first, *second, method="newcomb", compare="diff", alpha=1 - confidence
    )
    assert newcombe(*first, *second, confidence) == pytest.approx(expected, **NEAR)
    if 0 < first[0] + second[0] < first[1] + second[1]:
        counts, totals = zip(first, second, strict=True)
        _, p = proportions_ztest(counts, totals, alternative="smaller")
        assert pooled_p(*first, *second) == pytest.approx(p, **NEAR)
    else:
        assert pooled_p(*first, *second) == 0.5


def test_the_paired_t_of_the_sleep_data() -> None:
    found = mean_of(np.subtract(*SLEEP))
    assert found.value / found.error == pytest.approx(-4.06212768338, **NEAR)
    assert 2 * found.lower_p() == pytest.approx(0.00283289019738, **NEAR)
    assert found.interval() == pytest.approx((-2.45988576328, -0.700114236723), **NEAR)


def test_the_clustered_t_of_the_worked_example() -> None:
    found = mean_of([0, -1, 1, 0, -1, -1, 0, 0, 1, -1], list("aabbccddee"))
    assert found.error == pytest.approx(0.25495097568, **NEAR)
    assert found.lower_p() == pytest.approx(0.238310333636, **NEAR)


@settings(deadline=None, max_examples=40)
@given(SPREAD, CONFIDENCES)
def test_the_paired_t_agrees_with_scipy(values: list[float], confidence: float) -> None:
    found = mean_of(values)
    reference = scipy.stats.ttest_1samp(values, 0, alternative="less")
    assert found.lower_p() == pytest.approx(reference.pvalue, **NEAR)
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert found.interval(confidence) == pytest.approx(tuple(interval), **NEAR)


@settings(deadline=None, max_examples=40)
@given(SPREAD, st.integers(2, 6), st.randoms())
def test_the_clustered_t_agrees_with_statsmodels(
    values: list[float], k: int, random: object
) -> None:
    groups = np.array([random.randrange(k) for _ in values])  # type: ignore[attr-defined]
    _, codes = np.unique(groups, return_inverse=True)
    if codes.max() < 1:
        return
    fit = sm.OLS(np.array(values), np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": codes}, use_t=True
    )
    assert mean_of(values, groups).error == pytest.approx(float(fit.bse[0]), **NEAR)
    if fit.bse[0] > 1e-6:
        assert mean_of(values, groups).interval() == pytest.approx(tuple(fit.conf_int()[0]), **NEAR)


@settings(deadline=None, max_examples=40)
@given(SPREAD, SPREAD)
def test_welch_agrees_with_scipy_and_statsmodels(first: list[float], second: list[float]) -> None:
    found = welch(mean_of(first), mean_of(second))
    reference = scipy.stats.ttest_ind(first, second, equal_var=False, alternative="less")
    assert found.lower_p() == pytest.approx(reference.pvalue, **NEAR)
    assert found.degrees == pytest.approx(reference.df, **NEAR)
    means = CompareMeans(DescrStatsW(first), DescrStatsW(second))
    assert found.interval() == pytest.approx(means.tconfint_diff(usevar="unequal"), **NEAR)


def test_estimates_of_which_nothing_is_known() -> None:
    alone = mean_of([1.0])
    assert (alone.lower_p(), alone.interval()) == (0.5, (-math.inf, math.inf))
    assert welch(alone, mean_of([1.0, 2.0])).degrees == 0
    assert mean_of([1.0, 2.0], ["a", "a"]).degrees == 0


def test_estimates_without_spread() -> None:
    assert [mean_of([v, v, v]).lower_p() for v in (-1.0, 0.0, 1.0)] == [0, 0.5, 1]
    assert welch(mean_of([1.0, 1.0]), mean_of([2.0, 2.0])).lower_p() == 0


def test_counts_that_cannot_be_are_refused() -> None:
    for call in (lambda: tango(0, 0, 0), lambda: tango(3, 2, 4), lambda: mean_of([])):
        with pytest.raises(ValueError, match=r"of \d|no values"):
            call()
