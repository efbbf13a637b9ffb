"""Values that answer wrongly or with anything, and whatever Hypothesis makes of them."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest.mock import MagicMock, Mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import strategies as st


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    password: str = "hunter2"


@dataclasses.dataclass
class Empty:
    pass


class Point(NamedTuple):
    x: Any
    y: Any


class ReprRaises:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class ReprIsNoString:
    def __repr__(self) -> str:
        return 3  # type: ignore[return-value]


class GiantRepr:
    def __repr__(self) -> str:
        return "x" * 10_000_000


class EverythingRaises:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class AnswersEverything:
    def __getattr__(self, name: str) -> Any:
        return AnswersEverything()


class SaysItIsADict:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return dict


class ClassRaises:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")


class ShapeRaises:
    dtype = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError("no shape")


class NamelessMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class NamelessKind(metaclass=NamelessMeta):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class EndlessMapping(collections.abc.Mapping):  # type: ignore[type-arg]
    """Every member is another of its kind, and the iterator does not stop at its length."""

    def __getitem__(self, key: Any) -> Any:
        return EndlessMapping()

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield "a"

    def __len__(self) -> int:
        return 1


class BrokenMapping(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RuntimeError("no items")


class TolistIsItself:
    shape = (2,)
    dtype = "float32"

    def tolist(self) -> Any:
        return self


def recursive_list() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def recursive_dict() -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    mapping["self"] = mapping
    return mapping


def recursive_array() -> Any:
    array = np.array(None, dtype=object)
    array[()] = array
    return array


HOSTILE: list[Callable[[], Any]] = [
    ReprRaises,
    ReprIsNoString,
    GiantRepr,
    EverythingRaises,
    AnswersEverything,
    SaysItIsADict,
    ClassRaises,
    ShapeRaises,
    lambda: NamelessKind(),  # not the class: pytest itself does not survive it
    EndlessMapping,
    lambda: BrokenMapping(a=1),
    TolistIsItself,
    recursive_list,
    recursive_dict,
    recursive_array,
    MagicMock,
    lambda: MagicMock(spec=dict),
    lambda: MagicMock(spec=np.ndarray),
    lambda: MagicMock(spec=float),
    lambda: Mock(shape=(2, 3), dtype="float32"),
    lambda: Mock(shape=(), dtype="float32"),
    lambda: 10**10_000,
    lambda: (number for number in ()),
    lambda: torch.zeros(2, device="meta"),
    lambda: torch.tensor(1.0, device="meta"),
]
hostile = pytest.mark.parametrize("make", HOSTILE)


ANY_TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(["..", "/", "a//b", "\udc80"])
SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), ANY_TEXT),
    *(st.binary(max_size=5), st.decimals(), st.fractions(), st.dates(), st.timedeltas()),
    st.floats(width=32).map(np.float32),
    st.floats().map(torch.tensor),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.sampled_from([*HOSTILE[:9], len, Color.RED, np.datetime64("NaT"), pd.NaT, pd.NA]),
)
KEYS = ANY_TEXT | st.integers() | st.none() | st.tuples(ANY_TEXT, st.integers())
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Point, inner, inner),
        st.builds(Config, inner),
    ),
    max_leaves=8,
)
