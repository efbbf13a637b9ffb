"""The metrics of a run that were logged by this process."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


class LoggedMetrics:
    """The value of each metric that MLflow shows: the last at the highest step."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.sequences: set[str] = set()
        """The metrics that a list or an array was logged as: no single value is theirs."""
        self._steps: dict[str, int] = {}
        self._infinite: set[str] = set()

    def note(self, numbers: Mapping[str, float], step: int) -> None:
        """Add the values of several metrics at one step."""
        for name, value in numbers.items():
            if step >= self._steps.get(name, step):
                self._steps[name], self.values[name] = step, value
                self.sequences.discard(name)

    def note_history(self, name: str, values: Sequence[float]) -> None:
        """Add one value for each step, counted from 0."""
        last = len(values) - 1
        if last >= self._steps.get(name, last):
            self.note({name: values[-1]}, last)
            self.sequences.add(name)

    def note_arrays(self, names: Iterable[str]) -> None:
        """Add metrics that are artifacts, and have no value."""
        self.sequences.update(name for name in names if name not in self.values)

    def new_tags(self, metrics: Iterable[tuple[str, float, int]]) -> dict[str, str]:
        """The tag that names infinite metrics, if one of these is new to it.

        A database stores the largest float for an infinity.
        """
        infinite = {f"{name}={value}" for name, value, _ in metrics if math.isinf(value)}
        if infinite <= self._infinite:
            return {}
        self._infinite |= infinite
        return {"armory.infinite_metrics": ", ".join(sorted(self._infinite))}
