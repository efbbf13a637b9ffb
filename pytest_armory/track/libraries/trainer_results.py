"""What Lightning's and Hugging Face's trainers return."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from pytest_armory.track.libraries.result import LibraryResult, ResultSamples, mean

_LOADER = re.compile(r"/dataloader_idx_(\d+)$")
_OUTPUTS = {"metrics", "predictions", "label_ids"}


def read(value: Any) -> LibraryResult | None:
    """Metrics by their names.

    Those of Lightning's first loader have the name that they have where there is one loader alone.
    Of Hugging Face's outputs the arrays of predictions are left out; where the accuracy is that of
    their largest score, each sample is kept.
    """
    fields = set(getattr(type(value), "_fields", ()))
    if fields >= _OUTPUTS:
        return _of_prediction(value)
    if {"training_loss", "metrics"} <= fields:
        return LibraryResult("Trainer", {"training_loss": value.training_loss, **value.metrics})
    parts = value if isinstance(value, list) else [value]
    if not parts or not all(isinstance(part, Mapping) for part in parts):
        return None
    if not any(_LOADER.search(str(name)) for part in parts for name in part):
        return None
    given = {str(name): number for part in parts for name, number in part.items()}
    return LibraryResult("Lightning", {_stable(name, given): v for name, v in given.items()})


def _stable(name: str, given: Container[str]) -> str:
    found = _LOADER.search(name)
    plain = name[: found.start()] if found and int(found[1]) == 0 else name
    return name if plain in given else plain  # one of all loaders has it


def _of_prediction(output: Any) -> LibraryResult:
    metrics = dict(output.metrics or {})
    labels, predictions = output.label_ids, output.predictions
    count = getattr(output, "num_samples", None)
    if count is None and hasattr(predictions, "shape"):
        count = len(predictions)
    own = {} if count is None else {"samples": count}
    are_arrays = hasattr(predictions, "shape") and hasattr(labels, "shape")
    right = _right(predictions, labels) if are_arrays else None
    name = next((name for name in metrics if name.endswith("accuracy")), None)
    if right is None or name is None or abs(mean(right) - float(metrics[name])) > 1e-6:
        return LibraryResult("Trainer", {**metrics, **own})
    columns = {"target": labels.tolist(), "prediction": predictions.argmax(-1).tolist()}
    part = ResultSamples({name: right}, columns=columns, dataset="Trainer")
    return LibraryResult("Trainer", {**metrics, **own}, [part])


def _right(predictions: Any, labels: Any) -> list[float] | None:
    """Whether the largest of each sample's scores is its label's; None of other tasks."""
    of_scores, of_labels = tuple(predictions.shape), tuple(labels.shape)
    if len(of_scores) != 2 or len(of_labels) != 1 or of_scores[0] != of_labels[0]:
        return None
    return [float(one) for one in (predictions.argmax(-1) == labels).tolist()]
