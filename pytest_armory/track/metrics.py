"""Metrics of the current run: results, and system metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytest_armory.errors import TrackingError, TrackingWarning
from pytest_armory.track.context import current_run
from pytest_armory.track.results import (
    convert_result,
    step_histories,
    warn_of_booleans,
    warn_of_refused,
)
from pytest_armory.values import metric_values


def track_metrics(metrics: Any, step: int | None = None) -> None:
    """Store results as metrics of the current run; outside every evaluation nothing happens.

    Takes numbers of Python, NumPy and torch, nested mappings (joined by slashes), a list of
    mappings, torchmetrics' and scikit-learn's results, pandas Series, dataclasses. ``{name: list or
    tuple of numbers}`` is a metric with one value per step, unless ``step`` is given; an array
    becomes ``metrics/<name>.json``. No gate judges a list or an array.
    What is none of these is left out with a :class:`MetricWarning`.
    """
    run = current_run()
    if run is None:
        return
    histories = step_histories(metrics) if step is None else {}
    rest = {k: v for k, v in metrics.items() if k not in histories} if histories else metrics
    values = metric_values(rest, convert=convert_result)
    warn_of_refused(values.refused)
    run.writer.log_results(values.numbers, values.arrays, step or 0, histories, values.names)
    warn_of_booleans(metrics, histories)


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
