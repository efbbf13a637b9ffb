"""The samples that two runs answered differently, as lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pytest_armory.gates.flips import flips
from pytest_armory.tables import Score, changes


def score(values: list[float], **others: Any) -> Score:
    arrays = {name: np.array(column, dtype=object) for name, column in others.items()}
    ids = arrays.pop("ids", np.arange(len(values)))
    return Score("accuracy", ids, np.array(values, dtype=float), **arrays)


def test_the_worst_come_first() -> None:
    run, base = score([0.1, 0.5, 0.9, 0.5]), score([0.9, 0.6, 0.1, 0.5])
    assert flips(run, base) == ["0  0.9 → 0.1", "1  0.6 → 0.5", "2  0.1 → 0.9"]
    assert flips(run, base, higher_is_worse=True)[0] == "2  0.1 → 0.9"
    assert flips(run, base, most=1) == ["0  0.9 → 0.1"]


def test_predictions_are_shown_where_both_have_them() -> None:
    run = score([0.0, 1.0], predictions=[9, 2], targets=[7, 2])
    base = score([1.0, 1.0], predictions=[7, 2], targets=[7, 2])
    assert flips(run, base) == ["0  7 → 9  target 7"]
    assert flips(run, score([1.0, 1.0])) == ["0  1 → 0  target 7"]


def test_samples_are_matched_by_id_and_errors_left_out() -> None:
    run = score([0.0, 0.0, float("nan")], ids=["a", "b", "c"])
    base = score([1.0, 1.0, 1.0], ids=["c", "b", "d"])
    assert flips(run, base) == ["b  1 → 0"]


def test_repeats_are_shown_by_their_means() -> None:
    repeats = {"ids": [1, 1, 2, 2], "repeats": [0, 1, 0, 1]}
    assert flips(score([0, 1, 1, 1], **repeats), score([1, 1, 1, 1], **repeats)) == ["1  1 → 0.5"]


def test_means_of_the_same_values_are_no_change() -> None:
    """In another order, or of another number of repeats, they may differ in the last place."""
    repeats = {"ids": [1, 1, 1, 2, 2, 2], "repeats": [0, 1, 2] * 2}
    run = score([0.1, 0.2, 0.3, 0.7, 0.7, 0.7], **repeats)
    assert flips(run, score([0.3, 0.2, 0.1, 0.7, 0.7, 0.7], **repeats)) == []
    assert flips(run, score([0.2, 0.7 - 1e-9], ids=[1, 2])) == ["2  0.7 → 0.7"]
    infinite = score([0.2, float("inf")], ids=[1, 2])
    assert flips(run, infinite) == ["2  inf → 0.7"]


def test_long_texts_are_cut_and_put_on_one_line() -> None:
    (line,) = flips(score([0.0], ids=["a\nb" + "x" * 500]), score([1.0], ids=["a\nb" + "x" * 500]))
    assert line.startswith("a b")
    assert len(line) < 100


@given(st.dictionaries(st.integers(0, 50), st.tuples(st.booleans(), st.booleans())), st.randoms())
def test_changes_are_those_of_the_shared_samples(both: dict[int, Any], random: Any) -> None:
    orders = [random.sample(sorted(both), len(both)) for _ in range(2)]
    run, base = (
        score([float(both[key][side]) for key in order], ids=order)
        for side, order in enumerate(orders)
    )
    ids, gains = changes(run, base)
    expected = {key: float(new) - float(old) for key, (new, old) in both.items() if new != old}
    assert dict(zip(ids.tolist(), gains.tolist(), strict=True)) == expected
    assert len(flips(run, base, most=100)) == len(expected)


def test_two_infinite_values_are_no_change() -> None:
    infinite = float("inf")
    run, base = score([infinite, infinite, 1.0]), score([infinite, 1.0, infinite])
    ids, gains = changes(run, base)
    assert dict(zip(ids.tolist(), gains.tolist(), strict=True)) == {1: infinite, 2: -infinite}
