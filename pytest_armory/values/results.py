"""The numbers and arrays in a result, and why the rest of it is neither."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any

from pytest_armory.values.describe import (
    Members,
    Refused,
    clip,
    describe,
    has_names,
    is_array,
    key_text,
    leaves,
    pairs_of,
    type_name,
)
from pytest_armory.values.params import legal_keys, unused
from pytest_armory.values.redaction import redact_text, visible

_ARRAY_DEPTH = 100  # NumPy allows 64 dimensions
_ARRAY_VALUES = 5_000_000  # written as JSON for one result


@dataclasses.dataclass(frozen=True)
class MetricValues:
    """The content of a result, by slash-joined legal keys in the order given.

    `numbers` are builtin floats, NaN and infinities among them. `arrays` are nested lists (a frame:
    a dictionary of columns) that JSON takes, with "NaN", "Infinity" and "-Infinity" as strings.
    `refused` says in a few words why a key is neither. `names` has each key as it was given.
    `repeated` are the numbers of the first of several mappings in a list that have them too.
    """

    numbers: dict[str, float]
    arrays: dict[str, Any]
    refused: dict[str, str]
    names: dict[str, str] = dataclasses.field(default_factory=dict, compare=False)
    repeated: set[str] = dataclasses.field(default_factory=set, compare=False)


def metric_values(
    results: object, *, convert: Callable[[object], object] | None = None
) -> MetricValues:
    """Numbers and arrays of any result; the rest is in `refused`. Never raises.

    `convert` is asked first about every foreign object at any depth: it returns a mapping, number
    or array in its place, or None for "not mine".
    """
    found = MetricValues({}, {}, {})
    known = functools.partial(_converted, convert=convert)
    left = [_ARRAY_VALUES]
    columns: set[str] = set()

    def look(key: str, value: Any) -> tuple[Any, Members]:
        value = known(value)
        columns.update(f"{key}/{name}" if key else name for name in _columns(value))
        return value, _metric_members(value, known)

    pairs = list(leaves(None, results, "/", look))
    names = legal_keys([key or "value" for key, _ in pairs])
    for name, (key, value) in zip(names, pairs, strict=True):
        found.names[name] = key or name
        try:
            plain = _plain(value, left)
            if issubclass(type(plain), (list, tuple, range, deque, dict)):
                found.arrays[name] = _json(plain, left, known)
            else:
                found.numbers[name] = _number(plain)
                if columns and _is_below(key, columns):
                    found.repeated.add(name)
        except Refused as why:
            found.refused[name] = str(why)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a foreign array may raise anything
            found.refused[name] = _reason(value, error)
    return found


def one_name(legal: str, first: str, other: str) -> str:
    """Why a metric is refused that MLflow would store under the name of another one."""
    return visible(f"{other!r} would be the metric {legal!r}, as {first!r} is; name it differently")


def _reason(value: object, error: BaseException) -> str:
    return clip(f"<{type_name(type(value))}>: {redact_text(describe(error))}", 200)


def _converted(value: Any, convert: Callable[[object], object] | None) -> Any:
    for _ in range(8):  # a converter that always returns something would otherwise never end
        kind = type(value)
        builtin = value is None or issubclass(
            kind, (numbers.Number, Decimal, str, bytes, Mapping, list, tuple, Refused)
        )
        if convert is None or (builtin and not hasattr(kind, "_fields")):
            return value
        try:
            replacement = convert(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's converter: its error is the reason
            return Refused(_reason(value, error))
        if replacement is None or replacement is value:
            return value
        value = replacement
    return value


def _metric_members(value: Any, known: Callable[[Any], Any]) -> Members:
    kind = type(value)
    if _is_series(kind):
        # An index of integers has no names: such a series is an array.
        return None if type(value.index).__name__ == "RangeIndex" else list(value.items())
    if not issubclass(kind, (list, tuple)) or has_names(kind):
        return pairs_of(value)
    items = [known(item) for item in value]
    if not any(has_names(item) or _is_series(item) for item in set(map(type, items))):
        return None
    return list(_numbered(items))


def _numbered(items: list[Any]) -> Iterator[tuple[int | None, Any]]:
    """The members of a list, each with its number if it has no names or an earlier one has them.

    So no name changes when a list grows, and the parts of one result need no number.
    """
    known: set[str] = set()
    for number, item in enumerate(items):
        names = {key_text(name, "/") for name in _names_of(item)}
        is_series = _is_series(type(item)) and names
        is_new = bool(is_series or has_names(type(item))) and not names & known
        yield (None if is_new else number), item
        known |= names


def _columns(value: Any) -> set[str]:
    """The names that several rows of a list have, if it is one of mappings."""
    if not issubclass(type(value), (list, tuple)) or hasattr(type(value), "_fields"):
        return set()
    if len(value) < 2 or not all(issubclass(type(row), Mapping) for row in value):
        return set()
    counts = Counter(key_text(name, "/") for row in value for name in _names_of(row))
    return {name for name, count in counts.items() if count > 1}


def _is_below(key: str, names: set[str]) -> bool:
    return any(start in names for start in accumulate(key.split("/"), "{}/{}".format))


def _names_of(value: Any) -> list[Any]:
    """The names of the members that a value has."""
    if _is_series(type(value)):
        return [] if type(value.index).__name__ == "RangeIndex" else list(value.index)
    return [name for name, _ in pairs_of(value) or ()]


def _is_series(kind: type) -> bool:
    named = all(hasattr(kind, name) for name in ("shape", "items", "index"))
    return named and not hasattr(kind, "columns")


def _plain(value: Any, left: list[int]) -> Any:
    """Builtins of an array, frame or 0-d array; anything else as it is."""
    if not is_array(value):
        return value
    if hasattr(type(value), "columns") and hasattr(type(value), "items"):
        used: dict[str, int] = {}
        return {unused(key_text(name, "/"), used): column for name, column in value.items()}
    if math.prod(value.shape) > left[0]:
        raise Refused(f"an array of shape {tuple(value.shape)}: too large")
    for step in ("detach", "cpu"):
        if hasattr(type(value), step):
            value = getattr(value, step)()
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):  # dates, durations
        if tuple(value.shape) == ():
            raise Refused(f"<{type_name(type(value))}>")
        value = value.astype(str)  # `.tolist()` of nanoseconds is bare integers
    if tuple(value.shape) == ():
        return value.item()
    return value.tolist()


def _number(value: Any) -> float:
    kind = type(value)
    if kind is Refused:
        raise value
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, (numbers.Real, Decimal)):
        try:
            return float(value)
        except OverflowError:
            raise Refused("too large for a float") from None
    if value is None:
        raise Refused("None")
    if issubclass(kind, str):
        raise Refused(f"a string: {clip(redact_text(str.__str__(value)), 60)!r}")
    raise Refused("a complex number" if issubclass(kind, complex) else f"<{type_name(kind)}>")


def _json(value: Any, left: list[int], known: Callable[[Any], Any], depth: int = 0) -> Any:
    """`value` as JSON's builtin types, at most `left` values; refuses other types."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else _INFINITE[repr(value)]
    if value is None or kind is bool or (kind is int and -(2**63) <= value < 2**64):
        return value
    if depth > _ARRAY_DEPTH:
        raise Refused("<nested too deep>")
    if kind is not list and (plain := _plain(known(value), left)) is not value:
        return _json(plain, left, known, depth + 1)
    pairs = None if kind is list else pairs_of(value)
    if pairs is not None:
        used: dict[str, int] = {}
        names = [unused(visible(key_text(name, "/")), used) for name, _ in pairs]
        inner = _json([item for _, item in pairs], left, known, depth + 1)
        return dict(zip(names, inner, strict=True))
    if issubclass(kind, (list, tuple, range, deque)):
        left[0] -= len(value)
        if left[0] < 0:
            raise Refused(f"more than {_ARRAY_VALUES:,} values in one result")
        return [_json(item, left, known, depth + 1) for item in value]
    if issubclass(kind, str):
        return visible(str.__str__(value))
    if issubclass(kind, (date, time, timedelta)):
        return str(value)
    return None if kind.__name__ == "NAType" else _json(_number(value), left, known, depth + 1)


def json_value(value: object) -> Any:
    """Any value as JSON's builtin types; what has no such form as a parameter's string."""
    try:
        return _json(value, [_ARRAY_VALUES], lambda member: member)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - the code of a value may raise anything
        return visible(describe(value))


_INFINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
