"""Scopes in which parameters are recorded, and the run each belongs to.

The current scope is a ``ContextVar``, so that asyncio tasks started inside a scope record to it.
A new thread does not inherit a ``ContextVar``, and a long-lived task keeps the one it was started
with: where the variable says nothing that is still open, the innermost scope that is open in this
process is taken, if they are all of one thread, so that there is no doubt about which is meant.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from pytest_armory.errors import ParameterWarning

if TYPE_CHECKING:
    from pytest_armory.track.run import EvaluationRun


class Scope:
    """Parameters recorded while it is current, the trackables made in it, and its run if any."""

    def __init__(
        self,
        params: dict[str, Any] | None = None,
        *,
        outer: Scope | None = None,
        run: EvaluationRun | None = None,
    ) -> None:
        self.params: dict[str, Any] = {} if params is None else params
        self.outer = outer
        self.run: EvaluationRun | None = run if run is not None else (outer.run if outer else None)
        self.trackables: list[Trackable] = []
        self.is_open = True
        self.thread = threading.get_ident()


_root = Scope()
_current: ContextVar[Scope] = ContextVar("armory_scope", default=_root)
_open: list[Scope] = []


def current_scope() -> Scope:
    """The scope that records now: the root scope outside every other."""
    scope: Scope | None = _current.get()
    while scope is not None and not scope.is_open:
        scope = scope.outer
    if scope is not None and scope is not _root:
        return scope
    if _open and len({scope.thread for scope in _open}) == 1:
        return _open[-1]
    return _root


def root_params() -> dict[str, Any]:
    """What was recorded outside every scope, as by a ``conftest.py`` while it is imported."""
    return _root.params


def current_run() -> EvaluationRun | None:
    """The run that metrics logged now belong to, or None outside every evaluation."""
    return current_scope().run


@contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    """Make ``scope`` current in this thread, and in tasks and threads started meanwhile."""
    before = _current.get()
    _current.set(scope)
    _open.append(scope)
    try:
        yield scope
    finally:
        scope.is_open = False
        _open.remove(scope)
        # Not by token: a generator may be closed in another context than it was opened in, and a
        # fixture may leave a scope of its own open at its yield. Closed scopes are walked over.
        if _current.get() is scope:
            _current.set(before)


def get_current_params() -> dict[str, Any]:
    """The parameters recorded in the current tracking context, by name, as they were given."""
    return current_scope().params


def track_param(key: str, value: Any) -> None:
    """Record one parameter in the current tracking context.

    A second value under the same key replaces the first, with a :class:`ParameterWarning`.
    """
    params = get_current_params()
    if key in params:
        warnings.warn(
            f"the parameter {key!r} was already recorded in this tracking context and is replaced; "
            "use another key, or a `tracking_context()` of its own",
            ParameterWarning,
            stacklevel=2,
        )
    params[key] = value


def reset_params() -> None:
    """Forget every parameter recorded in the current tracking context."""
    get_current_params().clear()


@contextmanager
def tracking_context(nested: bool = False) -> Iterator[None]:
    """Record parameters apart from the surrounding context, and forget them at its end.

    ``nested=True`` starts from a copy of the surrounding context's parameters.
    """
    outer = current_scope()
    with entered(Scope(dict(outer.params) if nested else {}, outer=outer)):
        yield


class Trackable:
    """A mixin whose instances get the parameters of the :func:`trackable_context` they are made in.

    ``tracked_params`` is empty until that context ends. A subclass with an ``__init__`` calls
    ``super().__init__()``; a dataclass needs nothing, unless it has its own ``__post_init__``.
    """

    tracked_params: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__post_init__()

    def __post_init__(self) -> None:
        # A dataclass's generated __init__ calls this and not ours; it may be frozen.
        object.__setattr__(self, "tracked_params", {})
        current_scope().trackables.append(self)


@contextmanager
def trackable_context(nested: bool = False) -> Iterator[None]:
    """A :func:`tracking_context` whose parameters are given to every Trackable made in it."""
    outer = current_scope()
    scope = Scope(dict(outer.params) if nested else {}, outer=outer)
    with entered(scope):
        try:
            yield
        finally:
            for trackable in scope.trackables:
                object.__setattr__(trackable, "tracked_params", dict(scope.params))
