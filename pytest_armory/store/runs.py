"""Runs as the rest of the package uses them, converted from MLflow's own ``Run``."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from time import time_ns
from typing import Any

from pytest_armory.store._mlflow import import_mlflow

NAME_LIMIT = 250
"""The size of the database's column for a run's name."""


@dataclass(frozen=True)
class StoreRun:
    """A run that this process has created; ``entity`` is MLflow's own ``Run``."""

    run_id: str
    experiment_id: str
    artifact_uri: str
    tags: Mapping[str, str]
    entity: Any

    @property
    def parent_id(self) -> str | None:
        """The id of the run it was opened under, if any."""
        return self.tags.get("mlflow.parentRunId")


@dataclass(frozen=True)
class StoredRun:
    """A run as the store holds it.

    ``start``, ``end`` and ``seen``, when its last metric was logged or it began, are in
    milliseconds since the epoch.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    start: int
    end: int | None
    seen: int
    artifact_uri: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


def stored_run(run: Any) -> StoredRun:
    """An ``mlflow.entities.Run`` as a :class:`StoredRun`."""
    start = run.info.start_time or 0
    return StoredRun(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        name=run.info.run_name or "",
        status=run.info.status,
        start=start,
        end=run.info.end_time,
        seen=max([start, *(metric.timestamp for metric in last_values(run))]),
        artifact_uri=run.info.artifact_uri,
        metrics={name: finite_or_not(value) for name, value in run.data.metrics.items()},
        params=dict(run.data.params),
        tags=dict(run.data.tags),
    )


def run_in_memory(
    params: Mapping[str, str], metrics: Mapping[str, float], tags: Mapping[str, str]
) -> Any:
    """An ``mlflow.entities.Run`` that no store has, without ids."""
    import_mlflow()
    from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag

    nothing: Any = None
    now = milliseconds()
    name = tags.get("mlflow.runName")
    info = RunInfo(nothing, "", "", "RUNNING", now, None, "active", run_name=name)
    data = RunData(
        [Metric(name, value, now, 0) for name, value in metrics.items()],
        [Param(key, value) for key, value in params.items()],
        [RunTag(key, value) for key, value in tags.items()],
    )
    return Run(info, data)


def last_values(run: Any) -> list[Any]:
    """The last value of each metric of an ``mlflow.entities.Run``, with its time.

    MLflow's public API gives those times only by one request for each metric.
    """
    return list(getattr(run.data, "_metric_objs", None) or [])


def finite_or_not(value: float) -> float:
    """A metric's value as logged: MLflow's databases store the largest float for infinity."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def milliseconds() -> int:
    """Now, in milliseconds since the epoch, as MLflow counts."""
    return time_ns() // 1_000_000
