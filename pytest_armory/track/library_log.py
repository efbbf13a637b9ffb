"""Writing the results of other libraries to a run: their metrics, and their samples as rows."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Mapping
from typing import Any

from pytest_armory.errors import MetricWarning
from pytest_armory.tables import UnfitError
from pytest_armory.track.libraries import without_library_results
from pytest_armory.track.libraries.result import LibraryResult, ResultSamples, mean
from pytest_armory.track.results import convert_result, warn_of_refused
from pytest_armory.track.writer import RunWriter
from pytest_armory.values import MetricValues, legal_key, metric_values

_COUNTS = ("samples", "errors")
"""Metrics that results of several libraries have, so that nothing is reported of it."""


def log_library_results(
    writer: RunWriter, metrics: Any, step: int | None, stacklevel: int = 2
) -> Any:
    """Write the results of libraries in ``metrics``; returns the rest.

    With a step only metrics are written. What cannot be is a :class:`MetricWarning`.
    """
    rest, results = without_library_results(metrics, convert_result)
    for result in results:
        values = metric_values(result.metrics, convert=convert_result)
        warn_of_refused(values.refused, stacklevel=stacklevel + 1)
        if result.note:
            text = f"{result.source!r}: {result.note}"
            warnings.warn(text, MetricWarning, stacklevel=stacklevel + 1)
        if step is None:
            _log(writer, result, values, stacklevel + 1)
        else:
            writer.log_results(values.numbers, values.arrays, step, names=values.names)
    return rest


def _log(writer: RunWriter, result: LibraryResult, values: MetricValues, stacklevel: int) -> None:
    parts = [part.renamed(_other_names(part, values.numbers)) for part in result.samples]
    means = metric_values({n: mean(v) for part in parts for n, v in part.scores.items()})
    known = {values.names[n] for n in values.numbers}
    missing = {
        n: v
        for n, v in means.numbers.items()
        if means.names[n] not in known and v == v and not result.is_partial
    }
    for part in parts:
        try:
            _keep(writer, result.source, part)
        except UnfitError as error:
            warnings.warn(
                f"the samples of {result.source!r} were not kept: {error}",
                MetricWarning,
                stacklevel=stacklevel + 1,
            )
    taken = writer.log_evaluation(
        result.source,
        {**values.numbers, **missing},
        values.arrays,
        {**{n: means.names[n] for n in missing}, **values.names},
        is_partial=result.is_partial,
    )
    shared = {name: other for name, other in taken.items() if name not in _COUNTS}
    if shared:
        name, (first, key) = next(iter(shared.items()))
        warnings.warn(
            f"{first!r} and {result.source!r} of one run both measured "
            f"{', '.join(map(repr, shared))}: {name!r} is that of {first!r}, and that of "
            f"{result.source!r} is stored as {key!r}; give each a name, as "
            "in track_metrics({'first': …, 'second': …})",
            MetricWarning,
            stacklevel=stacklevel + 1,
        )


def _keep(writer: RunWriter, source: str, part: ResultSamples) -> None:
    """Keep samples. Raises :class:`UnfitError`."""
    rows = writer.open_samples(
        source, list(part.scores), part.dataset or source, part.higher_is_worse
    )
    rows.add(
        {name: array("d", values) for name, values in part.scores.items()},
        ids=part.ids,
        groups=part.groups,
        columns=part.columns,
    )


def _other_names(part: ResultSamples, numbers: Mapping[str, float]) -> dict[str, str]:
    """Other names for scores whose mean is not the metric of that name: gates compare both."""
    means = {name: mean(values) for name, values in part.scores.items()}
    return {
        name: f"{name}/per_sample"
        for name, value in means.items()
        if abs(numbers.get(legal_key(name), value) - value) > 1e-6 * max(1.0, abs(value))
    }
