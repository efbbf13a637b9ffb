"""Scopes in which parameters are recorded, and the run each belongs to.

The current scope is a ``ContextVar``, so that asyncio tasks started inside a scope record to it.
A new thread does not inherit a ``ContextVar``, nor does one of a pool, and a long-lived task keeps
the one it was started with. Where the variable says nothing that is still open, the innermost open
scope is taken that every other open one is inside of or around, so that there is no doubt which is
meant. With two evaluations at once in two threads there is doubt about a third: what it records
belongs to no run, with a warning, unless it runs in a copy of the context
(``contextvars.copy_context()``).
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from pytest_armory.errors import ArmoryUsageError, ParameterWarning, TrackingWarning

if TYPE_CHECKING:
    from pytest_armory.track.run import EvaluationRun


class Scope:
    """Parameters recorded while it is current, the trackables created in it, and its run if any."""

    def __init__(
        self,
        params: dict[str, Any] | None = None,
        *,
        outer: Scope | None = None,
        run: EvaluationRun | None = None,
        trackables: list[Trackable] | None = None,
    ) -> None:
        inherited = outer.trackables if outer else None
        self.params: dict[str, Any] = {} if params is None else params
        self.outer = outer
        self.run: EvaluationRun | None = run if run is not None else (outer.run if outer else None)
        # None outside every trackable context, so that nothing is kept alive there.
        self.trackables: list[Trackable] | None = inherited if trackables is None else trackables
        self.is_open = True
        self.thread = threading.get_ident()
        self.opened_by_task = _in_task()

    def is_around_loop(self) -> bool:
        """Whether it was opened in this thread, and by no task."""
        return self.thread == threading.get_ident() and not self.opened_by_task

    def lineage(self) -> Iterator[Scope]:
        """This scope and those around it, innermost first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer


def _in_task() -> bool:
    asyncio = sys.modules.get("asyncio")  # without it there is no task, and importing it is slow
    try:
        return asyncio is not None and asyncio.current_task() is not None
    except RuntimeError:  # no event loop in this thread
        return False


_root = Scope()
_current: ContextVar[Scope] = ContextVar("armory_scope", default=_root)
_open: list[Scope] = []


def current_scope() -> Scope:
    """The scope that records now: the root scope outside every other."""
    scope = _context_scope() or _inferred_scope(tuple(_open))
    if scope is not None:
        return scope
    warnings.warn(
        "several tracking contexts are open, and this thread was started in none that is known: "
        "what it records belongs to no run; start it with `contextvars.copy_context().run`",
        TrackingWarning,
        stacklevel=4,
    )
    return Scope()


def enclosing_scope() -> Scope:
    """The scope that a new one is inside.

    Two evaluations at once in a pool of threads are not nested: a thread without a scope opens
    its first inside the main thread's.
    """
    main = threading.main_thread().ident
    mains = [scope for scope in _open if scope.thread == main]
    return _context_scope() or _inferred_scope(mains) or _root


def _context_scope() -> Scope | None:
    """The scope that the ``ContextVar`` gives, or None where that is the root."""
    innermost = next(scope for scope in _current.get().lineage() if scope.is_open)
    if _in_task():
        # A test runner's task may be older than what is open around the loop that it runs in.
        around = [scope for scope in _open if scope.is_around_loop()]
        if around and innermost in around[-1].lineage():
            innermost = around[-1]
    return None if innermost is _root else innermost


def _inferred_scope(scopes: Sequence[Scope]) -> Scope | None:
    """The one of several open scopes to take where the context gives none; None if in doubt."""
    # What one task opened is not meant for the tasks beside it: those it started inherit it.
    around = [scope for scope in scopes if scope.is_around_loop()]
    if around or threading.current_thread() is threading.main_thread():
        scopes = around
    if not scopes:
        return _root
    for scope in scopes[-1].lineage():
        if scope.is_open and scope is not _root and all(_is_related(scope, s) for s in scopes):
            return scope
    return None


def _is_related(scope: Scope, other: Scope) -> bool:
    """Whether ``other`` is inside of ``scope``, or around it in the same thread."""
    around = scope.thread == other.thread and other in scope.lineage()
    return around or scope in other.lineage()


def root_scope() -> Scope:
    """The scope outside every other."""
    return _root


def root_params() -> dict[str, Any]:
    """What was recorded outside every scope, for instance while a ``conftest.py`` is imported."""
    return _root.params


def current_run() -> EvaluationRun | None:
    """The run that metrics are logged to at the moment, or None outside every evaluation."""
    return current_scope().run


@contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    """Make ``scope`` current in this thread, and in tasks and threads started inside."""
    before = _current.get()
    _current.set(scope)
    _open.append(scope)
    try:
        yield scope
    finally:
        scope.is_open = False
        if scope in _open:  # a generator that is closed late may find another list
            _open.remove(scope)
        # Not by token: a generator may be closed in another context than it was opened in, and a
        # fixture may leave a scope of its own open at its yield. Closed scopes are skipped.
        if _current.get() is scope:
            _current.set(before)


@contextmanager
def running(
    run: EvaluationRun,
    outer: Scope | None = None,
    *,
    activate: bool = True,
    keep_uri: bool = False,
    wider: bool = False,
) -> Iterator[Scope]:
    """Make ``run`` the current run, and MLflow's active run, with a scope of its own.

    Without ``activate`` MLflow's own state is left alone; ``keep_uri`` leaves a tracking URI in
    force that is the user's own; ``wider`` says that the code at work is not the evaluation's own.
    """
    outer = outer or enclosing_scope()
    scope = Scope(dict(outer.params), outer=outer, run=run)
    connection = run.connection
    active = connection.active(keep_uri=keep_uri, wider=wider) if activate else nullcontext()
    with active, entered(scope):
        yield scope


def get_current_params() -> dict[str, Any]:
    """The parameters recorded in the current tracking context, by name, with original values."""
    return current_scope().params


def track_param(key: str, value: Any) -> None:
    """Record one parameter in the current tracking context.

    A second value under the same key replaces the first, with a :class:`ParameterWarning`.
    """
    if not isinstance(key, str):
        raise ArmoryUsageError(f"track_param: the key must be a string, got {key!r}")
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
    """Remove every parameter recorded in the current tracking context."""
    get_current_params().clear()


@contextmanager
def tracking_context(nested: bool = False) -> Iterator[None]:
    """Record parameters separately from the surrounding context, and discard them at its end.

    ``nested=True`` starts from a copy of the surrounding context's parameters.
    """
    outer = enclosing_scope()
    with entered(Scope(dict(outer.params) if nested else {}, outer=outer)):
        yield


@contextmanager
def unrecorded() -> Iterator[None]:
    """Record nothing inside: parameters are discarded, and there is no run to log to."""
    scope = Scope(outer=enclosing_scope(), trackables=[])
    scope.run = None
    with entered(scope):
        yield


class Trackable:
    """A mixin whose instances get the parameters of the :func:`trackable_context` they are made in.

    ``tracked_params`` is empty until that context ends. A subclass with an ``__init__`` calls
    ``super().__init__()``, a dataclass with a ``__post_init__`` calls ``super().__post_init__()``.
    Among several base classes it comes first.
    """

    tracked_params: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._armory_register()

    # A dataclass's generated __init__ calls this and not ours.
    def __post_init__(self, *args: Any) -> None:
        after = getattr(super(), "__post_init__", None)
        if after is not None:
            after(*args)
        self._armory_register()

    def _armory_register(self) -> None:
        object.__setattr__(self, "tracked_params", {})  # it may be frozen
        trackables = current_scope().trackables
        if trackables is not None:
            trackables.append(self)


@contextmanager
def trackable_context(nested: bool = False) -> Iterator[None]:
    """A :func:`tracking_context` whose parameters every Trackable created in it gets."""
    outer = enclosing_scope()
    made: list[Trackable] = []
    with entered(
        Scope(dict(outer.params) if nested else {}, outer=outer, trackables=made)
    ) as scope:
        try:
            yield
        finally:
            for trackable in made:
                object.__setattr__(trackable, "tracked_params", dict(scope.params))
            made.clear()  # a task that outlives the scope still refers to it
