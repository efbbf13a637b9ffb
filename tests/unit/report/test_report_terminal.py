"""The lines of the terminal: each one printable, and no more than a screen of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from summaries import many, records, summary

from pytest_armory.records import EvaluationRecord, Outcome, Verdict
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


def test_a_long_name_leaves_room_for_the_change_of_a_gated_metric() -> None:
    missed = Verdict("accuracy", "baseline -2%", "failed", 0.805, 0.8918, 0.91)
    gated = EvaluationRecord(
        "t.py::test_pgd[0.1]",
        outcome=Outcome.FAILED,
        duration=1.0,
        metrics={"accuracy": 0.805, "loss": 0.195},
        baseline={"accuracy": 0.91},
        verdicts=(missed,),
    )
    long = replace(gated, nodeid=f"t.py::test_{'x' * 60}")
    lines = [line.text for line in terminal_lines(summary([gated, long]), 80, 0)]
    assert all("accuracy 0.805 (↓0.105)" in line for line in lines[2:4])
    assert max(map(columns, lines[:4])) <= 80


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


def test_metrics_stand_in_columns_where_rows_have_the_same() -> None:
    values = ({"accuracy": 0.9764, "loss": 0.02}, {"accuracy": 0.97, "loss": 0.125})
    given = [EvaluationRecord(f"t.py::t{i}", outcome=Outcome.PASSED, metrics=dict(v))
             for i, v in enumerate(values)]  # fmt: skip
    first, second = (line.text for line in terminal_lines(summary(given), 100, 0)[2:4])
    assert first.index("loss") == second.index("loss")
    other = replace(given[0], nodeid="t.py::u", metrics={"f1": 0.5, "loss": 0.2})
    lines = [line.text for line in terminal_lines(summary([*given, other]), 100, 0)]
    assert lines[2].index("loss") == lines[3].index("loss")  # whatever other rows begin with
    assert "f1 0.5  loss 0.2" in lines[4]
    other = replace(other, metrics={"accuracy": 0.5, "loss_": 0.2, "z": 1})
    three = [replace(row, metrics={**row.metrics, "z": 1}) for row in given]
    lines = [line.text for line in terminal_lines(summary([*three, other]), 100, 0)]
    assert lines[2].index("loss") == lines[4].index("loss_")  # up to the first that is not the same
    assert lines[2].index("z 1") == lines[3].index("z 1")  # and no other row takes that from them
    long = "a_metric_of_a_long_name"
    given = [
        replace(row, metrics={**value, long: 0.5}, chief=(*sorted(value, reverse=i == 0), long))
        for i, (row, value) in enumerate(zip(given, values, strict=True))
    ]
    lines = [line.text for line in terminal_lines(summary(given), 140, 0)]
    assert "loss 0.02  accuracy 0.9764  a_m" in lines[2]  # no other column's width


GATED: dict[str, Any] = {
    "metrics": {"accuracy": 0.9764, "accuracy/ci_low": 0.96, "accuracy/ci_high": 0.99, "z": 1.5},
    "baseline": {"accuracy": 0.9864},
    "verdicts": (Verdict("accuracy", "baseline -2%", "passed", 0.9764, 0.96, 0.9864),),
}


def test_of_the_chief_metric_the_interval_goes_first_then_the_change() -> None:
    whole = "accuracy 0.9764 ±0.015 (↓0.01)"
    assert metrics_shown(110, **GATED) == f"{whole}  z 1.5"
    assert {metrics_shown(width, **GATED) for width in range(58, 110)} == {
        f"{whole}  z 1.5", f"{whole} …", whole, "accuracy 0.9764 (↓0.01) …",
        "accuracy 0.9764 (↓0.01)", "accuracy 0.9764 …",
    }  # fmt: skip


def test_the_gated_metric_is_first_in_a_row_whose_test_failed_before_its_gates() -> None:
    kept = Verdict("z", "baseline -2%", "passed", 1.5, 1.4, 1.5)
    good = EvaluationRecord("t.py::t[1]", outcome=Outcome.PASSED, metrics={"a": 1, "z": 1.5},
                            verdicts=(kept,))  # fmt: skip
    bad = replace(good, nodeid="t.py::t[2]", outcome=Outcome.FAILED, verdicts=())
    other = replace(bad, nodeid="t.py::u", metrics={"a": 1, "z": 2})
    lines = [line.text for line in terminal_lines(summary([good, bad, other]), 100, 0)]
    assert "z 1.5  a 1" in lines[3]
    assert "a 1  z 2" in lines[4]
    rows = [row for row in to_markdown(summary([good, bad, other])).splitlines() if "[2]" in row]
    assert "z 1.5, a 1" in rows[0]


def test_a_name_that_is_cut_keeps_its_indentation() -> None:
    given = [EvaluationRecord(f"t.py::test_{'x' * n}", outcome=Outcome.PASSED) for n in (5, 90)]
    lines = [line.text for line in terminal_lines(summary(given), 80, 0)]
    assert lines[3].startswith("  …xxx")
    assert columns(lines[3]) == columns(lines[2]) <= 80


def test_the_verdict_of_a_change_is_the_last_that_is_left_out() -> None:
    worse = replace(GATED["verdicts"][0], state="failed", verdict="worse")
    shown = {metrics_shown(width, **{**GATED, "verdicts": (worse,)}) for width in range(40, 110)}
    assert {text for text in shown if "worse" in text} >= {
        "accuracy 0.9764 (↓0.01 worse)", "accuracy 0.9764 (worse)",
    }  # fmt: skip
    assert not any("↓" in text and "worse" not in text for text in shown)


def test_a_wide_terminal_shows_more_metrics() -> None:
    six = {f"m{i}": 0.5 for i in range(9)}
    assert metrics_shown(119, metrics=six) == "m0 0.5  m1 0.5  m2 0.5"
    assert metrics_shown(160, metrics=six).count("0.5") == 6


def test_a_missed_gate_has_a_next_step() -> None:
    missed = Verdict("loss", "at_most 0.1", "failed", 0.5, 0.1)
    given = EvaluationRecord("t.py::it's", run_id="1", outcome=Outcome.FAILED,
                             metrics={"accuracy": 0.5, "loss": 0.5}, verdicts=(missed,),
                             chief=("accuracy",))  # fmt: skip
    lines = [line.text for line in terminal_lines(summary([given]), 80, -1)]
    step = "next: `pytest-armory history 't.py::it'\"'\"'s' --metric loss` shows since when"
    assert step in lines
    for there, record, option in (
        ("http://h", given, "http://h"), ("http://h", replace(given, waiting=True), "local"),
    ):  # fmt: skip
        given_it = summary([record], store_option=f" --armory-tracking-uri {there}")
        lines = [line.text for line in terminal_lines(given_it, 80, -1)]
        assert f"--metric loss --armory-tracking-uri {option}` shows" in "".join(lines)
    for other in (replace(given, run_id=None), replace(given, verdicts=())):
        lines = [line.text for line in terminal_lines(summary([other]), 80, 1)]
        assert not any(line.startswith("next: ") for line in lines)


def test_metrics_are_left_out_whole() -> None:
    assert metrics_shown(120, metrics=WIDE) == "l2_max 2.345  l2_mean 1.234  linf_mean 0.051"
    assert metrics_shown(90, metrics=WIDE) == "l2_max 2.345  l2_mean 1.234 …"
    long = {"a_metric_of_a_very_long_name_indeed_and_more": 0.125}
    assert metrics_shown(60, metrics=long).endswith("… 0.125")
