"""Scores of predictions, one value for each sample: for ``Evaluation(sample_metrics=…)``.

Each takes ``(targets, predictions)`` of n samples: arrays or tensors of shape (n,) or (n, 1), or
lists of n numbers or texts; and returns n values.
"""

from __future__ import annotations

from importlib import import_module
from numbers import Number
from typing import Any

from pytest_armory.engine.arrays import as_numpy, describe, is_mapping


def correct(targets: Any, predictions: Any) -> Any:
    """Whether each prediction is its target: n booleans.

    ``targets == predictions``. Where one of them has shape (n, classes), scores of classes or
    one-hot targets, its class is the index of the largest. Raises TypeError for predictions that
    can be no target, such as the mappings of a pipeline where targets are texts.

    >>> from numpy import array
    >>> from pytest_armory import correct
    >>> correct(array([0, 1]), array([[0.7, 0.3], [0.6, 0.4]])).tolist()
    [True, False]
    """
    found = _no_class(predictions)
    if found is not None and _no_class(targets) is None:
        raise TypeError(
            f"a prediction that is {describe(found)} equals no target; take the class out of the "
            "model's output with Evaluation(output_transform=lambda output: ...)"
        )
    return classes(targets) == classes(predictions)


def absolute_error(targets: Any, predictions: Any) -> Any:
    """``abs(predictions - targets)`` of each sample, in the targets' unit. Higher is worse."""
    return abs(_differences(targets, predictions))


def squared_error(targets: Any, predictions: Any) -> Any:
    """``(predictions - targets)**2`` of each sample, in the targets' unit. Higher is worse."""
    return _differences(targets, predictions) ** 2


HIGHER_IS_WORSE = (absolute_error, squared_error)
"""The functions of this module that are errors."""


def classes(values: Any) -> Any:
    """The class of each sample as a NumPy array: of scores of classes, the largest one's index."""
    numpy = import_module("numpy")
    found = as_numpy(values)
    if not hasattr(found, "shape"):
        found = list(found)
        texts = sum(isinstance(value, str) for value in found)
        # Else NumPy would make a text of each number beside one.
        found = numpy.asarray(found, dtype=object if 0 < texts < len(found) else None)
    found = numpy.asarray(found)
    if found.ndim == 2 and found.shape[1] > 1:
        return found.argmax(axis=1)
    return found.reshape(-1) if found.ndim == 2 else found


def _no_class(values: Any) -> Any:
    """The mapping that the values are, or the first that is no number or text; None of others."""
    if is_mapping(values):
        return values
    if not isinstance(values, (list, tuple)):
        return None
    return next((value for value in values if not _is_class(value)), None)


def _is_class(value: object) -> bool:
    return value is None or isinstance(value, (Number, str, bytes)) or hasattr(value, "shape")


def _differences(targets: Any, predictions: Any) -> Any:
    numpy = import_module("numpy")
    first, second = (numpy.asarray(as_numpy(v), dtype="float64") for v in (targets, predictions))
    first, second = (
        v.reshape(-1) if v.ndim == 2 and v.shape[1] == 1 else v for v in (first, second)
    )
    if first.shape != second.shape:  # otherwise one of them would be broadcast
        raise ValueError(f"targets {first.shape}, predictions {second.shape}")
    return second - first
