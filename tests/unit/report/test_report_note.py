"""The summary as a run's note: what MLflow's page shows of it without a click."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from summaries import many, records, summary

from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.note import as_note


def test_the_heading_of_a_note_is_no_larger_than_text() -> None:
    text = to_markdown(summary(many(3, bad=1)))
    assert text.startswith("## ❌ 3 evaluations")
    assert as_note(text, 8000).startswith("#### ❌ 3 evaluations")
    assert as_note("mine, edited by a hook\n## more", 8000) == "mine, edited by a hook\n## more"


def table(note: str) -> list[list[str]]:
    """The cells of the header and the rows of the first table."""
    lines = note.partition("\n| ")[2].partition("\n\n")[0].splitlines()
    return [row.removesuffix(" |").removeprefix("| ").split(" | ") for row in lines]


def test_a_note_begins_with_the_tests_of_its_experiment() -> None:
    """So that MLflow's page shows one of them without a click."""
    names = ["a.py::test[1]", "b/c.py::T::test[x::y|`z]", "b/c.py::test_b"]
    records = [EvaluationRecord(name, outcome=Outcome.PASSED, worker="main") for name in names]
    records.append(replace(records[2], attempt=2, url="http://h/#/r"))
    text = to_markdown(summary(records))
    own = [records[1], records[3]]
    first = [r"``b/c.py::T::test[x::y\|`z]``", "[`b/c.py::test_b (attempt 2)`](http://h/#/r)"]
    others = ["`a.py::test[1]`", "`b/c.py::test_b`"]
    note = as_note(text, 8000, own, records)
    assert [cells[0] for cells in table(note)[2:]] == [*first, *others]
    assert [cells[0] for cells in table(as_note(text, 8000))] == [
        cells[0] for cells in table(text.replace("## ", "#### ", 1))
    ]


def test_what_passed_begins_with_the_tests_of_its_experiment_too() -> None:
    """So that they are not cut off, if it is another one's test that failed."""
    given = many(60, bad=1)
    own = given[-2:]
    note = as_note(to_markdown(summary(given)), 1500, own, given)
    assert table(note)[2][0] == f"`{given[0].nodeid}`"
    passed = table(note.partition("<details>")[2])
    assert [cells[0] for cells in passed[2:4]] == [f"`{record.nodeid}`" for record in own]
    assert len(passed) < 50


def test_a_row_is_one_line_that_is_as_wide_as_it_must_be() -> None:
    """Broken into lines it would fill the part that is shown; a narrow table is put far below."""
    metrics = {"accuracy": 0.5, "recall": 0.25, "precision": 0.125, "z one more": 1.0}
    few = EvaluationRecord("t.py::test_few", outcome=Outcome.PASSED, metrics={"accuracy": 0.5})
    long = replace(few, nodeid=f"t.py::test_{'long' * 20}", metrics=metrics)
    short = replace(few, nodeid="t.py::test_short", metrics=metrics)
    header, _, *rows = table(as_note(to_markdown(summary([few, long, short])), 8000))
    assert header == ["test", "outcome", "metrics", "duration"]
    assert [row[2] for row in rows] == [
        "accuracy\xa00.5",
        "accuracy\xa00.5,\xa0…",
        "accuracy\xa00.5,\xa0precision\xa00.125,\xa0recall\xa00.25",
    ]
    header, *_ = table(as_note(to_markdown(summary([few])), 8000))
    assert header[2].strip() != header[2].strip("\u200b") == header[2][:-1]
    assert len(header[2]) > 60


@given(records, st.integers(1000, 9000))
def test_a_note_has_every_row_whose_metrics_it_may_cut(
    given: list[EvaluationRecord], limit: int
) -> None:
    text = to_markdown(summary(given))
    note = as_note(text, limit)
    assert len(note) <= limit
    if len(note) + 200 < limit:
        assert [c[0] for c in table(note)] == [c[0] for c in table(text)]
        assert all(
            cut[2].split(",\xa0…")[0].replace("\xa0", " ") in whole[2].replace("\xa0", " ")
            for cut, whole in zip(table(note)[2:], table(text)[2:], strict=True)
        )
