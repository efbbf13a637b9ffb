"""Two-sided confidence intervals of one metric that is a mean over samples."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, NamedTuple

from pytest_armory.statistics.numeric import (
    floats,
    group_sums,
    normal_quantile,
    quiet_overflow,
    t_quantile,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pytest_armory.statistics.numeric import Floats


class Interval(NamedTuple):
    """The ends of a confidence interval; infinite where the data do not bound them."""

    low: float
    high: float


UNBOUNDED = Interval(-math.inf, math.inf)
"""The interval of a mean of which the spread is not known."""


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """The score interval of a proportion, ``successes`` of ``n``.

    ``(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)``, where ``p = successes / n`` and z is
    the normal quantile at ``(1 + confidence) / 2``. Unlike ``p ± z sqrt(p(1-p)/n)`` it has a width
    where all succeed or none does. Raises :class:`ValueError` unless ``0 <= successes <= n`` and
    ``n > 0``.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22, 1927; R. G. Newcombe, Statistics in Medicine 17:857, 1998, method 3.

    >>> low, high = wilson(81, 263)
    >>> print(f"{low:.4f} {high:.4f}")
    0.2553 0.3662
    """
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"{successes} successes of {n}")
    z = normal_quantile((1 + confidence) / 2)
    p, share = successes / n, z * z / n
    middle = (p + share / 2) / (1 + share)
    half = z * math.sqrt(p * (1 - p) / n + share / n / 4) / (1 + share)
    return Interval(
        0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half
    )


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean; ``values`` has shape (n,) and no NaN.

    ``mean ± t sqrt(s²/n)`` with the variance ``s² = sum((x - mean)²) / (n - 1)`` and the t
    quantile at ``(1 + confidence) / 2`` with n - 1 degrees of freedom. For independent samples:
    where several belong together, :func:`clustered_interval`; where they are 0 or 1,
    :func:`wilson`. Of one value the interval is unbounded; of none, :class:`ValueError`.

    Source: Student, "The probable error of a mean", Biometrika 6, 1908.

    >>> low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    >>> print(f"{low:.4f} {high:.4f}")
    0.4457 4.5543
    """
    array = floats(values)
    n = len(array)
    if n == 0:
        raise ValueError("no values")
    if n == 1:
        return UNBOUNDED
    with quiet_overflow():
        mean = float(array.mean())
    return t_interval(mean, standard_error(array), n - 1, confidence)


def standard_error(values: Floats) -> float:
    """``s / sqrt(n)`` of two values at least; 0 where they differ by float64's rounding alone.

    >>> import numpy as np
    >>> standard_error(np.array([0.1, 0.1, 0.1])), round(standard_error(np.arange(4.0)), 6)
    (0.0, 0.645497)
    """
    with quiet_overflow():
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return _without_rounding(error, values)


def _without_rounding(error: float, values: Floats) -> float:
    is_rounding = error <= 4 * sys.float_info.epsilon * float(abs(values).max())
    return 0.0 if is_rounding else error


def clustered_interval(values: ArrayLike, groups: ArrayLike, confidence: float = 0.95) -> Interval:
    """The t interval of a mean over samples that belong together in groups.

    ``values`` and ``groups`` (labels: text or integers) have shape (n,), without NaN. The standard
    error is :func:`clustered_error`'s, the t quantile has G - 1 degrees of freedom, where G is the
    number of groups. With one group the interval is unbounded; without values,
    :class:`ValueError`.

    Source: E. Miller, "Adding error bars to evals", arXiv 2411.00640, 2024, section 2.2.

    >>> values = [0, -1, 1, 0, -1, -1, 0, 0, 1, -1]
    >>> low, high = clustered_interval(values, groups=list("aabbccddee"))
    >>> print(f"{low:.4f} {high:.4f}")
    -0.9079 0.5079
    """
    array = floats(values)
    if len(array) == 0:
        raise ValueError("no values")
    error, clusters = clustered_error(array, groups)
    with quiet_overflow():
        mean = float(array.mean())
    return t_interval(mean, error, clusters - 1, confidence)


def clustered_error(values: ArrayLike, groups: ArrayLike) -> tuple[float, int]:
    """The cluster-robust standard error of a mean, and the number of groups G.

    ``sqrt(G / (G - 1) · sum_g (sum_{i in g} (x_i - mean))²) / n``; infinite with one group. With
    groups of one sample each this is the ordinary standard error. ``values`` and ``groups`` have
    shape (n,).

    Source: K.-Y. Liang and S. L. Zeger, Biometrika 73:13, 1986; the factor is that of Stata and
    statsmodels.

    >>> error, clusters = clustered_error([0, -1, 1, 0, -1, -1, 0, 0, 1, -1], list("aabbccddee"))
    >>> print(f"{error:.6f} {clusters}")
    0.254951 5
    """
    array = floats(values)
    with quiet_overflow():
        sums = group_sums(array - array.mean(), groups)
        squares = float(sums @ sums)
    clusters = len(sums)
    if clusters < 2:
        return math.inf, clusters
    error = math.sqrt(clusters / (clusters - 1) * squares) / len(array)
    return _without_rounding(error, array), clusters


def t_interval(mean: float, error: float, degrees: float, confidence: float) -> Interval:
    """``mean ± t · error``; unbounded without degrees of freedom. Source: Student, Biometrika 6.

    >>> low, high = t_interval(10.0, 1.0, 9, 0.95)
    >>> print(f"{low:.4f} {high:.4f}")
    7.7378 12.2622
    """
    if degrees <= 0 or not math.isfinite(error):
        return UNBOUNDED
    half = t_quantile((1 + confidence) / 2, degrees) * error
    return Interval(mean - half, mean + half)
