"""Wrappers of the function's own kind, so that frameworks which look at the kind see it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Record: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any]], None]
"""Called with the arguments of each call, before it."""


def wrap(func: Any, record: Record) -> Any:
    """A wrapper that records each call: a coroutine function, a generator, a plain function."""
    if inspect.iscoroutinefunction(func):
        wrapper = _coroutine_function(func, record)
    elif inspect.isasyncgenfunction(func):
        wrapper = _async_generator(func, record)
    elif inspect.isgeneratorfunction(func):
        wrapper = _generator(func, record)
    else:
        wrapper = _function(func, record)
    return functools.wraps(func)(wrapper)


def _coroutine_function(func: Any, record: Record) -> Any:
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        record(args, kwargs)
        return await func(*args, **kwargs)

    return call_async


def _async_generator(func: Any, record: Record) -> Any:
    async def generate_async(*args: Any, **kwargs: Any) -> Any:
        record(args, kwargs)
        generator = func(*args, **kwargs)
        try:
            value = await generator.__anext__()
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - as `yield from` would
                    value = await generator.athrow(error)
                else:
                    value = await generator.asend(sent)
        except StopAsyncIteration:
            return

    return generate_async


def _generator(func: Any, record: Record) -> Any:
    def generate(*args: Any, **kwargs: Any) -> Any:
        record(args, kwargs)
        return (yield from func(*args, **kwargs))

    return generate


def _function(func: Any, record: Record) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        record(args, kwargs)
        return func(*args, **kwargs)

    return call
