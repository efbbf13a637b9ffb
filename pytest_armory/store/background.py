"""Requests whose latency is hidden behind the next test."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from pytest_armory.errors import TrackingError


class Background:
    """One thread for requests to a server; those to a local database are done at once."""

    def __init__(self, is_remote: bool) -> None:
        self._is_remote = is_remote
        self._executor: ThreadPoolExecutor | None = None
        self._pending: list[tuple[Future[None], Callable[[TrackingError], None]]] = []
        _instances.add(self)

    def submit(self, work: Callable[[], None], failed: Callable[[TrackingError], None]) -> None:
        """Call ``work`` at once for a local database, else in the background, in order.

        ``failed`` is called with its error, in this thread: by :meth:`drain`, or a later call.
        """
        if not self._is_remote:
            _attempt(work, failed)
            return
        self._report_failures()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="armory-store")
        try:
            self._pending.append((self._executor.submit(work), failed))
        except RuntimeError:  # the interpreter is exiting
            _attempt(work, failed)

    def drain(self) -> None:
        """Wait for what was submitted, and end the thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None
        self._report_failures()

    def _report_failures(self) -> None:
        while self._pending and self._pending[0][0].done():
            future, failed = self._pending.pop(0)
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
