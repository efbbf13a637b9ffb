"""Differences of means: what is known of an estimate, paired, by groups, and unpaired."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pytest_armory.statistics.intervals import (
    Interval,
    clustered_error,
    standard_error,
    t_interval,
)
from pytest_armory.statistics.numeric import floats, group_sums

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Estimate(NamedTuple):
    """An estimate with its standard error and the degrees of freedom of that.

    The error is infinite where the data do not bound it, and the degrees are 0 then.
    """

    value: float
    error: float
    degrees: float

    def interval(self, confidence: float = 0.95) -> Interval:
        """Student's t interval, two-sided."""
        return t_interval(self.value, self.error, self.degrees, confidence)

    def lower_p(self) -> float:
        """The one-sided p of Student's t test that the value is below 0.

        0.5 where nothing is known; without spread, 0 for a value below 0 and 1 for one above.
        """
        from scipy.special import stdtr

        if self.degrees <= 0 or not math.isfinite(self.error):
            return 0.5
        if self.error == 0:
            return 0.5 - 0.5 * ((self.value < 0) - (self.value > 0))
        return float(stdtr(self.degrees, self.value / self.error))


def mean_of(values: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """A mean with its standard error: ``s / sqrt(n)``, or the cluster-robust one by groups.

    ``values`` has shape (n,), without NaN; ``groups`` a label for each, text or integers. Degrees
    of freedom are n - 1, or the number of groups less one. Of paired differences this is the paired
    t test.

    Source: Student, Biometrika 6, 1908;
    :func:`~pytest_armory.statistics.intervals.clustered_error`.

    >>> value, error, degrees = mean_of([1.0, 2.0, 3.0, 4.0])
    >>> print(f"{value} {error:.4f} {degrees}")
    2.5 0.6455 3
    """
    array = floats(values)
    n = len(array)
    if n == 0:
        raise ValueError("no values")
    mean = float(array.mean())
    if groups is not None:
        error, clusters = clustered_error(array, groups)
        return Estimate(mean, error, clusters - 1)
    if n == 1:
        return Estimate(mean, math.inf, 0)
    return Estimate(mean, standard_error(array), n - 1)


def welch(value: Estimate, base: Estimate) -> Estimate:
    """The difference of two independent estimates, ``value - base``: Welch's t.

    The error is ``sqrt(e1² + e2²)``, the degrees of freedom are Satterthwaite's,
    ``(e1² + e2²)² / (e1⁴ / f1 + e2⁴ / f2)``.

    Source: B. L. Welch, Biometrika 34:28, 1947.

    >>> value, error, degrees = welch(mean_of([1.0, 2.0, 3.0]), mean_of([2.0, 4.0, 6.0, 8.0]))
    >>> print(f"{value} {error:.4f} {degrees:.4f}")
    -3.0 1.4142 4.0755
    """
    difference, error = value.value - base.value, math.hypot(value.error, base.error)
    if min(value.degrees, base.degrees) <= 0 or not math.isfinite(error):
        return Estimate(difference, math.inf, 0)
    if error == 0:
        return Estimate(difference, 0.0, value.degrees + base.degrees)
    # By the shares of e1² and e2², for the fourth powers of the errors may be too large or small.
    first, second = (value.error / error) ** 2, (base.error / error) ** 2
    return Estimate(difference, error, 1 / (first**2 / value.degrees + second**2 / base.degrees))


ROUNDING = 2e-7
"""How far apart equal values may be, relatively: in float32 they are so far."""


def is_constant(values: ArrayLike, sizes: ArrayLike, groups: ArrayLike | None = None) -> bool:
    """Whether values, or their sums by group, are the mean but for the rounding of ``sizes``.

    ``sizes``, of shape (n,) as the values, are those of the numbers that these were made of.

    >>> import numpy as np
    >>> new, old = np.array([0.8, 0.7, 0.6]), np.array([0.9, 0.8, 0.7])
    >>> bool((new - old).std() > 0), is_constant(new - old, new + old)
    (True, True)
    """
    array, rounding = floats(values), ROUNDING * floats(sizes)
    deviations = array - array.mean()
    if groups is not None:
        deviations, rounding = group_sums(deviations, groups), group_sums(rounding, groups)
    return bool((abs(deviations) <= rounding).all())
