"""Numbers and user input as they are written in messages about gates."""

from __future__ import annotations

import reprlib


def distinct_number(value: float, other: float | None = None, digits: int = 4) -> str:
    """A number in ``digits`` significant digits, or more if ``other`` would look the same."""
    text = _rounded(value, digits)
    while other is not None and value != other and text == _rounded(other, digits) and digits < 17:
        digits += 1
        text = _rounded(value, digits)
    return text


def _rounded(value: float, digits: int) -> str:
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text and 1 <= abs(value) < 1e15 else text


def exact_number(value: float) -> str:
    """The shortest text that is parsed as the same number; whole numbers without ``.0``."""
    return repr(value).removesuffix(".0")


def brief_repr(value: object) -> str:
    """A ``repr`` of limited length, for the end of an error message."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer too long to be written
        return f"<{type(value).__name__}>"
