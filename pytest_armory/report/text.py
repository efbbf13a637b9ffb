"""Text for terminals and tables: printable, of a given width; short numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def printable(text: str) -> str:
    """Text on one line, with control characters as Python's escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# Widths


def columns(text: str) -> int:
    """The width of a text in terminal columns: two for East Asian wide characters."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, width: int) -> str:
    """Text padded with spaces to a width."""
    return text + " " * (width - columns(text))


def shorten(text: str, width: int, keep_start: bool = False) -> str:
    """Text truncated to a width at its start, since the end of a node id says most."""
    if columns(text) <= width:
        return text
    kept, available = "", width - 1
    for character in text if keep_start else reversed(text):
        available -= _columns(character)
        if available < 0:
            break
        kept = kept + character if keep_start else character + kept
    return f"{kept}…" if keep_start else f"…{kept}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with aligned columns, for any text."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(columns, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(pad, row, widths)).rstrip() for row in cells]


# Numbers


def number(value: float) -> str:
    """A metric in four significant digits; a large integer in full."""
    if value == value and abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}"


def plural(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def seconds(duration: float) -> str:
    """A duration: ``0.02 s``, ``12.3 s``, ``4 min 05 s``, ``3 h 12 min``; "" for 0: not known."""
    if not duration:
        return ""
    if duration < 10:
        return f"{duration:.2f} s"
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def age(elapsed: float) -> str:
    """How long ago in one unit, from seconds: ``just now``, ``5 min ago``, ``3 h ago``."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if elapsed >= unit:
            return f"{int(elapsed // unit):,} {name} ago"
    return "just now"
