"""Text of a width, and numbers in a few characters: nothing breaks a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from summaries import anything

from pytest_armory.report.text import columns, number, printable, seconds, shorten


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
