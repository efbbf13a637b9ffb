"""The time limit of a test where pytest-timeout's thread ends it: judging is not the test's time.

Its alarm, method ``signal``, is paused in all of our own work: :func:`~.signals.alarm_paused`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, NamedTuple

import pytest

LEAST = 0.1
"""The least seconds that are left to a test after its judging."""


class _Limit(NamedTuple):
    """The settings of pytest-timeout, and when its clock began."""

    settings: Any
    began: float


_LIMIT = pytest.StashKey[_Limit]()


def note(item: pytest.Item, settings: Any) -> None:
    """Note a time limit that begins now."""
    item.stash[_LIMIT] = _Limit(settings, monotonic())


@contextmanager
def paused(item: pytest.Item) -> Iterator[None]:
    """Stop the clock of a test's time limit, if a thread has it; then it goes on with the rest."""
    limit = item.stash.get(_LIMIT, None)
    is_alarm = threading.current_thread() is threading.main_thread()
    if limit is None or (limit.settings.method == "signal" and is_alarm):
        yield
        return
    left = limit.settings.timeout - (monotonic() - limit.began)
    item.config.hook.pytest_timeout_cancel_timer(item=item)
    try:
        yield
    finally:
        rest = limit.settings._replace(timeout=max(left, LEAST))
        item.config.hook.pytest_timeout_set_timer(item=item, settings=rest)
