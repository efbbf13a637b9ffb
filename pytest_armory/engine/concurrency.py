"""The calls of an async model; imported only for one, since asyncio is slow to import."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pytest_armory.engine.answers import Answers, Batch, failure
from pytest_armory.engine.arrays import one_of, stacked


class ConcurrentCalls:
    """The calls of an async model, one for each sample, at most `limit` of them under way."""

    def __init__(self, predict: Callable[[Any], Any], limit: int) -> None:
        self._predict = predict
        self._limit = limit
        self._slots = asyncio.Semaphore(limit)
        self._unfinished: set[asyncio.Task[Any]] = set()

    def start(self, batch: Batch) -> list[asyncio.Task[Any]]:
        """Start the calls of a batch."""
        tasks = [asyncio.ensure_future(self._call(batch, i)) for i in range(batch.count)]
        self._unfinished.update(tasks)
        for task in tasks:
            task.add_done_callback(self._unfinished.discard)
        return tasks

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
        for task in self._unfinished:
            task.cancel()
        if self._unfinished:
            await asyncio.wait(self._unfinished)


def collected(tasks: list[asyncio.Task[Any]], *, keep_errors: bool) -> Answers:
    """The answers of finished calls; raises the first failure unless they are to be kept.

    A call that has not ended, or was cancelled, is an error too.
    """
    values: list[Any] = []
    errors: dict[int, str] = {}
    for position, task in enumerate(tasks):
        if not task.done() or task.cancelled():
            errors[position] = "the call was broken off"
        elif task.exception() is None:
            values.append(task.result())
        elif keep_errors:
            errors[position] = failure(task.exception() or Exception())
        else:
            raise task.exception() or Exception()
    return Answers(stacked(values), errors)
