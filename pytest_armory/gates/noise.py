"""Where one more session is expected, by how earlier ones scatter."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_armory.gates.evidence import is_time
from pytest_armory.gates.past_runs import LARGEST
from pytest_armory.statistics.prediction import prediction_bound

FEWEST = 5
"""The fewest earlier sessions that a band is drawn from."""


def noise_band(
    metric: str, earlier: Sequence[float], confidence: float = 0.95
) -> tuple[float, float] | None:
    """The lower and the upper bound of the next session's value, each one-sided; None if unknown.

    Times are compared by their logarithms, as gates do it.
    """
    values = [value for value in earlier if abs(value) <= LARGEST]
    if len(values) < FEWEST:
        return None
    log = is_time(metric) and min(values) > 0
    low = prediction_bound(values, confidence, log=log)
    high = prediction_bound(values, confidence, upper=True, log=log)
    return low, high
