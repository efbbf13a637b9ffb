"""One metric on two sets of samples: how it changed, and what chance may have done to it.

Everything here is a *gain*, this run's value minus the baseline's, where a loss is worse; a metric
of which higher is worse is given with ``higher_is_worse``, and its sign is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_armory.statistics import proportions
from pytest_armory.statistics.bootstrap import Resamples
from pytest_armory.statistics.intervals import Interval
from pytest_armory.statistics.means import ROUNDING, Estimate, is_constant, mean_of, welch
from pytest_armory.statistics.numeric import floats, group_sums
from pytest_armory.values.totals import differences

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pytest_armory.statistics.numeric import Floats


MOSTLY = 0.5
"""Scores of which a larger share has not changed are compared like answers that are flipped."""

BOOTSTRAP = "bootstrap"
"""In the method of a function of all predictions."""


class NoPairsError(ValueError):
    """That no sample has a value on both sides."""


@dataclass(frozen=True)
class Sample:
    """The scores of one run: ``values`` of shape (n,), without NaN, and the ids of the samples.

    ``groups`` are labels of what belongs together, shape (n,), or None. ``repeats`` says that
    several rows may have one id: they are averaged.
    """

    ids: ArrayLike
    values: ArrayLike
    groups: ArrayLike | None = None
    repeats: bool = False


@dataclass(frozen=True)
class Comparison:
    """A gain with its one-sided p, its interval by confidence, and the variance of one sample.

    ``p`` is how often chance alone makes a loss of this size, if there is none. ``n`` are the
    samples of this run that were compared, ``variance`` that of one sample's gain, so that the
    standard error is ``sqrt(variance / n)``. ``worse`` and ``better`` count samples, of pairs only;
    ``left_out`` those that have no pair. ``units`` are what is independent, of 0 and 1 only:
    samples, or groups.
    """

    gain: float
    p: float
    n: int
    variance: float
    method: str
    interval: Callable[[float], Interval] = field(repr=False, compare=False)
    worse: int | None = None
    better: int | None = None
    left_out: int = 0
    units: int | None = None


def compare(
    run: Sample, bases: Sequence[Sample], *, paired: bool, higher_is_worse: bool = False
) -> Comparison:
    """Compare a run's samples with those of one baseline run, or of several that are pooled.

    Paired, by the samples' ids: of 0 and 1, McNemar's mid-p and Tango's interval; else, with
    groups, repeats or a pool too, Student's t on the gain of each id, cluster-robust by group: of 0
    and 1, and where most have not changed, with the wider one of its interval's and Tango's ends.
    Unpaired: of 0 and 1, the pooled score test and Newcombe's interval; else Welch's t. Formulas
    and sources are those of :mod:`.proportions` and :mod:`.means`. Raises
    :class:`ValueError` where there is no sample to compare, :class:`NoPairsError` where none has a
    value on both sides.

    >>> base = Sample(range(6), [1, 1, 1, 1, 0, 0])
    >>> found = compare(Sample(range(6), [1, 1, 0, 0, 0, 1]), [base], paired=True)
    >>> found.worse, found.better, round(found.gain, 4), found.p
    (2, 1, -0.1667, 0.3125)
    """
    sides = [run, *bases]
    values = [floats(side.values) for side in sides]
    if not all(map(len, values)):
        raise ValueError("no samples to compare")
    binary = all(_is_binary(side) for side in values)
    if higher_is_worse:
        # A mistake counted as 1 is a right answer counted as 0; of other scores, the negative.
        values = [1 - side if binary else -side for side in values]
    sides = [replace(side, values=v) for side, v in zip(sides, values, strict=True)]
    if paired:
        return _paired(sides[0], sides[1:], binary)
    return _unpaired(sides[0], sides[1:], binary)


def _is_binary(values: Floats) -> bool:
    return bool(((values == 0) | (values == 1)).all())


# Paired


def _paired(run: Sample, bases: Sequence[Sample], binary: bool) -> Comparison:
    new, old, groups, left_out = _pairs(run, bases)
    if not len(new):
        raise NoPairsError("no sample has been scored by both runs")
    simple = binary and groups is None and not run.repeats and not _is_pooled(bases)
    found = (
        _flips(int((new > old).sum()), int((new < old).sum()), len(new))
        if simple
        else _paired_means(new, old, groups, binary)
    )
    return replace(found, left_out=left_out)


def _is_pooled(bases: Sequence[Sample]) -> bool:
    return len(bases) > 1 or bases[0].repeats


def _flips(better: int, worse: int, n: int) -> Comparison:
    """0 and 1, once each: only the flips count."""
    gain = (better - worse) / n
    return Comparison(
        gain=gain,
        p=proportions.mid_p(worse, better),
        n=n,
        variance=(better + worse) / n - gain * gain,
        method="McNemar mid-p, Tango",
        interval=lambda confidence: proportions.tango(better, worse, n, confidence),
        worse=worse,
        better=better,
        units=n,
    )


def _paired_means(new: Floats, old: Floats, groups: Any, binary: bool) -> Comparison:
    gains = differences(new, old)
    worse, better = int((gains < 0).sum()), int((gains > 0).sum())
    estimate = mean_of(gains, groups)
    units = int(estimate.degrees) + 1
    if _is_without_spread(estimate.value, [(estimate, gains, abs(new) + abs(old), groups)]):
        is_loss = estimate.value < 0  # all gains are one: t has no width
        p = proportions.mid_p(units * is_loss, units * (not is_loss))
        found = _of_estimate(estimate, len(gains), "sign test", worse, better, p=p)
        return replace(found, units=units if binary else None)
    method = "paired t" if groups is None else f"paired t, {units} groups"
    found = _of_estimate(estimate, len(gains), method, worse, better)
    by_unit = gains if groups is None else group_sums(gains, groups) * units / len(gains)
    if not binary and (by_unit == 0).mean() <= MOSTLY:
        return found

    def widest(confidence: float) -> Interval:
        by_flips = proportions.sparse_interval(by_unit, confidence, are_shares=binary)
        return _hull(estimate.interval(confidence), by_flips)

    found = replace(found, interval=widest, method=f"{method}, Tango")
    return replace(found, units=units if binary else None)


def _hull(first: Interval, second: Interval) -> Interval:
    return Interval(min(first.low, second.low), max(first.high, second.high))


def _is_without_spread(gain: float, sides: Sequence[tuple[Estimate, Floats, Floats, Any]]) -> bool:
    """Whether there is a gain, and rounding explains how far apart each side's values are.

    A side is its mean, the values, the sizes of the numbers that they were made of, and groups.
    """
    return all(
        estimate.degrees > 0
        and abs(gain) > ROUNDING * float(sizes.max())
        and (estimate.error == 0 or is_constant(values, sizes, groups))
        for estimate, values, sizes, groups in sides
    )


def _of_estimate(
    estimate: Estimate,
    n: int,
    method: str,
    worse: int | None = None,
    better: int | None = None,
    p: float | None = None,
) -> Comparison:
    return Comparison(
        gain=estimate.value,
        p=estimate.lower_p() if p is None else p,
        n=n,
        variance=estimate.error**2 * n,
        method=method,
        interval=estimate.interval,
        worse=worse,
        better=better,
    )


def _pairs(run: Sample, bases: Sequence[Sample]) -> tuple[Floats, Floats, Any, int]:
    """Both sides' values, and the groups, of the ids that both have; how many have no pair."""
    import numpy as np

    ids, new, groups = _by_id(run)
    if not _is_pooled(bases):
        base_ids, old = np.asarray(bases[0].ids), floats(bases[0].values)
    else:
        base_ids, old, _ = _by_id(_pooled(bases))
    if len(ids) == len(base_ids) and bool((ids == base_ids).all()):
        return new, old, groups, 0
    _, here, there = np.intersect1d(ids, base_ids, assume_unique=True, return_indices=True)
    left_out = len(ids) + len(base_ids) - 2 * len(here)
    return new[here], old[there], None if groups is None else groups[here], left_out


def _pooled(bases: Sequence[Sample]) -> Sample:
    """Several runs as repeats of one; each counts alike for an id, whatever its repeats."""
    import numpy as np

    sides = [_by_id(base) for base in bases]
    ids, values = (np.concatenate([side[i] for side in sides]) for i in (0, 1))
    return Sample(ids, values, repeats=True)


def _by_id(sample: Sample) -> tuple[Any, Floats, Any]:
    """Ids, the mean value of each, and its group."""
    import numpy as np

    ids, values = np.asarray(sample.ids), floats(sample.values)
    groups = None if sample.groups is None else np.asarray(sample.groups)
    if not sample.repeats:
        return ids, values, groups
    names, first, codes, counts = np.unique(
        ids, return_index=True, return_inverse=True, return_counts=True
    )
    means = np.bincount(codes, weights=values) / counts
    return names, means, None if groups is None else groups[first]


# Unpaired


def _unpaired(run: Sample, bases: Sequence[Sample], binary: bool) -> Comparison:
    sides = [_by_id(run), _by_id(_pooled(bases) if _is_pooled(bases) else bases[0])]
    grouped = any(groups is not None for _, _, groups in sides)
    repeated = run.repeats or _is_pooled(bases)
    if binary and not grouped and not repeated:
        return _proportions(sides[0][1], sides[1][1])
    new, old = (mean_of(values, groups) for _, values, groups in sides)
    found = _of_estimate(welch(new, old), len(sides[0][1]), "Welch's t, other samples")
    known = [
        (mean, v, abs(v), groups) for mean, (_, v, groups) in zip((new, old), sides, strict=True)
    ]
    each = [int(side.degrees) + 1 for side in (new, old)]
    if _is_without_spread(found.gain, known):
        p = proportions.separation_p(*each)
        p = p if found.gain < 0 else 1 - p
        found = replace(found, p=p, method="permutation test, other samples")
    if not binary:
        return found
    units = min(each)
    if new.error == old.error == 0:
        found = replace(
            found,
            interval=lambda confidence: proportions.newcombe(
                new.value * units, units, old.value * units, units, confidence
            ),
        )
    return replace(found, units=units)


def _proportions(new: Floats, old: Floats) -> Comparison:
    counts = (round(float(new.sum())), len(new), round(float(old.sum())), len(old))
    p1, p2 = counts[0] / counts[1], counts[2] / counts[3]
    return Comparison(
        gain=p1 - p2,
        p=proportions.pooled_p(*counts),
        n=len(new),
        variance=p1 * (1 - p1) + p2 * (1 - p2) * len(new) / len(old),
        method="pooled score test, Newcombe, other samples",
        interval=lambda confidence: proportions.newcombe(*counts, confidence),
        units=min(counts[1], counts[3]),
    )


# A function of all predictions


def of_resamples(gain: float, resamples: Resamples, n: int, *, paired: bool = True) -> Comparison:
    """The comparison of a function of all predictions, by its resamples.

    ``gain`` is that of all ``n`` samples; :attr:`Resamples.changes` are gains. p and interval are
    the bootstrap's percentiles, see :func:`~.bootstrap.bootstrap`. ``paired`` says whether both
    sides had the same rows.

    >>> import numpy as np
    >>> found = of_resamples(-1.0, Resamples(np.linspace(-2, 0, 999), 999), 50)
    >>> found.method, round(found.p, 4)
    ('paired bootstrap, 999 resamples', 0.0015)
    """
    fewer = len(resamples.changes) < resamples.asked
    note = f" of {resamples.asked}" if fewer else ""
    note += ": the time was up" if resamples.is_late else ""
    return Comparison(
        gain=gain,
        p=resamples.lower_p(),
        n=n,
        variance=float(resamples.changes.var()) * n,
        method=f"{'paired ' * paired}{BOOTSTRAP}, {len(resamples.changes)} resamples{note}"
        + ", other samples" * (not paired),
        interval=resamples.interval,
    )
