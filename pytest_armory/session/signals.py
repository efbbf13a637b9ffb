"""Signals that terminate a process: open runs are closed first, then the signal takes effect.

A CI runner's time-out is a ``SIGTERM``, a closed terminal a ``SIGHUP``. Both terminate Python at
once, and so they do here, a moment later: exit status, fixtures that are not torn down and what a
parent process sees are as without the plugin.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

GRACE = 5.0
"""Seconds that closing may take; CI runners kill for good some 10 s after their first signal."""

_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def before_dying(work: Callable[[], None]) -> Callable[[], None]:
    """Call ``work`` in a thread before a signal terminates this process; returns what undoes this.

    Signals that are already handled or ignored are left alone. Outside the main thread, where no
    handler can be set, nothing is done.
    """
    # The kernel ignores these signals for a container's first process, unless it has a handler.
    if threading.current_thread() is not threading.main_thread() or os.getpid() == 1:
        return lambda: None

    # The main thread continues meanwhile: it may hold a lock that the work needs.
    def die_after_work(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - Python's
        undo()  # a second signal kills at once
        try:
            threading.Thread(target=_work_and_die, args=(work, number), daemon=True).start()
            watchdog = threading.Timer(GRACE, os.kill, (os.getpid(), number))
            watchdog.daemon = True
            watchdog.start()
        except RuntimeError:  # no further thread can be started
            os.kill(os.getpid(), number)

    def undo() -> None:
        for number in _ENDING:
            if signal.getsignal(number) is die_after_work:  # not what a test has set since
                signal.signal(number, signal.SIG_DFL)
        _handlers.discard(undo)

    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, die_after_work)
    _handlers.add(undo)
    return undo


def _work_and_die(work: Callable[[], None], number: int) -> None:
    try:
        work()
    finally:
        os.kill(os.getpid(), number)


_handlers: set[Callable[[], None]] = set()


def _undo_all() -> None:
    for undo in list(_handlers):
        undo()


# A forked child process has nothing to close, and is to be terminated at once.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_undo_all)
