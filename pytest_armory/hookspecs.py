"""Hooks for others: implement one in a ``conftest.py`` or a plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import Any

    from pytest_armory.store.login import Login


def pytest_armory_tags(item: pytest.Item) -> Mapping[str, object] | None:
    """Tags for the run of one evaluation, when it opens.

    Every implementation is asked; values are stored as strings. For instance, the machine's GPU::

        import os

        def pytest_armory_tags(item):
            return {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES", "none")}
    """


@pytest.hookspec(firstresult=True)
def pytest_armory_chief_metrics(
    item: pytest.Item, metrics: Mapping[str, float]
) -> Sequence[str] | None:
    """Name the few metrics of an evaluation that tables show, the first one first.

    Return None for evaluations that are not yours. The first answer is taken. For instance::

        def pytest_armory_chief_metrics(item, metrics):
            return [name for name in metrics if name.endswith("f1-score")]
    """


@pytest.hookspec(firstresult=True)
def pytest_armory_baseline(item: pytest.Item) -> Mapping[str, float] | None:
    """The metrics to compare an evaluation with, from elsewhere than an earlier session.

    Return None for evaluations that are not yours. The first answer is taken. For instance, from a
    file that is kept with the tests::

        import json

        def pytest_armory_baseline(item):
            path = item.path.with_suffix(".baseline.json")
            return json.loads(path.read_text()).get(item.name) if path.exists() else None
    """


@pytest.hookspec(firstresult=True)
def pytest_armory_login(uri: str) -> Login | None:
    """Log in to a tracking server in your own way: an object whose ``token()`` gives a token.

    It is asked before each request, so that it can keep the token fresh. Return None for servers
    that are not yours. The first answer is taken. For instance::

        class Login:
            def token(self):
                with open("/run/secrets/mlflow-token") as file:
                    return file.read().strip()

        def pytest_armory_login(uri):
            return Login() if uri.startswith("https://mlflow.example.org") else None
    """


def pytest_armory_summary(lines: list[str]) -> None:
    """Edit the session's summary in Markdown, in place, where it is written.

    Every implementation is asked, in the process that reports, once for each time that the summary
    is written: what is stored with the session cannot say yet whether that went well. For
    instance::

        def pytest_armory_summary(lines):
            lines.append("Questions about these numbers? Ask #model-quality.")
    """


@pytest.hookspec(firstresult=True)
def pytest_armory_metrics(result: Any) -> object | None:
    """Turn a result that nobody knows into metrics: a number, a mapping or an array.

    Return None for results that are not yours. The first answer is taken. For instance::

        def pytest_armory_metrics(result):
            if type(result).__name__ == "BenchmarkReport":
                return {"accuracy": result.score, "latency": {"p50": result.p50}}
    """
