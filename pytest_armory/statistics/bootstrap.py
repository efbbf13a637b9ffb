"""The percentile bootstrap of a function of all predictions, with a time limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_armory.statistics.intervals import Interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pytest_armory.statistics.numeric import Floats

LEAST = 200
"""The fewest resamples that a verdict is made of."""

TRIAL = 1 / 20
"""The share of the time after which it is known whether there is enough of it."""


class Resamples(NamedTuple):
    """The changes of all resamples, shape (m,): fewer than asked where the time was up.

    ``is_late`` says that this is why there are fewer; else they had no value.
    """

    changes: Floats
    asked: int
    is_late: bool = False

    @property
    def are_enough(self) -> bool:
        """Whether there are enough for a verdict."""
        return len(self.changes) >= LEAST

    def interval(self, confidence: float = 0.95) -> Interval:
        """The percentile interval, two-sided."""
        import numpy as np

        tail = (1 - confidence) / 2
        low, high = np.quantile(self.changes, [tail, 1 - tail])
        return Interval(float(low), float(high))

    def lower_p(self) -> float:
        """The one-sided p that the change is below 0.

        ``(1 + #{change > 0} + #{change = 0} / 2) / (1 + m)``: the half is for functions of few
        values, of which many resamples are alike. Where all are below 0, that is as small as m
        allows, and the normal tail ``Φ(mean / s)`` may be smaller, s the standard deviation.
        """
        from scipy.special import ndtr

        above = float((self.changes > 0).sum()) + float((self.changes == 0).sum()) / 2
        counted = (1 + above) / (1 + len(self.changes))
        scatter = float(self.changes.std()) if above == 0 else 0.0
        return min(counted, float(ndtr(self.changes.mean() / scatter))) if scatter else counted


def bootstrap(
    change: Callable[..., float],
    n: int,
    groups: ArrayLike | None = None,
    *,
    others: tuple[int, ArrayLike | None] | None = None,
    resamples: int = 1000,
    seconds: float = 10.0,
    seed: int = 0,
    clock: Callable[[], float] = perf_counter,
) -> Resamples:
    """Resample n rows with replacement, or whole groups, and compute the change of each resample.

    ``change`` gets an array of row indices, of both sides alike, and returns the change; one that
    is NaN, as of an AUC without one of its classes, is left out. ``groups`` has shape (n,). Where
    the baseline has other rows, ``others`` are how many and their groups: they are resampled by
    themselves, and ``change`` gets two arrays. It
    stops after ``seconds``, and where even :data:`LEAST` resamples would take longer, by the mean
    time of those in the first :data:`TRIAL` of it: then :attr:`Resamples.are_enough` is false.

    Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    >>> import numpy as np
    >>> new, old = np.array([1.0, 2, 3, 4]), np.array([2.0, 3, 4, 5])
    >>> found = bootstrap(lambda rows: new[rows].mean() - old[rows].mean(), 4)
    >>> len(found.changes), found.interval()
    (1000, Interval(low=-1.0, high=-1.0))
    """
    import numpy as np

    random = np.random.default_rng(seed)
    sides = [(n, groups), others] if others is not None else [(n, groups)]
    draws = [_drawing(*side, random) for side in sides]
    began = clock()
    changes: list[float] = []
    for tried in range(1, resamples + 1):
        value = float(change(*(draw() for draw in draws)))
        if not math.isnan(value):
            changes.append(value)
        spent = clock() - began
        if spent >= seconds or (spent >= seconds * TRIAL and spent / tried * LEAST > seconds):
            break
    return Resamples(np.asarray(changes, dtype=np.float64), resamples, tried < resamples)


def _drawing(n: int, groups: ArrayLike | None, random: Any) -> Callable[[], Any]:
    """Draws the row indices of one resample."""
    import numpy as np

    if groups is None:
        return lambda: random.integers(0, n, n)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"{n} rows, and groups of shape {labels.shape}")
    _, codes = np.unique(labels, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    return lambda: np.concatenate([rows[i] for i in random.integers(0, len(rows), len(rows))])
