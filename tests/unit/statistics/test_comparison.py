"""Two runs' samples compared: pairs, repeats, groups, pools, other samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_armory.statistics.comparison import Comparison, Sample, compare
from pytest_armory.statistics.means import mean_of
from pytest_armory.statistics.proportions import mid_p, newcombe, pooled_p, sparse_interval, tango

RANDOM = np.random.default_rng(5)
RIGHT = (RANDOM.random((8, 60)) < 0.8).astype(float)
SCORES = RANDOM.normal(3, 1, (8, 60))
FLIPS = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 300))
IDS = np.array([f"q{i}" for i in range(60)], dtype=object)


def numbers(found: Comparison) -> list[float]:
    counts = [found.worse or 0, found.better or 0, found.left_out]
    return [found.gain, found.p, found.n, found.variance, *found.interval(0.9), *counts]


def test_flips_are_what_counts_of_zero_and_one() -> None:
    new, old = RIGHT[:2]
    worse, better = int((new < old).sum()), int((new > old).sum())
    found = compare(Sample(IDS, new), [Sample(IDS, old)], paired=True)
    assert (found.worse, found.better, found.n, found.units) == (worse, better, 60, 60)
    assert found.p == mid_p(worse, better)
    assert found.interval(0.9) == tango(better, worse, 60, 0.9)
    assert found.variance == pytest.approx(np.var(new - old))


@pytest.mark.parametrize("values", [RIGHT, SCORES], ids=["binary", "scores"])
@pytest.mark.parametrize("groups", [None, np.arange(60) // 4], ids=["alone", "groups"])
def test_the_order_of_samples_does_not_matter(
    values: np.ndarray, groups: np.ndarray | None
) -> None:
    order = RANDOM.permutation(60)
    expected = compare(Sample(IDS, values[0], groups), [Sample(IDS, values[1])], paired=True)
    mixed = Sample(IDS[order], values[0][order], None if groups is None else groups[order])
    found = compare(mixed, [Sample(IDS, values[1])], paired=True)
    assert numbers(found) == pytest.approx(numbers(expected))


@pytest.mark.parametrize("values", [RIGHT, SCORES], ids=["binary", "scores"])
def test_what_has_no_pair_is_left_out_and_counted(values: np.ndarray) -> None:
    found = compare(Sample(IDS[:50], values[0][:50]), [Sample(IDS[5:], values[1][5:])], paired=True)
    expected = compare(
        Sample(IDS[5:50], values[0][5:50]), [Sample(IDS[5:50], values[1][5:50])], paired=True
    )
    assert numbers(found)[:-1] == pytest.approx(numbers(expected)[:-1])
    assert (found.left_out, found.n) == (15, 45)


def test_scores_are_compared_by_the_paired_t() -> None:
    new, old = SCORES[:2]
    found = compare(Sample(IDS, new), [Sample(IDS, old)], paired=True)
    reference = scipy.stats.ttest_rel(new, old, alternative="less")
    assert found.p == pytest.approx(reference.pvalue, rel=1e-9)
    interval = scipy.stats.ttest_rel(new, old).confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx(tuple(interval), rel=1e-9)


def test_repeats_are_one_mean_for_each_id() -> None:
    run = Sample(np.tile(IDS, 3), RIGHT[:3].ravel(), repeats=True)
    base = Sample(np.tile(IDS, 5), RIGHT[3:].ravel(), repeats=True)
    expected = compare(
        Sample(IDS, RIGHT[:3].mean(axis=0)), [Sample(IDS, RIGHT[3:].mean(axis=0))], paired=True
    )
    found = compare(run, [base], paired=True)
    assert numbers(found) == pytest.approx(numbers(expected))
    assert found.n == 60


def test_pooled_sessions_are_repeats_of_the_baseline() -> None:
    pool = [Sample(IDS, values) for values in RIGHT[3:]]
    together = Sample(np.tile(IDS, 5), RIGHT[3:].ravel(), repeats=True)
    found, expected = (
        compare(Sample(IDS, RIGHT[0]), bases, paired=True) for bases in (pool, [together])
    )
    assert numbers(found) == pytest.approx(numbers(expected))


@pytest.mark.parametrize("sessions", [3, 6, 7])
def test_rounding_of_means_changes_no_sample(sessions: int) -> None:
    """As of a judge's scores: they were counted as worse or better, and not as unchanged."""
    old = RANDOM.integers(1, 50, 60) / 10
    new = old - np.repeat([1, 0], [4, 56])
    for run, bases in (
        (Sample(IDS, new), [Sample(IDS, old)] * sessions),
        (Sample(np.tile(IDS, sessions), np.tile(new, sessions), repeats=True), [Sample(IDS, old)]),
    ):
        found = compare(run, bases, paired=True)
        assert (found.worse, found.better, found.method) == (4, 0, "paired t, Tango")


def test_a_session_of_many_repeats_counts_once_in_a_pool() -> None:
    many = Sample(np.tile(IDS, 4), np.ones(240), repeats=True)
    found = compare(Sample(IDS, RIGHT[0]), [many, Sample(IDS, RIGHT[1])], paired=True)
    assert found.gain == pytest.approx((RIGHT[0] - (1 + RIGHT[1]) / 2).mean())


def test_groups_make_a_comparison_less_sure() -> None:
    groups = np.arange(60) // 10
    gains = RANDOM.normal(0, 1, 6)[groups] - 1
    alone, grouped = (
        compare(Sample(IDS, gains, labels), [Sample(IDS, np.zeros(60))], paired=True)
        for labels in (None, groups)
    )
    assert alone.p < grouped.p
    assert alone.interval(0.9).low > grouped.interval(0.9).low
    assert "6 groups" in grouped.method


def test_answers_that_never_differ_are_no_proof() -> None:
    ones, groups = np.ones(60), np.arange(60) // 6
    for labels, units in ((None, 60), (groups, 10)):
        found = compare(Sample(IDS, ones, labels), [Sample(IDS, ones)], paired=True)
        assert found.interval(0.9) == tango(0, 0, units, 0.9)
        assert (found.p, found.units) == (0.5, units)


@pytest.mark.parametrize("groups", [None, np.arange(60) // 4], ids=["alone", "groups"])
def test_few_answers_that_differ_leave_more_open_than_t_says(groups: np.ndarray | None) -> None:
    """The wider one of both ends, of answers averaged by sample and of groups; p is that of t."""
    new, old = np.tile(RIGHT[0], (5, 1)), np.tile(RIGHT[0], (5, 1))
    new[:, np.flatnonzero(RIGHT[0])[:2]] = 0
    tiled = None if groups is None else np.tile(groups, 5)
    run, base = (Sample(np.tile(IDS, 5), v.ravel(), tiled, True) for v in (new, old))
    found = compare(run, [base], paired=True)
    losses = (old - new).mean(axis=0)
    assert found.p == pytest.approx(mean_of(-losses, groups).lower_p())
    units = losses if groups is None else np.bincount(groups, losses) / 4
    by_flips = units.max() * tango(0, float(units.sum() / units.max()), len(units), 0.9).low
    by_none = tango(0, 0, len(units), 0.9).low - losses.mean()  # never nearer than without any
    by_t = mean_of(-losses, groups).interval(0.9)
    low, high = found.interval(0.9)
    assert low == pytest.approx(min(by_flips, by_none))
    assert low < by_t.low
    assert high >= by_t.high


@given(FLIPS)
def test_single_answers_have_tangos_interval(flips: tuple[int, int, int]) -> None:
    better, worse, same = flips
    gains = [1.0] * better + [-1.0] * worse + [0.0] * same
    n, mean = len(gains), (better - worse) / len(gains)
    (low, high), none = tango(better, worse, n, 0.9), tango(0, 0, n, 0.9)
    expected = (max(min(low, mean + none.low), -1), min(max(high, mean + none.high), 1))
    assert sparse_interval(gains, 0.9) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1, 100, 1e-160, 1e100])
def test_few_scores_that_differ_leave_more_open_than_t_says(scale: float) -> None:
    """As of a judge's 1 to 5, or of 0 and 100; where most differ the interval is that of t."""
    old, random = np.full(200, 3.0), np.random.default_rng(2)
    new = old + np.repeat([-1, 1, 0], [4, 1, 195])
    few, most = (
        compare(Sample(range(200), run * scale), [Sample(range(200), old * scale)], paired=True)
        for run in (new, old + random.normal(size=200))
    )
    (low, high), by_t = few.interval(0.9), mean_of(new - old).interval(0.9)
    assert low / scale == pytest.approx(tango(1, 4, 200, 0.9).low)
    assert high / scale >= by_t.high * (1 - 1e-9)
    assert low / scale < by_t.low
    assert (few.method, few.units, most.method) == ("paired t, Tango", None, "paired t")
    same = compare(Sample(range(9), old[:9]), [Sample(range(9), old[:9])], paired=True)
    assert same.interval(0.9) == (0, 0)


def test_a_loss_of_many_groups_is_one_at_both_ends() -> None:
    right, groups = np.ones(120), np.arange(120) // 3
    wrong = np.where(groups < 13, 0.0, right)
    wrong[39] = 0
    found = compare(Sample(range(120), wrong, groups), [Sample(range(120), right)], paired=True)
    low, high = found.interval(0.9)
    assert found.p < 0.001
    assert -0.5 < low < found.gain < high < -0.15


def test_a_loss_of_all_alike_is_judged_by_counting() -> None:
    found = compare(
        Sample(list("abc"), [1.0, 2.0, 3.0]), [Sample(list("abc"), [2.0, 3.0, 4.0])], paired=True
    )
    assert (found.p, found.method) == (mid_p(3, 0), "sign test")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("groups", [None, list("abc")])
def test_rounding_is_no_spread(dtype: str, groups: Any) -> None:
    old = np.array([0.9, 0.8, 0.7], dtype)
    new = old - np.array(0.1, dtype)
    found = compare(Sample(list("abc"), new, groups), [Sample(list("abc"), old)], paired=True)
    assert (found.p, found.method) == (mid_p(3, 0), "sign test")
    same = np.full(3, 0.7, dtype)
    found = compare(Sample(list("abc"), same - 0.1), [Sample(list("de"), same[:2])], paired=False)
    assert found.p == pytest.approx(1 / 20)  # half of one in the ten ways to choose 3 of 5
    found = compare(Sample(list("abc"), same + 0.1), [Sample(list("de"), same[:2])], paired=False)
    assert found.p == pytest.approx(19 / 20)


def test_an_offset_hides_no_spread() -> None:
    gains = np.random.default_rng(1).normal(0, 1e-4, 1000)  # of 1,000.0: by less than float32 has
    found = compare(
        Sample(range(1000), 1e3 + gains), [Sample(range(1000), [1e3] * 1000)], paired=True
    )
    assert found.method == "paired t"
    assert found.p == pytest.approx(
        scipy.stats.ttest_1samp(gains, 0, alternative="less").pvalue, abs=1e-6
    )


@pytest.mark.parametrize("scale", [1e-150, 1e100, 1e149])
def test_sizes_do_not_change_what_chance_is(scale: float) -> None:
    new, old = np.array([1.0, 2, 3]), np.array([2.0, 4, 5, 9])
    plain, scaled = (
        compare(Sample(range(3), new * by), [Sample(range(4), old * by)], paired=False)
        for by in (1.0, scale)
    )
    assert scaled.p == pytest.approx(plain.p)


def test_other_samples_are_compared_unpaired() -> None:
    new, old = RIGHT[0], RIGHT[1][:40]
    found = compare(Sample(IDS, new), [Sample(IDS[:40], old)], paired=False)
    counts = (int(new.sum()), 60, int(old.sum()), 40)
    assert found.p == pooled_p(*counts)
    assert found.interval(0.9) == newcombe(*counts, 0.9)
    scores = compare(Sample(IDS, SCORES[0]), [Sample(IDS, SCORES[1])], paired=False)
    reference = scipy.stats.ttest_ind(SCORES[0], SCORES[1], equal_var=False, alternative="less")
    assert scores.p == pytest.approx(reference.pvalue, rel=1e-9)
    assert scores.worse is None


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.booleans(), st.booleans(), st.booleans())
def test_higher_is_worse_turns_everything_round(
    seed: int, binary: bool, paired: bool, grouped: bool
) -> None:
    random = np.random.default_rng(seed)
    new, old = random.normal(0, 1, (2, 12)).round(2)
    if binary:
        new, old = (new > 0).astype(float), (old > 0).astype(float)
    groups = random.integers(0, 4, 12) if grouped else None
    turned = [1 - v if binary else -v for v in (new, old)]
    found = compare(
        Sample(range(12), new, groups),
        [Sample(range(12), old)],
        paired=paired,
        higher_is_worse=True,
    )
    expected = compare(
        Sample(range(12), turned[0], groups), [Sample(range(12), turned[1])], paired=paired
    )
    assert numbers(found) == pytest.approx(numbers(expected))
    assert found.gain == pytest.approx(float(old.mean() - new.mean()))


def test_without_samples_there_is_no_comparison() -> None:
    for run, base in (([], [1.0]), ([1.0], [])):
        with pytest.raises(ValueError, match="no samples"):
            compare(Sample(["a"][: len(run)], run), [Sample(["a"][: len(base)], base)], paired=True)
    with pytest.raises(ValueError, match="no sample has been scored by both"):
        compare(Sample(["a"], [1.0]), [Sample(["b"], [1.0])], paired=True)
