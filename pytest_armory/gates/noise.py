"""Where one more session is expected, by how earlier ones scatter."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_armory.gates.evidence import LEAST_FOR_NOISE, is_time
from pytest_armory.gates.past_runs import LARGEST
from pytest_armory.statistics.prediction import prediction_bound


def noise_band(metric: str, earlier: Sequence[float]) -> tuple[float, float] | None:
    """The lower and the upper bound of the next session's value, each one-sided at 95 %.

    None where gates would not judge by so few sessions. Times are compared by their logarithms, as
    gates do it.
    """
    values = [value for value in earlier if abs(value) <= LARGEST]
    if len(values) < LEAST_FOR_NOISE:
        return None
    log = is_time(metric) and min(values) > 0
    low = prediction_bound(values, log=log)
    high = prediction_bound(values, upper=True, log=log)
    return low, high
