"""Counts, gates, and the tests that a sentence is about."""

from __future__ import annotations

from summaries import summary, verdict

from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.report.sentences import counts_text, gate_lines, with_tests
from pytest_armory.report.summary import SessionVerdict, Summary
from pytest_armory.report.terminal import terminal_lines


def test_what_could_not_be_judged_is_cut_too() -> None:
    one = [
        EvaluationRecord(f"t[{i}]", verdicts=(verdict("a", "unjudged", text=f"reason {i}"),))
        for i in range(100)
    ]
    lines = gate_lines(one, "b")
    assert (len(lines), lines[-1]) == (21, "not judged: 80 more gates")


def test_a_sentence_of_several_tests_is_said_once() -> None:
    said = [("a", "t.py::T::x[p::q]"), ("b", "t.py"), *(("a", f"t.py::y[{i}]") for i in range(3))]
    assert with_tests(said) == ["a (T::x[p::q], y[0], y[1] and 1 more)", "b (t.py)"]


def test_reruns_are_counted_apart() -> None:
    first = EvaluationRecord("t", attempt=1, outcome=Outcome.FAILED)
    second = EvaluationRecord("t", attempt=2, outcome=Outcome.PASSED)
    text = counts_text(Summary("s", "w", [first, second]))
    assert text == "1 evaluation: 1 passed (1 earlier attempt)"
    assert summary([first, second]).verdict is SessionVerdict.PASSED
    assert "t (attempt 2)" in terminal_lines(summary([first, second]), 80, 0)[3].text
