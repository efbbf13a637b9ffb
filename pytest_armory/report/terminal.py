"""A summary as the lines of its section in pytest's terminal report."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.rows import (
    ROWS,
    Part,
    ShownMetric,
    file_of,
    metric_text,
    outcome_text,
    run_on_several_workers,
    shown_metrics,
    title,
)
from pytest_armory.report.sentences import (
    WARNINGS,
    counts_text,
    data_lines,
    gate_lines,
    resumed_lines,
)
from pytest_armory.report.summary import Summary, is_good, latest
from pytest_armory.report.text import columns, pad, plural, printable, seconds, shorten

_COLOURS = {"passed": "green", "xfailed": "yellow", "xpassed": "yellow", "skipped": "yellow"}


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
        *_comparison(summary),
        *(_line(printable(text)) for text in (*summary.open_with, *summary.notes)),
        *_unstored(summary),
        *_warnings(summary.problems, all_of_them=verbosity > 0),
    ]


def _line(text: str, colour: str | None = None) -> Line:
    return Line([(text, colour)])


def _counts(summary: Summary) -> list[Line]:
    where = printable(summary.where)
    all_wait = summary.waiting == len(summary.records) > 0
    tracked = f"recorded locally for {where}" if all_wait else f"tracked to {where}"
    lines = [_line(f"{counts_text(summary)}, {tracked}")]
    lines += map(_line, resumed_lines(summary))
    if summary.records_of_all_jobs:
        counts = counts_text(summary.of_all_jobs())
        lines.append(_line(f"session {summary.session} over all its jobs: {counts}"))
    return lines


def _comparison(summary: Summary) -> list[Line]:
    baseline = [summary.baseline] if summary.baseline else []
    last = latest(summary.records)
    lines = (*baseline, *data_lines(last), *gate_lines(last, summary.baseline))
    return [_line(printable(text)) for text in lines]


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

_HEADER = ("test", "outcome", "metrics", "duration")
_Row = tuple[str, str, str, str]


def _table(summary: Summary, width: int, verbosity: int) -> list[Line]:
    records, all_rows = summary.records, verbosity > 0
    chosen = _by_file(records if all_rows else _most_telling(records))
    on_several_workers = run_on_several_workers(records)
    rows = [_row(record, on_several_workers) for record in chosen]
    widths = _widths([_HEADER, *rows], width)
    lines = [_table_line(_HEADER, widths, None, [(pad(_HEADER[2], widths[2]), None)])]
    file = None
    for record, row in zip(chosen, rows, strict=True):
        if file_of(record) != file:
            file = file_of(record)
            lines.append(_line(shorten(printable(file), width)))
        name = record.outcome.value if record.outcome else ""
        metrics = _fitted(shown_metrics(record), widths[2])
        lines.append(_table_line(row, widths, _COLOURS.get(name, "red"), metrics))
    hidden = len(records) - len(chosen)
    if hidden:
        lines.append(_line(f"… {hidden:,} more, all of them good; -v shows every one"))
    return lines


def _by_file(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """In their order, but grouped by file: workers start them in any order."""
    files: dict[str, list[EvaluationRecord]] = {}
    for record in records:
        files.setdefault(file_of(record), []).append(record)
    return [record for group in files.values() for record in group]


def _most_telling(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """Those that failed, and the first of the others, in their order."""
    rows_left = ROWS - sum(not is_good(record) for record in records)
    chosen = []
    for record in records:
        if not is_good(record):
            chosen.append(record)
        elif rows_left > 0:
            chosen.append(record)
            rows_left -= 1
    return chosen


def _row(record: EvaluationRecord, on_several_workers: Set[str]) -> _Row:
    return (
        "  " + title(record, on_several_workers).removeprefix(f"{printable(file_of(record))}::"),
        outcome_text(record),
        metric_text(record),
        seconds(record.duration),
    )


def _widths(rows: Sequence[_Row], width: int) -> list[int]:
    """The columns' widths, so that a row fits in ``width`` if possible.

    If not, metrics are left out first, then the test's name is truncated, and no other column.
    """
    test, outcome, metrics, duration = (max(columns(row[i]) for row in rows) for i in range(4))
    available = width - outcome - duration - 7
    metrics = min(metrics, max(available - test, min(available // 2, 20), 10))
    test = min(test, max(available - metrics, 12))
    return [test, outcome, metrics, duration]


def _table_line(
    row: _Row, widths: Sequence[int], colour: str | None, metrics: Sequence[Part]
) -> Line:
    test = pad(shorten(row[0], widths[0]), widths[0])
    outcome = pad(row[1], widths[1])
    start: list[Part] = [(f"{test}  ", None), (outcome, colour), ("  ", None)]
    return Line([*start, *metrics, (f"  {row[3].rjust(widths[3])}", None)])


def _fitted(metrics: Sequence[ShownMetric], width: int) -> list[Part]:
    """Metrics, padded to a width: those that fit in it as a whole, and an ellipsis for others."""
    fitted: list[Part] = []
    left = width
    for i, metric in enumerate(metrics):
        gap = "  " if i else ""
        size = columns(gap + metric.text)
        ellipsis = " …" if metrics[i + 1 :] else ""
        if size + len(ellipsis) > left:
            kept = " …" if i else _without_change(metric, left)
            return [*fitted, (pad(kept, left), None)]
        fitted += [(gap, None), *metric.parts]
        left -= size
    return [*fitted, (" " * left, None)]


def _without_change(metric: ShownMetric, width: int) -> str:
    """A metric whose name is truncated so that its number fits, or an ellipsis."""
    room = width - columns(metric.value) - 1
    return f"{shorten(metric.name, room, keep_start=True)} {metric.value}" if room > 1 else "…"
