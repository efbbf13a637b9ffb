"""Results that become metrics: of other libraries, with a value per step, and those refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
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
    """Issue a warning for every result that is not a metric."""
    for name, reason in refused.items():
        warnings.warn(
            f"the result {name!r} is no metric and was left out: {reason}; give a number, a "
            "mapping or an array, or turn it into one with the hook pytest_armory_metrics",
            MetricWarning,
            stacklevel=stacklevel + 1,
        )


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
