"""Handing what is measured of each sample to the tracked run."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any, Protocol

from pytest_armory.engine.answers import Batch
from pytest_armory.engine.arrays import RefusedError, describe, rows, samples
from pytest_armory.engine.evaluation import Evaluation
from pytest_armory.engine.metrics import PerSampleMetric, is_incremental
from pytest_armory.engine.scores import HIGHER_IS_WORSE, classes, correct
from pytest_armory.errors import ArmoryUsageError


class SampleLog(Protocol):
    """The rows of one evaluation in the tracked run."""

    def add(
        self,
        scores: Mapping[str, Any],
        *,
        ids: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Add the rows of a batch; raises ArmoryUsageError for ids that repeat."""


class SampleOpener(Protocol):
    """What opens the rows of an evaluation."""

    def open_samples(
        self,
        evaluation: str,
        scores: Sequence[str],
        dataset: str,
        higher_is_worse: Sequence[str],
    ) -> SampleLog:
        """The rows of an evaluation, empty; its scores by name.

        Without scores they only say, by ids and targets, which data it was.
        """


class SampleRecorder:
    """Adds each batch's ids, scores, targets and predictions to the rows of one evaluation."""

    def __init__(
        self,
        evaluation: Evaluation,
        meters: Mapping[str, PerSampleMetric],
        opener: SampleOpener | None,
    ) -> None:
        self.ids, self.meters = evaluation.ids, meters
        functions = evaluation.sample_metrics
        self.as_classes = correct in functions.values()
        self.keeps_classes = any(not is_incremental(m) for m in evaluation.metrics.values())
        self.count = 0
        self.log: SampleLog | None = None
        is_named = bool(evaluation.dataset_name) or evaluation.ids is not None
        if opener is not None and (meters or is_named):
            worse = [name for name, function in functions.items() if function in HIGHER_IS_WORSE]
            dataset = evaluation.dataset_name or evaluation.name
            self.log = opener.open_samples(evaluation.name, list(meters), dataset, worse)

    def add(
        self, batch: Batch, predictions: Any, good: Sequence[int], errors: Mapping[int, str]
    ) -> None:
        """Add the batch that the metrics have just measured.

        ``predictions`` are those of the samples at ``good``; the others are in ``errors``.
        """
        if self.log is None:
            return
        count = batch.count
        columns = {"target": _scalars(batch.targets, self.as_classes)}
        if self.meters:
            as_classes = self.as_classes or _are_classes(batch.targets)
            columns["prediction"] = _scalars(predictions, as_classes)
        if self.meters and self.keeps_classes:
            columns |= _class_columns(predictions)
        scores: dict[str, Any] = {name: meter.batch for name, meter in self.meters.items()}
        if errors and self.meters:
            scores = {name: _spread(v, good, count, math.nan) for name, v in scores.items()}
            scores = {name: array("d", values) for name, values in scores.items()}
            kept = {name: v for name, v in columns.items() if name.startswith("prediction")}
            columns |= {name: _spread(v, good, count, None) for name, v in kept.items()}
            columns["error"] = [errors.get(position) for position in range(count)]
        try:
            self.log.add(
                scores or {"": array("d", bytes(8 * count))},
                ids=self._ids(batch.inputs, count),
                columns={name: values for name, values in columns.items() if values is not None},
            )
        except ArmoryUsageError as refusal:
            raise RefusedError(str(refusal)) from None
        self.count += count

    def _ids(self, inputs: Any, count: int) -> Any:
        if self.ids is None:
            return None
        if not isinstance(self.ids, str):
            found = rows(self.ids, self.count, self.count + count)
        elif isinstance(inputs, Mapping) and self.ids in inputs:
            found = inputs[self.ids]
        else:
            raise RefusedError(
                f"ids={self.ids!r} names a key of the inputs, got {describe(inputs)}; give a "
                "sequence with the id of each sample, or batches that are mappings with that key"
            )
        if samples(found, "ids") != count:
            raise RefusedError(
                f"ids must be one for each sample, got {describe(self.ids)} and more samples"
            )
        return found

    def check_all_came(self) -> None:
        """Refuse ids of samples that did not come."""
        if self.log is None or self.ids is None or isinstance(self.ids, str):
            return
        if (found := samples(self.ids, "ids")) != self.count:
            raise RefusedError(
                f"ids must be one for each of the {self.count:,} samples, got {found:,}: "
                f"{describe(self.ids)}"
            )


def _spread(values: Any, positions: Sequence[int], count: int, missing: Any) -> list[Any] | None:
    """Values at their positions among so many samples; None of None."""
    if values is None:
        return None
    spread = [missing] * count
    for position, value in zip(positions, values, strict=False):
        spread[position] = value
    return spread


def _are_classes(targets: Any) -> bool:
    """Whether the targets are integers, one for each sample."""
    if not hasattr(targets, "shape"):
        return isinstance(targets, (list, tuple)) and all(type(one) is int for one in targets)
    is_float = "float" in str(getattr(targets, "dtype", "float"))
    return len(targets.shape) == 1 and not is_float


def _scalars(values: Any, as_classes: bool) -> Any:
    """Values that are one number or text for each sample; None for any others."""
    shape = getattr(values, "shape", None)
    if shape is not None:
        if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
            return values
        return classes(values) if as_classes and len(shape) == 2 else None
    if not isinstance(values, (list, tuple)):
        return None
    plain = all(v is None or isinstance(v, (Number, str)) or _is_scalar(v) for v in values)
    return values if plain else None


CLASSES = 16
"""The most classes of which the scores are kept, which functions such as AUC need."""


def _class_columns(predictions: Any) -> dict[str, Any]:
    """The scores of each class, where they are few: ``prediction[0]`` and so on."""
    shape: tuple[int, ...] = tuple(getattr(predictions, "shape", ()))
    if len(shape) != 2 or not 2 <= shape[1] <= CLASSES:
        return {}
    return {f"prediction[{i}]": predictions[:, i] for i in range(shape[1])}


def _is_scalar(value: object) -> bool:
    return getattr(value, "shape", None) == ()
