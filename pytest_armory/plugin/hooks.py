"""The pytest plugin: thin hooks and fixtures that delegate.

It is imported whenever pytest starts, so what only a tracked session needs is imported later.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_armory.plugin import options

if TYPE_CHECKING:
    from pytest_armory.track import EvaluationRun

_settings = pytest.StashKey[options.Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options and ini keys."""
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add our hooks for others."""
    from pytest_armory import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and what a tracked session needs."""
    config.addinivalue_line("markers", options.MARKER_HELP)
    settings = config.stash[_settings] = options.read_settings(config)
    if settings.track:
        from pytest_armory.plugin import tracked

        tracked.register(config, settings)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Keep what a module records while it is imported for its own tests."""
    if "pytest_armory.track" not in sys.modules:
        report = yield
        if "pytest_armory.track" in sys.modules:  # the module has just imported it
            _scopes().keep_first_imported(collector)
        return report
    with _scopes().of_collector(collector):
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse markers that cannot be used before the first test runs."""
    errors = options.marker_errors(items)
    if errors:
        from pytest_armory.plugin import xdist

        xdist.refuse(config, items, errors)
    elif not config.stash[_settings].track and (
        "pytest_armory.track" in sys.modules or any(map(options.is_evaluation, items))
    ):
        from pytest_armory.plugin import tracked

        tracked.register_in_memory(config, config.stash[_settings])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Raise what a worker refused."""
    from pytest_armory.plugin import xdist

    xdist.raise_refused(node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keep each test's parameters apart from every other's."""
    if "pytest_armory.track" not in sys.modules:
        return (yield)
    with _scopes().of_test(item):
        return (yield)


def _scopes() -> ModuleType:
    from pytest_armory.plugin import scopes

    return scopes


@pytest.fixture(scope="session")
def track_call() -> Callable[..., Any]:
    """Call a loader and record its keyword arguments: ``track_call(load, split="test")``.

    They become parameters, ``load.split``, of every evaluation that uses the fixture which called
    it. A function or a class; it is left as it was.
    """
    from pytest_armory import track

    return track.track_call


@pytest.fixture
def evaluation_run() -> EvaluationRun:
    """The test's own MLflow run: ``run_id``, ``url``, ``log_metrics(…)``, ``log_figure(…)`` …

    When the session is not tracked, or the test is not marked ``evaluation``, the same object with
    ``run_id`` None, which keeps what is logged in memory.
    """
    from pytest_armory import track

    return track.current_run() or track.EvaluationRun()
