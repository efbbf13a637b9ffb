"""Defer signals while our own code is at work: Ctrl-C, and the alarm of a time limit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident, main_thread
from types import FrameType


@contextmanager
def alarm_paused() -> Iterator[None]:
    """Stop the clock of an alarm that times the test, as pytest-timeout's: this is not its time."""
    if get_ident() != main_thread().ident or not _ALARMS:
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
    """Inside :func:`interrupt_deferred`, for work that ends by itself: a second Ctrl-C waits too.

    A module whose import was interrupted cannot be imported again.
    """
    _uninterrupted.append(None)
    try:
        yield
    finally:
        _uninterrupted.pop()


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Raise a Ctrl-C only when the code inside is done; a second one is raised at once."""
    python = signal.default_int_handler
    if get_ident() != main_thread().ident or signal.getsignal(signal.SIGINT) is not python:
        yield
        return
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if received and not _uninterrupted:
            python(number, frame)
        received.append(number)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, python)
        if received:  # whatever the code inside has raised, as for a gate that is missed
            raise KeyboardInterrupt
