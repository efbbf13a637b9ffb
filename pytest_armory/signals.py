"""Defer signals while our own code is at work: Ctrl-C, and the alarm of a time limit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident, main_thread
from time import monotonic
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


PATIENCE = 2.0
"""Seconds that our code may take from a Ctrl-C on, until another one breaks it off."""

_uninterrupted: list[None] = []


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Raise no Ctrl-C, however many there are, until work is done that ends by itself.

    A module whose import was interrupted cannot be imported again, and a transaction that was
    keeps its database locked.
    """
    if get_ident() != main_thread().ident:
        yield
        return
    with interrupt_deferred():
        _uninterrupted.append(None)
        try:
            yield
        finally:
            _uninterrupted.pop()


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Raise a Ctrl-C only when the code inside is done; another one at once, after `PATIENCE`."""
    python = signal.default_int_handler
    if get_ident() != main_thread().ident or signal.getsignal(signal.SIGINT) is not python:
        yield
        return
    received: list[float] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(monotonic())
        if not _uninterrupted and received[-1] - received[0] > PATIENCE:
            python(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, python)
        if received:  # whatever the code inside has raised, as for a gate that is missed
            raise KeyboardInterrupt
