"""The accepted kinds of metric, each with its way from batches to named results."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeAlias

from pytest_armory.engine.arrays import (
    RefusedError,
    as_numpy,
    as_tensors,
    describe,
    joined,
    length,
    made_by,
)
from pytest_armory.engine.calls import signature_of
from pytest_armory.engine.modules import moved


def is_incremental(metric: object) -> bool:
    """Whether it has torchmetrics' three methods."""
    return all(callable(getattr(metric, method, None)) for method in ("update", "compute", "reset"))


def is_evaluate(metric: object) -> bool:
    """Whether it has the methods of Hugging Face's `evaluate.Metric`."""
    return all(callable(getattr(metric, method, None)) for method in ("add_batch", "compute"))


class IncrementalMetric:
    """torchmetrics' `update(first, second)`, `compute()` and `reset()`.

    An `update` with a parameter `inputs` is given them by that name.
    """

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        self.start: Callable[[], object] = metric.reset
        self.wants_inputs = _wants_inputs(metric.update)
        self.wants_tensors = made_by(metric, "torchmetrics", "torch")

    def update(self, first: Any, second: Any, inputs: Any = None) -> None:
        """Take in a batch; torch's metrics get tensors, on the device of the metric."""
        if self.wants_tensors:
            device = _device_of(self.metric)
            first, second = moved(as_tensors(first), device), moved(as_tensors(second), device)
            inputs = moved(inputs, device)
        named = {"inputs": inputs} if self.wants_inputs else {}
        self.metric.update(first, second, **named)

    def results(self, name: str) -> dict[str, object]:
        return {name: self.metric.compute()}


def _device_of(metric: Any) -> Any:
    """The device of a torchmetrics metric; of a collection, that of its first one."""
    if isinstance(metric, Mapping) or hasattr(metric, "values"):
        metric = next(iter(metric.values()), None)
    return getattr(metric, "device", None)


class CollectedSamples:
    """All targets and predictions of a run, for the metrics that need them at once."""

    def __init__(self, *, inputs: bool = False) -> None:
        self.targets: list[Any] = []
        self.predictions: list[Any] = []
        self.inputs: list[Any] = []
        self.wants_inputs = inputs

    def update(self, predictions: Any, targets: Any, inputs: Any) -> None:
        """Keep a batch; one that cannot be joined to the first is refused at once."""
        for role, new in (
            ("predictions", predictions),
            ("targets", targets),
            *((("inputs", inputs),) if self.wants_inputs else ()),
        ):
            known = getattr(self, role)
            if known and (differ := _first_difference(known[0], new)):
                name, *shapes = differ
                raise RefusedError(
                    f"{role}{name} must have one shape for each sample in all batches, got "
                    f"{' and '.join(map(describe, shapes))}; {_RESHAPING[role]}"
                )
            known.append(new)

    def joined(self, role: str) -> Any:
        """All `predictions`, `targets` or `inputs`, joined once however many metrics ask.

        None where there are none.
        """
        parts = getattr(self, role)
        if all(part is None for part in parts):
            return None
        parts[:] = [joined(parts)]
        return parts[0]


_RESHAPING = {
    "predictions": "pad them, or reduce each sample to a value of a fixed shape with "
    "Evaluation(output_transform=lambda output: output.logits.argmax(-1))",
    "targets": "pad them to one length",
    "inputs": "pad them to one length, or use them in a sample metric, which gets each batch",
}


def _first_difference(first: Any, second: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Values of two batches that cannot be joined, and the keys that lead to them."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        differences = (
            _first_difference(first[key], second.get(key), f"{name}[{key!r}]") for key in first
        )
        return next(filter(None, differences), None)
    return None if _row_shape(first) == _row_shape(second) else (name, first, second)


def _row_shape(values: Any) -> object:
    shape = getattr(values, "shape", None)
    return tuple(shape[1:]) if shape is not None and not hasattr(values, "iloc") else None


class FunctionMetric:
    """scikit-learn's `f(targets, predictions)`, called once with all samples.

    A function with a parameter `inputs` is given them by that name; Hugging Face's
    `evaluate.Metric` is called as `compute(predictions=, references=)`.
    """

    def __init__(self, function: Any, collected: CollectedSamples) -> None:
        self.function = function
        self.collected = collected
        self.wants_inputs = not is_evaluate(function) and _wants_inputs(function)
        collected.wants_inputs |= self.wants_inputs

    @property
    def is_of_pairs(self) -> bool:
        """Whether it is `f(targets, predictions)` and nothing else."""
        return not (self.wants_inputs or is_evaluate(self.function))

    def results(self, name: str) -> dict[str, object]:
        targets, predictions = (
            self.collected.joined("targets"),
            self.collected.joined("predictions"),
        )
        if is_evaluate(self.function):
            found = self.function.compute(
                predictions=as_numpy(predictions), references=as_numpy(targets)
            )
            return _by_own_name(name, found)
        named = {"inputs": self.collected.joined("inputs")} if self.wants_inputs else {}
        return {name: self.function(targets, predictions, **named)}


def _by_own_name(name: str, found: object) -> dict[str, object]:
    """The results of `evaluate`, a mapping: the one of the metric's name, `name/key` of others."""
    if not isinstance(found, Mapping):
        return {name: found}
    return {name if key == name else f"{name}/{key}": value for key, value in found.items()}


class PerSampleMetric:
    """`f(clean, perturbed)` with one value per sample: their mean, and the largest.

    `batch` has the values of the last batch.
    """

    wants_inputs = False

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
        self.wants_inputs = _wants_inputs(function)

    def score(self, targets: Any, predictions: Any, inputs: Any, expected: int) -> None:
        """Take in a batch of so many samples."""
        named = {"inputs": inputs} if self.wants_inputs else {}
        self._take(self.function(targets, predictions, **named), expected)

    def results(self, name: str) -> dict[str, object]:
        return {name: self.total / self.count}


def _wants_inputs(function: Callable[..., Any]) -> bool:
    known = signature_of(function)
    return known is not None and "inputs" in known.parameters


def _without_axis(values: list[Any]) -> Any:
    """The values of shape (n, 1) as n values; None for another shape."""
    return [v[0] for v in values] if all(len(v) == 1 for v in values) else None


Meter: TypeAlias = IncrementalMetric | FunctionMetric | PerSampleMetric
