"""Samples as files: what is written is read back, and the worst rows come first."""

from __future__ import annotations

import io
import json
from array import array
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pytest_armory.tables import SampleTable
from pytest_armory.tables.arrow import count_rows, to_arrow
from pytest_armory.tables.columns import Column
from pytest_armory.tables.files import read_parquet, sample_files, table_json, worst, write_parquet

NAN = float("nan")


_OWN = ("ids", "groups", "data")


def table_of(*parts: dict[str, Any], repeats: int = 1) -> SampleTable:
    """A table with the rows of several calls; names in upper case are scores."""
    table = SampleTable()
    for repeat in range(repeats):
        for part in parts:
            scores = {name: array("d", values) for name, values in part.items() if name.isupper()}
            columns = {n: v for n, v in part.items() if n.islower() and n not in _OWN}
            rows = table.rows_of_scores(list(scores))
            rows.add(scores, ids=part.get("ids"), groups=part.get("groups"), columns=columns)
            rows.is_complete = True
            rows.dataset = part.get("data", "")
        if repeat < repeats - 1:
            table.begin_repeat()
    return table


LABELS = {"ids": ["a", "b", "c"], "groups": [1, 1, 2]}
ONE = {**LABELS, "A": [1, 0, NAN], "B": [0.25, -1.5, 2]}
TWO = {"ids": [7, 8], "groups": ["x", "y"]}
TABLES: dict[str, tuple[SampleTable, int]] = {
    "one part": (table_of({**ONE, "target": [1, 2, 3], "prediction": ["x", None, "z"]}), 3),
    "positions": (table_of({"A": [1, 0]}), 2),
    "side by side": (table_of(ONE, {**LABELS, "C": [1, 2, 3]}), 3),
    "side by side, one with the name of its data": (
        table_of(ONE, {**LABELS, "C": [1, 2, 3], "data": "x"}), 3,
    ),
    "other data": (
        table_of(
            {**ONE, "data": "x"}, {**LABELS, "C": [1] * 3}, {**LABELS, "D": [1] * 3, "data": "y"}
        ),
        6,
    ),
    "other ids": (table_of(ONE, {"C": [1, NAN], "ids": ["a", "z"], "note": ["x", "y"]}), 5),
    "ids of two kinds": (table_of(ONE, {"C": [1, 0]}), 5),
    "columns that differ": (
        table_of({"A": [1, 0], "prediction": [1, 2]}, {"B": [1, 0], "prediction": [1, 3]}), 4,
    ),
    "columns of several kinds": (
        table_of({"A": [1, 0, 1], "x": [1, 2, 3]}, {"B": [1], "x": ["a"]}, {"C": [0], "x": [0.5]}),
        5,
    ),
    "mixed column": (table_of({"A": [1, 0, 1], "x": [1, "a", None], "y": [True, None, False]}), 3),
    "mixed targets": (table_of({"A": [1, 0, 1], "target": [1, "a", True]}), 3),
    "targets of several kinds": (
        table_of({"A": [1, 0], "target": [1, 2]}, {"B": [1, 0], "target": [True, None], **TWO},
                 {"C": [1, 0], "target": ["x", "y"], "ids": ["c", "d"]},
                 {"D": [0], "target": [0.5]}, {"E": [1], "target": [None], "ids": ["e"]}),
        8,
    ),
    "integers that no float is": (
        table_of({"A": [1, 0], "target": [2**62 + 1, 3]}, {"B": [1], "target": [0.5]}), 3,
    ),
    "repeats": (table_of(ONE, repeats=3), 9),
    "no value at all": (table_of({"A": [NAN, NAN], "note": [None, None]}), 2),
    "strange texts": (table_of({"A": [1], "ids": ["\ud800"], "note": ["\x00é"]}), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_what_is_written_is_read_back(name: str) -> None:
    table, count = TABLES[name]
    content = write_parquet(to_arrow(table))
    read = read_parquet(content)
    assert pyarrow.parquet.read_table(io.BytesIO(content)).num_rows == count
    assert count_rows(table) == count
    assert (read.names, read.is_partial) == (table.names, False)
    for score in table.names:
        was, now = table.score(score), read.score(score)
        assert was is not None
        assert now is not None
        np.testing.assert_array_equal(now.values, was.values)
        for attribute in ("groups", "repeats", "targets", "predictions"):
            values = (getattr(was, attribute), getattr(now, attribute))
            assert _listed(values[0]) == _listed(values[1])
        assert now.ids.tolist() == was.ids.tolist()
        assert now.mean == was.mean
        assert now.digest == was.digest


def test_columns_that_are_named_as_a_score() -> None:
    both = {"ids": ["a", "b"], "A": [1, 0]}
    table = table_of(both, {"B": [1, 0, 1]})
    table.parts[0].add({"A": array("d", [1])}, ids=["c"], columns={"B": ["x"], "A/change": [2]})
    found = to_arrow(table)
    assert found.column_names == ["sample", "A", "B", "A/change (column)", "B (column)"]
    assert found["B (column)"].to_pylist() == [None, None, "x", None, None, None]
    changes: Any = {"A": {"a": -1.0}}
    assert len(sample_files(table, changes=changes)) == 2


def test_a_frame_that_is_given_for_one_score_and_then_for_another() -> None:
    table = table_of({"ids": ["a", "b"], "A": [1, 0]}, {"ids": ["a", "b"], "B": [NAN, 1]})
    for part, name, values in zip(table.parts, "BA", ([None, True], [1, 0]), strict=True):
        part.columns[name] = Column(values)
    assert to_arrow(table).column_names == ["sample", "A", "B"]


def _listed(values: Any) -> Any:
    """The values as texts; a column without any is not read back."""
    return None if values is None or set(values) == {None} else list(map(str, values))


def test_the_columns_and_what_the_file_says_of_them() -> None:
    table = table_of({**ONE, "note": ["x"] * 3, "target": [1, 2, 3]})
    table.parts[0].higher_is_worse = {"B"}
    table.parts[0].is_complete = False
    found = to_arrow(table)
    assert found.column_names == ["sample", "group", "A", "B", "target", "note"]
    about = json.loads(found.schema.metadata[b"armory"])
    assert (about["scores"], about["higher_is_worse"], about["partial"]) == (
        ["A", "B"],
        ["B"],
        True,
    )
    read = read_parquet(write_parquet(found))
    assert (read.is_partial, read.parts[0].higher_is_worse) == (True, {"B"})


def test_another_file_is_refused() -> None:
    other = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"A": [1]}), other)
    for content, text in (
        (other.getvalue(), "which columns are scores"),
        (b"x", "no file of samp"),
    ):
        with pytest.raises(ValueError, match=text):
            read_parquet(content)


WORST: list[tuple[list[float], list[float], set[str], list[int]]] = [
    ([1, 0, 1, 0], [0, 1, 2, 0], set(), [3, 1, 0, 2]),
    ([1, 0, 1, 0], [0, 1, 2, 0], {"B"}, [1, 3, 2, 0]),
    ([1, 0, NAN, 0], [0, 1, 2, NAN], set(), [2, 3, 1, 0]),
    ([5, 0, NAN, 7], [0, 0, 0, 0], {"A"}, [2, 3, 0, 1]),
]


@pytest.mark.parametrize(("first", "second", "errors", "order"), WORST, ids=range(len(WORST)))
def test_the_worst_rows_come_first(
    first: list[float], second: list[float], errors: set[str], order: list[int]
) -> None:
    table = table_of({"A": first, "B": second})
    table.parts[0].higher_is_worse = errors
    for most in (4, 3, 1):
        assert worst(to_arrow(table), most)["sample"].to_pylist() == order[:most]


CHANGED: list[tuple[dict[object, float], set[str], list[object]]] = [
    ({"b": -1.0}, set(), ["b", "d", "a", "c"]),
    ({"a": -0.5, "c": -1.0, "d": 1.0}, set(), ["c", "a", "d", "b"]),
    ({"b": 1.0, "c": -1.0}, {"A"}, ["b", "a", "c", "d"]),
    ({"elsewhere": -1.0}, set(), ["d", "b", "a", "c"]),
]


@pytest.mark.parametrize(("changes", "errors", "order"), CHANGED, ids=range(len(CHANGED)))
def test_samples_that_lost_against_the_baseline_come_first(
    changes: dict[object, float], errors: set[str], order: list[object]
) -> None:
    scores = {"A": [1.0, 0.5, 1.0, 0.0]}
    table = SampleTable()
    table.rows_of_scores(["A"]).add({"A": array("d", scores["A"])}, ids=list("abcd"))
    table.parts[0].higher_is_worse = errors
    files = sample_files(table, changes={"A": changes, "other": {}})
    reported = json.loads(files["samples.json"])
    assert reported["columns"] == ["sample", "A", "A/change"]
    assert [row[0] for row in reported["data"]] == order
    assert {row[0]: row[2] for row in reported["data"]} == {k: changes.get(k, 0) for k in "abcd"}
    assert worst(to_arrow(table), 2, {"A": changes})["sample"].to_pylist() == order[:2]


def test_changes_of_one_score_beside_those_of_other_samples() -> None:
    table = SampleTable()
    table.rows_of_scores(["A"]).add({"A": array("d", [1.0, 0.0])})
    table.rows_of_scores(["B"]).add({"B": array("d", [0.0])}, ids=["x"])
    reported = json.loads(sample_files(table, changes={"A": {0: -1.0}})["samples.json"])
    assert reported["columns"] == ["sample", "A", "A/change", "B"]
    assert reported["data"] == [["0", 1, -1, None], ["1", 0, 0, None], ["x", None, None, 0]]


def test_mlflows_form_of_a_table() -> None:
    table = table_of(
        {"A": [1, 0.5, NAN], "B": [3, 2, 1], "note": ["é", None, "x"], "flag": [True, False, None]}
    )
    assert json.loads(table_json(to_arrow(table))) == {
        "columns": ["sample", "A", "B", "note", "flag"],
        "data": [[0, 1.0, 3, "é", True], [1, 0.5, 2, None, False], [2, None, 1, "x", None]],
    }


def test_the_files_of_many_samples() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(50_000) < 0.9).astype(float)
    files = sample_files(table_of({"A": right, "B": rng.random(50_000), "target": right}))
    assert len(files["samples.parquet"]) < 420_000
    rows = json.loads(files["samples.json"])["data"]
    assert len(rows) == 1000
    assert {row[1] for row in rows} == {0}


ABOUTS = [
    "", "{", "[]", "[" * 100_000, '{"scores": [1]}', '{"scores": ["A"], "sources": []}',
    '{"scores": ["A"], "higher_is_worse": {}}', '{"scores": ["A"], "partial": "no"}',
]  # fmt: skip


@pytest.mark.parametrize("about", ABOUTS, ids=lambda about: about[:40])
def test_a_file_that_does_not_say_what_its_columns_are(about: str) -> None:
    found = to_arrow(table_of(ONE)).replace_schema_metadata({b"armory": about})
    with pytest.raises(ValueError, match="which columns are scores"):
        read_parquet(parquet_of(found))


@pytest.mark.parametrize("cells", [[None, [1], []], ["a", "b", "c"], [{}, {}, {"a": 1}]], ids=str)
def test_a_file_whose_scores_are_no_numbers(cells: list[object]) -> None:
    table = to_arrow(table_of(ONE))
    odd = table.set_column(table.column_names.index("A"), "A", pyarrow.array(cells))
    with pytest.raises(ValueError):  # noqa: PT011 - NumPy's or ours
        read_parquet(parquet_of(odd))


def parquet_of(found: Any) -> bytes:
    """An Arrow table as a file, whatever it says of itself."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(found, buffer)
    return buffer.getvalue()


def test_the_names_of_data_and_evaluations_have_no_secrets() -> None:
    table = SampleTable()
    table.rows_of("of token=hunter2", ["A"], "s3://user:hunter2@host/x").add({"A": array("d", [1])})
    content = sample_files(table)["samples.parquet"]
    assert isinstance(content, bytes)
    assert b"hunter2" not in content
    (part,) = read_parquet(content).parts
    assert (part.source, part.dataset) == ("of token=[redacted]", "s3://[redacted]@host/x")


def test_a_column_named_as_a_renamed_one_is_written_once() -> None:
    """A column that is named as a score is renamed; a score may have that name."""
    table = SampleTable()
    rows = table.rows_of_scores(["S", "S (column)"])
    rows.add({"S": array("d", [1, 2]), "S (column)": array("d", [3, 4])}, columns={"S": ["a", "b"]})
    rows.is_complete = True
    files = sample_files(table)
    assert json.loads(files["samples.json"])["columns"] == ["sample", "S", "S (column)"]
