"""How any value reads as a short string: real objects of libraries, and hostile ones."""

from __future__ import annotations

import collections
import functools
import json
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from hostile import (
    Color,
    Config,
    Empty,
    GiantRepr,
    Level,
    Point,
    ReprRaises,
    ShapeRaises,
    hostile,
)
from hypothesis import given
from hypothesis import strategies as st

from pytest_armory.values import (
    PARAM_LIMIT,
    REDACTED,
    clip,
    describe,
    metric_values,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (3, "3"),
        (0.1, "0.1"),
        (float("nan"), "nan"),
        ("as it is", "as it is"),
        ("", ""),
        (b"ab", "b'ab'"),
        (b"a" * 1000, "bytes(1,000 bytes)"),
        (Color.RED, "Color.RED"),
        (Level.HIGH, "Level.HIGH"),
        (PurePosixPath("/data/x"), "/data/x"),
        (Decimal("1.10"), "1.10"),
        (Fraction(1, 3), "1/3"),
        (date(2024, 1, 2), "2024-01-02"),
        (range(3), "range(0, 3)"),
        (np.float32(0.5), "0.5"),
        (np.float64(0.1), "0.1"),
        (np.int64(3), "3"),
        (np.bool_(True), "True"),
        (np.str_("a"), "a"),
        (np.array(3), "3"),
        (np.longdouble(0.5), "0.5"),
        (np.datetime64("2020-01-01", "ns"), "2020-01-01T00:00:00.000000000"),
        (torch.tensor(1.5, requires_grad=True), "1.5"),
        (torch.tensor(True), "True"),
        (np.zeros((1797, 64)), "numpy.ndarray(shape=(1797, 64), dtype=float64)"),
        (torch.zeros(3, 2), "torch.Tensor(shape=(3, 2), dtype=float32, device=cpu)"),
        (torch.zeros(0, device="meta"), "torch.Tensor(shape=(0,), dtype=float32, device=meta)"),
        (torch.zeros(3).shape, "(3,)"),
        (torch.float32, "torch.float32"),
        (
            pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}),
            "pandas.DataFrame(shape=(3, 2), columns=['a', 'b'])",
        ),
        (pd.Series([1, 2]), "pandas.Series(shape=(2,), dtype=int64)"),
        (pd.Series({"device": 1}), "pandas.Series(shape=(1,), dtype=int64)"),
        (pd.Timestamp("2020-01-01"), "2020-01-01 00:00:00"),
        (len, "len"),
        (int, "int"),
        (json.dumps, "json.dumps"),
        (json.JSONEncoder, "json.encoder.JSONEncoder"),
        (json.JSONEncoder().encode, "json.encoder.JSONEncoder.encode"),
        (json, "json"),
        (functools.lru_cache(json.dumps), "json.dumps"),
        (functools.partial(json.dumps, 1, indent=2), "partial(json.dumps, 1, indent=2)"),
        (functools.partial(len, token="x"), f"partial(len, token={REDACTED})"),
        (lambda: 0, f"{__name__}.<lambda>"),
        (Config, "hostile.Config"),
        ([1, "a", None], "[1, 'a', None]"),
        ([], "[]"),
        ((), "()"),
        ((1,), "(1,)"),
        ((1, 2), "(1, 2)"),
        ({"b", "a"}, "{'a', 'b'}"),
        (set(), "set()"),
        (frozenset([1]), "frozenset({1})"),
        (collections.deque([1]), "[1]"),
        ({}, "{}"),
        ({"a": [1], 2: "b"}, "{'a': [1], 2: 'b'}"),
        ([{"role": "user", "api_key": "k"}], f"[{{'role': 'user', 'api_key': {REDACTED}}}]"),
        (Config(), f"Config(lr=0.1, password={REDACTED})"),
        (Point(1, "a"), "Point(x=1, y='a')"),
        (Empty(), "Empty()"),
        ([len, np.zeros(2)], "[len, numpy.ndarray(shape=(2,), dtype=float64)]"),
        (SimpleNamespace(a=1), "namespace(a=1)"),
        (object(), "<object>"),
        ([object()], "[<object>]"),
        (MagicMock(), "<unittest.mock.MagicMock>"),
        (GiantRepr(), "<hostile.GiantRepr>"),
        (ReprRaises(), "<hostile.ReprRaises>"),
        ([1, ReprRaises()], "[1, <hostile.ReprRaises>]"),
        (ShapeRaises(), "<hostile.ShapeRaises>"),
    ],
)
def test_describe(value: object, text: str) -> None:
    assert describe(value) == text


def test_describe_says_how_many_members_it_leaves_out() -> None:
    assert describe(list(range(1000))).endswith("98, 99, … 900 more]")
    assert describe(set(range(1000))) == "{… 1,000 more}"
    assert describe({n: n for n in range(1000)}).endswith("99: 99, … 900 more}")
    assert describe([[[[1]]]]) == "[[[[… 1 more]]]]"


def test_describe_gives_a_long_string_whole_but_not_inside_a_list() -> None:
    text = "x" * 1_000_000
    assert describe(text) == text
    assert len(describe([text] * 3)) < 100_000


@hostile
def test_describe_survives(make: Callable[[], Any]) -> None:
    begin = time.thread_time()
    for value in (make(), [make()], {"a": make()}, Config(make())):
        assert type(describe(value)) is str
    assert time.thread_time() - begin < 1


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, pytest.fail.Exception])
def test_only_an_interrupt_passes(raised: type[BaseException]) -> None:
    class Raises:
        shape = (1,)

        def __repr__(self) -> str:
            raise raised

        def tolist(self) -> Any:
            raise raised

    bare = object.__new__(type("Bare", (), {"__repr__": Raises.__repr__}))
    if raised is not KeyboardInterrupt:
        assert describe(bare).endswith(".Bare>")
        assert metric_values(Raises()).refused
        return
    with pytest.raises(raised):
        describe(bare)
    with pytest.raises(raised):
        metric_values(Raises())


def test_clip() -> None:
    text = "x" * 12_000
    assert clip(text, 12_000) is text
    cut = clip(text, PARAM_LIMIT)
    assert len(cut) <= PARAM_LIMIT
    assert cut.endswith(" characters more]")
    missing = int(cut.partition("[")[2].split()[0].replace(",", ""))
    assert cut.count("x") + missing == len(text) + "characters".count("x")
    assert [clip("abc", limit) for limit in (0, 1, 2, 3)] == ["", "…", "…", "abc"]


@given(st.text(max_size=200), st.integers(0, 100))
def test_any_clip(text: str, limit: int) -> None:
    assert len(clip(text, limit)) <= limit


class Optimizer:
    def __repr__(self) -> str:
        return "SGD (\nParameter Group 0\n    lr: 0.1\n    momentum: 0  \n)"


def test_a_repr_of_several_lines_is_one_line_but_a_string_is_kept() -> None:
    line = "SGD ( Parameter Group 0 lr: 0.1 momentum: 0 )"
    assert describe(Optimizer()) == line
    assert describe([Optimizer(), {"by": Optimizer()}]) == f"[{line}, {{'by': {line}}}]"
    assert describe("a\n b") == "a\n b"
