"""Validation of untrusted JSON: the only module that parses what anyone may have written.

A reader takes any JSON value and returns it with its type, or raises :class:`UnreadableError`,
whose text continues the sentence "it …" and does not quote the value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from json import dumps as dumps  # for modules that are first imported in a test, which may patch it
from json import loads
from sys import intern
from typing import Any, TypeVar

T = TypeVar("T")
Reader = Callable[[object], T]

LARGEST_COUNT = 2**53
"""The largest integer up to which floats, as which MLflow stores counts, are exact."""


class UnreadableError(ValueError):
    """Why something cannot be read, in a few words."""


def json_value(text: str | bytes) -> object:
    """The value of a JSON text; NaN and infinities are accepted by their JavaScript names."""
    try:
        value: object = loads(text)
    except RecursionError:
        raise UnreadableError("is nested too deeply") from None
    except ValueError:
        raise UnreadableError("is not JSON") from None
    return value


def read_text(reader: Reader[T], text: str | bytes) -> tuple[T | None, str]:
    """What a reader makes of a JSON text, or None; and why it cannot be read, as "it …"."""
    try:
        return reader(json_value(text)), ""
    except UnreadableError as error:
        return None, f"it {error}"


def anything(value: object) -> object:
    """Any value."""
    return value


def string(value: object) -> str:
    """A string."""
    if isinstance(value, str):
        return value
    raise UnreadableError("is not a string")


def shared_string(value: object) -> str:
    """A string that many records have, or other parts of their session: one object for all."""
    return intern(string(value))


def boolean(value: object) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise UnreadableError("is neither true nor false")


def number(value: object) -> float:
    """A number as a float, NaN and infinities among them."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UnreadableError("is not a number")
    try:
        return float(value)
    except OverflowError:
        raise UnreadableError("is too large a number") from None


def count(value: object) -> int:
    """A non-negative integer; ``2.0`` is accepted, since MLflow stores floats."""
    value = number(value)
    if 0 <= value <= LARGEST_COUNT and value == int(value):
        return int(value)
    raise UnreadableError("is not a count")


MOST_TESTS = 10_000_000
"""More than pytest can collect."""


def tests(value: object) -> int:
    """A number of tests; what no session can have is none."""
    number = count(value)
    if number > MOST_TESTS:
        raise UnreadableError("is more tests than a session can have")
    return number


def optional(reader: Reader[T]) -> Reader[T | None]:
    """What another reader accepts, or null."""
    return lambda value: None if value is None else reader(value)


def one_of(choices: Collection[str]) -> Reader[str]:
    """One of a few strings."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise UnreadableError(f"is none of {', '.join(choices)}")

    return read


def list_of(reader: Reader[T]) -> Reader[tuple[T, ...]]:
    """A JSON array as a tuple."""

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise UnreadableError("is not a list")
        return tuple(_part("an item", reader, item) for item in value)

    return read


def mapping_of(reader: Reader[T]) -> Reader[dict[str, T]]:
    """A JSON object whose members are all of one type."""

    def read(value: object) -> dict[str, T]:
        items = _members(value).items()
        # A session keeps the records of thousands of tests, whose metrics have the same names.
        return {intern(name): _part("a member", reader, item) for name, item in items}

    return read


def instance_of(
    kind: Callable[..., T], readers: Mapping[str, Reader[Any]], required: Collection[str] = ()
) -> Reader[T]:
    """A JSON object as an instance of a dataclass; members that it has no field for are ignored.

    ``required`` are fields that must be present although they have a default.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    needed = {name for name in fields if name in required or not _has_default(fields[name])}
    read_members = members_of({name: readers[name] for name in fields}, needed)
    return lambda value: kind(**read_members(value))


def members_of(
    readers: Mapping[str, Reader[Any]], required: Collection[str] = ()
) -> Reader[dict[str, Any]]:
    """The members of a JSON object that have a reader, those that are there; others are ignored."""

    def read(value: object) -> dict[str, Any]:
        members = _members(value)
        for name in readers:
            if name in required and name not in members:
                raise UnreadableError(f"has no field {name}")
        given = {name: members[name] for name in readers if name in members}
        return {n: _part(f"a field {n}", readers[n], item) for n, item in given.items()}

    return read


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _members(value: object) -> dict[str, object]:
    if isinstance(value, dict):
        return value
    raise UnreadableError("is not an object")


def _part(name: str, reader: Reader[T], value: object) -> T:
    try:
        return reader(value)
    except UnreadableError as error:
        raise UnreadableError(f"has {name} that {error}") from None


# Reading without raising


def read_tag(
    tags: Mapping[str, str], name: str, reader: Reader[T], problems: list[str]
) -> T | None:
    """The value of a tag that is JSON; see :func:`read_json`."""
    return read_json(f"the tag {name}", reader, tags.get(name, ""), problems)


def read_json(what: str, reader: Reader[T], text: str, problems: list[str]) -> T | None:
    """The value of a JSON text; None if it is empty or cannot be read: see :func:`read_value`."""
    if not text:
        return None
    return read_value(what, lambda text: reader(json_value(str(text))), text, problems)


def read_optional(what: str, reader: Reader[T], value: object, problems: list[str]) -> T | None:
    """A validated value; None if there is none, or it is invalid: see :func:`read_value`."""
    return None if value is None else read_value(what, reader, value, problems)


def read_value(what: str, reader: Reader[T], value: object, problems: list[str]) -> T | None:
    """A validated value; None for an invalid one, with a sentence in ``problems``.

    ``what`` is the subject of the sentence.
    """
    try:
        return reader(value)
    except UnreadableError as error:
        problems.append(f"{what} cannot be read: it {error}")
        return None
