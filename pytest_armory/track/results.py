"""Results that become metrics: of other libraries, with a value per step, and those refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

from pytest_armory.errors import MetricWarning

_converters: list[Callable[[object], object]] = []


def convert_result(value: object) -> object:
    """What a ``pytest_armory_metrics`` hook makes of another library's result, or None."""
    for converter in _converters:
        converted = converter(value)
        if converted is not None:
            return converted
    return None


@contextmanager
def converting(converter: Callable[[object], object]) -> Iterator[None]:
    """Ask ``converter`` about results of unknown types meanwhile."""
    _converters.append(converter)
    try:
        yield
    finally:
        _converters.remove(converter)


def warn_of_refused(refused: Mapping[str, str], stacklevel: int = 2) -> None:
    """Issue one warning for all results that are not metrics."""
    if not refused:
        return
    (first, reason), *others = refused.items()
    more = f", nor {'are' if others[1:] else 'is'} {_named([name for name, _ in others])}" * bool(
        others
    )
    advice = _OF_ROWS if any(map(_IN_ROW, refused)) else ""
    warnings.warn(
        f"the result {first!r} is no metric and was left out: {reason}{more}; give a number, a "
        "mapping or an array, or turn it into one with the hook pytest_armory_metrics" + advice,
        MetricWarning,
        stacklevel=stacklevel + 1,
    )


def warn_of_booleans(metrics: object, histories: Iterable[str], stacklevel: int = 2) -> None:
    """Issue one warning for all lists of booleans: most likely one for each sample."""
    given = metrics if isinstance(metrics, Mapping) else {}
    names = [name for name in histories if all(type(v).__name__ in _BOOLEANS for v in given[name])]
    if names:
        warnings.warn(
            f"{_named(names)}: a list of booleans is stored as one value for each step, and no "
            "gate judges it; of one value for each sample `track_samples` logs the mean",
            MetricWarning,
            stacklevel=stacklevel + 1,
        )


_BOOLEANS = ("bool", "bool_")

_IN_ROW = re.compile(r"(^|/)\d+/").search

_OF_ROWS = "; of a list of rows, log the mean of each column"


def _named(names: Sequence[object]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(map(repr, names[:3]))}{more}"


def step_histories(metrics: object) -> dict[Any, list[float]]:
    """Armory's form of a metric with several values: a list or tuple of plain numbers."""
    if not isinstance(metrics, Mapping):
        return {}
    found = {
        name: [_number(value) for value in values]
        for name, values in metrics.items()
        if isinstance(values, list | tuple)
    }
    return {
        name: [number for number in numbers if number is not None]
        for name, numbers in found.items()
        if numbers and None not in numbers
    }


def _number(value: Any) -> float | None:
    if getattr(value, "shape", None) == ():  # a scalar of NumPy or torch
        value = value.item()
    try:
        return float(value) if isinstance(value, Real) else None
    except OverflowError:
        return None
