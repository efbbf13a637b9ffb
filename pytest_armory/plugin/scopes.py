"""Scopes of parameters for a collector's import and for a test."""

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
    """The scope of a test, with what its ``conftest.py`` files and modules recorded when imported.

    Its outer scope is the root: what a test inside a test records is not the outer test's.
    """
    calls = calls_of(root_params())
    for node in item.listchain():  # the closest call under a prefix replaces others
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
    """The scope of a module, class or package while it is collected, and so imported."""
    with entered(Scope(outer=root_scope())) as scope:
        yield
    collector.stash[_collected] = scope.params


def keep_first_imported(collector: pytest.Collector) -> None:
    """Move what was recorded before there was a scope to a collector."""
    recorded = root_params()
    collector.stash[_collected] = dict(recorded)
    recorded.clear()
