"""Which numbers and arrays any result holds: real objects of libraries, and hostile ones."""

from __future__ import annotations

import collections
import functools
import json
import math
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import pandas as pd
import pytest
import torch
from hostile import (
    JUNK,
    BrokenMapping,
    Config,
    Empty,
    Level,
    Point,
    hostile,
    recursive_dict,
    recursive_list,
)
from hypothesis import given, settings

from pytest_armory import values
from pytest_armory.values import (
    REDACTED,
    metric_values,
)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (0.5, 0.5),
        (Level.HIGH, 3.0),
        (Fraction(1, 4), 0.25),
        (Decimal("0.5"), 0.5),
        (float("inf"), math.inf),
        (-math.inf, -math.inf),
        (np.float64(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(3), 3.0),
        (torch.tensor(True), 1.0),
    ],
)
def test_numbers(value: object, number: float) -> None:
    for results, key in ((value, "value"), ({"a": value}, "a"), ({"a": {"b": value}}, "a/b")):
        found = metric_values(results)
        assert found.numbers == {key: number}
        assert type(found.numbers[key]) is float
        assert (found.arrays, found.refused) == ({}, {})


@pytest.mark.parametrize(
    "nan", [math.nan, np.float32("nan"), torch.tensor(math.nan), Decimal("NaN")]
)
def test_nan_is_a_number(nan: object) -> None:
    assert math.isnan(metric_values({"a": nan}).numbers["a"])


class OnAnotherDevice:
    """What torch does to whoever forgets `.detach().cpu()`."""

    dtype = "float32"

    def __init__(self, inner: Any, ready: int = 0) -> None:
        self.inner, self.ready, self.shape = inner, ready, np.shape(inner)

    def detach(self) -> OnAnotherDevice:
        return OnAnotherDevice(self.inner, self.ready + 1)

    cpu = detach

    def tolist(self) -> Any:
        if self.ready < 2:
            raise TypeError("can't convert cuda:0 device type tensor")
        return self.inner

    item = tolist


@pytest.mark.parametrize(
    ("value", "array"),
    [
        ([1, 2.5, True, None], [1, 2.5, True, None]),
        ([], []),
        ((1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        ([math.nan, math.inf, -math.inf], ["NaN", "Infinity", "-Infinity"]),
        (["cat", "d\udc80g"], ["cat", "d\\udc80g"]),
        ([Fraction(1, 2), Level.HIGH, date(2024, 1, 2)], [0.5, 3, "2024-01-02"]),
        (np.array([1.0, np.nan]), [1.0, "NaN"]),
        (np.array([1.0]), [1.0]),
        (np.zeros((2, 0)), [[], []]),
        (np.array(["2020-01-01"], dtype="M8[D]"), ["2020-01-01"]),
        (np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), [[1, 2.0]]),
        (np.array([None, {"a": np.float32(1)}], dtype=object), [None, {"a": 1.0}]),
        (np.zeros((1,) * 60), functools.reduce(lambda inner, _: [inner], range(60), 0.0)),
        (torch.tensor([[1, 2]]), [[1, 2]]),
        (torch.tensor([1.0], requires_grad=True), [1.0]),
        ([torch.tensor(1.0), np.float32(2), 3], [1.0, 2.0, 3]),
        ([torch.tensor([1.0]), np.array([2])], [[1.0], [2]]),
        (OnAnotherDevice([1.0, 2.0]), [1.0, 2.0]),
        (pd.Series([1.0, None]), [1.0, "NaN"]),
        (pd.array([1, None], dtype="Int64"), [1, None]),
        (pd.DataFrame({"a": [1, 2], "b": [0.5, math.nan]}), {"a": [1, 2], "b": [0.5, "NaN"]}),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {"a": [1], "a-2": [2]}),
        (pd.DataFrame({("a", "b"): pd.to_datetime(["2020"])}), {"a/b": ["2020-01-01"]}),
    ],
)
def test_arrays(value: object, array: object) -> None:
    for results, key in ((value, "value"), ({"a": value}, "a")):
        found = metric_values(results)
        assert found.arrays == {key: array}
        assert (found.numbers, found.refused) == ({}, {})
        json.dumps(found.arrays, allow_nan=False)


def test_a_scalar_on_another_device() -> None:
    assert metric_values({"a": OnAnotherDevice(0.5)}).numbers == {"a": 0.5}


def test_a_large_array() -> None:
    found = metric_values(
        {"a": np.random.default_rng(0).random((500, 500))}, convert=lambda _: None
    )
    assert np.shape(found.arrays["a"]) == (500, 500)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "None"),
        ("0.5", "a string: '0.5'"),
        ("x" * 100, "a string: 'xxx"),
        ("http://u:p@h", f"a string: 'http://{REDACTED}@h'"),
        (np.str_("n/a"), "a string: 'n/a'"),
        (b"x", "<bytes>"),
        (1j, "a complex number"),
        (np.complex64(1), "a complex number"),
        ([1j], "a complex number"),
        (10**400, "too large for a float"),
        (Decimal("sNaN"), "<decimal.Decimal>: "),
        (np.timedelta64(5, "ns"), "<numpy.timedelta64>"),
        (pd.Timestamp("2020"), "<pandas.Timestamp>"),
        (pd.NA, "<pandas.NAType>"),
        ({1, 2}, "<set>"),
        (object(), "<object>"),
        ([object()], "<object>"),
        (len, "<builtin_function_or_method>"),
        (MagicMock(), "<unittest.mock.MagicMock>"),
        (MagicMock(spec=dict), "<unittest.mock.MagicMock>"),
        (Mock(shape=(2,), tolist=lambda: [Mock()]), "<unittest.mock.Mock>"),
        (torch.zeros(2, device="meta"), "<torch.Tensor>: NotImplementedError("),
        (recursive_list(), "<nested too deep>"),
        (BrokenMapping(a=1), "<hostile.BrokenMapping>"),
    ],
)
def test_what_is_refused(value: object, reason: str) -> None:
    for results, key in ((value, "value"), ({"a": value}, "a")):
        found = metric_values(results)
        assert (found.numbers, found.arrays) == ({}, {})
        assert list(found.refused) == [key]
        assert found.refused[key].startswith(reason)
        assert len(found.refused[key]) <= 200


def test_mappings_are_joined_in_order() -> None:
    results = {
        "b": 1,
        "a": {"x": 2, 3: {0.5: 4}},
        "config": Point(5, {"z": [6]}),
        "data": Empty(),
        "none": {},
        "s": pd.Series({"mean": 7.0, ("p", 95): 8}),
        "recall@5": 9,
        "recall#5": 10,
        "recall$5": 10.5,
        "": 11,
    }
    found = metric_values(results)
    assert list(found.numbers.items()) == [
        ("b", 1.0),
        ("a/x", 2.0),
        ("a/3/0.5", 4.0),
        ("config/x", 5.0),
        ("s/mean", 7.0),
        ("s/p/95", 8.0),
        ("recall_at_5", 9.0),
        ("recall_number_sign_5", 10.0),
        ("recall_dollar_sign_5", 10.5),
        ("value", 11.0),
    ]
    assert found.arrays == {"config/y/z": [6]}
    assert found.refused == {}


@pytest.mark.parametrize(
    ("results", "numbers"),
    [
        ({}, {}),
        ([{"loss": 1}], {"loss": 1.0}),
        (({"loss": 1},), {"loss": 1.0}),
        ([{"loss": 1}, {"loss": 2}], {"loss": 1.0, "1/loss": 2.0}),
        ({"test": [{"loss": 1}]}, {"test/loss": 1.0}),
        ([0.5, {"acc": 1}], {"0": 0.5, "acc": 1.0}),
        (pd.Series({"a": 1, "b": 2}), {"a": 1.0, "b": 2.0}),
        (pd.Series([1, 2], index=[0.5, 0.5]), {"0.5": 1.0, "0.5-2": 2.0}),
        (pd.DataFrame({"a": [1, 3]}).mean(), {"a": 2.0}),
        (collections.Counter("aab"), {"a": 2.0, "b": 1.0}),
        (collections.OrderedDict(item=1), {"item": 1.0}),
    ],
)
def test_shapes_of_results(results: object, numbers: dict[str, float]) -> None:
    assert metric_values(results) == values.MetricValues(numbers, {}, {})


def test_cycles_are_refused() -> None:
    assert metric_values(recursive_dict()).refused == {"self": "<cycle>"}
    cycle: list[Any] = [{"a": 1}]
    cycle[0]["b"] = cycle
    assert metric_values(cycle).refused == {"b": "<cycle>"}


def test_what_holds_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_armory.values.results._ARRAY_VALUES", 10_000)
    doubled: list[Any] = [1.0]
    for _ in range(60):
        doubled = [doubled, doubled]
    found = metric_values({"a": doubled, "b": np.zeros((200, 200)), "c": 1})
    assert found.refused["a"] == "more than 10,000 values in one result"
    assert found.refused["b"] == "an array of shape (200, 200): too large"
    assert found.numbers == {"c": 1.0}


def test_torchmetrics_collection() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    torchmetrics = pytest.importorskip("torchmetrics")
    collection = torchmetrics.MetricCollection(
        {
            "accuracy": classification.MulticlassAccuracy(num_classes=3),
            "recall": classification.MulticlassRecall(num_classes=3, average=None),
        }
    )
    collection.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
    found = metric_values(collection.compute())
    assert found.numbers == {"accuracy": pytest.approx(2 / 3)}
    assert found.arrays == {"recall": [1.0, 1.0, 0.0]}


def test_sklearn_classification_report() -> None:
    from sklearn.metrics import classification_report, confusion_matrix

    report = classification_report([0, 1, 1], [0, 1, 0], output_dict=True)
    found = metric_values({"report": report, "confusion": confusion_matrix([0, 1, 1], [0, 1, 0])})
    assert found.numbers["report/macro avg/f1-score"] == report["macro avg"]["f1-score"]
    assert found.numbers["report/1/support"] == 2.0
    assert found.arrays == {"confusion": [[1, 0], [1, 1]]}


class Foreign:
    def __init__(self, score: Any) -> None:
        self.score = score


def convert_foreign(value: object) -> object:
    return value.score if isinstance(value, Foreign) else None


def test_convert_at_every_depth() -> None:
    results = {
        "number": Foreign(1),
        "mapping": Foreign({"a": Foreign(2)}),
        "array": Foreign(np.array([1, 2])),
        "list": [Foreign(3), Foreign(4)],
        "nested": [[Foreign(5)]],
        "rows": [Foreign({"a": 6}), Foreign({"a": 7})],
        "twice": Foreign(Foreign(8)),
        "string": Foreign("n/a"),
    }
    found = metric_values(results, convert=convert_foreign)
    assert found.numbers == {
        "number": 1.0,
        "mapping/a": 2.0,
        "rows/a": 6.0,
        "rows/1/a": 7.0,
        "twice": 8.0,
    }
    assert found.arrays == {"array": [1, 2], "list": [3, 4], "nested": [[5]]}
    assert found.refused == {"string": "a string: 'n/a'"}
    assert metric_values(Foreign(1), convert=convert_foreign).numbers == {"value": 1.0}


def test_convert_is_asked_only_about_what_is_foreign() -> None:
    asked: list[object] = []
    results = {"a": 1, "b": [1.0, "x"], "c": None, "d": np.float32(1), "e": Decimal(1), "f": "x"}
    metric_values(results, convert=asked.append)
    assert asked == []
    frame = pd.DataFrame({"a": [1]})
    metric_values({"frame": frame, "config": Config()}, convert=asked.append)
    assert asked[0] is frame
    assert any(isinstance(value, Config) for value in asked)


@pytest.mark.parametrize(
    "convert",
    [lambda value: value, lambda _: Foreign(1), lambda value: {"again": value}, lambda v: [v, v]],
)
def test_convert_that_always_answers_ends(convert: Callable[[object], object]) -> None:
    found = metric_values({"a": Foreign(1), "b": [Foreign(1)], "c": 1}, convert=convert)
    assert found.numbers == {"c": 1.0}
    assert found.refused


def test_convert_that_raises_is_the_reason() -> None:
    def convert(_: object) -> object:
        raise ValueError("token=abc")

    reason = f"<{__name__}.Foreign>: ValueError('token={REDACTED}')"
    found = metric_values({"a": Foreign(1), "b": [Foreign(1)], "c": 1}, convert=convert)
    assert found.refused == {"a": reason, "b": reason}
    assert found.numbers == {"c": 1.0}


@hostile
@pytest.mark.parametrize("convert", [None, lambda _: None])
def test_metrics_survive(make: Callable[[], Any], convert: Any) -> None:
    begin = time.process_time()
    for results in (make(), {"a": make(), "ok": 1}, [make()], [{"a": make()}, {"ok": 1}]):
        check(metric_values(results, convert=convert))
    assert metric_values({"a": make(), "ok": 1}, convert=convert).numbers["ok"] == 1.0
    assert time.process_time() - begin < 2


def check(found: values.MetricValues) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert all(type(number) is float for number in found.numbers.values())
    json.dumps(found.arrays, allow_nan=False, ensure_ascii=False).encode()
    assert all(type(reason) is str for reason in found.refused.values())
    keys = [*found.numbers, *found.arrays, *found.refused]
    assert len(keys) == len(set(keys))
    for key in keys:
        _validate_metric_name(key)
        assert len(key) <= 250


@settings(max_examples=150, deadline=None)
@given(JUNK)
def test_any_result(results: object) -> None:
    check(metric_values(results))


GROWING = {
    "lightning": [{"acc/dataloader_idx_0": 1}, {"acc/dataloader_idx_1": 2}, {"loss": 3}],
    "scorers": [{"name": 1, "metrics": {"f1": 2}}, {"name": 3, "metrics": {"f1": 4}}, {"name": 5}],
    "series": [pd.Series({"a": 1.0}), pd.Series({"b": 2.0}), pd.Series({"a": 3.0})],
    "tuples": [collections.namedtuple("R", "a")(1), {"b": 2}, {"a": 3}],
    "overlapping": [{"a": 1, "b": 2}, {"b": 3, "c": 4}, {"c": 5}, {"d": 6}],
}


@pytest.mark.parametrize("nested", [False, True], ids=["bare", "nested"])
@pytest.mark.parametrize("results", GROWING.values(), ids=GROWING)
def test_no_name_changes_when_a_list_grows(results: list[Any], nested: bool) -> None:
    before: dict[str, float] = {}
    for length in range(1, len(results) + 1):
        part = results[:length]
        numbers = metric_values({"of": {"scores": part}} if nested else part).numbers
        assert numbers.items() >= before.items()
        assert len(numbers) > len(before)
        before = numbers


def test_the_parts_of_one_result_need_no_number() -> None:
    names = [list(metric_values(GROWING[kind]).numbers) for kind in ("lightning", "overlapping")]
    assert names[0] == ["acc/dataloader_idx_0", "acc/dataloader_idx_1", "loss"]
    assert names[1] == ["a", "b", "1/b", "1/c", "2/c", "d"]
