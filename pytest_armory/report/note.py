"""A session's summary as the note of its run, which MLflow shows on the run's page.

Its page shows some five lines of it without a click, in a column that is narrow where a window is:
a row of which a cell is broken into lines fills these alone. Where the note is narrower than some
sixty characters it puts the column below all that it says of the run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.markdown import name_cell, shortened
from pytest_armory.report.rows import run_on_several_workers

_ROW = re.compile(r"\| \[?(`+.*?`+)(?:\]\(| \|)")
"""The begin of a row: the name of the test."""

_METRICS = " | metrics | "
_NARROWEST = 80
_WIDEST = 100
"""Of a row, in characters: the header is padded, and metrics that would make it wider left out."""

_HARD_SPACE = "\N{NO-BREAK SPACE}"
_END = "\N{ZERO WIDTH SPACE}"
"""At the end of a cell: MLflow's page strips spaces there, hard ones too."""


def as_note(
    text: str,
    limit: int,
    own: Sequence[EvaluationRecord] = (),
    records: Sequence[EvaluationRecord] = (),
) -> str:
    """A summary's Markdown as a session run's note, of at most ``limit`` characters.

    The heading is of a line's size, and in each table the rows of ``own`` come first, those of all
    ``records`` that are of the run's experiment. A row of the first table is one line.
    """
    lines = re.sub(r"^##(?= )", "####", text).split("\n")
    tables = [i + 1 for i, line in enumerate(lines) if line.startswith("| --- |")]
    on_several_workers = run_on_several_workers(records)
    names = {name_cell(record, on_several_workers) for record in own}
    for begin in tables:
        end = next((i for i in range(begin, len(lines)) if not _ROW.match(lines[i])), len(lines))
        rows = sorted(lines[begin:end], key=lambda row: _name_in(row) not in names)
        if rows and begin == tables[0] and _METRICS in lines[begin - 2]:
            lines[begin - 2], *rows = _unbroken(lines[begin - 2], rows)
        lines[begin:end] = rows
    return shortened("\n".join(lines), limit)


def _unbroken(header: str, rows: Sequence[str]) -> list[str]:
    """The header and the rows of a table with metrics that are not broken into lines.

    >>> header, row = _unbroken("| test | metrics | duration |", ["| `t` | a 1 (=), b 2 | 1 s |"])
    >>> row.replace(_HARD_SPACE, "~")
    '| `t` | a~1~(=),~b~2 | 1 s |'
    """
    column = header[: header.index(_METRICS)].count(" | ") + 1
    rows = [_on_a_line(row, column) for row in rows]
    missing = _NARROWEST - max(map(_width, rows))
    padding = _HARD_SPACE * 2 * missing + _END if missing > 0 else ""  # half as wide as a letter
    return [header.replace(_METRICS, f" | metrics{padding} | "), *rows]


def _on_a_line(row: str, column: int) -> str:
    cells = row.split(" | ")
    if len(cells) <= column:
        return row
    first, *others = cells[column].split(", ")
    for other in others:
        cells[column] = f"{first}, {other}"
        if _width(" | ".join(cells)) > _WIDEST:
            first += ", …"
            break
        first = cells[column]
    cells[column] = first.replace(" ", _HARD_SPACE)
    return " | ".join(cells)


def _width(row: str) -> int:
    """Of a row as it is shown, in characters: of a link only its text."""
    return len(re.sub(r"\]\([^)]*\)", "", row))


def _name_in(row: str) -> str:
    match = _ROW.match(row)
    return match[1] if match else ""
