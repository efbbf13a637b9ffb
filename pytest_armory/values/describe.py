"""A value as a short string, and the named members of values that have them."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from types import ModuleType
from typing import Any
from uuid import UUID

from pytest_armory.values.redaction import REDACTED, hides

_REPR_LIMIT = 2_000  # of an object known only by its repr; some print whole networks
_NESTED_TEXT = 20_000  # of one string inside a list: a hundred documents must not make 100 MB
_MEMBERS = (100, 20, 10)  # described at each depth of nesting; their product bounds the work
_DEPTH = 32  # of mappings in mappings
_OPENED = 10_000  # mappings flattened in one call: a shared one doubles at each level


def describe(value: object) -> str:
    """One value as a short string; raises nothing but Ctrl-C's, whatever the value.

    Scalars, strings and paths as they are, a string uncut however long; arrays and frames by
    type, shape and dtype; callables by qualified name; containers as far as they are short.
    `<module.Type>` for whatever has no stable, reasonable `repr`.
    """
    return _describe(value, 0)


def _describe(value: object, depth: int) -> str:
    try:
        for text_of in (_scalar_text, _callable_text, _members_text, _array_text):
            if (text := text_of(value, depth)) is not None:
                return text
        text = str.__str__(repr(value))
        if len(text) <= _REPR_LIMIT and " at 0x" not in text and " id='" not in text:
            return " ".join(map(str.strip, text.splitlines())) if "\n" in text else text
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a foreign repr or property may raise anything
        return f"<{type_name(type(value))}>"
    return f"<{type_name(type(value))}>"


def type_name(kind: type) -> str:
    # Not through the metaclass, which may return anything, or raise.
    name: str = vars(type)["__qualname__"].__get__(kind)
    try:
        module = vars(type)["__module__"].__get__(kind)
    except AttributeError:
        return name
    if not isinstance(module, str) or module == "builtins":
        return name
    # pandas moved its classes' `__module__` from pandas.core.* between versions.
    return f"{'pandas' if module.startswith('pandas.') else module}.{name}"


def _scalar_text(value: Any, depth: int) -> str | None:
    kind = type(value)
    if value is None or kind is bool or kind is Refused:
        return str(value)
    if issubclass(kind, Enum) and value.name:
        return f"{kind.__qualname__}.{value.name}"
    if issubclass(kind, str):
        text = str.__str__(value)
        return repr(clip(text, _NESTED_TEXT)) if depth else text
    if issubclass(kind, (bytes, bytearray)):
        return repr(value) if len(value) <= 100 else f"{kind.__qualname__}({len(value):,} bytes)"
    for builtin in (int, float):  # their subclasses may have any `repr`
        if issubclass(kind, builtin):
            return builtin.__repr__(value)
    if issubclass(kind, (numbers.Number, Decimal, date, time, timedelta, PurePath, UUID)):
        return str(value)
    return None


def _callable_text(value: Any, depth: int) -> str | None:
    kind = type(value)
    if issubclass(kind, type):
        return type_name(value)
    if issubclass(kind, ModuleType):
        return str(value.__name__)
    if issubclass(kind, functools.partial):
        called = [_describe(item, depth + 1) for item in (value.func, *value.args)]
        return f"partial({', '.join([*called, *_named_texts(value.keywords.items(), depth)])})"
    name = getattr(value, "__qualname__", None) if callable(value) else None
    if type(name) is not str:
        return None
    module = getattr(value, "__module__", None)
    return f"{module}.{name}" if type(module) is str and module != "builtins" else name


def _members_text(value: Any, depth: int) -> str | None:
    kind = type(value)
    pairs = pairs_of(value)
    if pairs is None and not issubclass(kind, (list, tuple, set, frozenset, deque)):
        return None
    size = len(value if pairs is None else pairs)
    most = _MEMBERS[depth] if depth < len(_MEMBERS) else 0
    if issubclass(kind, (set, frozenset)):
        # Sorted, because the order of strings in a set differs between processes.
        texts = sorted(_describe(item, depth + 1) for item in value) if size <= most else []
    elif pairs is None:
        texts = [_describe(item, depth + 1) for item in islice(value, most)]
    elif issubclass(kind, Mapping):
        texts = [
            f"{_describe(name, depth + 1)}: {_member_text(name, item, depth)}"
            for name, item in pairs[:most]
        ]
    else:
        texts = _named_texts(pairs[:most], depth)
    if size > len(texts):
        texts.append(f"… {size - len(texts):,} more")
    inner = ", ".join(texts)
    if pairs is not None:
        return f"{{{inner}}}" if issubclass(kind, Mapping) else f"{kind.__qualname__}({inner})"
    if issubclass(kind, tuple):
        return f"({inner},)" if size == 1 and texts else f"({inner})"
    if issubclass(kind, (set, frozenset)):
        text = f"{{{inner}}}" if size else ""
        return text if kind is set and size else f"{kind.__qualname__}({text})"
    return f"[{inner}]"


def _named_texts(pairs: Any, depth: int) -> list[str]:
    return [f"{name}={_member_text(name, item, depth)}" for name, item in pairs]


def _member_text(name: object, item: object, depth: int) -> str:
    return REDACTED if hides(describe(name), item) else _describe(item, depth + 1)


def _array_text(value: Any, depth: int) -> str | None:
    if not is_array(value):
        return None
    shape, dtype = tuple(value.shape), getattr(value, "dtype", None)
    if shape == () and getattr(dtype, "kind", "") in ("m", "M"):
        return str(value)  # `.item()` of a date in nanoseconds is a bare integer
    if shape == ():
        item = value.item()
        return str(value) if type(item) is type(value) else _describe(item, depth)
    parts = [f"shape={shape}"]
    columns = next((n for n in ("column_names", "columns") if hasattr(type(value), n)), None)
    if columns:
        parts.append(f"columns={_describe(list(getattr(value, columns)), depth)}")
    elif dtype is not None:
        name = getattr(dtype, "name", None)
        parts.append(f"dtype={name if name else str(dtype).removeprefix('torch.')}")
    # NumPy's is always the word "cpu"; a frame's or a series' may be a column.
    if hasattr(type(value), "device") and not isinstance(value.device, str):
        parts.append(f"device={value.device}")
    return f"{type_name(type(value))}({', '.join(parts)})"


def is_array(value: Any) -> bool:
    """Has a shape that is really a tuple of integers, and what goes with one."""
    if not hasattr(type(value), "shape") and "shape" not in getattr(value, "__dict__", ()):
        return False
    shape = value.shape
    return (
        issubclass(type(shape), tuple)
        and all(type(length) is int for length in shape)
        and any(hasattr(value, name) for name in ("dtype", "tolist", "columns", "column_names"))
    )


def head_and_tail(text: str, limit: int) -> str:
    """`text`; if it has more than `limit` characters, its start and end, with a line between."""
    if len(text) <= limit:
        return text
    half = limit // 2
    left_out = f"\n\n[… {len(text) - 2 * half:,} characters are left out here …]\n\n"
    return f"{text[:half]}{left_out}{text[-half:]}"


def clip(text: str, limit: int, length: int = 0) -> str:
    """`text` in at most `limit` characters; if cut, the end says how many are missing.

    `length` is its length where `text` is only the start of it.
    """
    length = max(length, len(text))
    if length <= limit:
        return text
    kept = limit - len(f"… [{length:,} characters more]")
    if kept < 0:
        return "…"[:limit]
    return f"{text[:kept]}… [{length - kept:,} characters more]"


# --- Values with named members -----------------------------------------------------------------


Members = list[tuple[Any, Any]] | None


def has_names(kind: type) -> bool:
    return (
        issubclass(kind, Mapping)
        or dataclasses.is_dataclass(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
        or _declared(kind) is not None
    )


def _declared(kind: type) -> list[str] | None:
    """The names of the fields of an attrs class or a pydantic model; None for other types."""
    attributes = getattr(kind, "__attrs_attrs__", None)
    if isinstance(attributes, tuple):
        return [attribute.name for attribute in attributes]
    if hasattr(kind, "__pydantic_validator__") and issubclass(type(kind.model_fields), dict):  # type: ignore[attr-defined] # pydantic's
        return list(kind.model_fields)  # type: ignore[attr-defined] # pydantic's
    # Of pydantic 1, or pydantic.v1; models of pydantic 2 warn where they are asked for these.
    fields = getattr(kind, "__fields__", None) if hasattr(kind, "__pre_root_validators__") else None
    return list(fields) if isinstance(fields, dict) else None


def pairs_of(value: Any) -> Members:
    """Names and members of what is a mapping or has declared fields; None for others.

    That is a dataclass instance, a namedtuple, an attrs class's or a pydantic model.
    """
    kind = type(value)
    if not has_names(kind):
        return None
    if issubclass(kind, Mapping):
        return list(islice(value.items(), len(value)))  # its iterator may be infinite
    if dataclasses.is_dataclass(kind):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(kind)]
    if issubclass(kind, tuple):
        return list(zip(value._fields, value, strict=True))
    names = dict.fromkeys((*(_declared(kind) or ()), *_extra_fields(value)))
    return [*((name, getattr(value, name)) for name in names), *_computed_fields(value)]


def _extra_fields(value: Any) -> Mapping[str, Any]:
    """The fields of a pydantic model that are declared nowhere."""
    extra = getattr(value, "__pydantic_extra__", None)
    if extra is None and hasattr(type(value), "__pre_root_validators__"):
        extra = vars(value)
    return extra or {}


def _computed_fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The computed fields of a pydantic model; one that raises does not take the others with it."""
    decorators = getattr(type(value), "__pydantic_decorators__", None)
    for name in getattr(decorators, "computed_fields", ()):
        try:
            yield name, getattr(value, name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a foreign property may raise anything
            yield name, Refused(f"<{type_name(type(error))}>")


class Refused(Exception):  # noqa: N818 - also handed on as a value: why there is none
    pass


def leaves(
    key: str | None,
    value: Any,
    joint: str,
    look: Callable[[str, Any], tuple[Any, Members]],
    path: tuple[int, ...] = (),
    room: Iterator[int] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Joined key and value of all that `look` does not open, depth first and in order."""
    room = iter(range(_OPENED)) if room is None else room
    try:
        value, members = look(key or "", value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - where members cannot be read, their owner's type stands for them
        members = None
    if members is None:
        yield key or "", value
    elif id(value) in path:
        yield key or "", Refused("<cycle>")
    elif len(path) >= _DEPTH or next(room, None) is None:
        yield key or "", Refused("<nested too deep>")
    else:
        for name, member in members:
            inner = key if name is None else key_text(name, joint)
            if key is not None and name is not None:
                inner = f"{key}{joint}{inner}"
            yield from leaves(inner, member, joint, look, (*path, id(value)), room)


def key_text(name: Any, joint: str) -> str:
    return joint.join(map(describe, name)) if type(name) is tuple else describe(name)
