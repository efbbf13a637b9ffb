"""Values by sample, of any library, in typed arrays of the standard library that can grow."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from numbers import Integral, Real
from typing import Any, TypeAlias

from pytest_armory.errors import ArmoryUsageError

Values: TypeAlias = "array[int] | array[float] | list[Any]"
"""``array("q")``, ``array("d")``, or a list of texts, booleans, None and foreign objects."""


class UnfitError(ArmoryUsageError):
    """Values that break a rule; whoever called adds who gave them."""


def typed(values: Any, what: str = "values") -> Values:
    """One value for each sample: an array, tensor, Series or list, of shape (n,) or (n, 1).

    Raises :class:`UnfitError` for what has another shape, or is one value.
    """
    if hasattr(type(values), "detach"):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    if isinstance(values, array):
        return values
    if hasattr(type(values), "__array__"):
        return _from_array(_unmasked(values), what)
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise UnfitError(f"{what} must hold one value for each sample, got {described(values)}")
    return _from_list(list(values))


def _unmasked(values: Any) -> Any:
    """As a NumPy array; what is masked is None."""
    numpy = import_module("numpy")
    if isinstance(values, numpy.ma.MaskedArray) and values.mask.any():
        return numpy.where(values.mask, None, values.data.astype(object))
    return numpy.asarray(values)


def _from_array(values: Any, what: str) -> Values:
    shape = tuple(values.shape)
    if len(shape) == 2 and shape[1] == 1:
        values = values.reshape(-1)
    elif len(shape) != 1:
        raise UnfitError(f"{what} must hold one value for each sample, got an array of {shape}")
    kind = values.dtype.kind
    if kind == "f" or (kind in "iu" and values.dtype.itemsize < 8) or values.dtype == "int64":
        code, dtype = ("d", "float64") if kind == "f" else ("q", "int64")
        found: Values = array(code)
        found.frombytes(values.astype(dtype).tobytes())  # type: ignore[union-attr] # it is one
        return found
    if kind not in "mM":
        return _from_list(values.tolist())
    known = (~import_module("numpy").isnat(values)).tolist()
    texts = zip(values.astype(str).tolist(), known, strict=True)
    return [text if is_known else None for text, is_known in texts]


def _from_list(values: list[Any]) -> Values:
    kinds = set(map(type, values))
    if kinds - _PLAIN:
        values = [_plain(value) for value in values]
        kinds = set(map(type, values))
    with suppress(OverflowError):  # integers of more than 64 bits stay as they are
        if kinds == {int}:
            return array("q", values)
        if kinds and kinds <= {int, float}:
            return array("d", values)
    return values


_PLAIN = {int, float, bool, str, type(None)}


def _plain(value: Any) -> Any:
    """A builtin number, text, boolean or None; any other object as it is."""
    if type(value) in _PLAIN:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # of NumPy or torch
        return _plain(value.item())
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return int(value)
    with suppress(OverflowError):  # a fraction may be too large a number
        return float(value) if isinstance(value, Real) else value
    return value


def numbers(values: Any, what: str) -> array[float]:
    """Scores: numbers and booleans as floats, None as NaN. Raises :class:`UnfitError` for others"""
    found = typed(values, what)
    if isinstance(found, array):
        return array("d", found)
    try:
        return array("d", [math.nan if value is None else _number(value) for value in found])
    except OverflowError:
        raise UnfitError(f"{what} must be numbers that a float holds, got a larger one") from None
    except TypeError:
        other = next(v for v in found if not isinstance(v, (bool, int, float, type(None))))
        raise UnfitError(
            f"{what} must be numbers or booleans, got {described(other)} among them"
        ) from None


def _number(value: Any) -> float:
    if isinstance(value, str):  # which `float` would read
        raise TypeError
    return float(value)


def labels(values: Any, what: str) -> array[int] | list[str]:
    """Ids or groups: whole numbers, or texts. Raises :class:`UnfitError` for None and NaN."""
    found = typed(values, what)
    if isinstance(found, array) and found.typecode == "q":
        return found  # type: ignore[return-value] # of integers
    if any(value is None or value != value for value in found):
        raise UnfitError(f"{what} must be given for each sample, got None or NaN among them")
    if isinstance(found, array) and all(map(float.is_integer, found)):
        return array("q", map(int, found))
    return list(map(str, found))


class Column:
    """Values of the rows so far: of the narrowest type that holds them all."""

    def __init__(self, values: Values) -> None:
        self.values: Values = values[:]

    def __len__(self) -> int:
        return len(self.values)

    def extend(self, values: Values) -> None:
        """Add the values of further rows."""
        codes = {_code(self.values), _code(values)}
        if len(codes) > 1 and len(self.values) and len(values):
            if codes == {"q", "d"}:
                self.values, values = array("d", self.values), array("d", values)
            else:
                self.values, values = list(self.values), list(values)
        elif not len(self.values):
            self.values, values = values[:], values[:0]
        self.values.extend(values)  # type: ignore[arg-type] # of one type by now

    def pad(self, count: int) -> None:
        """Add None for each row that is missing of so many."""
        if len(self.values) < count:
            self.extend([None] * (count - len(self.values)))

    def truncate(self, count: int) -> None:
        """Drop the rows after the first ``count``."""
        del self.values[count:]

    def array(self, count: int) -> Any:
        """The first ``count`` values as a NumPy array: of int64, float64 or objects."""
        return as_numpy(self.values, count)


def _code(values: Values) -> str:
    return values.typecode if isinstance(values, array) else "list"


def as_numpy(values: Values, count: int) -> Any:
    """The first ``count`` values as a NumPy array that shares no memory with them."""
    numpy = import_module("numpy")
    if isinstance(values, array):
        return numpy.array(values[:count], dtype="int64" if values.typecode == "q" else "float64")
    found = numpy.empty(count, dtype=object)
    found[:] = values[:count]
    return found


def described(value: object) -> str:
    """A value in an error's text: its type with its shape or length."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return f"a string of {len(value):,} character{'s' * (len(value) != 1)}"
    name, shape = type(value).__name__, getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{name} of shape {tuple(shape)}"
    return f"{name} of {len(value)}" if isinstance(value, (Sequence, Mapping)) else name
