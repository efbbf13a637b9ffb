"""The guard around every hook of the plugin: no exception of its own code reaches pytest.

An exception becomes a problem of the session, which the summary shows. While the plugin's code
runs in a tracked session, signals are deferred: Ctrl-C, the alarm of a time limit, and those that
terminate the process. Code of a test or of another plugin is never inside the guard: of a hook
wrapper it covers what is before and after the ``yield``. What implements the hooks for others is.
"""

from __future__ import annotations

import functools
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import pytest

from pytest_armory import signals
from pytest_armory.errors import TrackingError

P = ParamSpec("P")
R = TypeVar("R")

FOR_PYTEST = (pytest.UsageError, pytest.exit.Exception)
"""The subclasses of ``Exception`` that pass the guard, because pytest acts on them.

``pytest.fail``, ``pytest.skip``, ``KeyboardInterrupt`` and ``SystemExit`` pass as well; they are
no ``Exception``.
"""


class Guard:
    """The guard of one session's hooks.

    ``problems`` are the unexpected errors that no summary has shown yet. ``busy`` is locked while a
    hook of the plugin runs: shutting down acquires it, and from the signal on none
    begins, see :meth:`let_none_begin`. ``holds_signals`` is set once a session is tracked: in any
    other there is nothing that a signal could interrupt, and deferring it would take time in every
    test.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.busy = threading.RLock()
        self.holds_signals = False
        self.was_broken_off = False
        """Whether a Ctrl-C has ended a hook of the plugin before it was done."""
        self.warn: Callable[[str], object] = lambda _: None
        """Shows a problem that is kept after every summary has been printed."""
        self._depth = 0
        self._is_ending = False

    @contextmanager
    def own_code(self) -> Iterator[None]:
        """Run the plugin's own code: exceptions become problems, signals are deferred."""
        if not self.holds_signals:
            with self.step():
                yield
            return
        with signals.interrupt_deferred(), signals.alarm_paused(), self._one_hook(), self.step():
            try:
                yield
            except KeyboardInterrupt:
                self.was_broken_off = True
                raise

    def let_none_begin(self) -> None:
        """Let no hook begin any more, but wait until the process ends; a hook at work is done.

        For a signal: the thread that shuts down may get ``busy`` late on a busy machine.
        """
        self._is_ending = True

    @contextmanager
    def _one_hook(self) -> Iterator[None]:
        if self._is_ending and not self._depth:
            threading.Event().wait()
        with self.busy:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run one step of several in a hook; the next one runs even if this one fails."""
        try:
            yield
        except FOR_PYTEST:
            raise
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            self.keep(error)

    def keep(self, error: Exception) -> None:
        """Add an exception to the problems, once: a hook may fail the same way in every test."""
        try:
            problem = unexpected_error(error)
        except Exception:  # noqa: BLE001 - one that cannot be turned into text
            problem = f"tracking failed: {type(error).__name__}"
        if problem not in self.problems:
            self.problems.append(problem)
            with suppress(Exception):  # the terminal may be closed
                self.warn(problem)

    def close(self, stack: ExitStack) -> None:
        """Close an exit stack under the guard."""
        with self.own_code():
            stack.close()


def unexpected_error(error: Exception) -> str:
    """The text for an unexpected exception, as on a machine or in a test that breaks Python itself.

    Something may not be stored because of it, but no verdict changes. A ``TrackingError`` has a
    text of its own.
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
    """The guard of the session that an object belongs to.

    ``source`` is a plugin manager, or has one (a config), or has a config (a node, a session, an
    object with hooks of the plugin).
    """
    config = getattr(source, "config", source)
    manager = getattr(config, "pluginmanager", config)
    if manager not in _guards:
        _guards[manager] = Guard()
    return _guards[manager]


def guarded(hook: Callable[P, R]) -> Callable[P, R | None]:
    """Put a hook under the guard of the session that its first argument belongs to.

    The hook returns None if it fails. :func:`guarded_wrapper` is for hook wrappers.
    """

    @functools.wraps(hook)
    def guarded_hook(*args: P.args, **kwargs: P.kwargs) -> R | None:
        with guard_of(args[0]).own_code():
            return hook(*args, **kwargs)
        return None

    guarded_hook.is_guarded = guarded_hook  # type: ignore[attr-defined]
    return guarded_hook


def guarded_wrapper(
    hook: Callable[P, Generator[None, R, None]],
) -> Callable[P, Generator[None, R, R]]:
    """Put a hook wrapper under the guard: what is before its ``yield``, and what is after it.

    The wrapper gets the outcome of the inner hooks at its ``yield``, a result or an exception, and
    cannot change it; it can only raise an outcome such as ``pytest.fail``. If a wrapper returns or
    fails before its ``yield``, the inner hooks run all the same.
    """

    @functools.wraps(hook)
    def guarded_hook(*args: P.args, **kwargs: P.kwargs) -> Generator[None, R, R]:
        body = _GuardedBody(guard_of(args[0]), hook(*args, **kwargs))
        body.run_to_yield()
        try:
            result = yield
        except BaseException as error:
            body.throw(error)
            raise
        body.send(result)
        return result

    guarded_hook.is_guarded = guarded_hook  # type: ignore[attr-defined]
    return guarded_hook


def unless(
    nothing_to_do: Callable[..., bool],
) -> Callable[[Callable[P, Generator[None, R, R]]], Callable[P, Generator[None, R, R]]]:
    """Leave a guarded hook wrapper out where ``nothing_to_do`` says so; not if that fails.

    The guard itself costs some 50 µs a call, which adds up in hooks that are called very often.
    """

    def decorate(hook: Callable[P, Generator[None, R, R]]) -> Callable[P, Generator[None, R, R]]:
        @functools.wraps(hook)
        def quick_hook(*args: P.args, **kwargs: P.kwargs) -> Generator[None, R, R]:
            is_idle = False
            try:
                is_idle = nothing_to_do(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - see `unexpected_error`
                guard_of(args[0]).keep(error)
            if is_idle:
                return (yield)
            return (yield from hook(*args, **kwargs))

        quick_hook.is_guarded = quick_hook  # type: ignore[attr-defined]
        return quick_hook

    return decorate


class _GuardedBody:
    """The body of a hook wrapper: a generator whose parts run under the guard."""

    def __init__(self, guard: Guard, body: Generator[None, Any, None]) -> None:
        self._guard = guard
        self._body = body
        self._is_at_yield = False

    def run_to_yield(self) -> None:
        """Run what is before the ``yield``. Raises what passes the guard."""
        try:
            with self._guard.own_code(), suppress(StopIteration):
                next(self._body)
                self._is_at_yield = True
        except BaseException:  # the inner hooks are not called: exit its contexts
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
    """Let a generator into which ``error`` was thrown end, by the same exception or normally."""
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
