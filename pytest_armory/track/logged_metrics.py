"""The metrics of a run that were logged by this process."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping


class LoggedMetrics:
    """The value of each metric that MLflow shows: the last at the highest step."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self._infinite: set[str] = set()

    def note(self, numbers: Mapping[str, float], step: int) -> None:
        """Add the values of several metrics at one step."""
        for name, value in numbers.items():
            if step >= self._steps.get(name, step):
                self._steps[name], self.values[name] = step, value

    def new_tags(self, metrics: Iterable[tuple[str, float, int]]) -> dict[str, str]:
        """The tag that names infinite metrics, if one of these is new to it.

        A database stores the largest float for an infinity.
        """
        infinite = {f"{name}={value}" for name, value, _ in metrics if math.isinf(value)}
        if infinite <= self._infinite:
            return {}
        self._infinite |= infinite
        return {"armory.infinite_metrics": ", ".join(sorted(self._infinite))}
