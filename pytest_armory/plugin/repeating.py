"""``repeats``: the body of a test runs several times, in one call phase and one run."""

from __future__ import annotations

import sys
from time import perf_counter

import pytest

from pytest_armory.plugin.attempt import Attempt
from pytest_armory.plugin.fixture_params import Step
from pytest_armory.plugin.job_options import JobSettings
from pytest_armory.plugin.marker import Mark
from pytest_armory.plugin.repeat_line import RepeatLine
from pytest_armory.track.repeats import Repeats

SHOW_SECONDS = 1.0
"""How long a body has been repeated before the terminal shows it."""


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
    line = RepeatLine(item.config, number)
    began = perf_counter()
    recorded = dict(attempt.scope.params) if attempt.scope is not None else {}

    def begin_next() -> None:
        repeats.end_body()
        repeats.begin_body()
        if perf_counter() - began >= SHOW_SECONDS:
            line.show(repeats.current + 1)
        if attempt.scope is not None:
            attempt.scope.params.clear()
            attempt.scope.params.update(recorded)

    def runtest() -> None:
        state: dict[str, object] = {}
        with own_code():
            state = _state_of_case(item)
        unused = dict(state)
        body()
        for _ in range(1, number):
            if _has_failed(item, attempt, own_code):
                return
            with own_code():
                begin_next()
            state.clear()
            state.update(unused)
            body()
        if not _has_failed(item, attempt, own_code):
            with own_code():
                repeats.end_body()
                repeats.finish()

    def runtest_and_wipe() -> None:
        try:
            runtest()
        finally:
            with own_code():
                line.wipe()

    item.runtest = runtest_and_wipe  # type: ignore[method-assign]


def end_repeats(item: pytest.Item) -> None:
    """Undo :func:`repeat_body`."""
    vars(item).pop("runtest", None)


def _state_of_case(item: pytest.Item) -> dict[str, object]:
    """The attributes of a ``TestCase``, which can run once only; empty for other tests."""
    unittest, instance = sys.modules.get("unittest"), getattr(item, "instance", None)
    is_case = unittest is not None and isinstance(instance, unittest.TestCase)
    return vars(instance) if is_case else {}


def _has_failed(item: pytest.Item, attempt: Attempt, own_code: Step) -> bool:
    """Whether the body has failed without raising: a ``TestCase``, or a subtest."""
    with own_code():
        return bool(getattr(item, "_excinfo", None)) or attempt.has_failed
    return True  # if that cannot be told
