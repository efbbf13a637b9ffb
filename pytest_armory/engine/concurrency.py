"""The calls of an async model; imported only for one, since asyncio is slow to import."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from pytest_armory.engine.answers import Answers, Batch, failure
from pytest_armory.engine.arrays import one_of, stacked

_runners: dict[int, Any] = {}
"""The runner of each process: a fork leaves that of its parent alone, which shares its files."""


def run_in_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in the main thread's event loop of all engines, else in a loop of its own.

    The connections of an async client, such as one that a session's fixture makes, belong to the
    loop in which they were opened. Before Python 3.11 each call has a loop of its own.
    """
    if sys.version_info < (3, 11) or threading.current_thread() is not threading.main_thread():
        asyncio.run(work)
        return
    runner = _runners.get(os.getpid())
    if runner is None:
        # With a factory it does not become what asyncio.get_event_loop() returns to other code.
        runner = _runners[os.getpid()] = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        atexit.register(_close_own)
    tasks: list[asyncio.Task[Any]] = []

    async def whole() -> None:
        tasks.extend(filter(None, [asyncio.current_task()]))
        await work

    try:
        runner.run(whole(), context=copy_context())
    except BaseException:
        # Raised by a signal's handler, as pytest-timeout does, or by a task that was interrupted:
        # the work is not over, and would go on in the loop's next run.
        for task in tasks:
            if not task.done():
                task.cancel()
                runner.get_loop().run_until_complete(asyncio.wait([task]))
        raise


def _close_own() -> None:
    runner = _runners.pop(os.getpid(), None)
    if runner is not None:
        runner.close()


class ConcurrentCalls:
    """The calls of an async model, one for each sample, at most `limit` of them under way.

    `failures` has the text of each that failed, of the `ended` ones, as soon as it has; none of
    those that `cancel` ends.
    """

    def __init__(self, predict: Callable[[Any], Any], limit: int) -> None:
        self._predict = predict
        self._limit = limit
        self._slots = asyncio.Semaphore(limit)
        self._unfinished: set[asyncio.Task[Any]] = set()
        self.failures: list[str] = []
        self.ended = 0
        self._is_cancelled = False

    def start(self, batch: Batch) -> list[asyncio.Task[Any]]:
        """Start the calls of a batch."""
        tasks = [asyncio.ensure_future(self._call(batch, i)) for i in range(batch.count)]
        self._unfinished.update(tasks)
        for task in tasks:
            task.add_done_callback(self._note_end)
        return tasks

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        self._unfinished.discard(task)
        self.ended += 1
        is_ours = self._is_cancelled and task.cancelled()
        if not is_ours and isinstance(error := _error_of(task), Exception):
            self.failures.append(failure(error))

    async def _call(self, batch: Batch, position: int) -> Any:
        async with self._slots:
            return await self._predict(one_of(batch.perturbed, position))

    async def until_free(self) -> None:
        """Wait until another call can begin."""
        while len(self._unfinished) >= self._limit:
            await asyncio.wait(self._unfinished, return_when=asyncio.FIRST_COMPLETED)

    async def all_of(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Wait until these calls have ended."""
        await asyncio.wait(tasks)

    async def cancel(self) -> None:
        """Cancel the calls under way, and wait for their ends."""
        self._is_cancelled = True
        for task in self._unfinished:
            task.cancel()
        if self._unfinished:
            await asyncio.wait(self._unfinished)


def collected(tasks: list[asyncio.Task[Any]], *, keep_errors: bool) -> Answers:
    """The answers of finished calls; raises the first failure unless they are to be kept.

    What is no `Exception`, such as `pytest.skip`, is no failure of a call and always raised.
    """
    for task in tasks:
        error = _error_of(task)
        if error is not None and not (keep_errors and isinstance(error, Exception)):
            raise error
    return so_far(tasks)


def so_far(tasks: list[asyncio.Task[Any]]) -> Answers:
    """The answers of calls that were broken off, each of which has an answer or an error."""
    errors = {i: failure(e) for i, e in enumerate(map(_error_of, tasks)) if e is not None}
    return Answers(stacked([t.result() for i, t in enumerate(tasks) if i not in errors]), errors)


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    if not task.done() or task.cancelled():
        return CancelledCallError("the call of the model was cancelled")
    return task.exception()


class CancelledCallError(Exception):
    """A call was cancelled: by the run, which ends, or within the model."""
