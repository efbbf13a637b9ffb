"""Rows of samples in memory: what is accepted, what is kept, and what a score is asked for."""

from __future__ import annotations

import sys
from array import array
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pytest_armory.tables import SampleRows, SampleTable, UnfitError
from pytest_armory.tables.columns import labels, numbers, typed
from pytest_armory.tables.texts import TEXT_LIMIT

NAN = float("nan")

NUMBERS: list[tuple[Any, list[float]]] = [
    ([True, False], [1, 0]),
    ((1, 2), [1, 2]),
    ([1, 2.5, True], [1, 2.5, 1]),
    ([0.5, None], [0.5, NAN]),
    (np.array([True, False]), [1, 0]),
    (np.array([[1.5], [2.5]]), [1.5, 2.5]),
    (np.array([1, 2], dtype="uint8"), [1, 2]),
    (np.array([1, 2], dtype="uint64"), [1, 2]),
    (np.array([0.5, None], dtype=object), [0.5, NAN]),
    ([np.float32(0.5), np.True_], [0.5, 1]),
    (torch.tensor([0.5, 1.5], dtype=torch.bfloat16, requires_grad=True), [0.5, 1.5]),
    (torch.tensor([True, False]), [1, 0]),
    ([torch.tensor(0.5)], [0.5]),
    (pd.Series([1.0, 2.0], index=["a", "b"]), [1, 2]),
    (pd.Series([1, None], dtype="Int64"), [1, NAN]),
    (pd.Series([True, None], dtype="boolean"), [1, NAN]),
    (np.ma.array([1, 0], mask=[False, True]), [1, NAN]),
    (np.ma.array([[0.5], [2.5]], mask=[[True], [False]]), [NAN, 2.5]),
    (np.ma.array([1, 0]), [1, 0]),
    ((value for value in (1, 0)), [1, 0]),
    ([Decimal("0.5")], [0.5]),
    ([2**70], [float(2**70)]),
]


@pytest.mark.parametrize(("values", "expected"), NUMBERS, ids=range(len(NUMBERS)))
def test_scores_of_every_kind_are_floats(values: Any, expected: list[float]) -> None:
    np.testing.assert_array_equal(numbers(values, "it"), expected)


REFUSED = [
    (["1"], "must be numbers or booleans, got a string of 1 character among them"),
    ([1, {}], "got dict of 0"),
    ("text", "one value for each sample, got a string of 4 characters"),
    (0.5, "one value for each sample, got 0.5"),
    (None, "got None"),
    ({"a": 1}, "got dict of 1"),
    (np.zeros((2, 3)), r"an array of \(2, 3\)"),
    (torch.tensor(0.5), r"an array of \(\)"),
]


@pytest.mark.parametrize(("values", "text"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_score_is_refused(values: Any, text: str) -> None:
    with pytest.raises(UnfitError, match=text):
        numbers(values, "it")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 1], [3, 1]),
        (np.array([3.0, 1.0]), [3, 1]),
        (["a", "b"], ["a", "b"]),
        (["a", 2], ["a", "2"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (pd.Series(["a", "b"]), ["a", "b"]),
        (torch.tensor([3, 1]), [3, 1]),
        ([0.5, 1.5], ["0.5", "1.5"]),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), ["2024-01-01"]),
    ],
    ids=range(9),
)
def test_ids_are_integers_or_texts(values: Any, expected: list[object]) -> None:
    assert list(labels(values, "ids")) == expected


@pytest.mark.parametrize("values", [["a", None], [1.0, NAN], pd.Series([1, None], dtype="Int64")])
def test_a_missing_id_is_refused(values: Any) -> None:
    with pytest.raises(UnfitError, match="ids must be given for each sample"):
        labels(values, "ids")


def filled(**given: Any) -> SampleRows:
    rows = SampleTable().rows_of_scores(["right"])
    count = len(next(iter(given.values())))
    ids, groups = given.pop("sample", None), given.pop("group", None)
    values = given.pop("right", [1.0] * count)
    rows.add({"right": array("d", values)}, ids=ids, groups=groups, columns=given)
    return rows


def test_a_score_has_its_rows() -> None:
    rows = filled(
        sample=["b", "a"], group=[1, 1], right=[0.5, NAN], target=[3, 4], prediction=["x", None]
    )
    score = rows.score("right")
    assert (score.ids.tolist(), score.groups.tolist()) == (["b", "a"], [1, 1])
    assert (score.targets.tolist(), score.predictions.tolist()) == ([3, 4], ["x", None])
    assert (score.valid.ids.tolist(), score.mean, len(score)) == (["b"], 0.5, 2)
    assert (score.repeats, score.clusters.tolist(), score.is_binary) == (None, [1, 1], False)


def test_rows_are_added_and_ids_count_on() -> None:
    table = SampleTable()
    for start in (0, 2):
        rows = table.rows_of_scores(["right"])
        rows.add({"right": array("d", [start, 1])}, columns={"note": ["a", "b"]} if start else {})
    assert table.parts == [rows]
    assert rows.score("right").ids.tolist() == [0, 1, 2, 3]
    assert rows.mean("right") == 1.0
    ids, notes = table.column("note") or ([], [])
    assert (ids.tolist(), notes.tolist()) == ([0, 1, 2, 3], [None, None, "a", "b"])
    other = table.rows_of_scores(["other"])
    other.add({"other": array("d", [1])})
    assert other.score("other").ids.tolist() == [0]
    assert table.names == ["right", "other"]
    with pytest.raises(UnfitError, match="'right' came with 'right' before, and now with 'right'"):
        table.rows_of_scores(["right", "third"])


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ([1], [2.5], [1.0, 2.5]),
        ([1], ["a"], [1, "a"]),
        ([True], [None], [True, None]),
        (["a"], [{"b": 1}], ["a", "{'b': 1}"]),
        ([None], [3], [None, 3]),
        ([datetime(2024, 1, 1)], [Decimal("0.5")], ["2024-01-01 00:00:00", 0.5]),
        ([2**70], [1], [str(2**70), 1]),
        (["a"], pd.Series([NAN], dtype=object), ["a", NAN]),
        (["a", NAN], ["b"], ["a", None, "b"]),
        (np.array(["2024-01-01", "NaT"], dtype="datetime64[D]"), [], ["2024-01-01", None]),
    ],
    ids=range(10),
)
def test_a_column_takes_values_of_several_kinds(first: Any, second: Any, kept: Any) -> None:
    rows = SampleRows(["right"])
    for values in (first, second):
        rows.add({"right": array("d", [1] * len(values))}, columns={"note": values})
    assert [str(v) for v in rows.columns["note"].values] == [str(v) for v in kept]


def test_ids_that_become_texts() -> None:
    rows = filled(sample=[1, 2])
    rows.add({"right": array("d", [1])}, ids=["c"])
    assert rows.score("right").ids.tolist() == ["1", "2", "c"]


@pytest.mark.parametrize(
    ("ids", "more"),
    [([1, 1], [5]), ([1, 2], [2]), ([1, 3], [2, 2]), (["a"], ["b", "a"]), ([2, 1], [1])],
)
def test_an_id_that_repeats_is_refused(ids: list[object], more: list[object]) -> None:
    with pytest.raises(UnfitError, match=r"ids must differ, got .* more than once; .* groups="):
        filled(sample=ids).add({"right": array("d", [1] * len(more))}, ids=more)


def test_long_labels_that_end_differently_stay_different() -> None:
    texts = ["x" * TEXT_LIMIT + end for end in "ab"]
    score = filled(sample=texts, group=texts).score("right")
    assert len({*score.ids.tolist()}) == len({*score.groups.tolist()}) == 2
    assert {*map(len, score.ids.tolist())} == {TEXT_LIMIT}
    with pytest.raises(
        UnfitError, match=r"'token=\[redacted\]' \(secrets are redacted\) more than"
    ):
        filled(sample=["token=aaaaaaaaaaaa", "token=bbbbbbbbbbbb"])


@pytest.mark.parametrize(
    "refused",
    [
        {"ids": ["a"]},
        {"ids": ["a", "a"]},
        {"ids": ["a", "b"], "groups": [1]},
        {"ids": ["a", "b"], "columns": {"note": [1]}},
    ],
    ids=range(4),
)
def test_refused_rows_leave_nothing_behind(refused: dict[str, Any]) -> None:
    table = SampleTable()
    for names in (["right"], ["right", "other"]):
        rows, values = table.rows_of_scores(names), array("d", [1, 0])
        with pytest.raises(UnfitError):
            rows.add(dict.fromkeys(names, values), **refused)
    rows.add(dict.fromkeys(names, values), ids=["a", "b"], groups=[1, 2])
    rows.is_complete = True
    assert (table.names, table.is_partial) == (["right", "other"], False)


def test_repeats_have_the_same_ids_and_belong_together() -> None:
    table = SampleTable()
    rows = table.rows_of("digits", ["right"])
    for values in ([1, 0], [1, 1]):
        table.rows_of("digits", ["right"])
        rows.add({"right": array("d", values)}, ids=None)
        table.begin_repeat()
    score = rows.score("right")
    assert (score.ids.tolist(), score.repeats.tolist()) == ([0, 1, 0, 1], [0, 0, 1, 1])
    assert score.clusters.tolist() == [0, 1, 0, 1]
    later = table.rows_of_scores(["late"])
    later.add({"late": array("d", [1])}, ids=["a"])
    assert later.score("late").repeats.tolist() == [2]


def test_an_evaluation_that_runs_again_replaces_its_rows() -> None:
    table = SampleTable()
    for values in ([1, 0, 0], [1, 1]):
        rows = table.rows_of("digits", ["right"])
        rows.add({"right": array("d", values)}, columns={"target": values})
        assert rows.mean("right") == sum(values) / len(values)  # the last one's is not kept
    assert table.parts == [rows]
    assert rows.score("right").values.tolist() == [1, 1]
    with pytest.raises(UnfitError, match="'right' is one of the evaluation 'digits'"):
        table.rows_of_scores(["right"])


def test_an_evaluation_that_runs_again_with_other_scores_replaces_its_rows() -> None:
    table = SampleTable()
    for repeat in range(2):
        for scores in (["right"], ["right", "far"]):
            rows = table.rows_of("digits", scores)
            rows.add({name: array("d", [len(scores), repeat]) for name in scores})
        other = table.rows_of("digits", ["other"])
        other.add({"other": array("d", [1])})
        if repeat == 0:
            table.begin_repeat()
    assert table.names == ["right", "far", "other"]
    score = table.score("right")
    assert score is not None
    assert (score.values.tolist(), score.repeats.tolist()) == ([2, 0, 2, 1], [0, 0, 1, 1])
    last = table.rows_of("digits", ["right"])
    last.add({"right": array("d", [5])})
    score = table.score("far")
    assert score is not None
    assert score.values.tolist() == [2, 0]


@pytest.mark.parametrize("what", ["ids", "groups"])
def test_lengths_must_agree_and_labels_come_with_all_rows(what: str) -> None:
    given: dict[str, Any] = {what: ["a"]}
    with pytest.raises(UnfitError, match=f"{what} must hold one value for each of 2 samples"):
        SampleRows(["right"]).add({"right": array("d", [1, 1])}, **given)
    rows = SampleRows(["right"])
    rows.add({"right": array("d", [1])}, **given)
    with pytest.raises(UnfitError, match=f"{what} must be given with all rows"):
        rows.add({"right": array("d", [1])})


def test_texts_are_cut_and_secrets_removed() -> None:
    key = "sk-" + "a1" * 20
    texts = ["plain", f"use {key}", "x" * (TEXT_LIMIT + 1), {"password": "hunter2"}]
    rows = filled(sample=["a", key, "c", "d"], note=texts, api_key=["k", None, 1, "k"])
    note = list(rows.columns["note"].values)
    assert note[:2] == ["plain", "use [redacted]"]
    assert TEXT_LIMIT - 10 < len(note[2]) <= TEXT_LIMIT
    assert "characters more" in note[2]
    assert "hunter2" not in note[3]
    assert list(rows.columns["api_key"].values) == ["[redacted]", None, "[redacted]", "[redacted]"]
    assert rows.score("right").ids.tolist()[1] == "[redacted]"
    numbers = filled(sample=[1, 2], password=[1234, 5678], max_tokens=[5, 6], secret=[1.5, None])
    assert list(numbers.columns["password"].values) == ["[redacted]"] * 2
    assert list(numbers.columns["max_tokens"].values) == [5, 6]
    assert list(numbers.columns["secret"].values) == ["[redacted]", None]


DIGESTS: list[tuple[dict[str, Any], bool]] = [
    ({"sample": [2, 1, 3], "target": [5, 4, 6]}, True),
    ({"sample": [1, 2, 3], "target": [4.0, 5.0, 6.0]}, True),
    ({"sample": np.array([1, 2, 3]), "target": torch.tensor([4, 5, 6])}, True),
    ({"sample": [1, 2, 3], "target": [4, 5, 6], "right": [1, NAN, 0], "note": "abc"}, True),
    ({"sample": [1, 2, 3], "target": [4, 5, 7]}, False),
    ({"sample": [1, 2, 4], "target": [4, 5, 6]}, False),
    ({"sample": [1, 2], "target": [4, 5]}, False),
    ({"sample": [1, 2, 3]}, False),
    ({"sample": [1, 2, 3], "target": ["4", "5", "6"]}, False),
]


@pytest.mark.parametrize(("given", "same"), DIGESTS, ids=range(len(DIGESTS)))
def test_the_digest_is_that_of_ids_and_targets(given: dict[str, Any], same: bool) -> None:
    given = {**given, **({"note": list(given["note"])} if "note" in given else {})}
    first = filled(sample=[1, 2, 3], target=[4, 5, 6]).score("right").digest
    assert (filled(**given).score("right").digest == first) is same
    assert len(first) == 32


@pytest.mark.parametrize("targets", [[4, 5], ["a", "b"], [True, False], [0.5, NAN], None])
def test_the_digest_leaves_repeats_out(targets: list[Any] | None) -> None:
    once, twice = SampleTable(), SampleTable()
    for table, times in ((once, 1), (twice, 3)):
        for _ in range(times):
            rows = table.rows_of_scores(["right"])
            columns = {} if targets is None else {"target": targets}
            rows.add({"right": array("d", [1, 0])}, ids=["x", "y"], columns=columns)
            table.begin_repeat()
    assert once.parts[0].score("right").digest == twice.parts[0].score("right").digest


def test_the_memory_of_a_million_samples() -> None:
    rows = SampleRows(["a", "b", "c"])
    batch = {name: array("d", [0.5] * 10_000) for name in rows.scores}
    for _ in range(100):
        columns = {"target": np.zeros(10_000, "int64"), "prediction": np.zeros(10_000, "int64")}
        rows.add(batch, columns=columns)
    kept = [*rows.scores.values(), *(column.values for column in rows.columns.values())]
    assert sum(map(sys.getsizeof, kept)) < 50_000_000
    assert rows.count == 1_000_000
    assert isinstance(typed(np.zeros(2)), array)
