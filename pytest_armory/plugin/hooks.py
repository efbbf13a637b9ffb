"""The hooks of every session, which delegate, and the fixtures.

It is imported whenever pytest starts, so what only some sessions need is imported later. Every hook
is guarded: see :mod:`pytest_armory.plugin.guard`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_armory.plugin import job_options, marker, options
from pytest_armory.plugin.guard import guard_of, guarded, guarded_wrapper, unless
from pytest_armory.plugin.remarks import WITHOUT_MARKER, moved_rootdir, remark, remark_lines

if TYPE_CHECKING:
    from pytest_armory.track import EvaluationRun

RUNNING = "armory-runs-tests"
"""The name of the plugin with the hooks of a process that runs evaluations."""

_settings = pytest.StashKey[options.Settings]()


# The guard finds the session by the first argument of a hook.


@guarded
def pytest_addoption(pluginmanager: pytest.PytestPluginManager, parser: pytest.Parser) -> None:  # noqa: ARG001
    """Add the options and ini keys."""
    options.add_options(parser)


@guarded
def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks for others."""
    from pytest_armory import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
@guarded
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Choose the GPUs, before a conftest can start CUDA."""
    options_given = early_config.known_args_namespace
    key = early_config.getini(job_options.INI_DEVICES)
    given = job_options.given(options_given.armory_devices, key)
    if given is not None and "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has got its own
        from pytest_armory.plugin import devices

        workers = getattr(options_given, "numprocesses", None) or getattr(options_given, "tx", None)
        devices.restrict(early_config, given, bool(workers))


@guarded
def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and what a tracked session needs."""
    config.stash[_settings] = options.UNTRACKED
    config.addinivalue_line("markers", marker.MARKER_HELP)
    settings = options.read_settings(config)
    config.stash[_settings] = settings._replace(track=False)  # until it is registered
    is_ours = True if settings.track and settings.marker is None else settings.marker
    config.stash[marker.IS_OURS] = is_ours
    _register(config, settings)
    config.stash[_settings] = settings


def _register(config: pytest.Config, settings: options.Settings) -> None:
    """Register what the settings ask for. Raises ``pytest.UsageError``."""
    if settings.jobs.shard is not None:
        from pytest_armory.plugin import sharding

        sharding.register(config, settings, settings.jobs.shard)
    if settings.track:
        from pytest_armory.plugin import tracked

        tracked.register(config, settings)
        remark(config, moved_rootdir(config))


@pytest.hookimpl(wrapper=True)
@guarded_wrapper
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, None]:
    """Keep what a module records while it is imported for its own tests."""
    if "pytest_armory.track" in sys.modules:
        with _scopes().of_collector(collector):
            yield
    else:
        yield
        if "pytest_armory.track" in sys.modules:  # the module has just imported it
            _scopes().keep_first_imported(collector)


# Outermost: also the marks that others add in this hook, the last of them too, are known by then.
@pytest.hookimpl(wrapper=True, tryfirst=True)
@guarded_wrapper
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, None]:
    """Refuse markers that cannot be used, before the first test runs."""
    if config.stash[_settings].track:
        _note_collected(config, items)
    yield
    errors = _marker_errors(config, items)
    if errors:
        from pytest_armory.plugin import xdist

        xdist.refuse(config, items, errors)
    elif not config.stash[_settings].track:
        _judge_in_memory(config, items)


def _marker_errors(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """The errors of all markers; what is passed over and may have been meant is remarked."""
    errors: list[str] = []
    with guard_of(config).step():
        errors = marker.marker_errors(items)
        remark(config, marker.marker_remarks(items))
    return errors


def _note_collected(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the gates of the whole collection, before any is deselected."""
    from pytest_armory.plugin import gate_count

    with guard_of(config).step():
        gate_count.note_collected(config, items)


def _judge_in_memory(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Judge gates, and keep what is recorded in memory, where nothing is tracked."""
    if "pytest_armory.track" in sys.modules or any(map(marker.is_evaluation, items)):
        from pytest_armory.plugin import in_memory

        in_memory.register(config, config.stash[_settings])


@pytest.hookimpl(optionalhook=True)
@guarded
def pytest_testnodedown(node: Any) -> None:
    """Collect the unexpected errors and remarks of a worker, and raise its usage errors."""
    from pytest_armory.plugin import xdist

    problems = guard_of(node).problems
    with guard_of(node).step():
        remark(node.config, xdist.remarks_of_worker(node))
        problems += [text for text in xdist.unexpected_in_worker(node) if text not in problems]
    xdist.raise_refused(node)


def _records_nothing(item: pytest.Item) -> bool:  # noqa: ARG001 - as the hook
    return "pytest_armory.track" not in sys.modules


@pytest.hookimpl(wrapper=True)
@unless(_records_nothing)
@guarded_wrapper
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, None]:
    """Record each test's parameters separately."""
    with _scopes().of_test(item):
        yield


# Innermost, as that of a session whose evaluations are known when they are collected.
@pytest.hookimpl(wrapper=True, trylast=True)
@unless(marker.is_unmarked)
@guarded_wrapper
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, None]:
    """Judge the gates of a test that a fixture has marked, where no other evaluation is known.

    A mark that a fixture has added and that cannot be used fails its test.
    """
    errors = _marker_errors(item.config, [item])
    if errors:
        pytest.fail("\n".join(errors), pytrace=False)
    if not marker.is_evaluation(item) or item.config.pluginmanager.has_plugin(RUNNING):
        return
    from pytest_armory.plugin import in_memory

    running = in_memory.register(item.config, item.config.stash[_settings])
    running.before_call(item)
    yield
    running.after_call(item)


# Outermost: the errors of all other hooks of ours are known by then.
@pytest.hookimpl(wrapper=True, tryfirst=True)
@guarded_wrapper
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, None]:
    """Fail a strict session that had unexpected errors; a worker sends them to its controller."""
    from pytest_armory.plugin import xdist

    problems = guard_of(session).problems
    with guard_of(session).step():
        xdist.share_unexpected(session.config, problems)
        xdist.share_remarks(session.config)
    yield
    strict = session.config.stash[_settings].strict
    if strict and problems and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# Last: the summary of a tracked session shows those that are known by then.
@pytest.hookimpl(trylast=True)
@guarded
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the remarks, and the unexpected errors that no summary has shown."""
    remarks: list[str] = []
    with guard_of(terminalreporter).step():
        remarks = remark_lines(terminalreporter.config)
    guard, terminal = guard_of(terminalreporter), terminalreporter.config.get_terminal_writer()
    guard.warn = lambda text: terminal.line(f"armory: warning: {text}", yellow=True)
    terminalreporter.ensure_newline()
    for problem in (*remarks, *guard.problems):
        guard.warn(problem)


def _scopes() -> ModuleType:
    from pytest_armory.plugin import scopes

    return scopes


@pytest.fixture(scope="session")
def track_call() -> Callable[..., Any]:
    """Call a loader and record its keyword arguments: ``track_call(load, split="test")``.

    And the strings, numbers, booleans and paths that it is given by position. They become
    parameters, ``load.split``, of every evaluation that uses the fixture which called
    it. The loader is a function or a class; it is not modified.
    """
    from pytest_armory import track

    return track.track_call


@pytest.fixture
def evaluation_run(request: pytest.FixtureRequest) -> Iterator[EvaluationRun]:
    """The test's own MLflow run: ``run_id``, ``url``, ``log_metrics(…)``, ``log_figure(…)`` …

    When the session is not tracked, or the test is not marked ``evaluation``, the same object with
    ``run_id`` None, which keeps what is logged in memory.
    """
    from pytest_armory import track

    run = track.current_run()
    if run is None:
        run = request.node.stash[marker.RUN_BEFORE] = track.EvaluationRun()
    yield run
    with guard_of(request).step():
        is_in_memory = run.connection.location is None
        if request.config.stash[_settings].track and is_in_memory and run.writer.was_used:
            _remark_unmarked(request.node)


def _remark_unmarked(item: pytest.Item) -> None:
    if not marker.is_evaluation(item):
        remark(item.config, [(WITHOUT_MARKER, item.nodeid.split("[")[0])])
