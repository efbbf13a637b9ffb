"""A metric over sessions: sparkline, lines of any width, CSV."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from time import time

import pytest

from pytest_armory.records import EvaluationRecord, Outcome, Verdict
from pytest_armory.report.charts import curve_chart, trend_chart
from pytest_armory.report.curves import curves
from pytest_armory.report.details import Entry
from pytest_armory.report.text import columns
from pytest_armory.report.trend import (
    CSV_HEADER,
    Point,
    Trend,
    csv_rows,
    metric_to_show,
    point_of,
    sparkline,
    trend_lines,
)
from pytest_armory.session.history import matching

NOW = int(time() * 1000)
LARGEST = sys.float_info.max
"""What a database stores for an infinite value."""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([1.0, None, 2.0, math.nan, math.inf], "▁·█··"),
        ([3.0, 3.0], "▅▅"),
        ([1.0, LARGEST, 2.0, -LARGEST], "▁·█·"),
        ([], ""),
    ],
)
def test_a_sparkline(values: list[float | None], expected: str) -> None:
    assert sparkline(values) == expected


def trend(values: list[float | None], **more: object) -> Trend:
    """A trend of values, each half an hour after the one before."""
    points = [
        Point(
            session=f"20261127-10{i:02}00-abcdef",
            start=NOW - 1_800_000 * (len(values) - i) - 60_000,
            value=value,
            outcome="passed",
            commit="1f3a9c0d22b7",
            branch="feature/more",
            **more,  # type: ignore[arg-type]
        )
        for i, value in enumerate(values)
    ]
    return Trend("evals/test_a.py::test_pgd[0.1]", "accuracy", points)


def test_lines_with_everything() -> None:
    lines = trend_lines(trend([0.9, 0.95, None], low=0.88, high=0.97, baseline=0.9), 160)
    assert lines[0] == "evals/test_a.py::test_pgd[0.1]  accuracy"
    assert lines[1] == "▁█·  0.9 to 0.95, 3 sessions"
    assert lines[2].split() == ["session", "began", "accuracy", "interval", "change", "outcome",
                                "commit", "branch"]  # fmt: skip
    assert [line.split()[0][9:13] for line in lines[3:]] == ["1002", "1001", "1000"]
    assert "0.95      0.88 to 0.97  ↑0.05   passed   1f3a9c0d  feature/more  ├" in lines[4]
    assert lines[4].rstrip().endswith("┤")
    assert lines[4].index("●") > lines[5].index("●")
    assert "…" in lines[3]


@pytest.mark.parametrize("width", [160, 100, 80, 40])
def test_lines_fit_or_have_the_chief_columns(width: int) -> None:
    lines = trend_lines(trend([0.9, 0.95], low=0.88, high=0.97, baseline=0.9), width)
    widest = max(map(columns, lines[2:]))
    assert widest <= max(width, 66)
    assert "accuracy" in lines[2]


def test_a_narrow_terminal_shows_interval_verdict_and_commit() -> None:
    given = trend([0.78, 0.8867], low=0.7297, high=0.8232, baseline=0.8867, verdict="not judged")
    lines = trend_lines(given, 80)
    assert lines[2].split() == ["session", "accuracy", "interval", "verdict", "commit"]
    assert max(map(columns, lines)) <= 80


def test_infinite_values_are_not_drawn() -> None:
    given = trend([0.5, LARGEST, -LARGEST, 0.6], low=-LARGEST, high=LARGEST, limit=math.inf)
    assert "0.5 to 0.6, 4 sessions" in trend_lines(given, 160)[1]
    assert trend_chart(given, 1).startswith("<svg")
    group = [Entry(EvaluationRecord(f"t.py::t[{i}]", metrics={"a": value}), {"eps": str(i)})
             for i, value in enumerate([0.5, LARGEST, 0.6, 0.7, -LARGEST])]  # fmt: skip
    (curve,) = curves(group)
    assert [x for x, _ in curve.series[""]] == [0, 2, 3]
    assert curve_chart(curve, 1).startswith("<svg")


def test_one_value_has_no_scale() -> None:
    lines = trend_lines(trend([0.5]), 160)
    assert "●" not in "".join(lines)
    assert lines[1] == "▅  0.5, 1 session"


def record() -> EvaluationRecord:
    """An evaluation with a missed and a kept gate."""
    return EvaluationRecord(
        "a.py::t",
        outcome=Outcome.FAILED,
        metrics={"f1": 0.5, "accuracy": 0.9, "accuracy/ci_low": 0.8, "accuracy/ci_high": 0.95},
        verdicts=(
            Verdict("accuracy", "at_least 0.5", "passed", 0.9, 0.5),
            Verdict("accuracy", "baseline -2%", "failed", 0.9, 0.93, 0.95, verdict="worse"),
        ),
    )


def test_a_point_has_the_verdict_that_tells_most() -> None:
    point = point_of(record(), "accuracy", "s", 5, {"armory.git.dirty": "true"})
    assert (point.verdict, point.limit, point.baseline) == ("worse", 0.93, 0.95)
    assert (point.low, point.high, point.dirty) == (0.8, 0.95, True)
    assert point_of(record(), "f1", "s", 5, {}).verdict == ""
    assert metric_to_show(record()) == "accuracy"


def test_of_kept_gates_a_point_has_the_one_that_evidence_leaves_unclear() -> None:
    bound, tolerance = record().verdicts
    for word in ("unclear", "not worse"):
        judged = replace(tolerance, state="passed", verdict=word)
        found = replace(record(), verdicts=(bound, judged))
        assert point_of(found, "accuracy", "s", 5, {}).verdict == word
    unjudged = replace(tolerance, state="unjudged", verdict="")
    assert point_of(replace(record(), verdicts=(unjudged, bound)), "accuracy", "s", 5,
                    {}).verdict == "kept"  # fmt: skip


def test_csv_is_for_spreadsheets_that_run_formulas() -> None:
    hostile = Trend("=cmd|'x'!A1", "m", [Point("s", 0, 1.5, branch="@x", commit="-1")])
    (row,) = csv_rows(hostile)
    cells = dict(zip(CSV_HEADER, row, strict=True))
    assert cells["nodeid"] == "'=cmd|'x'!A1"
    assert (cells["branch"], cells["commit"]) == ("'@x", "'-1")
    assert (cells["value"], cells["ci_low"]) == (1.5, "")
    assert cells["started"] == "1970-01-01T00:00:00+00:00"


IDS = ["a.py::test_x", "a.py::test_x[1]", "a.py::test_xy", "b.py::test_x[a*b]"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.py::test_x", [IDS[0]]),
        ("test_x[", [IDS[1], IDS[3]]),
        ("a.py::*", IDS[:3]),
        ("test_x[*", [IDS[1], IDS[3]]),
        ("a.py::*y", [IDS[2]]),
        ("*x*", IDS),
        ("b.py::test_x[a*b]", [IDS[3]]),
        ("nothing", []),
        ("", IDS),
    ],
)
def test_what_a_pattern_is_meant_for(pattern: str, expected: list[str]) -> None:
    assert matching(pattern, [*IDS, IDS[0]]) == expected
