"""Operations on batches by duck type: arrays, tensors, frames, lists, mappings.

An array library is imported only for values of that library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from importlib import import_module
from itertools import chain
from numbers import Number
from operator import index
from typing import Any


class RefusedError(Exception):
    """A value that breaks a rule; the caller adds which evaluation and which batch."""


def is_mapping(values: Any) -> bool:
    """Whether it is a `Mapping`, by its class alone: it is asked of each batch several times."""
    return _is_mapping_class(values.__class__)


@lru_cache(maxsize=64)
def _is_mapping_class(kind: type) -> bool:
    return issubclass(kind, Mapping)


def length(values: Any) -> int:
    """How many samples a batch holds: its first dimension; of a mapping, its first value's.

    Raises TypeError for what has no first dimension (None, a number, a text, a 0-d array).
    """
    shape = getattr(values, "shape", None)
    if shape:
        return int(shape[0])
    if is_mapping(values) and values:
        return length(next(iter(values.values())))
    if isinstance(values, (str, bytes)):
        raise TypeError("a text is one value")
    return len(values)


def samples(values: Any, role: str) -> int:
    """`length`, refusing what has none; `role` is what the values are, e.g. "the targets"."""
    try:
        return length(values)
    except TypeError:
        raise RefusedError(
            f"{role} must hold one entry per sample, got {describe(values)}, which has no length"
        ) from None


def rows(values: Any, start: int, stop: int) -> Any:
    """The samples from `start` up to `stop`, by position; None of None."""
    if values is None:
        return None
    if isinstance(values, Mapping):
        return {key: rows(value, start, stop) for key, value in values.items()}
    return getattr(values, "iloc", values)[start:stop]


def taken(values: Any, positions: Sequence[int]) -> Any:
    """The samples at these positions; None of None."""
    if values is None:
        return None
    if isinstance(values, Mapping):
        return {key: taken(value, positions) for key, value in values.items()}
    if hasattr(values, "iloc"):
        return values.iloc[positions]
    if hasattr(values, "shape"):
        return values[positions]
    return [values[position] for position in positions]


def one_of(values: Any, position: int) -> Any:
    """A single sample; of a mapping, a mapping with the value of each key."""
    if isinstance(values, Mapping):
        return {key: one_of(value, position) for key, value in values.items()}
    return getattr(values, "iloc", values)[position]


def stacked(values: list[Any]) -> Any:
    """Predictions of single samples as one value: tensors and arrays are stacked."""
    library = "torch" if all(hasattr(value, "detach") for value in values) else "numpy"
    if not values or not all(hasattr(v, "__array__") and hasattr(v, "shape") for v in values):
        return values
    other = next((value for value in values if value.shape != values[0].shape), None)
    if other is not None:
        raise RefusedError(
            f"predictions must have one shape for each sample, got {describe(values[0])} and "
            f"{describe(other)}; pad them, or return lists from the model, as `.tolist()` gives"
        )
    return import_module(library).stack(values)


def detached(values: Any) -> Any:
    """The same values without autograd's graph, which would keep every batch in memory."""
    if hasattr(values, "detach"):
        return values.detach()
    if is_mapping(values):
        return {key: detached(value) for key, value in values.items()}
    if type(values) in (list, tuple) and values and not isinstance(values[0], (Number, str)):
        return type(values)(map(detached, values))
    return values


def copied(values: Any) -> Any:
    """A copy that shares no memory with the original."""
    return values.detach().clone() if hasattr(values, "detach") else deepcopy(values)


def joined(parts: list[Any]) -> Any:
    """All batches as one value of their type: array, tensor, frame, mapping or list."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Mapping):
        return {key: joined([part[key] for part in parts]) for key in first}
    if hasattr(first, "detach"):
        return import_module("torch").cat(parts)
    if made_by(first, "pandas"):
        return import_module("pandas").concat(parts)
    if hasattr(first, "__array__"):
        return import_module("numpy").concatenate(parts)
    return list(chain.from_iterable(parts))


def as_numpy(values: Any) -> Any:
    """A tensor as a NumPy array on the CPU, `widened`; anything else as it is."""
    return widened(values.detach().cpu()).numpy() if hasattr(values, "detach") else values


def widened(values: Any) -> Any:
    """Tensors of a float type that NumPy does not have as float32, exactly; the rest as it is.

    Such are bfloat16, in which many language models are loaded, and those of eight bits.
    """
    if hasattr(values, "detach"):
        is_known = not values.is_floating_point() or str(values.dtype) in _FLOATS_OF_NUMPY
        return values if is_known else values.float()
    if is_mapping(values):
        return {key: widened(value) for key, value in values.items()}
    if type(values) in (list, tuple) and values and not isinstance(values[0], (Number, str)):
        return type(values)(map(widened, values))
    return values


_FLOATS_OF_NUMPY = ("torch.float16", "torch.float32", "torch.float64")


def as_tensors(values: Any) -> Any:
    """Arrays and lists of numbers as tensors, at any depth of nesting; anything else as it is."""
    if hasattr(values, "detach"):
        return values
    if isinstance(values, Mapping):
        return {key: as_tensors(value) for key, value in values.items()}
    if hasattr(values, "__array__"):
        # A copy, because torch refuses reversed arrays and warns about read-only ones.
        return import_module("torch").as_tensor(import_module("numpy").array(values, order="C"))
    if isinstance(values, (list, tuple)) and values:
        if isinstance(values[0], Number):
            return import_module("torch").as_tensor(values)
        return [as_tensors(value) for value in values]
    return values


def like(values: Any, original: Any) -> Any:
    """An array as a tensor on the original's device if that was a tensor; else as it is."""
    if not hasattr(original, "detach"):
        return values
    tensor = import_module("torch").as_tensor(values, device=original.device)
    return tensor.to(original.dtype) if original.is_floating_point() else tensor


def made_by(value: object, *packages: str) -> bool:
    """Whether the value's class, or one it derives from, comes from one of these packages."""
    return any(kind.__module__.partition(".")[0] in packages for kind in type(value).__mro__)


def whole_number(value: Any) -> int:
    """An integer of any library as an int; 0 for what is none, a bool among it."""
    try:
        return 0 if isinstance(value, bool) else index(value)
    except TypeError:
        return 0


def describe(value: object) -> str:
    """A value in an error's text: its type with its shape or length, never its contents."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return f"a string of {len(value):,} character{'s' * (len(value) != 1)}"
    name = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(shape, tuple):
        return f"{name} of shape {tuple(shape)}"
    return f"{name} of {len(value)}" if isinstance(value, (list, tuple, Mapping)) else name
