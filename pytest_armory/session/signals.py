"""Signals that end a process: it closes what is open first, and then ends by the same signal.

A CI runner's time-out is a ``SIGTERM``, a terminal that is closed a ``SIGHUP``, a limit on the
processor time a ``SIGXCPU``. They end a Python process at once, and ours a moment later: its exit
status, fixtures without a teardown and what a parent process sees are as without us. ``SIGUSR1``
and ``SIGUSR2`` would, too, but are for the code under test, which may look whether one is handled.
"""

from __future__ import annotations

import os
import signal
import threading
from _thread import start_new_thread  # of the system: gevent's start where none may be waited for
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, sleep
from traceback import walk_tb
from types import FrameType

from pytest_armory.errors import TrackingError
from pytest_armory.signals import alarm_paused, interrupt_deferred

GRACE = 5.0
"""Seconds that closing may take; CI runners kill for good some 10 s after their first signal."""

TWICE = 0.1
"""Seconds in which a signal that comes again is the same one: the command ``timeout`` sends it to
its process, and to that one's group."""

_NAMES = ("SIGTERM", "SIGHUP", "SIGXCPU")
_ENDING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


def before_termination(
    work: Callable[[], None], first: Callable[[], None] = lambda: None
) -> Callable[[], None]:
    """Do ``work`` in a thread before a signal ends this process; returns what undoes this.

    ``first`` is called before the main thread goes on.

    Signals that are already handled or ignored are left alone. Outside the main thread, where no
    handler can be set, nothing is done.
    """
    # Without a handler, the kernel does not deliver such a signal to a container's first process.
    if threading.current_thread() is not threading.main_thread() or os.getpid() == 1:
        return lambda: None
    ending = _Ending(work, first)
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, ending.handle)
    _handlers.add(ending.undo)
    return ending.undo


class _Ending:
    """The handler of the signals that end a process."""

    def __init__(self, work: Callable[[], None], first: Callable[[], None]) -> None:
        self._work = work
        self._first = first
        self._received: list[int] = []
        self._is_undone: list[bool] = []

    # The main thread goes on after it: it may hold a lock that the work needs.
    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Python's
        """Begin the work, once, and end this process by the signal when it is done."""
        is_taken = False
        try:
            with interrupt_deferred(), alarm_paused():
                is_taken = True
                self._take(number)
        except BaseException:
            if not is_taken:  # a Ctrl-C has come before it was deferred
                os.kill(os.getpid(), number)
            raise

    def _take(self, number: int) -> None:
        self._received.append(number)
        if self._is_undone:  # called by a handler that has replaced this one
            _end(number)
        if len(self._received) > 1:
            return
        is_begun = False
        try:
            self._first()
            is_begun = _begin(self._work, number, self._is_undone)
            sleep(TWICE)
        finally:  # also where another handler raises: nothing but this signal ends the process
            self.undo()  # a second signal kills at once
            self._is_undone.append(True)
            if not is_begun:
                _end(number)

    def undo(self) -> None:
        """Have the signals end this process at once again; not where a test handles them since."""
        for number in _ENDING:
            if signal.getsignal(number) == self.handle:
                signal.signal(number, signal.SIG_DFL)
        _handlers.discard(self.undo)


def send_again(interrupt: BaseException) -> None:
    """Send a signal again if a Ctrl-C has been raised at the first instruction of its handler.

    Nothing in the handler can catch that, and the signal would be lost.
    """
    for frame, _ in walk_tb(interrupt.__traceback__):
        if frame.f_code is _Ending.handle.__code__ and "is_taken" not in frame.f_locals:
            os.kill(os.getpid(), frame.f_locals["number"])


def in_parallel(requests: Sequence[Callable[[], object]], seconds: float) -> None:
    """Send requests at the same time, and wait for them at most so long.

    A failure is not reported: what is sent here is sent again afterwards.
    """

    def send(request: Callable[[], object]) -> None:
        with suppress(TrackingError):
            request()

    threads = [threading.Thread(target=send, args=(one,), daemon=True) for one in requests]
    deadline = monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))


def _begin(work: Callable[[], None], number: int, is_undone: Sequence[bool]) -> bool:
    """Begin the work and its time limit; False if no more threads can be started."""
    try:
        start_new_thread(_work_and_end, (work, number, is_undone))
        start_new_thread(_end_late, (number,))
    except RuntimeError:
        return False
    return True


def _end(number: int) -> None:
    """End this process by a signal, whatever handles it by now; in the main thread."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _work_and_end(work: Callable[[], None], number: int, is_undone: Sequence[bool]) -> None:
    try:
        work()
    finally:
        while not is_undone:
            sleep(TWICE / 10)
        os.kill(os.getpid(), number)


def _end_late(number: int) -> None:
    sleep(GRACE)
    os.kill(os.getpid(), number)


_handlers: set[Callable[[], None]] = set()


def _undo_all() -> None:
    for undo in list(_handlers):
        undo()


# A forked child has nothing to close, and a signal is expected to end it at once.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_undo_all)
