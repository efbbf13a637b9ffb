"""The values that a copy lacks, in batches that a server accepts."""

from __future__ import annotations

import math
from typing import Any, cast

from pytest_armory.store import StoredRun
from pytest_armory.store.transfer import MetricPoint, TransferEnd
from pytest_armory.sync.values import (
    batches,
    conflicting_params,
    missing_metrics,
    missing_params,
    missing_tags,
)


def a_run(
    params: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
) -> StoredRun:
    values: tuple[Any, ...] = (metrics or {}, params or {}, tags or {})
    return StoredRun("id", "1", "name", "FINISHED", 0, None, 0, "", *values)


class Histories:
    """An end of an upload that has nothing but metrics."""

    def __init__(self, *points: MetricPoint) -> None:
        self.points = points

    def metric_history(self, run_id: str, name: str) -> list[MetricPoint]:
        assert run_id == "id"
        return [point for point in self.points if point.name == name]


def an_end(*points: MetricPoint) -> TransferEnd:
    return cast(TransferEnd, Histories(*points))


def test_parameters_that_are_there_stay() -> None:
    run, copy = a_run({"a": "1", "b": "2", "c": "3"}), a_run({"a": "1", "b": "x"})
    assert missing_params(run, copy) == [("c", "3")]
    assert conflicting_params(run, copy) == ["the parameter 'b' is 'x' there and stays so, not '2'"]


def test_tags_are_replaced_but_for_the_key() -> None:
    copy = a_run(tags={"a": "1", "b": "x", "armory.key": "theirs"})
    tags = {"a": "1", "b": "2", "c": "3", "armory.key": "ours"}
    assert missing_tags(tags, copy) == [("b", "2"), ("c", "3")]
    assert missing_tags({"armory.key": "ours"}, a_run()) == [("armory.key", "ours")]


def test_each_value_of_a_metric_counts_nan_among_them() -> None:
    there = [MetricPoint("m", math.nan, 1, 0), MetricPoint("m", 1.0, 2, 0)]
    new = [MetricPoint("m", 1.0, 2, 1), MetricPoint("m", 1.0, 3, 0), MetricPoint("n", 0.0, 1, 0)]
    run, copy = a_run(metrics={"m": 1.0, "n": 0.0}), a_run(metrics={"m": 1.0})
    assert missing_metrics(an_end(*there, *new), run, an_end(*there), copy) == new


def test_batches_keep_to_each_limit_and_lose_nothing() -> None:
    params = [(f"p{i}", "1") for i in range(150)]
    tags = [(f"t{i}", "1") for i in range(250)]
    metrics = [MetricPoint("m", 1.0, i, i) for i in range(1500)]
    found = list(batches(params, tags, metrics))
    for batch in found:
        assert len(batch.params) <= 100
        assert len(batch.tags) <= 100
        assert len(batch) <= 1000
    assert [param for batch in found for param in batch.params] == params
    assert [tag for batch in found for tag in batch.tags] == tags
    assert [point for batch in found for point in batch.metrics] == metrics


def test_batches_keep_to_the_size_that_a_server_takes() -> None:
    params = [(f"p{i}", "ü" * 6000) for i in range(100)]
    found = list(batches(params, [], []))
    assert len(found) > 1
    assert [param for batch in found for param in batch.params] == params
    huge = [("p", "x" * 800_000), ("q", "1")]
    assert [batch.params for batch in batches(huge, [], [])] == [huge[:1], huge[1:]]


def test_nothing_makes_no_batch() -> None:
    assert list(batches([], [], [])) == []
