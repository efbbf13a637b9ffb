"""The norms of (perturbed - clean) for each sample.

Each takes `(clean, perturbed)`, arrays or tensors of the same shape (n, ...), and returns n
values. Integers, images of `uint8` among them, are converted to a wider type first, so that no
difference overflows. The names are those of the adversarial literature: N. Carlini and D. Wagner,
"Towards Evaluating the Robustness of Neural Networks", 2017, section III.C,
https://arxiv.org/abs/1608.04644.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from numbers import Real
from typing import Any

from pytest_armory.engine.arrays import as_numpy, describe
from pytest_armory.errors import EvaluationError

_INFINITY = float("inf")


def l0(clean: Any, perturbed: Any) -> Any:
    """How many values of each sample changed.

    `sum(d != 0)` over all axes but the first. A count; not a norm in the strict sense.

    >>> from numpy import array
    >>> from pytest_armory import l0
    >>> l0(array([[1, 2, 3], [4, 5, 6]]), array([[1, 2, 4], [0, 0, 0]])).tolist()
    [1, 3]
    """
    return (_moved(clean, perturbed) != 0).sum(axis=1)


def l2(clean: Any, perturbed: Any) -> Any:
    """The Euclidean distance of each sample from the clean one.

    `sqrt(sum(d**2))` over all axes but the first, in the inputs' own unit.

    >>> from numpy import array
    >>> from pytest_armory import l2
    >>> l2(array([[0.0, 0.0], [1.0, 1.0]]), array([[3.0, 4.0], [1.0, 1.0]])).tolist()
    [5.0, 0.0]
    """
    return (_moved(clean, perturbed) ** 2).sum(axis=1) ** 0.5


def linf(clean: Any, perturbed: Any) -> Any:
    """The largest change of any one value of each sample.

    `max(abs(d))` over all axes but the first, in the inputs' own unit.

    >>> from numpy import array
    >>> from pytest_armory import linf
    >>> linf(array([[0.0, 0.0]]), array([[3.0, -4.0]])).tolist()
    [4.0]
    """
    largest = _moved(clean, perturbed).max(axis=1)
    # torch's max along an axis gives (values, indices).
    return getattr(largest, "values", largest)


def norm(order: float) -> Callable[[Any, Any], Any]:
    """The norm of any order, as a function like `l2`.

    `sum(abs(d)**order)**(1 / order)` over all axes but the first: `norm(1)` is the sum of all
    changes, `norm(-inf)` the smallest one; `norm(0)`, `norm(2)` and `norm(inf)` are `l0`, `l2` and
    `linf`. As numpy.linalg.norm defines it for vectors. Raises EvaluationError.
    """
    if isinstance(order, bool) or not isinstance(order, Real) or order != order:
        raise EvaluationError(
            f"norm: order must be a number, got {describe(order)}; "
            "write norm(1), or norm(float('-inf')) for the smallest change"
        )
    named = {0.0: l0, 2.0: l2, _INFINITY: linf, -_INFINITY: _smallest}
    return named.get(float(order)) or partial(_of_order, float(order))


def _smallest(clean: Any, perturbed: Any) -> Any:
    smallest = _moved(clean, perturbed).min(axis=1)
    return getattr(smallest, "values", smallest)


def _of_order(order: float, clean: Any, perturbed: Any) -> Any:
    moved = _moved(clean, perturbed)
    extreme = moved.max(axis=1) if order > 0 else moved.min(axis=1)
    scale = getattr(extreme, "values", extreme) + 0
    scale[~((scale > 0) & (scale < _INFINITY))] = 1
    with _zeros_divided(moved):
        # Relative to the largest change, so that no power overflows.
        powers = ((moved / scale[:, None]) ** order).sum(axis=1)
        return powers ** (1 / order) * scale


def _zeros_divided(values: Any) -> AbstractContextManager[object]:
    """Without NumPy's warning of 0 to a negative power, which is infinite, and the norm 0."""
    if hasattr(values, "detach"):
        return nullcontext()
    errors: AbstractContextManager[object] = import_module("numpy").errstate(divide="ignore")
    return errors


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
