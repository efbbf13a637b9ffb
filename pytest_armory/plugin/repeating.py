"""``repeats``: the body of a test runs several times, in one call phase and one run."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from time import perf_counter

import pytest

from pytest_armory.plugin.attempt import Attempt
from pytest_armory.plugin.fixture_params import Step
from pytest_armory.plugin.job_options import JobSettings
from pytest_armory.plugin.marker import Mark
from pytest_armory.track.repeats import Repeats

SHOW_SECONDS = 1.0
"""How long a body has been repeated before the terminal shows it."""

MOST_SHOWN = 10


def number_of_repeats(mark: Mark, jobs: JobSettings) -> int:
    """How often the body of a test runs, by its markers and the options."""
    return jobs.repeats or mark.repeats or jobs.default_repeats


def repeat_body(item: pytest.Item, attempt: Attempt, number: int, own_code: Step) -> None:
    """Let pytest's call of ``item.runtest`` run the body so many times; a failed one is the last.

    It is this item's own until :func:`end_repeats`, so whoever runs the test runs all of it.
    ``own_code`` guards what is done between the bodies.
    """
    end_repeats(item)  # of an earlier attempt, which raised
    body = item.runtest
    writer = attempt.run.writer
    repeats = writer.repeats = Repeats(writer, number)
    began = perf_counter()
    recorded = dict(attempt.scope.params) if attempt.scope is not None else {}

    def has_failed() -> bool:
        with own_code():
            return _has_failed(item, attempt)
        return True  # if that cannot be told

    def runtest() -> None:
        state: dict[str, object] = {}
        with own_code():
            state = _state_of_case(item)
        unused = dict(state)
        body()
        for _ in range(1, number):
            if has_failed():
                return
            with own_code():
                repeats.end_body()
                repeats.begin_body()
                if perf_counter() - began >= SHOW_SECONDS:
                    _show(item.config, repeats.current + 1, number)
                if attempt.scope is not None:
                    attempt.scope.params.clear()
                    attempt.scope.params.update(recorded)
            state.clear()
            state.update(unused)
            body()
        if not has_failed():
            with own_code():
                repeats.end_body()
                repeats.finish()

    item.runtest = runtest  # type: ignore[method-assign]


def end_repeats(item: pytest.Item) -> None:
    """Undo :func:`repeat_body`."""
    vars(item).pop("runtest", None)


def _show(config: pytest.Config, repeat: int, number: int) -> None:
    """Say in pytest's line of the test, on a terminal with ``-v``, which repeat begins.

    Ten at most are shown, so that the line stays one; none in workers, which have no terminal.
    """
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    is_due = repeat * MOST_SHOWN // number > (repeat - 1) * MOST_SHOWN // number
    if reporter is not None and is_due and reporter.isatty and reporter.showlongtestinfo:
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            reporter.write(f"{repeat}/{number} ", flush=True)


def _state_of_case(item: pytest.Item) -> dict[str, object]:
    """The attributes of a ``TestCase``, which can run once only; empty for other tests."""
    unittest, instance = sys.modules.get("unittest"), getattr(item, "instance", None)
    is_case = unittest is not None and isinstance(instance, unittest.TestCase)
    return vars(instance) if is_case else {}


def _has_failed(item: pytest.Item, attempt: Attempt) -> bool:
    """Whether the body has failed without raising: a ``TestCase``, or a subtest."""
    return bool(getattr(item, "_excinfo", None)) or attempt.has_failed
