"""A digest of a value's content that is the same in every process, where a value has one."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from types import ModuleType
from typing import Any
from uuid import UUID

from pytest_armory.values.describe import type_name

_BY_REPR = (
    *(type(None), bool, int, float, complex, str, bytes, range, type(...)),
    *(date, time, timedelta, Decimal, Fraction, UUID, PurePath),
)
"""Types whose ``repr`` is all of their value."""

_DEPTH = 32


class UnstableError(ValueError):
    """A value whose content cannot be told apart from its identity."""


def stable_digest(value: object) -> str | None:
    """Sixteen hexadecimal digits for a value's content; None if that has no stable form.

    Scalars, paths, enumerations, containers and dataclasses by what they hold; arrays, tensors and
    frames by their content; functions and classes by name, for their code is in a file.
    """
    try:
        digest = hashlib.blake2b(digest_size=8)
        for part in _parts(value, 0):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()
    except Exception:  # noqa: BLE001 - a foreign property may raise anything; then it is not stable
        return None


def _parts(value: object, depth: int) -> Iterator[bytes]:
    """Bytes that only an equal value of the same type has."""
    if depth > _DEPTH:
        raise UnstableError
    kind = type(value)
    yield type_name(kind).encode()
    if isinstance(value, Enum):
        yield value.name.encode()
    elif isinstance(value, _BY_REPR) and not hasattr(value, "dtype"):  # NumPy has subclasses
        # A subclass may have state that its repr does not show.
        if kind not in _BY_REPR and not isinstance(value, PurePath | date):
            raise UnstableError
        yield repr(value).encode("utf-8", "surrogatepass")
    elif isinstance(value, Mapping):
        items = [_joined([key, item], depth) for key, item in value.items()]
        yield from items if kind is dict else sorted(items)
    elif isinstance(value, (set, frozenset)):
        yield from sorted(_joined([item], depth) for item in value)
    elif isinstance(value, (list, tuple)):
        yield _joined(list(value), depth)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
        yield _joined([part for member in members for part in member], depth)
    else:
        yield from _other_parts(value, depth)


def _joined(values: list[Any], depth: int) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        for part in (b"value", *_parts(value, depth + 1)):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _other_parts(value: Any, depth: int) -> Iterator[bytes]:
    name = getattr(value, "__qualname__", None)
    owner = getattr(value, "__self__", None)  # of a built-in function its module
    if callable(value) and isinstance(name, str) and isinstance(owner, ModuleType | None):
        if "<lambda>" in name or "<locals>" in name:
            raise UnstableError
        yield f"{value.__module__}.{name}".encode()
    elif hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor, on whatever device
        yield _joined(_content_of_tensor(value.detach().cpu()), depth)
    elif hasattr(value, "to_numpy") and hasattr(value, "index"):  # a frame or a series
        columns = list(value.columns) if hasattr(value, "columns") else [value.name]
        arrays = [value[one].to_numpy() for one in columns] if hasattr(value, "columns") else []
        arrays = arrays or [value.to_numpy()]
        yield _joined([columns, value.index.to_numpy(), *arrays], depth)
    elif hasattr(value, "tobytes") and hasattr(value, "dtype"):
        if value.dtype.hasobject:
            yield _joined([value.shape, value.tolist()], depth)
        else:
            yield _joined([str(value.dtype), value.shape, value.tobytes()], depth)
    else:
        raise UnstableError


def _content_of_tensor(tensor: Any) -> list[Any]:
    try:
        return [tensor.numpy()]
    except TypeError:
        if not tensor.is_floating_point():
            raise
    # NumPy has no bfloat16, nor floats of 8 bits; all of their values are in 32 bits, too.
    return [str(tensor.dtype), tensor.float().numpy()]
