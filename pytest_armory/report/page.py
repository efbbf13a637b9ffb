"""A session, or trends, as one HTML page that needs no network and no script to be read.

Jinja2 escapes every text; what is not escaped is our own charts, in which nobody else's text is. A
policy in the page forbids scripts and requests in any case.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from pytest_armory.records import EvaluationRecord, Outcome, Verdict
from pytest_armory.report.charts import SERIES, curve_chart, trend_chart
from pytest_armory.report.curves import curves
from pytest_armory.report.details import Changed, Details, Entry, Matrix, Picture
from pytest_armory.report.rows import (
    Gated,
    ShownMetric,
    gated_metrics,
    other_metrics,
    outcome_text,
    shown_metrics,
)
from pytest_armory.report.sentences import (
    counts_text,
    data_lines,
    evidence_of,
    gate_lines,
    gate_text,
    resumed_lines,
)
from pytest_armory.report.summary import Summary, is_good, latest, missed_by, missed_gates
from pytest_armory.report.text import number, plural, printable, seconds
from pytest_armory.report.trend import Trend, span_text
from pytest_armory.report.usage import usage_lines

CURVES = 12
"""The most charts of curves that are shown."""

TABLES = 200
"""The most trends of a page that has nothing else."""

_PHASES = ("setup:", "call:", "teardown:")
_GATES_MISSED = re.compile(r"\d+ gates? missed: ")

COMMANDS = 5
"""The most evaluations whose command stands at the end of a page, besides its line."""


class _Gate(NamedTuple):
    name: str
    url: str
    sentence: str
    evidence: str
    state: str
    flips: Sequence[str]


class _Row(NamedTuple):
    name: str
    file: str
    url: str
    outcome: str
    colour: str
    metrics: Sequence[ShownMetric]
    others: Sequence[ShownMetric]
    duration: str
    entry: Entry
    error: str
    failure: str


class _Chart(NamedTuple):
    title: str
    subtitle: str
    svg: Any
    legend: Sequence[str] = ()
    more: int = 0


def session_page(details: Details) -> str:
    """The page of a session."""
    summary = details.summary
    last = latest(summary.all_records)
    found = curves(details.entries)
    # One value is no trend, and a project's first session has nothing but those.
    trends = _trend_charts([trend for trend in details.trends if len(trend.values) > 1])
    commands_of, commands = _commands(details.entries)
    return _render(
        title=f"{summary.verdict.sign} {counts_text(summary)}",
        summary=summary,
        details=details,
        verdict=summary.verdict.name.lower(),
        counts=counts_text(summary.of_all_jobs()),
        unstored=_unstored(summary),
        notes=[*resumed_lines(summary), *usage_lines(summary.all_records), *data_lines(last)],
        gates=_gates(last),
        unjudged=gate_lines(last, summary.baseline),
        trends=trends,
        curves=[
            _Chart(printable(c.test), printable(f"{c.metric} over {c.parameter}"),
                   _markup(curve_chart(c, 1000 + i)),
                   [printable(label) for label in c.series if label][:SERIES],
                   max(0, len(c.series) - SERIES))
            for i, c in enumerate(found[:CURVES])
        ],
        more_curves=max(0, len(found) - CURVES),
        rows=_rows(details.entries),
        pictures=[(p, _data_uri(p)) for p in details.pictures],
        matrices=[(m, _shades(m)) for m in details.matrices],
        unexplained=sum(map(_is_unexplained, details.entries)),
        changed=_changed(details.changed),
        commands_of=commands_of,
        commands=commands,
    )  # fmt: skip


def _unstored(summary: Summary) -> list[str]:
    """What is not at the tracking server, which the page says that it is tracked to."""
    waiting = f"waiting for {summary.where}: {plural(summary.waiting, 'evaluation')}"
    return [
        *([f"{waiting}, recorded locally"] if summary.waiting else []),
        *([f"not stored: {plural(summary.lost, 'evaluation')}"] if summary.lost else []),
    ]


def trends_page(trends: Sequence[Trend], where: str) -> str:
    """The page of evaluations over sessions: of the first ones, and how many more there are."""
    shown = trends[:TABLES]
    return _render(title="Evaluations over sessions", where=where, trends=_trend_charts(shown),
                   tables=shown, more_tables=len(trends) - len(shown))  # fmt: skip


def _render(**values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pytest_armory.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "number": number,
            "time": _time,
            "printable": printable,
            "lines": _lines,
            "link": web_link,
            "plural": plural,
        }
    )
    empty = dict.fromkeys(("summary", "details", "where", "tables", "rows", "more_tables"))
    return environment.get_template("report.html.j2").render({**empty, **values})


def web_link(url: str | None) -> str:
    """An address that may be a link: that of the web, and nothing that a browser would run."""
    return url if url and re.match(r"https?://[^\s\"'<>]+$", url) else ""


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _markup(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)  # drawn by us, from numbers alone


# Parts


def _gates(last: Sequence[EvaluationRecord]) -> list[_Gate]:
    """Missed gates, then those that evidence leaves unclear."""
    missed = [(record, verdict, "missed") for record, verdict in missed_gates(last)]
    unclear = [
        (record, verdict, "unclear")
        for record in last
        for verdict in record.verdicts
        if verdict.verdict == "unclear" and verdict.state != "failed"
    ]
    return [_gate(*one) for one in (*missed, *unclear)]


def _gate(record: EvaluationRecord, verdict: Verdict, state: str) -> _Gate:
    return _Gate(
        printable(record.nodeid),
        web_link(record.url),
        printable(gate_text(verdict)),
        printable(_evidence(verdict, state)),
        state,
        [printable(flip) for flip in verdict.flips],
    )


def _evidence(verdict: Verdict, state: str) -> str:
    """What a verdict rests on, after the verdict where that is not the gate's state already."""
    evidence = verdict.evidence if verdict.verdict == state else evidence_of(verdict)
    return "; ".join(filter(None, (evidence, _interval(verdict))))


def _interval(verdict: Verdict) -> str:
    """The bounds of an unclear change; of a worse one the evidence says them."""
    if verdict.verdict != "unclear" or verdict.low is None or verdict.high is None:
        return ""
    return f"the change is {verdict.low:.2g} to {verdict.high:.2g}"


def _commands(entries: Sequence[Entry]) -> tuple[str, list[str]]:
    """How to run again what failed, the first of them; where nothing failed, one evaluation.

    The first item says which evaluations these are.
    """
    known = [entry for entry in entries if entry.reproduce]
    failed = [entry for entry in known if not is_good(entry.record)]
    shown = failed[:COMMANDS] or known[:1]
    which = "Each evaluation that did not pass" if failed else "One evaluation"
    if len(failed) > COMMANDS:
        which = f"The first {COMMANDS} of {len(failed):,} evaluations that did not pass"
    return which, [printable(entry.reproduce) for entry in shown]


def _changed(changes: Sequence[Changed]) -> list[tuple[str, Changed]]:
    """Each change once, with the first evaluation that has it and the number of the others."""
    found: dict[tuple[str, str, str], list[Changed]] = {}
    for one in changes:
        found.setdefault((one.name, one.before, one.now), []).append(one)
    return [
        (printable(same[0].nodeid) + (f" and {len(same) - 1:,} more" if same[1:] else ""), same[0])
        for same in found.values()
    ]


def _rows(entries: Sequence[Entry]) -> list[_Row]:
    gated = gated_metrics([entry.record for entry in entries])
    return [_row(entry, gated) for entry in entries]


def _row(entry: Entry, gated: Gated) -> _Row:
    record = entry.record
    file, _, name = record.nodeid.partition("::")
    error = error_line(entry.failure)
    # Missed gates stand above on the page, with their evidence.
    failure = "" if _GATES_MISSED.match(error) else entry.failure
    return _Row(
        printable(name or file), printable(file), web_link(record.url), outcome_text(record),
        _colour(record), shown_metrics(record, gated=gated), other_metrics(record, gated),
        seconds(record.duration), entry, printable(error),
        _lines(failure),
    )  # fmt: skip


def _colour(record: EvaluationRecord) -> str:
    """The class of an outcome: what the terminal has in yellow is no green here."""
    if record.outcome in (Outcome.PASSED, None):
        return "good" if record.outcome else "quiet"
    return "warn" if is_good(record) else "bad"


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))


def _is_unexplained(entry: Entry) -> bool:
    """Whether nothing on the page says why an evaluation failed, but its run does."""
    has_report = entry.record.outcome in (Outcome.FAILED, Outcome.ERROR)
    return has_report and not entry.failure and not missed_by(entry.record)


def error_line(failure: str) -> str:
    """The line of pytest's report that says the error: the first of the last block marked by ``E``.

    Without such a block it is the first line after the name of the phase.
    """
    lines = failure.splitlines()
    marked = [i for i, line in enumerate(lines) if re.match(r"E\s", line)]
    if marked:
        first = next(i for i in reversed(marked) if i - 1 not in marked)
        return lines[first][1:].strip()
    return next((line.strip() for line in lines if line.strip() and line not in _PHASES), "")


def _trend_charts(trends: Sequence[Trend]) -> list[_Chart]:
    charts = []
    for i, trend in enumerate(trends):
        if not trend.values:  # there is nothing to draw
            continue
        count = plural(len(trend.points), "session")
        last = trend.points[-1].verdict if trend.points else ""
        caption = f"{span_text(trend)}, {count}" + (f": {last}" if last else "")
        test = printable(trend.nodeid.partition("::")[2] or trend.nodeid)
        title = f"{printable(trend.metric)} of {test}{printable(trend.where)}"
        charts.append(_Chart(title, caption, _markup(trend_chart(trend, i))))
    return charts


def _data_uri(picture: Picture) -> str:
    return f"data:{picture.kind};base64,{base64.b64encode(picture.content).decode()}"


def _shades(matrix: Matrix) -> list[list[tuple[str, int]]]:
    """Each cell's number, and how dark it is in percent of its row's largest share."""
    rows = []
    for row in matrix.rows:
        total = sum(abs(v) for v in row if math.isfinite(v)) or 1
        rows.append([(number(v), round(min(abs(v) / total, 1) * 80) if math.isfinite(v) else 0)
                     for v in row])  # fmt: skip
    return rows
