"""Hooks for others: implement one in a ``conftest.py`` or a plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import Any

    from pytest_armory.store.login import Login


def pytest_armory_tags(item: pytest.Item) -> Mapping[str, object] | None:
    """Return tags for the run of one evaluation, when it is opened.

    Every implementation is called; values are stored as strings. For instance, the machine's GPU::

        import os

        def pytest_armory_tags(item):
            return {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES", "none")}
    """


@pytest.hookspec(firstresult=True)
def pytest_armory_chief_metrics(
    item: pytest.Item, metrics: Mapping[str, float]
) -> Sequence[str] | None:
    """Return the names of the metrics that tables show, the most important first.

    Return None for evaluations that are not yours. The first result that is not None is used. For
    instance::

        def pytest_armory_chief_metrics(item, metrics):
            return [name for name in metrics if name.endswith("f1-score")]
    """


@pytest.hookspec(firstresult=True)
def pytest_armory_baseline(item: pytest.Item) -> Mapping[str, float] | None:
    """Return the metrics to compare an evaluation with, instead of those of an earlier session.

    Return None for evaluations that are not yours. The first result that is not None is used. For
    instance, from a file beside the tests::

        import json

        def pytest_armory_baseline(item):
            path = item.path.with_suffix(".baseline.json")
            return json.loads(path.read_text()).get(item.name) if path.exists() else None
    """


@pytest.hookspec(firstresult=True)
def pytest_armory_login(uri: str) -> Login | None:
    """Log in to a tracking server: return an object whose ``token()`` returns a bearer token.

    ``token()`` is called before each request, so that it can renew the token. Return None for
    servers that are not yours. The first result that is not None is used. For instance::

        class Login:
            def token(self):
                with open("/run/secrets/mlflow-token") as file:
                    return file.read().strip()

        def pytest_armory_login(uri):
            return Login() if uri.startswith("https://mlflow.example.org") else None
    """


def pytest_armory_summary(lines: list[str]) -> None:
    """Edit the lines of the session's summary in Markdown, in place.

    Every implementation is called, in the process that reports, each time that the summary is
    written: first for the session run, then with what could not be stored. For instance::

        def pytest_armory_summary(lines):
            lines.append("Questions about these numbers? Ask #model-quality.")
    """


@pytest.hookspec(firstresult=True)
def pytest_armory_metrics(result: Any) -> object | None:
    """Convert a result of an unknown type to metrics: a number, a mapping or an array.

    Return None for types that are not yours. The first result that is not None is used. For
    instance::

        def pytest_armory_metrics(result):
            if type(result).__name__ == "BenchmarkReport":
                return {"accuracy": result.score, "latency": {"p50": result.p50}}
    """
