"""The lines of the terminal: each one printable, and no more than a screen of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from summaries import many, records, summary

from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.terminal import terminal_lines
from pytest_armory.report.text import columns


@given(records, st.integers(20, 200), st.integers(-2, 2))
def test_every_terminal_line_is_one_printable_line(
    given: list[EvaluationRecord], width: int, verbosity: int
) -> None:
    lines = terminal_lines(summary(given, problems=["a\nb\x1b[0m"]), width, verbosity)
    assert all(line.text.isprintable() for line in lines)
    if verbosity >= 0:
        table = [lines[0].text, *(line.text for line in lines if line.text.startswith("  "))]
        assert len({columns(row) for row in table}) == 1


def test_a_thousand_rows_fit_a_screen_with_every_bad_one() -> None:
    lines = [line.text for line in terminal_lines(summary(many(1000, bad=50)), 80, 0)]
    assert sum("failed" in line for line in lines[:-1]) == 50
    assert len(lines) == 1 + 1 + 50 + 1 + 1
    assert "950 more" in lines[-2]
    assert len(terminal_lines(summary(many(1000)), 80, 1)) == 1003


def test_a_hundred_warnings_fit_a_screen_too() -> None:
    problems = [f"w{i}" for i in range(100)]
    lines = [line.text for line in terminal_lines(summary(many(1), problems=problems), 80, 0)]
    assert sum(line.startswith("warning: w") for line in lines) == 20
    assert lines[-1] == "… 80 more warnings; -v shows every one"
    every = terminal_lines(summary(many(1), problems=problems), 80, 1)
    assert sum(line.text.startswith("warning: w") for line in every) == 100
    text = to_markdown(summary(many(1, bad=1), problems=problems))
    assert (text.count("⚠️ w"), "80 more warnings" in text) == (20, True)


WIDE = {"l2_max": 2.345, "l2_mean": 1.234, "linf_mean": 0.051}


def metrics_shown(width: int, **fields: Any) -> str:
    """The cell of the metrics of one evaluation."""
    record = EvaluationRecord("t.py::" + "x" * 30, outcome=Outcome.PASSED, duration=1.0, **fields)
    line = terminal_lines(summary([record]), width, 0)[2].text
    return line.partition("passed  ")[2].removesuffix("1.00 s").strip()


@given(st.integers(30, 120))
def test_no_number_is_cut(width: int) -> None:
    """Whatever the width is, a number stands whole or not at all."""
    for fields in ({}, {"baseline": dict.fromkeys(WIDE, 1.0)}):
        words = metrics_shown(width, metrics=WIDE, **fields).replace("…", "").split()
        numbers = [word for word in words if word[0].isdigit()]
        assert numbers == ["2.345", "1.234", "0.051"][: len(numbers)]


def test_metrics_are_left_out_whole() -> None:
    assert metrics_shown(120, metrics=WIDE) == "l2_max 2.345  l2_mean 1.234  linf_mean 0.051"
    assert metrics_shown(90, metrics=WIDE) == "l2_max 2.345  l2_mean 1.234 …"
    long = {"a_metric_of_a_very_long_name_indeed_and_more": 0.125}
    assert metrics_shown(60, metrics=long).endswith("… 0.125")
