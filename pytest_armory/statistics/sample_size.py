"""How many samples detect a fall, and which fall so many samples detect: power analysis."""

from __future__ import annotations

import math

from pytest_armory.statistics.numeric import normal_quantile

POWER = 0.8
"""How often a fall of the size that is said is found."""


def needed_samples(variance: float, margin: float, alpha: float = 0.05) -> int:
    """The samples that detect a fall of ``margin``, found four times in five: one-sided.

    ``ceil((z(1 - alpha) + z(0.8))² variance / margin²)``; ``variance`` is that of one sample's
    difference, in the metric's unit squared, ``margin`` is above 0, in that unit.

    Source: Miller, arXiv 2411.00640, 2024, section 5; J. L. Fleiss, "Statistical Methods for Rates
    and Proportions".

    >>> needed_samples(0.09, 0.018), needed_samples(0.18, 0.02)
    (1718, 2783)
    """
    ratio = _quantiles(alpha) * math.sqrt(variance) / margin
    return math.ceil(ratio * ratio)


def detectable_fall(variance: float, n: float, alpha: float = 0.05) -> float:
    """The fall that ``n`` samples detect, found four times in five: one-sided.

    ``(z(1 - alpha) + z(0.8)) sqrt(variance / n)``, in the metric's unit. Source: as of
    :func:`needed_samples`.

    >>> round(detectable_fall(0.09, 1718), 4)
    0.018
    """
    return _quantiles(alpha) * math.sqrt(variance / n)


def _quantiles(alpha: float) -> float:
    return normal_quantile(1 - alpha) + normal_quantile(POWER)
