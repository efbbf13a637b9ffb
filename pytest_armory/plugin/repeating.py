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
    item.runtest = _RepeatedBody(item, attempt, number, own_code)  # type: ignore[method-assign]


class _RepeatedBody:
    """The body of a test, several times: what pytest calls instead of ``item.runtest``."""

    def __init__(self, item: pytest.Item, attempt: Attempt, number: int, own_code: Step) -> None:
        self._item = item
        self._attempt = attempt
        self._number = number
        self._own_code = own_code
        self._body = item.runtest
        writer = attempt.run.writer
        self._repeats = writer.repeats = Repeats(writer, number)
        self._line = RepeatLine(item.config, number)
        self._began = perf_counter()
        self._recorded = dict(attempt.scope.params) if attempt.scope is not None else {}

    def __call__(self) -> None:
        try:
            self._run()
        finally:
            with self._own_code():
                self._line.wipe()

    def _run(self) -> None:
        state: dict[str, object] = {}
        with self._own_code():
            state = _state_of_case(self._item)
        unused = dict(state)
        self._body()
        for _ in range(1, self._number):
            if self._has_failed():
                return
            with self._own_code():
                self._begin_next()
            state.clear()
            state.update(unused)
            self._body()
        if not self._has_failed():
            with self._own_code():
                self._repeats.end_body()
                self._repeats.finish()

    def _begin_next(self) -> None:
        self._repeats.end_body()
        self._repeats.begin_body()
        if perf_counter() - self._began >= SHOW_SECONDS:
            self._line.show(self._repeats.current + 1)
        if self._attempt.scope is not None:
            self._attempt.scope.params.clear()
            self._attempt.scope.params.update(self._recorded)

    def _has_failed(self) -> bool:
        """Whether the body has failed without raising: a ``TestCase``, or a subtest."""
        with self._own_code():
            return bool(getattr(self._item, "_excinfo", None)) or self._attempt.has_failed
        return True  # if that cannot be told


def end_repeats(item: pytest.Item) -> None:
    """Undo :func:`repeat_body`."""
    vars(item).pop("runtest", None)


def _state_of_case(item: pytest.Item) -> dict[str, object]:
    """The attributes of a ``TestCase``, which can run once only; empty for other tests."""
    unittest, instance = sys.modules.get("unittest"), getattr(item, "instance", None)
    is_case = unittest is not None and isinstance(instance, unittest.TestCase)
    return vars(instance) if is_case else {}
