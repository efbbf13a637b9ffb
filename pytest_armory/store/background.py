"""Requests whose latency is hidden behind the next test."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from pytest_armory.errors import TrackingError


class Background:
    """One thread for requests to a server; those to a local database are done at once."""

    def __init__(self, is_remote: bool) -> None:
        self._is_remote = is_remote
        self._executor: ThreadPoolExecutor | None = None
        self._pending: deque[tuple[Future[None], Callable[[TrackingError], None]]] = deque()
        _instances.add(self)

    def submit(self, work: Callable[[], None], failed: Callable[[TrackingError], None]) -> None:
        """Call ``work`` at once for a local database, else in the background, in order.

        ``failed`` is called with its error, in this thread: by :meth:`drain`, or a later call.
        """
        if not self._is_remote:
            _attempt(work, failed)
            return
        self._report_failures()
        executor = self._executor
        if executor is None:
            executor = self._executor = ThreadPoolExecutor(1, thread_name_prefix="armory-store")
        try:
            self._pending.append((executor.submit(work), failed))
        except RuntimeError:  # another thread drains it, or the interpreter is exiting
            executor.shutdown(wait=True)  # what was submitted before comes first
            _attempt(work, failed)

    def drain(self) -> None:
        """Wait for what was submitted, and end the thread; also from another one, before a fork."""
        executor = self._executor
        if executor is not None:
            executor.shutdown(wait=True)
            if self._executor is executor:
                self._executor = None
        self._report_failures()

    def _report_failures(self) -> None:
        while self._pending:
            try:
                future, failed = self._pending.popleft()
            except IndexError:  # another thread has reported it
                return
            if not future.done():
                self._pending.appendleft((future, failed))
                return
            _attempt(future.result, failed)


def _attempt(work: Callable[[], None], failed: Callable[[TrackingError], None]) -> None:
    try:
        work()
    except TrackingError as error:
        failed(error)


_instances: weakref.WeakSet[Background] = weakref.WeakSet()


def drain_all() -> None:
    """Wait for what is sent in the background by this process."""
    for background in list(_instances):
        background.drain()


# A fork while the thread runs would copy its locks and issue a warning in the user's test.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=drain_all)
