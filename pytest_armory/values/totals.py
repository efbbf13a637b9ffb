"""Sums of floats."""

from __future__ import annotations

import math
from collections.abc import Sequence


def total(values: Sequence[float]) -> float:
    """The sum, correctly rounded, so that it does not depend on the order of the values.

    Infinite or NaN where it is too large, or has infinities of both signs.
    """
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return float(sum(values))
