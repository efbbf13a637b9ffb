"""The summary as Markdown: verdict first, four cells a row, cut where it is long."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

from hypothesis import given
from hypothesis import strategies as st
from summaries import many, records, summary, verdict

from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.report.markdown import shortened, to_markdown


@given(records)
def test_every_markdown_row_has_its_four_cells(given: list[EvaluationRecord]) -> None:
    rows = [line for line in to_markdown(summary(given)).splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


def test_markdown_is_cut_honestly() -> None:
    text = to_markdown(summary(many(5000, bad=5000)), limit=20_000)
    assert len(text) < 20_000
    cut = re.search(r"… and ([\d,]+) more rows cut here\.", text)
    assert cut
    shown = text.count("| `t.py")
    assert int(cut.group(1).replace(",", "")) + shown == 5000


def test_markdown_puts_what_failed_first_and_folds_the_rest() -> None:
    text = to_markdown(summary(many(5, bad=1), commit="a" * 40, branch="main", lost=2))
    assert text.startswith("## ❌ 5 evaluations: 4 passed, 1 failed")
    assert "commit `aaaaaaaaaaaa` on `main`" in text
    assert "**Not stored: 2 evaluations.**" in text
    assert text.index("test[0]") < text.index("<details>") < text.index("test[1]")
    assert to_markdown(summary(many(3))).startswith("## ✅ 3 evaluations: 3 passed")


def test_markdown_has_its_table_before_every_other_line() -> None:
    """MLflow 3.17 shows 100 pixels of a note."""
    given = summary(many(3), baseline="baseline latest: session first", lost=1, problems=["late"])
    lines = [line for line in to_markdown(given).splitlines() if line]
    assert lines[0] == "## ✅ 3 evaluations: 3 passed; 1 not stored; 1 warning"
    assert [line[:12] for line in lines[1:3]] == ["| test | out", "| --- | --- "]
    assert lines[6:8] == ["**Not stored: 1 evaluation.**", "⚠️ late"]
    assert lines[-2:] == ["Session `s`, tracked to `here`.", "Baseline latest: session first."]


def test_of_many_that_passed_the_first_are_not_folded() -> None:
    before, _, folded = to_markdown(summary(many(60))).partition("<details>")
    assert before.startswith("## ✅ 60 evaluations: 60 passed\n\n| test |")
    assert (before.count("| `t.py"), folded.count("| `t.py")) == (40, 20)
    assert folded.startswith("<summary>20 more</summary>")


def test_missed_gates_are_marked_in_the_table_and_come_first() -> None:
    gates = [verdict(f"m{i}", "failed", text="is low") for i in range(9)]
    outcomes = (Outcome.FAILED, Outcome.FAILED, Outcome.PASSED, Outcome.XFAILED, Outcome.PASSED)
    given = [
        EvaluationRecord(f"t.py::{i}", outcome=outcome, metrics={"m0": 1, "other": 2})
        for i, outcome in enumerate(outcomes)
    ]
    given[1] = replace(given[1], verdicts=tuple(gates))
    given[2] = replace(given[2], chief=("other",), verdicts=(gates[1],))  # of `compare`
    given[3] = replace(given[3], verdicts=tuple(gates))
    text = to_markdown(summary(given))
    heading, _, rest = text.partition("\n")
    assert heading.endswith("5 evaluations: 2 passed, 2 failed, 1 xfailed; 10 gates missed")
    table, _, after = rest.partition("**10 gates missed**")
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[0] for row in rows] == [f"| `t.py::{i}`" for i in (1, 2, 0)]
    assert "| ❌ m0 1, other 2, ❌ m1, ❌ m2, ❌ m3, … 5 more missed |" in rows[0]
    assert "| other 2, ❌ m1 |" in rows[1]
    assert "❌" not in rows[2] + after
    assert after.index("- `t.py::1`: m0 1 is low") < after.index("<summary>2 good</summary>")


@given(records, st.integers(100, 2000))
def test_a_note_is_cut_between_lines(given: list[EvaluationRecord], limit: int) -> None:
    text = to_markdown(summary(given))
    note = shortened(text, limit)
    assert len(note) <= limit
    kept = note.partition("\n\n… cut here")[0]
    kept = kept.removesuffix("\n\n</details>").removesuffix("\n</pre>")
    assert note == text if len(text) <= limit else text.startswith(f"{kept}\n" if kept else "")


def test_nothing_is_a_mention_a_reference_or_a_command_of_a_host() -> None:
    """Hosts look for mentions after they have decoded entities, GitLab for commands before."""
    flips = ("/close  7 → 9", "@octocat #5  1 → 0")
    missed = replace(verdict("@octocat #5", "failed"), flips=flips)
    record = EvaluationRecord("t.py::t", outcome=Outcome.FAILED, verdicts=(missed,))
    text = to_markdown(summary([record]))
    shown = unescape(text)
    assert "@octocat" not in shown
    assert "#5" not in shown
    assert "@\u200boctocat #\u200b5" in shown
    assert not re.search(r"^\s*/", text, re.MULTILINE)
    assert "/close  7 → 9" in shown
