"""Digests of values: by content, the same in every process, or none at all."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pytest_armory.values.stable import stable_digest


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: float
    y: object = None


class Plain: ...


class Number(float): ...


ARRAY = np.arange(6, dtype="float32").reshape(2, 3)

SHORT = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
"""Types that NumPy does not have."""

DISTINCT: list[Any] = [
    *(None, True, 1, 1.0, "1", b"1", 0, "", float("nan"), float("inf"), 2j, ..., range(3)),
    *([], (), {}, set(), [1, 2], (1, 2), [2, 1], [[1], 2], {1, 2}, {"a": 1}, {"a": 1.0}),
    *(Path("a"), date(2026, 1, 1), Decimal("1"), Colour.RED, Colour.BLUE, Point(1), Point(2)),
    *(Point, len, os.path.join, np.float32, np.float32(1), np.float64(1)),
    *(ARRAY, ARRAY.T, ARRAY.reshape(6), ARRAY.astype("float64"), ARRAY + 1),
    *(np.array(["a", 1], object), np.array(["a", 2], object), np.array(["a"])),
    *(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), torch.tensor([1, 2])),
    *(torch.tensor([x, 2.0]).to(kind) for x in (1.0, 3.0) for kind in SHORT),
    *(pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"b": [1, 2]}), pd.DataFrame({"a": [1, 3]})),
    *(pd.Series([1, 2]), pd.Series([1, 2], index=[5, 6]), pd.Series([1, 2], name="a")),
]


def test_different_values_have_different_digests() -> None:
    digests = [stable_digest(value) for value in DISTINCT]
    assert None not in digests
    assert len(set(digests)) == len(DISTINCT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({1, 2, 3}, {3, 2, 1}),
        (ARRAY, ARRAY.copy(order="F")),
        ({"a": ARRAY, "b": [Point(1)]}, {"a": ARRAY.copy(), "b": [Point(1)]}),
        (torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2).bfloat16()),
    ],
)
def test_equal_values_have_one(one: object, other: object) -> None:
    assert stable_digest(one) == stable_digest(other) is not None


class Raises:
    @property
    def dtype(self) -> object:
        raise RuntimeError

    tobytes = None


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        *(object(), Plain(), Number(1), lambda: 1, Plain().__init__, Raises(), LOOP, iter([])),
        *(torch.eye(2).to_sparse(), torch.eye(2).bfloat16().to_sparse()),
    ],
)
def test_what_has_no_stable_form(value: object) -> None:
    assert stable_digest(value) is None
    assert stable_digest({"a": [value]}) is None


def test_a_digest_is_the_same_in_another_process() -> None:
    code = (
        "from pytest_armory.values.stable import stable_digest\n"
        "print(stable_digest([{'a', 'b', 'c'}, {'x': 1.5}, len]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert found == {f"{stable_digest([{'a', 'b', 'c'}, {'x': 1.5}, len])}\n"}
