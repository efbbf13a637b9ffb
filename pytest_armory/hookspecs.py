"""Hooks for others: implement one in a ``conftest.py`` or a plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import Any


def pytest_armory_tags(item: pytest.Item) -> Mapping[str, object] | None:
    """Tags for the run of one evaluation, when it opens.

    Every implementation is asked; values are stored as strings. For instance, the machine's GPU::

        import os

        def pytest_armory_tags(item):
            return {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES", "none")}
    """


@pytest.hookspec(firstresult=True)
def pytest_armory_metrics(result: Any) -> object | None:
    """Turn a result that nobody knows into metrics: a number, a mapping or an array.

    Return None for results that are not yours. The first answer is taken. For instance::

        def pytest_armory_metrics(result):
            if type(result).__name__ == "BenchmarkReport":
                return {"accuracy": result.score, "latency": {"p50": result.p50}}
    """
