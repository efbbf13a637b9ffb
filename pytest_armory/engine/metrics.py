"""The accepted kinds of metric, each with its way from batches to named results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from pytest_armory.engine.arrays import RefusedError, as_tensors, describe, joined, length, made_by


def is_incremental(metric: object) -> bool:
    """Whether it has torchmetrics' three methods."""
    return all(callable(getattr(metric, method, None)) for method in ("update", "compute", "reset"))


class IncrementalMetric:
    """torchmetrics' `update(first, second)`, `compute()` and `reset()`."""

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        self.start: Callable[[], object] = metric.reset
        self.update: Callable[[Any, Any], object] = metric.update
        if made_by(metric, "torchmetrics", "torch"):
            self.update = self._update_with_tensors

    def _update_with_tensors(self, first: Any, second: Any) -> None:
        self.metric.update(as_tensors(first), as_tensors(second))

    def results(self, name: str) -> dict[str, object]:
        return {name: self.metric.compute()}


class CollectedSamples:
    """All targets and predictions of a run, for the metrics that need them at once."""

    def __init__(self) -> None:
        self.targets: list[Any] = []
        self.predictions: list[Any] = []

    def update(self, predictions: Any, targets: Any) -> None:
        self.predictions.append(predictions)
        self.targets.append(targets)

    def concatenated(self) -> tuple[Any, Any]:
        """(targets, predictions), joined once however many metrics ask."""
        self.targets = [joined(self.targets)]
        self.predictions = [joined(self.predictions)]
        return self.targets[0], self.predictions[0]


class FunctionMetric:
    """scikit-learn's `f(targets, predictions)`, called once with all samples."""

    def __init__(self, function: Callable[[Any, Any], object], collected: CollectedSamples) -> None:
        self.function = function
        self.collected = collected

    def results(self, name: str) -> dict[str, object]:
        targets, predictions = self.collected.concatenated()
        return {name: self.function(targets, predictions)}


class PerSampleMetric:
    """`f(clean, perturbed)` with one value per sample: their mean, and the largest."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function
        self.total, self.count, self.largest = 0.0, 0, float("-inf")

    def update(self, clean: Any, perturbed: Any) -> None:
        answer, expected = self.function(clean, perturbed), length(clean)
        values = answer.tolist() if hasattr(answer, "tolist") else answer
        if not isinstance(values, list) or len(values) != expected or isinstance(values[0], list):
            raise RefusedError(
                f"must return one value for each of the {expected} samples, got "
                f"{describe(answer)}; sum or average over all axes but the first"
            )
        self.total += sum(values)
        self.count += expected
        self.largest = max(self.largest, max(values))

    def results(self, name: str) -> dict[str, object]:
        return {name: self.total / self.count, f"{name}_max": self.largest}


Meter: TypeAlias = IncrementalMetric | FunctionMetric | PerSampleMetric
