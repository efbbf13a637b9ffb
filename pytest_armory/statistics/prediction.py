"""Whether one more session's value is explained by how earlier sessions scatter."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from pytest_armory.statistics.intervals import Interval
from pytest_armory.statistics.numeric import floats, t_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pytest_armory.statistics.numeric import Floats


_LARGEST = math.log(sys.float_info.max)


def prediction_bound(
    history: ArrayLike, confidence: float = 0.95, *, upper: bool = False, log: bool = False
) -> float:
    """The lower or the upper bound of the next value: one-sided, ``mean ∓ t s sqrt(1 + 1/k)``.

    ``history`` has k values, one a session, t is Student's quantile at ``confidence`` with k - 1
    degrees of freedom, s the standard deviation. With ``log`` it is computed on logarithms, for
    times and rates: all values must be above 0. Raises :class:`ValueError` for fewer than two.

    Source: G. J. Hahn and W. Q. Meeker, "Statistical Intervals", 1991, section 4.8.

    >>> round(prediction_bound([0.90, 0.91, 0.89, 0.92, 0.90]), 6)
    0.877373
    """
    array = _values(history, log)
    half = t_quantile(confidence, len(array) - 1) * scatter(array)
    bound = float(array.mean()) + (half if upper else -half)
    return math.exp(min(bound, _LARGEST)) if log else bound


def prediction_p(
    history: ArrayLike, value: float, *, upper: bool = False, log: bool = False
) -> float:
    """The one-sided p that a session like those of ``history`` has so low a value, or so high.

    ``P(T <= (value - mean) / (s sqrt(1 + 1/k)))`` with k - 1 degrees of freedom, or ``>=``; 0, 0.5
    or 1 where the history does not scatter. It is at most ``1 - confidence`` where the value is at
    :func:`prediction_bound` or beyond.

    Source: as of :func:`prediction_bound`.

    >>> round(prediction_p([0.90, 0.91, 0.89, 0.92, 0.90], 0.877373242173), 6)
    0.05
    """
    from scipy.special import stdtr

    array = _values(history, log)
    distance = (math.log(value) if log else float(value)) - float(array.mean())
    distance = -distance if upper else distance
    error = scatter(array)
    if error == 0:
        return 0.5 - 0.5 * ((distance < 0) - (distance > 0))
    return float(stdtr(len(array) - 1, distance / error))


def scatter(history: ArrayLike, sessions: int | None = None) -> float:
    """How far a session's value may be from the mean of ``sessions`` others: ``s sqrt(1 + 1/m)``.

    ``history`` has shape (k,), s is its standard deviation; m is the number of the others, k by
    default. Source: as of :func:`prediction_bound`.

    >>> round(scatter([0.90, 0.91, 0.89, 0.92, 0.90]), 6)
    0.01249
    """
    array = floats(history)
    return float(array.std(ddof=1)) * math.sqrt(1 + 1 / (sessions or len(array)))


def change_interval(
    history: ArrayLike, change: float, sessions: int = 1, confidence: float = 0.95
) -> Interval:
    """The two-sided interval of a change between one session and the mean of ``sessions`` others.

    ``change ± t s sqrt(1 + 1/m)`` where s is the standard deviation of the history's k values, with
    k - 1 degrees of freedom. Source: as of :func:`prediction_bound`.

    >>> low, high = change_interval([0.90, 0.91, 0.89, 0.92, 0.90], -0.01)
    >>> print(f"{low:.4f} {high:.4f}")
    -0.0548 0.0348
    """
    array = floats(history)
    half = t_quantile((1 + confidence) / 2, len(array) - 1) * scatter(array, sessions)
    return Interval(change - half, change + half)


def _values(history: ArrayLike, log: bool) -> Floats:
    import numpy as np

    array = floats(history)
    if len(array) < 2:
        raise ValueError(f"a history must have two values at least; got {len(array)}")
    return np.log(array) if log else array
