"""Results that become metrics: of other libraries, with a value per step, and those refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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


def warn_of_refused(
    refused: Mapping[str, str],
    repeated: Collection[str] = (),
    booleans: Sequence[object] = (),
    stacklevel: int = 2,
) -> None:
    """Issue one warning for all results that are not metrics, or are most likely of samples.

    The latter are what several rows of a list have, ``repeated``, and lists of ``booleans``.
    """
    texts = [_of_refused(refused)] if refused else []
    if repeated:
        texts.append(
            f"{_named(sorted(repeated))}: several rows of a list have it, so no gate "
            "judges it; of rows that are samples `track_samples(rows, scores=…)` logs the mean"
        )
    if booleans:
        texts.append(
            f"{_named(booleans)}: a list of booleans is stored as one value for each step, and no "
            "gate judges it; of one value for each sample `track_samples` logs the mean"
        )
    if texts:
        warnings.warn("; ".join(texts), MetricWarning, stacklevel=stacklevel + 1)


def _of_refused(refused: Mapping[str, str]) -> str:
    (first, reason), *others = refused.items()
    verb = "were" if others[1:] else "was"
    more = f", and so {verb} {_named([name for name, _ in others])}" if others else ""
    return (
        f"the result {first!r} is no metric and was left out ({reason}){more}; give a number, a "
        "mapping or an array, or turn it into one with the hook pytest_armory_metrics"
    )


def lists_of_booleans(metrics: object, histories: Iterable[Any]) -> list[object]:
    """The names of the histories that are booleans: most likely one for each sample."""
    given = metrics if isinstance(metrics, Mapping) else {}
    return [name for name in histories if all(type(v).__name__ in _BOOLEANS for v in given[name])]


_BOOLEANS = ("bool", "bool_")


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
