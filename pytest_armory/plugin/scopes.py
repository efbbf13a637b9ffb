"""Where pytest's units become scopes of parameters: a collector's import, a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_armory.plugin.fixture_params import calls_of
from pytest_armory.track.context import Scope, entered, root_params, root_scope
from pytest_armory.track.results import converting

_collected: pytest.StashKey[dict[str, Any]] = pytest.StashKey()


@contextmanager
def of_test(item: pytest.Item) -> Iterator[None]:
    """One test, from what its ``conftest.py`` files and modules recorded when imported.

    Below the root, whatever else is open: what a test inside a test records is not the outer's.
    """
    calls = calls_of(root_params())
    for node in item.listchain():  # the nearest call under a prefix replaces one further away
        imported: dict[str, Any] | None = node.stash.get(_collected, None)
        calls.update(calls_of(imported or {}))
    params = {key: value for call in calls.values() for key, value in call.items()}
    with (
        entered(Scope(params, outer=root_scope())),
        converting(lambda result: item.ihook.pytest_armory_metrics(result=result)),
    ):
        yield


@contextmanager
def of_collector(collector: pytest.Collector) -> Iterator[None]:
    """One module, class or folder while it is collected, which imports it."""
    with entered(Scope(outer=root_scope())) as scope:
        yield
    collector.stash[_collected] = scope.params


def keep_first_imported(collector: pytest.Collector) -> None:
    """Give a collector what was recorded before there could be a scope for it."""
    recorded = root_params()
    collector.stash[_collected] = dict(recorded)
    recorded.clear()
