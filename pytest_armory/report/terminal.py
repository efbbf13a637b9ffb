"""A summary as the lines of its section in pytest's terminal report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.evidence import comparison_lines
from pytest_armory.report.rows import (
    CHIEF,
    ROWS,
    RUNNING,
    Part,
    ShownMetric,
    chief_of,
    file_of,
    gated_metrics,
    outcome_text,
    run_on_several_workers,
    shown_metrics,
    title,
)
from pytest_armory.report.sentences import (
    WARNINGS,
    counts_text,
    resumed_lines,
)
from pytest_armory.report.summary import Summary, is_good, latest, missed_gates
from pytest_armory.report.text import columns, pad, plural, printable, seconds, shorten
from pytest_armory.report.usage import usage_lines

_COLOURS = {
    "passed": "green", "xfailed": "yellow", "xpassed": "yellow", "skipped": "yellow",
    RUNNING: "yellow",
}  # fmt: skip
"""Of outcomes; all others are red."""


@dataclass(frozen=True)
class Line:
    """One terminal line in parts, each with its colour, if any."""

    parts: Sequence[Part]

    @property
    def text(self) -> str:
        """The line without colours."""
        return "".join(text for text, _ in self.parts)


def terminal_lines(summary: Summary, width: int, verbosity: int) -> list[Line]:
    """The lines of the summary's section: a table, counts, and how to view the runs."""
    return [
        *(_table(summary, width, verbosity) if verbosity >= 0 and summary.records else []),
        *_counts(summary),
        *map(_plain_line, comparison_lines(summary, most=WARNINGS if verbosity > 0 else 1)),
        *map(_plain_line, (*summary.open_with, *summary.notes)),
        *_next(summary),
        *_unstored(summary),
        *_warnings(summary.problems, all_of_them=verbosity > 0),
    ]


def _line(text: str, colour: str | None = None) -> Line:
    return Line([(text, colour)])


def _plain_line(text: str) -> Line:
    return _line(printable(text))


def _counts(summary: Summary) -> list[Line]:
    where = printable(summary.where)
    all_wait = summary.waiting == len(summary.records) > 0
    tracked = f"recorded locally for {where}" if all_wait else f"tracked to {where}"
    lines = [_line(f"{counts_text(summary)}, {tracked}")]
    lines += map(_line, (*resumed_lines(summary), *usage_lines(summary.records)))
    if summary.records_of_all_jobs:
        counts = counts_text(summary.of_all_jobs())
        lines.append(_line(f"session {summary.session} over all its jobs: {counts}"))
    return lines


def _next(summary: Summary) -> list[Line]:
    """What to do about missed gates: since when, which one command tells."""
    missed = missed_gates(latest(summary.records))
    known = [(record, verdict) for record, verdict in missed if record.run_id]
    if not known or summary.judged_again:
        return []
    record, verdict = known[0]
    command = f"pytest-armory history {shlex.quote(record.nodeid)}"
    if verdict.metric != next(iter(chief_of(record)), ""):
        command += f" --metric {shlex.quote(verdict.metric)}"
    command += " --armory-tracking-uri local" if record.waiting else summary.store_option
    return [_line(printable(f"next: `{command}` shows since when"), "bold")]


def _unstored(summary: Summary) -> list[Line]:
    lines = []
    if summary.waiting:
        text = f"waiting for {summary.where}: {plural(summary.waiting, 'evaluation')}"
        lines.append(_line(printable(f"{text}, recorded locally"), "yellow"))
    if summary.lost:
        lines.append(_line(f"not stored: {plural(summary.lost, 'evaluation')}", "red"))
    return lines


def _warnings(problems: Sequence[str], all_of_them: bool) -> list[Line]:
    first = problems if all_of_them else problems[:WARNINGS]
    warnings = [f"warning: {printable(text)}" for text in first]
    if len(first) < len(problems):
        more = plural(len(problems) - len(first), "more warning")
        warnings.append(f"… {more}; -v shows every one")
    return [_line(text, "yellow") for text in warnings]


# The table

WIDE = 120
"""The columns of a terminal from which on more metrics are shown."""

_HEADER = ("test", "outcome", "metrics", "duration")
_Row = tuple[str, str, str, str]


def _table(summary: Summary, width: int, verbosity: int) -> list[Line]:
    records, all_rows = summary.records, verbosity > 0
    chosen = _by_file(records if all_rows else _most_telling(records))
    on_several_workers = run_on_several_workers(records)
    most = CHIEF if width < WIDE else 2 * CHIEF
    gated = gated_metrics(records)
    shown = [shown_metrics(record, most, gated) for record in chosen]
    aligned = _aligned(chosen, shown)
    rows = [
        _row(record, on_several_workers, metrics, widths)
        for record, metrics, widths in zip(chosen, shown, aligned, strict=True)
    ]
    widths = _widths([_HEADER, *rows], width, _first_width(shown))
    lines = [_table_line(_HEADER, widths, None, [(pad(_HEADER[2], widths[2]), None)], "bold")]
    file = ""
    for record, row, metrics, own in zip(chosen, rows, shown, aligned, strict=True):
        if file_of(record) != file:
            file = file_of(record)
            lines.append(_line(shorten(printable(file), width), "bold"))
        parts = _fitted(metrics, widths[2], own)
        lines.append(_table_line(row, widths, _COLOURS.get(row[1], "red"), parts))
    hidden = len(records) - len(chosen)
    if hidden:
        lines.append(_line(f"… {hidden:,} more, all of them good; -v shows every one"))
    return lines


def _aligned(
    records: Sequence[EvaluationRecord], shown: Sequence[Sequence[ShownMetric]]
) -> list[list[int]]:
    """The widths of each row's metrics: of each the widest of its column.

    Rows of one file share a column as long as they show the same metrics up to it. One that missed
    its gate comes first in its row, and a test may log what others do not.
    """
    columns_of = [
        [(file_of(record), *(metric.name for metric in metrics[:end]))
         for end in range(1, len(metrics) + 1)]
        for record, metrics in zip(records, shown, strict=True)
    ]  # fmt: skip
    widest: dict[tuple[str, ...], int] = {}
    for keys, metrics in zip(columns_of, shown, strict=True):
        for key, metric in zip(keys, metrics, strict=True):
            widest[key] = max(widest.get(key, 0), columns(metric.text))
    return [[widest[key] for key in keys] for keys in columns_of]


def _by_file(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """In their order, but grouped by file: workers start them in any order."""
    files: dict[str, list[EvaluationRecord]] = {}
    for record in records:
        files.setdefault(file_of(record), []).append(record)
    return [record for group in files.values() for record in group]


def _most_telling(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """Those that failed, and the first of the others, in their order."""
    good = [is_good(record) for record in records]
    rows_left = max(ROWS - good.count(False), 0)
    chosen = []
    for record, is_its in zip(records, good, strict=True):
        if not is_its:
            chosen.append(record)
        elif rows_left > 0:
            chosen.append(record)
            rows_left -= 1
    return chosen


def _row(
    record: EvaluationRecord,
    on_several_workers: Set[str],
    shown: Sequence[ShownMetric],
    aligned: Sequence[int],
) -> _Row:
    texts = [metric.text for metric in shown]
    padded = [pad(text, width) for text, width in zip(texts, aligned, strict=False)]
    return (
        "  " + title(record, on_several_workers).removeprefix(f"{printable(file_of(record))}::"),
        outcome_text(record),
        "  ".join([*padded, *texts[len(padded) :]]).rstrip(),
        seconds(record.duration),
    )


def _first_width(shown: Sequence[Sequence[ShownMetric]]) -> int:
    """The columns of the widest first metric with its change, without its interval."""
    firsts = (metric for metrics in shown for metric in metrics[:1])
    return max((columns(replace(metric, interval="").text) for metric in firsts), default=0)


def _widths(rows: Sequence[_Row], width: int, first: int) -> list[int]:
    """The columns' widths, so that a row fits in ``width`` if possible.

    If not, all metrics but the first are left out first, of ``first`` columns, then the test's name
    is truncated, and no other column.
    """
    test, outcome, metrics, duration = (max(columns(row[i]) for row in rows) for i in range(4))
    available = width - outcome - duration - 7
    metrics = min(metrics, max(available - test, min(available // 2, max(first, 20)), 10))
    test = min(test, max(available - metrics, 12))
    return [test, outcome, metrics, duration]


def _table_line(
    row: _Row,
    widths: Sequence[int],
    colour: str | None,
    metrics: Sequence[Part],
    other: str | None = None,
) -> Line:
    name = row[0].lstrip()
    indent = row[0][: len(row[0]) - len(name)]
    test = pad(indent + shorten(name, widths[0] - len(indent)), widths[0])
    outcome = pad(row[1], widths[1])
    start: list[Part] = [(f"{test}  ", other), (outcome, colour or other), ("  ", None)]
    shown = [(text, part or other) for text, part in metrics]
    return Line([*start, *shown, (f"  {row[3].rjust(widths[3])}", other)])


def _fitted(metrics: Sequence[ShownMetric], width: int, aligned: Sequence[int] = ()) -> list[Part]:
    """Metrics, padded to a width: those that fit in it as a whole, and an ellipsis for others.

    Of the first one the interval is left out, then the change, its verdict last, before it is cut.
    ``aligned`` are the widths of the first metrics in other rows, kept as far as there is room.
    """
    fitted: list[Part] = []
    left = width
    for i, metric in enumerate(metrics):
        gap = "  " if i else ""
        size = columns(gap + metric.text)
        ellipsis = " …" if metrics[i + 1 :] else ""
        if i and size + len(ellipsis) > left:
            return [*fitted, (pad(" …", left), None)]
        if not i and size > left:
            return _first(metric, left, ellipsis)
        fitted += [(gap, None), *metric.parts]
        left -= size
        fill = aligned[i] - columns(metric.text) if i < len(aligned) else 0
        following = columns(metrics[i + 1].text) + 2 if ellipsis else 0
        following += 2 if metrics[i + 2 :] else 0
        if 0 < fill <= left - following:
            fitted.append((" " * fill, None))
            left -= fill
        elif ellipsis and left < len(ellipsis):
            break
    return [*fitted, (" " * left, None)]


def _first(metric: ShownMetric, width: int, ellipsis: str) -> list[Part]:
    """As much of a metric as fits: without its interval, of its change the verdict alone, without
    its change, its name cut."""
    verdict = metric.change.partition(" ")[2]
    for change in dict.fromkeys((metric.change, verdict, "")):
        shown = replace(metric, interval="", change=change)
        left = width - columns(shown.text)
        if left >= 0:
            rest = ellipsis if len(ellipsis) <= left else ""
            return [*shown.parts, (pad(rest, left), None)]
    room = width - columns(metric.value) - 1
    cut = f"{shorten(metric.name, room, keep_start=True)} {metric.value}" if room > 1 else "…"
    return [(pad(cut, width), None)]
