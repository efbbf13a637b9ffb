"""A limit on the wall-clock time of a call; HTTP time-outs limit each read, not their sum."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Call ``work``; raises :class:`TimeoutError` after so many seconds, or what it raised.

    Work that takes longer continues in a daemon thread, and its result is discarded.
    """
    outcome: list[Any] = []
    thread = Thread(target=_do, args=(work, outcome), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # Python 3.12 starts none while the interpreter is exiting
        return work()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {round(seconds, 1):g} s")
    succeeded, value = outcome
    if not succeeded:
        raise value
    result: T = value
    return result


def _do(work: Callable[[], object], outcome: list[Any]) -> None:
    try:
        outcome[:] = [True, work()]
    except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
        outcome[:] = [False, error]
