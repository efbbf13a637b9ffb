"""Deferring signals while the plugin's own code runs: Ctrl-C, and the alarm of a time limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def alarm_paused() -> Iterator[None]:
    """Pause an alarm that limits the test's time, as pytest-timeout's: the work is not its."""
    if threading.current_thread() is not threading.main_thread() or not _ALARMS:
        yield
        return
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, left, interval)


_ALARMS = hasattr(signal, "setitimer")  # not on Windows


_uninterrupted: list[None] = []


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside :func:`interrupt_deferred`, for code that certainly ends: defer a second Ctrl-C too.

    A module whose import was interrupted cannot be imported again.
    """
    _uninterrupted.append(None)
    try:
        yield
    finally:
        _uninterrupted.pop()


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Defer a Ctrl-C until the code inside is done; a second one is not deferred."""
    python = signal.default_int_handler
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not python
    ):
        yield
        return
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if came and not _uninterrupted:
            python(number, frame)
        came.append(number)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, python)
    if came:
        raise KeyboardInterrupt
