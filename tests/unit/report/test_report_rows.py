"""What tables and properties show of one evaluation."""

from __future__ import annotations

from summaries import summary, verdict

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.junit import junit_properties
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.rows import chief_metrics, chief_of, outcome_text, shown_metrics
from pytest_armory.report.sentences import counts_text
from pytest_armory.report.terminal import terminal_lines


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
        (shown,) = shown_metrics(record)
        assert shown.parts[2] == ("↑1", colour)


def test_chief_metrics_are_the_plainest() -> None:
    metrics = {"time/predict_seconds": 1.0, "report/a/f1": 0.1, "samples": 9.0, "b": 2.0, "a": 1.0}
    assert chief_metrics(metrics) == {"a": 1.0, "b": 2.0, "report/a/f1": 0.1}
    assert chief_metrics({"duration_seconds": 1.0}) == {}


def test_metrics_are_in_natural_order() -> None:
    def in_order(*names: str) -> list[str]:
        return list(chief_metrics(dict.fromkeys(names, 1.0), most=9))

    assert in_order("m10", "m2", "m1") == ["m1", "m2", "m10"]
    assert in_order("a/top10", "a/top5", "b") == ["b", "a/top5", "a/top10"]
    assert in_order("10", "9", "x", "x1y10", "x1y9") == ["9", "10", "x", "x1y9", "x1y10"]


def test_junit_properties() -> None:
    record = EvaluationRecord("t", run_id="r", url="http://h", metrics={"accuracy": 0.5})
    assert junit_properties(record) == [
        ("armory_run_id", "r"), ("armory_run_url", "http://h"), ("armory_metric_accuracy", "0.5"),
    ]  # fmt: skip
    assert junit_properties(EvaluationRecord("t")) == []


def test_an_attempt_under_way_is_running_in_the_table_as_in_the_counts() -> None:
    """As another job of the session is at work on it, which `pytest-armory report` sees."""
    given = summary([EvaluationRecord("t.py::test_a")])
    assert counts_text(given) == "1 evaluation: 1 running"
    assert outcome_text(given.records[0]) == "running"
    row = terminal_lines(given, 80, 0)[2]
    assert row.text.split() == ["test_a", "running"]
    assert {text.strip(): colour for text, colour in row.parts}["running"] == "yellow"
    assert "| `t.py::test_a` | running |" in to_markdown(given)
