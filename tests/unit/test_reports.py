"""Tables, Markdown, numbers: pure strings that nothing can break."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_armory.records import EvaluationRecord, Outcome, Verdict
from pytest_armory.report.reports import (
    SessionVerdict,
    Summary,
    chief_metrics,
    chief_of,
    columns,
    counted,
    gate_lines,
    junit_properties,
    markdown,
    metric_parts,
    number,
    printable,
    seconds,
    shorten,
    terminal_lines,
    with_tests,
)

anything = st.text(st.characters(), max_size=80)
outcomes = st.none() | st.sampled_from(Outcome)
records = st.lists(
    st.builds(
        EvaluationRecord,
        nodeid=anything,
        attempt=st.integers(1, 3),
        outcome=outcomes,
        duration=st.floats(0, 1e6),
        metrics=st.dictionaries(anything, st.floats(), max_size=5),
        url=st.none() | st.just("http://h/#/x"),
    ),
    max_size=8,
)


def summary(given: list[EvaluationRecord], **more: object) -> Summary:
    return Summary(session="s", where="here", records=given, **more)  # type: ignore[arg-type]


def many(count: int, bad: int = 0) -> list[EvaluationRecord]:
    return [
        EvaluationRecord(
            f"t.py::test[{i}]", outcome=Outcome.FAILED if i < bad else Outcome.PASSED, duration=1.0
        )
        for i in range(count)
    ]


@given(records, st.integers(20, 200), st.integers(-2, 2))
def test_every_terminal_line_is_one_printable_line(
    given: list[EvaluationRecord], width: int, verbosity: int
) -> None:
    lines = terminal_lines(summary(given, problems=["a\nb\x1b[0m"]), width, verbosity)
    assert all(line.text.isprintable() for line in lines)
    if verbosity >= 0:
        table = [lines[0].text, *(line.text for line in lines if line.text.startswith("  "))]
        assert len({columns(row) for row in table}) == 1


@given(records)
def test_every_markdown_row_has_its_four_cells(given: list[EvaluationRecord]) -> None:
    rows = [line for line in markdown(summary(given)).splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


@given(anything, st.integers(1, 60))
def test_shorten_keeps_to_the_width(text: str, width: int) -> None:
    text = printable(text)
    for keep_start in (True, False):
        assert columns(shorten(text, width, keep_start)) <= max(width, 1)


@given(anything)
def test_printable_is_printable_and_leaves_plain_text(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    if text.isprintable():
        assert printable(text) == text


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
    text = markdown(summary(many(1, bad=1), problems=problems))
    assert (text.count("⚠️ w"), "80 more warnings" in text) == (20, True)


def verdict(metric: str, state: str, higher_is_worse: bool = False, text: str = "") -> Verdict:
    return Verdict(metric, "", state, 1.0, 1.0, text=text, higher_is_worse=higher_is_worse)


def test_what_failed_is_shown_first() -> None:
    gates = [verdict(name, "passed") for name in "abc"]
    gates += [verdict("u", "unjudged"), verdict("duration_seconds", "failed")]
    metrics = dict.fromkeys(["a", "b", "c", "u", "duration_seconds"], 1.0)
    record = EvaluationRecord("t", metrics=metrics, verdicts=tuple(gates))
    assert list(chief_of(record)) == ["duration_seconds", "u", "a"]


def test_no_colour_where_gates_disagree_on_what_is_worse() -> None:
    both = (verdict("a", "passed"), verdict("a", "passed", higher_is_worse=True))
    for verdicts, colour in ((both[:1], "green"), (both[1:], "red"), (both, None)):
        record = EvaluationRecord("t", metrics={"a": 2.0}, baseline={"a": 1.0}, verdicts=verdicts)
        assert metric_parts(record)[2] == ("↑1", colour)


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


def test_markdown_is_cut_honestly() -> None:
    text = markdown(summary(many(5000, bad=5000)), limit=20_000)
    assert len(text) < 20_000
    cut = re.search(r"… and ([\d,]+) more rows cut here\.", text)
    assert cut
    shown = text.count("| `t.py")
    assert int(cut.group(1).replace(",", "")) + shown == 5000


def test_markdown_puts_what_failed_first_and_folds_the_rest() -> None:
    text = markdown(summary(many(5, bad=1), commit="a" * 40, branch="main", lost=2))
    assert text.startswith("## ❌ 5 evaluations: 4 passed, 1 failed")
    assert "commit `aaaaaaaaaaaa` on `main`" in text
    assert "**Not stored: 2 evaluations.**" in text
    assert text.index("test[0]") < text.index("<details>") < text.index("test[1]")
    assert markdown(summary(many(3))).startswith("## ✅ 3 evaluations: 3 passed")


def test_reruns_are_counted_apart() -> None:
    first = EvaluationRecord("t", attempt=1, outcome=Outcome.FAILED)
    second = EvaluationRecord("t", attempt=2, outcome=Outcome.PASSED)
    assert (
        counted(Summary("s", "w", [first, second])) == "1 evaluation: 1 passed (1 earlier attempt)"
    )
    assert summary([first, second]).verdict is SessionVerdict.PASSED
    assert "t (attempt 2)" in terminal_lines(summary([first, second]), 80, 0)[3].text


def test_chief_metrics_are_the_plainest() -> None:
    metrics = {"time/predict_seconds": 1.0, "report/a/f1": 0.1, "samples": 9.0, "b": 2.0, "a": 1.0}
    assert chief_metrics(metrics) == {"a": 1.0, "b": 2.0, "report/a/f1": 0.1}
    assert chief_metrics({"duration_seconds": 1.0}) == {}


def test_junit_properties() -> None:
    record = EvaluationRecord("t", run_id="r", url="http://h", metrics={"accuracy": 0.5})
    assert junit_properties(record) == [
        ("armory_run_id", "r"), ("armory_run_url", "http://h"), ("armory_metric_accuracy", "0.5"),
    ]  # fmt: skip
    assert junit_properties(EvaluationRecord("t")) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, "0.5"), (3.0, "3"), (1797.0, "1,797"), (0.123456, "0.1235"), (float("nan"), "nan"),
     (float("inf"), "inf"), (1e20, "1e+20"), (-0.0, "0"), (1e-9, "1e-09")],
)  # fmt: skip
def test_number(value: float, expected: str) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, ""), (9.994, "9.99 s"), (12.34, "12.3 s"), (59.99, "60.0 s"), (245, "4 min 05 s"),
     (11520, "3 h 12 min")],
)  # fmt: skip
def test_seconds(value: float, expected: str) -> None:
    assert seconds(value) == expected
