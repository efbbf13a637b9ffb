"""Sums and differences of floats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_ROUNDING = 1e-12


def total(values: Sequence[float]) -> float:
    """The sum, correctly rounded, so that it does not depend on the order of the values.

    Infinite or NaN where it is too large, or has infinities of both signs.
    """
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return float(sum(values))


def differences(new: Any, old: Any) -> Any:
    """``new - old`` of two arrays; 0 where they differ as means of the same values may do.

    >>> import numpy as np
    >>> new, old = np.array([0.7, 0.5]), np.array([0.7 + 0.7 + 0.7, 0.75]) / 3
    >>> bool((new == old).any()), differences(new, old).tolist()
    (False, [0.0, 0.25])
    """
    gains = new - old
    # Of an infinite value both are: it did change.
    return gains * ~(abs(gains) < _ROUNDING * abs(new) + _ROUNDING * abs(old))
