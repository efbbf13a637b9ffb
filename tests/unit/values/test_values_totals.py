"""Sums of any floats."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pytest_armory.values.totals import total


@given(st.lists(st.floats(), max_size=8))
def test_any_floats_have_a_total(values: list[float]) -> None:
    found = total(values)
    assert type(found) is float
    assert (
        repr(found) == repr(total(values[::-1]))
        or not all(map(math.isfinite, values))
        or (abs(found) == math.inf)
    )


def test_it_is_rounded_once() -> None:
    assert total([0.1] * 10) == 1.0
    assert total([1e308, 1e308]) == math.inf
    assert math.isnan(total([math.inf, -math.inf]))
    assert total([]) == 0.0
