"""Signals that end a process: what is open is closed first, and it dies of the signal all the same.

A CI runner's time-out is a ``SIGTERM``, a terminal that is closed a ``SIGHUP``. Python dies of both
on the spot, and so does a process of ours, a moment later: exit status, fixtures left standing and
what a parent process sees stay what they are without us.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 5.0
"""Seconds that closing may take; CI runners kill for good some 10 s after their first signal."""

_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def before_dying(work: Callable[[], None]) -> Callable[[], None]:
    """Do ``work`` in a thread before this process dies of a signal; returns what undoes this.

    Only signals are handled that would kill: who handles or ignores them keeps doing so. Nothing
    happens outside the main thread, where no handler can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None

    # The main thread goes on meanwhile: it may hold a lock that the work needs.
    def die_after_work(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - Python's
        _set_default()  # a second signal kills at once
        threading.Thread(target=_work_and_die, args=(work, number), daemon=True).start()
        watchdog = threading.Timer(GRACE, os.kill, (os.getpid(), number))
        watchdog.daemon = True
        watchdog.start()

    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, die_after_work)
            _handled.add(number)
    return _set_default


def _work_and_die(work: Callable[[], None], number: int) -> None:
    try:
        work()
    finally:
        os.kill(os.getpid(), number)


_handled: set[int] = set()


def _set_default() -> None:
    while _handled:
        signal.signal(_handled.pop(), signal.SIG_DFL)


# A forked child has nothing to close, and whoever terminates it expects it dead.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_set_default)


@contextmanager
def alarm_paused() -> Iterator[None]:
    """Stop the clock of an alarm that times the test, as pytest-timeout's: the work is not its."""
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


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Let a Ctrl-C wait until the code inside is done; a second one does not."""
    python = signal.default_int_handler
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not python
    ):
        yield
        return
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if came:
            python(number, frame)
        came.append(number)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, python)
    if came:
        raise KeyboardInterrupt
