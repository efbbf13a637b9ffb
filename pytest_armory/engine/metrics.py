"""The accepted kinds of metric, each with its way from batches to named results."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from inspect import signature
from numbers import Real
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
    """`f(clean, perturbed)` with one value per sample: their mean, and the largest.

    `batch` has the values of the last batch.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.total, self.count, self.largest = 0.0, 0, float("-inf")
        self.batch: array[float] = array("d")

    def update(self, clean: Any, perturbed: Any) -> None:
        self._take(self.function(clean, perturbed), length(clean))

    def _take(self, answer: Any, expected: int) -> None:
        values = answer.tolist() if hasattr(answer, "tolist") else answer
        if isinstance(values, list) and values and type(values[0]) is list:
            values = _without_axis(values)
        if not isinstance(values, (list, tuple)) or len(values) != expected:
            raise RefusedError(
                f"must return one value for each of the {expected} samples, got "
                f"{describe(answer)}; sum or average over all axes but the first"
            )
        try:
            self.batch = array("d", values)
        except TypeError:
            other = next(value for value in values if not isinstance(value, Real))
            raise RefusedError(
                f"must return numbers or booleans, got {describe(other)} among them"
            ) from None
        self.total += sum(self.batch)
        self.count += expected
        self.largest = max(self.largest, max(self.batch))

    def results(self, name: str) -> dict[str, object]:
        return {name: self.total / self.count, f"{name}_max": self.largest}


class SampleMetric(PerSampleMetric):
    """`f(targets, predictions)` with one value per sample: their mean.

    A function with a parameter `inputs` is given the inputs by that name.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.wants_inputs = _has_parameter(function, "inputs")

    def score(self, targets: Any, predictions: Any, inputs: Any, expected: int) -> None:
        """Take in a batch of so many samples."""
        named = {"inputs": inputs} if self.wants_inputs else {}
        self._take(self.function(targets, predictions, **named), expected)

    def results(self, name: str) -> dict[str, object]:
        return {name: self.total / self.count}


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in signature(function).parameters
    except (TypeError, ValueError):  # of C code
        return False


def _without_axis(values: list[Any]) -> Any:
    """The values of shape (n, 1) as n values; None for another shape."""
    return [v[0] for v in values] if all(len(v) == 1 for v in values) else None


Meter: TypeAlias = IncrementalMetric | FunctionMetric | PerSampleMetric
