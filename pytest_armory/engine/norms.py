"""The norms of (perturbed - clean) for each sample.

Each takes `(clean, perturbed)`, arrays or tensors of the same shape (n, ...), and returns n
values. Integers, images of `uint8` among them, are converted to a wider type first, so that no
difference overflows. The names are those of the adversarial literature: N. Carlini and D. Wagner,
"Towards Evaluating the Robustness of Neural Networks", 2017, section III.C,
https://arxiv.org/abs/1608.04644.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pytest_armory.engine.arrays import as_numpy


def l0(clean: Any, perturbed: Any) -> Any:
    """How many values of each sample changed.

    `sum(d != 0)` over all axes but the first. A count; not a norm in the strict sense.
    """
    return (_moved(clean, perturbed) != 0).sum(axis=1)


def l2(clean: Any, perturbed: Any) -> Any:
    """The Euclidean distance of each sample from the clean one.

    `sqrt(sum(d**2))` over all axes but the first, in the inputs' own unit.
    """
    return (_moved(clean, perturbed) ** 2).sum(axis=1) ** 0.5


def linf(clean: Any, perturbed: Any) -> Any:
    """The largest change of any one value of each sample.

    `max(abs(d))` over all axes but the first, in the inputs' own unit.
    """
    largest = _moved(clean, perturbed).max(axis=1)
    # torch's max along an axis gives (values, indices).
    return getattr(largest, "values", largest)


def _moved(clean: Any, perturbed: Any) -> Any:
    """abs(perturbed - clean) as one row per sample."""
    if hasattr(clean, "detach") and hasattr(perturbed, "detach"):
        clean, perturbed = clean.detach(), perturbed.detach()
    else:
        numpy = import_module("numpy")
        clean, perturbed = numpy.asarray(as_numpy(clean)), numpy.asarray(as_numpy(perturbed))
    if clean.shape != perturbed.shape:  # otherwise one of them would be broadcast
        raise ValueError(f"clean {tuple(clean.shape)}, perturbed {tuple(perturbed.shape)}")
    moved = abs(_widened(perturbed) - _widened(clean))
    return moved.reshape(len(moved), -1)


def _widened(values: Any) -> Any:
    """Values in a float type that holds them: 2 bytes fit a float32 exactly, the rest float64."""
    small = values.dtype.itemsize <= 2
    if hasattr(values, "detach"):
        if values.is_floating_point() and not small:
            return values
        return values.float() if small else values.double()
    if values.dtype.kind == "f" and not small:
        return values
    return values.astype("float32" if small else "float64")
