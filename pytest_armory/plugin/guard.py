"""The guard around every hook of ours: no exception of our own code reaches pytest.

What goes wrong is kept as a problem of the session, which its summary shows. Meanwhile signals
wait: Ctrl-C, the alarm of a time limit, and what ends the process. The guard never stands around
code of others: of a wrapper it guards what comes before and after the ``yield``.
"""

from __future__ import annotations

import functools
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import pytest

from pytest_armory import signals
from pytest_armory.errors import TrackingError

P = ParamSpec("P")
R = TypeVar("R")

MEANT = (pytest.UsageError, pytest.exit.Exception)
"""The subclasses of ``Exception`` that are meant for pytest.

Verdicts (``pytest.fail``, ``pytest.skip``), ``KeyboardInterrupt`` and ``SystemExit`` are none.
"""


class Guard:
    """What guards the hooks of one session.

    ``problems`` are those that no summary has shown yet. ``busy`` is held while a hook of ours is
    at work: who shuts the process down takes it, and no hook of ours runs after that.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.busy = threading.RLock()

    @contextmanager
    def own_code(self) -> Iterator[None]:
        """Run code of ours: its exceptions become problems, and signals wait until it is done."""
        with signals.interrupt_deferred(), signals.alarm_paused(), self.busy, self.step():
            yield

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run one step of several in a hook; the next one runs whatever becomes of it."""
        try:
            yield
        except MEANT:
            raise
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            self.keep(error)

    def keep(self, error: Exception) -> None:
        """Keep an exception as a problem, once: a hook may fail the same way in every test."""
        try:
            problem = unexpected_error(error)
        except Exception:  # noqa: BLE001 - one that cannot be turned into text
            problem = f"tracking failed: {type(error).__name__}"
        if problem not in self.problems:
            self.problems.append(problem)

    def close(self, stack: Any) -> None:
        """Close an exit stack, or anything else that has a ``close``."""
        with self.own_code():
            stack.close()


def unexpected_error(error: Exception) -> str:
    """The text for an exception that nobody foresaw: of a machine or test that breaks Python.

    It may cost what was to be stored, but never a verdict. One that the store foresaw says it all.
    """
    if isinstance(error, TrackingError):
        return str(error)
    from pytest_armory.values import redact_text

    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    text = redact_text(" ".join(str(error).split()))[:300]
    return f"tracking failed in {place}: {type(error).__name__}: {text}"


_guards: WeakKeyDictionary[object, Guard] = WeakKeyDictionary()


def guard_of(source: Any) -> Guard:
    """The guard of the session that something belongs to.

    ``source`` is a plugin manager, or has one (a config), or has a config (a node, a session, an
    object with hooks of ours).
    """
    config = getattr(source, "config", source)
    manager = getattr(config, "pluginmanager", config)
    if manager not in _guards:
        _guards[manager] = Guard()
    return _guards[manager]


def guarded(hook: Callable[P, R]) -> Callable[P, R | None]:
    """Put a hook under the guard of the session that its first argument belongs to.

    It gives None where the hook fails. :func:`guarded_wrapper` is for hook wrappers.
    """

    @functools.wraps(hook)
    def guarded_hook(*args: P.args, **kwargs: P.kwargs) -> R | None:
        with guard_of(args[0]).own_code():
            return hook(*args, **kwargs)
        return None

    guarded_hook.is_guarded = True  # type: ignore[attr-defined]
    return guarded_hook


def guarded_wrapper(
    hook: Callable[P, Generator[None, R, None]],
) -> Callable[P, Generator[None, R, R]]:
    """Put a hook wrapper under the guard: what is before its ``yield``, and what is after it.

    The outcome of the inner hooks stays what it is, result or exception: the hook sees it at its
    ``yield``, and changes it by a verdict only. A hook that ends before its ``yield``, or fails
    there, has no more to do.
    """

    @functools.wraps(hook)
    def guarded_hook(*args: P.args, **kwargs: P.kwargs) -> Generator[None, R, R]:
        part = _Part(guard_of(args[0]), hook(*args, **kwargs))
        part.run_to_yield()
        try:
            result = yield
        except BaseException as error:
            part.throw(error)
            raise
        part.send(result)
        return result

    guarded_hook.is_guarded = True  # type: ignore[attr-defined]
    return guarded_hook


class _Part:
    """Our part of a hook wrapper: a generator, each piece of which runs under the guard."""

    def __init__(self, guard: Guard, body: Generator[None, Any, None]) -> None:
        self._guard = guard
        self._body = body
        self._is_at_yield = False

    def run_to_yield(self) -> None:
        """Run what is before the ``yield``. Raises what is meant for pytest, and Ctrl-C."""
        try:
            with self._guard.own_code(), suppress(StopIteration):
                next(self._body)
                self._is_at_yield = True
        except BaseException:  # the inner hooks are not called: leave what was entered
            with self._guard.step():
                self._body.close()
            raise

    def send(self, result: object) -> None:
        """Run what is after the ``yield``, which gives the inner hooks' result."""
        if self._is_at_yield:
            with self._guard.own_code(), suppress(StopIteration):
                self._body.send(result)

    def throw(self, error: BaseException) -> None:
        """Run what is after the ``yield``, which raises the inner hooks' exception."""
        if not self._is_at_yield:
            return
        frames = error.__traceback__
        try:
            with self._guard.own_code(), _passing(error):
                self._body.throw(error)
        finally:
            error.__traceback__ = frames


@contextmanager
def _passing(error: BaseException) -> Iterator[None]:
    """Let a generator that got an exception end by it, or as if there had been none."""
    try:
        yield
    except StopIteration:
        pass
    except BaseException as raised:
        # Python turns a StopIteration that leaves a generator into a RuntimeError.
        if raised is not error and not (
            isinstance(error, StopIteration) and raised.__cause__ is error
        ):
            raise
