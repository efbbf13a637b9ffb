"""The values of a run that its copy lacks, and the batches that a server accepts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from typing import TypeAlias

from pytest_armory.records.tags import KEY
from pytest_armory.store import StoredRun
from pytest_armory.store.transfer import MetricPoint, TransferEnd

_PER_BATCH = {"params": 100, "tags": 100, "metrics": 1000}
_ENTITIES = 1000
_CHARACTERS = 700_000
"""MLflow's limits on one batch; of JSON's characters a server takes 1,000,000 in all."""

_Item: TypeAlias = tuple[str, tuple[str, str] | MetricPoint]
"""A field of :class:`Batch`, and a value for it."""


@dataclass(frozen=True)
class Batch:
    """Values that are written in one request."""

    params: list[tuple[str, str]] = field(default_factory=list)
    tags: list[tuple[str, str]] = field(default_factory=list)
    metrics: list[MetricPoint] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.params) + len(self.tags) + len(self.metrics)


def missing_params(run: StoredRun, copy: StoredRun) -> list[tuple[str, str]]:
    """The parameters that the copy lacks."""
    return [(key, value) for key, value in run.params.items() if key not in copy.params]


def conflicting_params(run: StoredRun, copy: StoredRun) -> list[str]:
    """A sentence for each parameter of which the copy has another value."""
    return [
        f"the parameter {key!r} is {copy.params[key]!r} there and stays so, not {value!r}"
        for key, value in run.params.items()
        if copy.params.get(key, value) != value
    ]


def missing_tags(tags: Mapping[str, str], copy: StoredRun) -> list[tuple[str, str]]:
    """The tags that the copy lacks, or has with another value; its key is not replaced."""
    return [
        (name, value)
        for name, value in tags.items()
        if copy.tags.get(name) != value and not (name == KEY and KEY in copy.tags)
    ]


def missing_metrics(
    source: TransferEnd,
    run: StoredRun,
    target: TransferEnd,
    copy: StoredRun,
    final: Collection[str] = (),
) -> list[MetricPoint]:
    """Each value of each metric that the copy lacks.

    Of the metrics ``final`` the run's last value becomes the copy's, though that has a later one.
    """
    missing = []
    for name in run.metrics:
        there = target.metric_history(copy.run_id, name) if name in copy.metrics else []
        known = {_identity(point) for point in there}
        history = source.metric_history(run.run_id, name)
        missing += [point for point in history if _identity(point) not in known]
        if name in final and there:
            last = max([*history, *there], key=lambda point: (point.step, point.time, point.value))
            if last.value != run.metrics[name]:
                missing.append(last._replace(value=run.metrics[name], time=last.time + 1))
    return missing


def _identity(point: MetricPoint) -> tuple[float | str, int, int]:
    """A hashable key of one value of a metric, equal for NaN too."""
    return "nan" if math.isnan(point.value) else point.value, point.time, point.step


def batches(
    params: Sequence[tuple[str, str]],
    tags: Sequence[tuple[str, str]],
    metrics: Sequence[MetricPoint],
) -> Iterator[Batch]:
    """Batches that a server accepts: limited in number of each, of all, and in size."""
    left: Sequence[_Item] = [
        *(("params", param) for param in params),
        *(("tags", tag) for tag in tags),
        *(("metrics", point) for point in metrics),
    ]
    while left:
        batch = Batch()
        left = _fill(batch, left)
        yield batch


def _fill(batch: Batch, items: Sequence[_Item]) -> list[_Item]:
    """Put as many of the items as possible into an empty batch; returns the others."""
    later: list[_Item] = []
    size = 0
    for position, (kind, item) in enumerate(items):
        size += len(dumps(item)) + 60
        if len(batch) and (len(batch) == _ENTITIES or size > _CHARACTERS):
            return [*later, *items[position:]]
        of_kind = getattr(batch, kind)
        if len(of_kind) == _PER_BATCH[kind]:
            later.append((kind, item))
        else:
            of_kind.append(item)
    return later
