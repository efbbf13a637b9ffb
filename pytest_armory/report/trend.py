"""A metric of one evaluation over sessions: points, sparkline, terminal lines, CSV rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from time import time
from typing import TypeGuard

from pytest_armory.records import EvaluationRecord, Verdict
from pytest_armory.report.rows import change, chief_of, outcome_text
from pytest_armory.report.text import age, columns, number, pad, plural, printable, table

_BARS = "▁▂▃▄▅▆▇█"
_LEFT_OUT = (9, 8, 1, 6, 4, 3)
"""The columns of a line that are left out on a narrow terminal, the first one first."""

_PLOT = 25
"""The width of a line's plot in columns."""

_LARGEST = 1e300
"""The largest value that is drawn: a database stores the largest float for an infinite one."""


def is_drawn(value: float | None) -> TypeGuard[float]:
    """Whether a value can be a point of a chart."""
    return value is not None and abs(value) < _LARGEST


@dataclass(frozen=True)
class Point:
    """One session's value: None if the metric was not logged.

    ``low`` and ``high`` are the ends of its confidence interval, if samples are known; ``start`` is
    in milliseconds since the epoch; ``verdict`` is the gate's, by evidence if there is any.
    """

    session: str
    start: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    limit: float | None = None
    verdict: str = ""
    outcome: str = ""
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    run_id: str = ""
    url: str = ""


@dataclass(frozen=True)
class Trend:
    """A metric of one evaluation over sessions, the oldest first.

    ``in_several`` says that evaluations of other experiments have the same node id.
    """

    nodeid: str
    metric: str
    points: Sequence[Point]
    experiment: str = ""
    in_several: bool = False

    @property
    def where(self) -> str:
        """The experiment, where the node id does not say it."""
        return f" (experiment {self.experiment})" if self.in_several else ""

    @property
    def is_known(self) -> bool:
        """Whether the metric was logged in a session, or a gate has asked for it."""
        return any(point.value is not None or point.verdict for point in self.points)

    @property
    def values(self) -> list[float]:
        """The finite values."""
        return [p.value for p in self.points if is_drawn(p.value)]


def metric_to_show(record: EvaluationRecord) -> str:
    """The metric whose history is shown by default: the first in a table, or ""."""
    return next(iter(chief_of(record)), "")


def point_of(
    record: EvaluationRecord, metric: str, session: str, start: int, tags: dict[str, str]
) -> Point:
    """The point of an attempt."""
    gates = [verdict for verdict in record.verdicts if verdict.metric == metric]
    gate = min(gates, key=_rank, default=None)
    return Point(
        session=session,
        start=start,
        value=record.metrics.get(metric),
        low=record.metrics.get(f"{metric}/ci_low"),
        high=record.metrics.get(f"{metric}/ci_high"),
        baseline=gate.baseline if gate else None,
        limit=gate.limit if gate else None,
        verdict=_verdict(gate) if gate else "",
        outcome=outcome_text(record),
        commit=tags.get("mlflow.source.git.commit", ""),
        branch=tags.get("mlflow.source.git.branch", ""),
        dirty=tags.get("armory.git.dirty") == "true",
        run_id=record.run_id or "",
        url=record.url or "",
    )


def _rank(verdict: Verdict) -> tuple[bool, ...]:
    """The gate that says most of a metric is the first: missed, unclear, judged by evidence."""
    return (verdict.state != "failed", verdict.verdict != "unclear", not verdict.verdict,
            verdict.state == "unjudged")  # fmt: skip


def _verdict(verdict: Verdict) -> str:
    states = {"failed": "missed", "unjudged": "not judged", "passed": "kept"}
    return verdict.verdict or states.get(verdict.state, verdict.state)


# In the terminal


def sparkline(values: Sequence[float | None]) -> str:
    """One character for each value, ``·`` where there is none."""
    finite = [v for v in values if is_drawn(v)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = high - low

    def bar(value: float | None) -> str:
        if not is_drawn(value):
            return "·"
        at = (value - low) / span if span else 0.5
        return _BARS[min(int(at * len(_BARS)), len(_BARS) - 1)]

    return "".join(map(bar, values))


def span_text(trend: Trend) -> str:
    """The lowest and the highest value, or the one that both are shown as."""
    values = trend.values
    if not values:
        return "never logged"
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def trend_lines(trend: Trend, width: int) -> list[str]:
    """A heading with a sparkline, then a line for each session, the newest first.

    Columns that do not fit are left out: first the plot, then branch, time, outcome and change.
    """
    line = sparkline([point.value for point in trend.points])
    heading = f"{printable(trend.nodeid)}  {printable(trend.metric + trend.where)}"
    count = plural(len(trend.points), "session")
    rows = [_row(trend, point) for point in reversed(trend.points)]
    header = ("session", "began", trend.metric, "interval", "change", "verdict", "outcome",
              "commit", "branch", "")  # fmt: skip
    for count_left_out in range(len(_LEFT_OUT) + 1):
        left_out = _LEFT_OUT[:count_left_out]
        kept = [i for i in range(len(header)) if i not in left_out and any(r[i] for r in rows)]
        lines = table([[row[i] for i in kept] for row in (header, *rows)])
        if max(map(columns, lines)) <= width:
            break
    return [heading, f"{line}  {span_text(trend)}, {count}", *lines]


def _row(trend: Trend, point: Point) -> tuple[str, ...]:
    value, base = point.value, point.baseline
    interval = point.low is not None and point.high is not None
    return (
        point.session,
        age(time() - point.start / 1000),
        "…" if value is None else number(value),
        f"{number(point.low or 0)} to {number(point.high or 0)}" if interval else "",
        change(value, base) if value is not None and base is not None else "",
        point.verdict,
        point.outcome,
        point.commit[:8] + ("+" if point.dirty else ""),
        point.branch,
        _plot(trend, point),
    )


def _plot(trend: Trend, point: Point) -> str:
    """The value and its interval on a scale of all values: ``   ├──●──┤``."""
    ends = [end for point in trend.points for end in (point.low, point.high) if is_drawn(end)]
    every = [*trend.values, *ends]
    low, high = min(every, default=0.0), max(every, default=0.0)
    if not is_drawn(point.value) or low == high:
        return ""

    def column(value: float) -> int:
        return round((min(max(value, low), high) - low) / (high - low) * (_PLOT - 1))

    cells = [" "] * _PLOT
    if is_drawn(point.low) and is_drawn(point.high):
        first, last = column(point.low), column(point.high)
        cells[first : last + 1] = "─" * (last - first + 1)
        cells[first], cells[last] = "├", "┤"
    cells[column(point.value)] = "●"
    return pad("".join(cells), _PLOT)


# As CSV

CSV_HEADER = (
    "nodeid", "metric", "session", "started", "value", "ci_low", "ci_high", "baseline", "limit",
    "verdict", "outcome", "commit", "branch", "dirty", "run_id", "experiment",
)  # fmt: skip


def csv_rows(trend: Trend) -> Iterator[tuple[object, ...]]:
    """A row for each session, the oldest first, for :data:`CSV_HEADER`."""
    for p in trend.points:
        started = datetime.fromtimestamp(p.start / 1000, timezone.utc).isoformat("T", "seconds")
        texts = map(_cell, (trend.nodeid, trend.metric, p.session))
        numbers = ("" if n is None else n for n in (p.value, p.low, p.high, p.baseline, p.limit))
        rest = map(_cell, (p.verdict, p.outcome, p.commit, p.branch))
        last = (str(p.dirty).lower(), p.run_id, _cell(trend.experiment))
        yield (*texts, started, *numbers, *rest, *last)


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") and text else text
