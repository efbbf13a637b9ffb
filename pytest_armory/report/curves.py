"""Curves over a numeric parameter that evaluations of one test differ in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_armory.report.details import Entry
from pytest_armory.report.rows import chief_of, gated_metrics
from pytest_armory.report.trend import is_drawn

FEWEST = 3
"""The fewest points of a curve."""


@dataclass(frozen=True)
class Curve:
    """A metric of one test over a parameter: for each of the others' values, points (x, y)."""

    test: str
    parameter: str
    metric: str
    series: Mapping[str, Sequence[tuple[float, float]]]


def curves(entries: Sequence[Entry]) -> list[Curve]:
    """A curve for each test of which evaluations differ in one numeric parameter."""
    tests: dict[str, list[Entry]] = {}
    for entry in entries:
        tests.setdefault(entry.record.nodeid.partition("[")[0], []).append(entry)
    found = (_curve(test, group) for test, group in tests.items() if len(group) >= FEWEST)
    return [curve for curve in found if curve is not None]


def _curve(test: str, entries: Sequence[Entry]) -> Curve | None:
    gated = gated_metrics([entry.record for entry in entries])
    chief = (name for entry in entries for name in chief_of(entry.record, gated=gated))
    metric = next(chief, None)
    if metric is None:
        return None
    group = [e for e in entries if is_drawn(e.record.metrics.get(metric))]
    differing = _differing(group)
    for parameter in sorted(differing, key=lambda name: ("." in name, name)):
        if len({_number(entry.params.get(parameter)) for entry in group} - {None}) < FEWEST:
            continue
        others = _independent(group, parameter, differing)
        series = _series(group, parameter, metric, others)
        if series:
            return Curve(test, parameter, metric, series)
    return None


def _differing(entries: Sequence[Entry]) -> list[str]:
    names = dict.fromkeys(name for entry in entries for name in entry.params)
    return [name for name in names if len({entry.params.get(name) for entry in entries}) > 1]


def _follows(entries: Sequence[Entry], name: str, parameter: str) -> bool:
    """Whether a parameter is determined by another, as that of a call that takes it."""
    pairs = {(entry.params.get(parameter), entry.params.get(name)) for entry in entries}
    return len(pairs) == len({first for first, _ in pairs})


def _independent(entries: Sequence[Entry], parameter: str, names: Sequence[str]) -> list[str]:
    """The other parameters that neither the first one nor an earlier one of them determines."""
    kept: list[str] = []
    for name in sorted(set(names) - {parameter}, key=lambda name: ("." in name, name)):
        if not any(_follows(entries, name, known) for known in (parameter, *kept)):
            kept.append(name)
    return kept


def _series(
    entries: Sequence[Entry], parameter: str, metric: str, others: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for entry in entries:
        x = _number(entry.params.get(parameter))
        if x is not None:
            label = ", ".join(f"{n}={_short(entry.params.get(n, ''))}" for n in others)
            found.setdefault(label, []).append((x, entry.record.metrics[metric]))
    several = {label: sorted(points) for label, points in found.items() if len(points) >= FEWEST}
    return {k: v for k, v in several.items() if len({x for x, _ in v}) == len(v)}


def _short(value: str) -> str:
    """The last part of a qualified name; any other value as it is."""
    is_qualified = re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value)
    return value.rpartition(".")[2] if is_qualified else value


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if is_drawn(value) else None
