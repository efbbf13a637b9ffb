"""Metrics of the current run: results, durations, and system metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from pytest_armory.errors import ArmoryUsageError, TrackingError, TrackingWarning
from pytest_armory.track.context import current_run
from pytest_armory.track.library_log import log_library_results
from pytest_armory.track.results import (
    convert_result,
    lists_of_booleans,
    step_histories,
    warn_of_refused,
)
from pytest_armory.values import metric_values

ENGINE_TIMES = ("data", "perturb", "predict", "metrics", "total")
"""The durations that the engine measures itself."""


def track_metrics(metrics: Any, step: int | None = None) -> None:
    """Store results as metrics of the current run; outside every evaluation nothing happens.

    Takes numbers of Python, NumPy and torch, nested mappings (joined by slashes), a list of
    mappings, torchmetrics' and scikit-learn's results, pandas Series, dataclasses. ``{name: list or
    tuple of numbers}`` is a metric with one value per step, unless ``step`` is given; an array
    becomes ``metrics/<name>.json``. No gate judges a list or an array, nor what several rows of a
    list have; one value or row for each sample is for :func:`track_samples`.
    Results of Inspect (or the path of a log), lm-evaluation-harness, MLflow, Lightning, Hugging
    Face's Trainer, deepeval and ragas are taken as they are, with their samples; in a mapping, its
    keys come before their names. What is none of these is left out with a :class:`MetricWarning`.
    """
    run = current_run()
    if run is None:
        return
    if not _are_numbers(metrics):
        metrics = log_library_results(run.writer, metrics, step)
    histories = step_histories(metrics) if step is None else {}
    rest = {k: v for k, v in metrics.items() if k not in histories} if histories else metrics
    values = metric_values(rest, convert=convert_result)
    warn_of_refused(values.refused, values.repeated, lists_of_booleans(metrics, histories))
    run.writer.log_results(
        values.numbers, values.arrays, step or 0, histories, values.names, values.repeated
    )


def _are_numbers(metrics: Any) -> bool:
    """Whether it is a mapping of numbers, in which there is nothing to look for."""
    return isinstance(metrics, Mapping) and all(
        type(value) in (float, int, bool) for value in metrics.values()
    )


@contextmanager
def measure(name: str) -> Iterator[None]:
    """Store the seconds spent inside as the metric ``time/{name}_seconds`` of the current run.

    Wall-clock time, in one request at the end; several times with one name in a run add up. Nothing
    is stored outside every evaluation, nor if an exception leaves it. Raises
    :class:`ArmoryUsageError` for a name of the engine's own durations, such as ``predict``.
    """
    if not isinstance(name, str) or not name:
        raise ArmoryUsageError(
            f"measure: the name must be a string that is not empty, got {name!r}"
        )
    if name.partition("/")[0] in ENGINE_TIMES:
        raise ArmoryUsageError(
            f"measure: the metric time/{name}_seconds is the engine's own, which measures it by "
            f"itself; take another name than {name!r}"
        )
    begun = perf_counter()
    yield
    elapsed = perf_counter() - begun
    run = current_run()
    if run is not None:
        total = run.writer.measured[name] = run.writer.measured.get(name, 0.0) + elapsed
        track_metrics({f"time/{name}_seconds": total})


@contextmanager
def track_system_metrics(run_id: str | None) -> Iterator[None]:
    """Store CPU, memory, disk and network use (and GPU use with ``pynvml``) with a run, inside.

    Nothing happens without a run id. If something cannot be monitored, a :class:`TrackingWarning`
    is issued.
    """
    from pytest_armory.store.monitor import system_metrics

    if not run_id:
        yield
        return
    stop = None
    try:
        stop = system_metrics(run_id)
    except TrackingError as error:
        warnings.warn(str(error), TrackingWarning, stacklevel=3)
    try:
        yield
    finally:
        try:
            if stop is not None:
                stop()
        except TrackingError as error:
            warnings.warn(str(error), TrackingWarning, stacklevel=3)
