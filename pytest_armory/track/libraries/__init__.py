"""Results of other libraries as metrics and samples, by duck type: none of them is imported.

One file for each family of libraries. Each has a function ``read(value)`` that returns a
:class:`~pytest_armory.track.libraries.result.LibraryResult`, or None for what is not theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Number
from typing import Any

from pytest_armory.track.libraries import (
    harness_results,
    inspect_logs,
    judged_results,
    mlflow_results,
    trainer_results,
)
from pytest_armory.track.libraries.result import LibraryResult
from pytest_armory.values import Refused

_READERS: tuple[Callable[[Any], LibraryResult | None], ...] = (
    inspect_logs.read,
    harness_results.read,
    mlflow_results.read,
    trainer_results.read,
    judged_results.read,
)

_DEPTH = 3


def without_library_results(
    value: Any, convert: Callable[[object], object], name: str = "", depth: int = 0
) -> tuple[Any, list[LibraryResult]]:
    """A value without the results of libraries in it, and these, prefixed by the keys of mappings.

    A value that is such a result itself, or a list of them, as Inspect's ``eval()`` returns, leaves
    an empty mapping. ``convert`` is asked first, so that a user may say otherwise. What looks like
    a result and cannot be read has one refused metric.
    """
    if isinstance(value, Number) or value is None:
        return value, []
    result = _read(_converted(value, convert))
    if result is not None:
        return {}, [result.prefixed(name) if name else result]
    if isinstance(value, (list, tuple)):
        results = _each_read(value, convert)
        return ({} if results else value), [r.prefixed(name) if name else r for r in results]
    if not isinstance(value, Mapping) or depth == _DEPTH:
        return value, []
    found: list[LibraryResult] = []
    rest: dict[Any, Any] = {}
    for key, member in value.items():
        inner = f"{name}/{key}" if name else str(key)
        left, results = without_library_results(member, convert, inner, depth + 1)
        found += results
        if not results or left:
            rest[key] = left
    return (rest if found else value), found


def _each_read(values: Sequence[Any], convert: Callable[[object], object]) -> list[LibraryResult]:
    """The results that a list has for members; none if one of them is anything else.

    The second one of a source, such as one task by two models, is another source, ``{source} 2``.
    """
    results: list[LibraryResult] = []
    counts: Counter[str] = Counter()
    for value in values:
        is_plain = value is None or isinstance(value, (Number, str, list, tuple))
        result = None if is_plain else _read(_converted(value, convert))
        if result is None:
            return []
        counts[result.source] += 1
        number = counts[result.source]
        results.append(
            replace(result, source=f"{result.source} {number}") if number > 1 else result
        )
    return results


def _converted(value: object, convert: Callable[[object], object]) -> object:
    if isinstance(value, (Mapping, list, tuple, str)):
        return value
    try:
        found = convert(value)
    except Exception:  # noqa: BLE001 - it is asked again for metrics, and its error reported
        return None
    return value if found is None else found


def _read(value: Any) -> LibraryResult | None:
    for read in _READERS:
        try:
            found = read(value)
        except Exception as error:  # noqa: BLE001 - of another version of the library, say
            kind, text = type(value).__name__, f"{type(error).__name__}: {error}"
            return LibraryResult(kind, {kind: Refused(f"cannot be read as such a result: {text}")})
        if found is not None:
            return found
    return None
