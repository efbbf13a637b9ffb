"""Our runs as MLflow's active ones: the one place that touches the stack of active runs.

``mlflow.start_run(run_id=…)`` would cost three requests, and ``mlflow.end_run`` one that cannot be
moved; so a run that was made through the client is put on, and taken off, the stack that
``mlflow.active_run()`` reads. Two rules:

**Our run is on the stack only while our tracking URI is in force.** A test that sets another has a
store of its own: there ``active_run()`` is None, ``start_run()`` opens a plain run, and
``end_run()`` ends nothing of ours. MLflow asks its stack before each call that needs a run, so the
stack is brought up to date when it is asked.

**A run that is opened outside a test's own code**, by a session's fixture or another plugin's hook,
belongs to whoever opened it. While such code is at work our run is at the bottom of the stack, and
on top while the test's own is.

A plain ``mlflow.start_run()`` raises where a run is active. Without us none would be, so it opens a
child of our run instead; and where the code is not the test's own, a run without a parent.

The stack is private to MLflow: the CI matrix runs the oldest and the newest supported version
against this.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

from pytest_armory.store import patches, tracing
from pytest_armory.store._mlflow import import_mlflow
from pytest_armory.store.active_model import active_model, set_active_model
from pytest_armory.store.exported import export
from pytest_armory.store.in_force import State, in_force
from pytest_armory.store.stack import current_stack, fluent_api, last_ended, stack_of
from pytest_armory.store.translation import as_tracking_error


@dataclass(eq=False)
class ActiveRun:
    """One of our runs as MLflow's active run, from :func:`activate` to :meth:`close`.

    ``entry`` is MLflow's own ``ActiveRun``; ``tags`` are those of runs that are opened inside it;
    ``problems`` takes a sentence for what MLflow could not send in the background. ``wider`` says
    that the code at work is not the test's own. ``own_around`` is what was in force, if that was
    the user's own inside another evaluation.
    """

    entry: Any
    uri: str
    tags: Mapping[str, str]
    problems: list[str]
    index: int
    last_ended: str | None
    model: Any
    model_before: Any
    own_around: State | None
    traces: tracing.TraceDestination
    thread: int = field(default_factory=get_ident)
    set_aside: list[Any] = field(default_factory=list)
    """Runs of other stores that were on the stack, while ours is in force."""
    again: list[tuple[int, Any]] = field(default_factory=list)
    """Where it was on the stack by ``start_run(run_id=…)`` too, while ours is not in force."""
    given_back: list[str | None] = field(default_factory=list)
    """The user's tracking URI, while wider code has a run open there."""
    wider: bool = False
    is_shown: bool = False
    is_ended: bool = False
    """Whether code has taken it off the stack itself, by ``mlflow.end_run()``."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self.entry.info.run_id)

    def is_innermost(self) -> bool:
        """Whether no run that code has opened itself stands above it, in its own thread."""
        if self.thread != get_ident():
            return True
        stack = current_stack()
        return not stack or _id(stack[-1]) == self.run_id

    def replace(self, run: Any, uri: str, tags: Mapping[str, str]) -> None:
        """Go on with another run, of another store, in its place."""
        stack, entry = stack_of(self.thread), fluent_api().ActiveRun(run)
        stack[:] = [entry if _id(one) == self.run_id else one for one in stack]
        was_in_force = in_force.uri() == self.uri
        self.entry, self.uri, self.tags = entry, uri, tags
        self.traces = tracing.TraceDestination(uri, self.problems.append)
        if was_in_force:
            in_force.put_ours(uri)
        self._export()

    @contextmanager
    def used_by(self, *, wider: bool) -> Iterator[None]:
        """While code is at work that is the test's own, or that is not (``wider``)."""
        before = self.wider
        self.set_wider(wider)
        try:
            yield
        finally:
            self.set_wider(before)

    @contextmanager
    def away_from(self, stack: list[Any]) -> Iterator[None]:
        """While a run is opened that is not to be a child of ours, which is on top."""
        place = stack.index(self.entry)
        stack.remove(self.entry)
        self.is_shown, self.is_ended = False, True  # so that it stays away meanwhile
        try:
            yield
        finally:
            stack.insert(place, self.entry)
            self.is_shown, self.is_ended = True, False

    def set_wider(self, wider: bool) -> None:
        """Say whether the code at work from now on is not the test's own.

        Our run goes below or above the runs of such code, if none of the test's own is in between;
        and the active model that it leaves is the session's.
        """
        if wider == self.wider or self.thread != get_ident() or self not in _active:
            return
        self._give_back(wider)
        stack = current_stack()
        if self.is_shown and all(map(self._is_of_wider_code, stack[stack.index(self.entry) + 1 :])):
            stack.remove(self.entry)
            stack.insert(self._place_in(stack, wider), self.entry)
        if wider:
            self.model_before = active_model()
        elif active_model() is not self.model_before:
            self.model = active_model()
        self.wider = wider
        self._export()

    def _give_back(self, wider: bool) -> None:
        """Have wider code go on in the user's store that has a run open there."""
        if wider and self.set_aside and in_force.uri() == self.uri:
            in_force.put_users()
            self.given_back.append(in_force.uri())
        elif not wider and self.given_back and in_force.uri() == self.given_back.pop():
            in_force.put_ours(self.uri)

    def _hide(self, stack: list[Any]) -> None:
        self.again = [(i, one) for i, one in enumerate(stack) if _id(one) == self.run_id]
        stack[:] = [one for one in stack if _id(one) != self.run_id]

    def _show(self, stack: list[Any]) -> None:
        stack.insert(self._place_in(stack, True) if self.wider else self.index, self.entry)
        for index, one in self.again:
            if one is not self.entry:
                stack.insert(index, one)
        self.is_shown, self.again = True, []

    def _place_in(self, stack: list[Any], wider: bool) -> int:
        """Where our run belongs: on top, or for wider code below its own runs in our store."""
        if not wider:
            return len(stack)
        elsewhere = [i for i, one in enumerate(stack) if not self._is_of_wider_code(one)]
        return elsewhere[-1] + 1 if elsewhere else 0

    def _is_of_wider_code(self, entry: Any) -> bool:
        """Whether wider code has opened a run in our store."""
        return _opened.get(_id(entry)) == (self.uri, True)

    def _export(self) -> None:
        """Export where the runs belong that this process's threads and child processes open."""
        tags = {k: v for k, v in self.tags.items() if not (self.wider and k == _OPENED_IN)}
        known = {"uri": self.uri, "experiment_id": self.entry.info.experiment_id, "tags": tags}
        export({**known, **in_force.instead_of()})

    def close(self) -> list[str]:
        """Take it off its stack, and put the user's settings back.

        Returns the ids of the runs in our store that the test's own code has left open.
        """
        tracing.settle()
        self.traces.close()
        stack = stack_of(self.thread)
        _synchronize(self.thread)
        above = stack[stack.index(self.entry) + 1 :] if self.is_shown else stack[self.index :]
        own = (self.uri, False)
        unknown = (in_force.uri(), False)
        left = [one.info.run_id for one in above if _opened.get(_id(one), unknown) == own]
        stack[:] = [*self.set_aside, *(one for one in stack if _id(one) != self.run_id)]
        is_last = _active[-1] is self
        _active.remove(self)
        left_by_fixture = self.wider and active_model() is not self.model_before
        if self.thread == get_ident() and not left_by_fixture:
            set_active_model(self.model)
        if _active:
            is_in_force = in_force.uri() == self.uri
            if is_in_force and is_last and self.own_around is not None:
                in_force.put_back(self.own_around)
            elif is_in_force and self.uri != _active[-1].uri:
                in_force.put_ours(_active[-1].uri)
            _active[-1]._export()
        else:
            export(None)
            restore()
        ours = {self.run_id, *(one.run_id for one in _active)}
        return [run_id for run_id in left if run_id not in ours]


_OPENED_IN = "armory.opened_in"

_active: list[ActiveRun] = []
"""Our active runs of all threads, in the order in which they were activated."""

_opened: dict[str, tuple[str | None, bool]] = {}
"""Runs that code opened meanwhile: the URI in force then, and whether it was wider code."""


def activate(
    run: Any, uri: str, tags: Mapping[str, str], problems: list[str], *, keep_uri: bool = False
) -> ActiveRun:
    """Make ``run``, an ``mlflow.entities.Run``, this thread's active run while ``uri`` is in force.

    ``keep_uri`` leaves another URI in force that is the user's own, so that the run stays hidden.
    """
    import_mlflow()
    restore()
    stack = current_stack()
    entry = fluent_api().ActiveRun(run)
    model = active_model()
    is_in_own = bool(_active) and in_force.uri() not in {one.uri for one in _active}
    own_around = in_force.state() if is_in_own else None
    thread = get_ident()
    hidden = [one for one in _active if one.thread == thread and not one.is_shown]
    index = len(stack) + len(hidden)  # above those that come back with it
    traces = tracing.TraceDestination(uri, problems.append)
    last = last_ended()
    active = ActiveRun(entry, uri, tags, problems, index, last, model, model, own_around, traces)
    patches.watch_stack(_bring_up_to_date, _of_tests)
    patches.watch_start_run(_opening_run)
    patches.watch_variable(in_force.environment)
    patches.watch_traces(_trace_begins)
    _active.append(active)
    tracing.remember_destination(in_force.uri())
    if in_force.uri() == uri:
        _opened.update({_id(one): (uri, True) for one in stack if _id(one) not in _opened})
    if not keep_uri:
        in_force.put_ours(uri)
    active._export()
    current_stack()  # which shows it
    return active


def restore() -> None:
    """Outside evaluations: put the user's settings back, also where his code has put back ours.

    As a fixture does that found our URI and restores it when it ends. They wait for as long as a
    run that code has opened in our store is the active one.
    """
    if "mlflow" not in sys.modules or _active:
        return
    stack = stack_of(get_ident())
    origin, _ = _opened.get(_id(stack[-1]), ("", False)) if stack else ("", False)
    if origin != in_force.uri():
        in_force.put_users()


def _synchronize(thread: int) -> None:
    """Have a thread's stack hold our runs exactly while their URI is in force."""
    uri, stack = in_force.uri(), stack_of(thread)
    _set_aside(thread, stack, uri)
    for active in [one for one in _active if one.thread == thread]:
        is_there = any(entry is active.entry for entry in stack)
        if active.is_shown and not is_there:
            active.is_ended, active.is_shown = True, False
        elif is_there:
            active.index, active.is_shown = stack.index(active.entry), uri == active.uri
            if not active.is_shown:
                active._hide(stack)
        elif uri == active.uri and not active.is_ended:
            active._show(stack)


def _set_aside(thread: int, stack: list[Any], uri: str | None) -> None:
    """Take runs of other stores off the stack while the URI of ours is in force.

    Code that ends whatever is active would look for them in our store.
    """
    outermost = next(one for one in _active if one.thread == thread)
    if uri == outermost.uri:
        others = [one for one in stack if not is_ours(one) and not _is_of(one, uri)]
        outermost.set_aside += others
        stack[:] = [one for one in stack if one not in others]
    else:
        stack[0:0] = outermost.set_aside
        outermost.set_aside.clear()


def _is_of(entry: Any, uri: str | None) -> bool:
    """Whether a run was opened in the store of that URI, as far as is known."""
    return _opened.get(_id(entry), ("", False))[0] == uri


def _bring_up_to_date() -> None:
    with _in_a_call_of_the_tests():
        _update()


def _trace_begins(trace_id: str) -> None:
    with _in_a_call_of_the_tests():
        _update()
        active = innermost()
        traces = active.traces if active is not None and in_force.uri() == active.uri else None
        tracing.begin(trace_id, traces, in_force.resolved_users)


@contextmanager
def _in_a_call_of_the_tests() -> Iterator[None]:
    """What fails meanwhile is a problem of ours."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        text = f"MLflow's active run could not be kept: {as_tracking_error(error)}"
        for active in _active[-1:]:
            if text not in active.problems:
                active.problems.append(text)


def _update() -> None:
    """Have the stacks and the URI in force agree."""
    in_force.remember_experiment()
    if not _active:
        restore()
        return
    for thread in {one.thread for one in _active}:
        _synchronize(thread)
    tracing.remember_destination(in_force.uri())


def _of_tests(stacks: dict[int, list[Any]]) -> dict[int, list[Any]]:
    """The stacks of all threads; a trace in a test's own code is not of a wide fixture's run."""
    for active in _active:
        stack = stacks.get(active.thread, [])
        if active.is_shown and not active.wider:
            stacks[active.thread] = stack[stack.index(active.entry) :]
    return stacks


@contextmanager
def _opening_run(given: inspect.BoundArguments) -> Iterator[Callable[[Any], None]]:
    """While code opens a run by ``mlflow.start_run``; gives what notes that run."""
    _bring_up_to_date()
    active = innermost()
    if active is None:
        yield lambda _: None
        return

    def note(run: Any) -> None:
        with _in_a_call_of_the_tests():
            _opened[_id(run)] = in_force.uri(), active.wider

    with ExitStack() as stack:
        with _in_a_call_of_the_tests():
            stack.enter_context(_place_for(given, active))
        yield note


@contextmanager
def _place_for(given: inspect.BoundArguments, active: ActiveRun) -> Iterator[None]:
    """Where a run belongs that code opens without saying so."""
    if in_force.uri() == active.uri:
        chosen = given.arguments.get("experiment_id") is not None
        if not chosen and not in_force.has_chosen_experiment():
            given.arguments["experiment_id"] = active.entry.info.experiment_id
    stack = stack_of(get_ident())
    if not (stack and stack[-1] is active.entry):
        yield
    elif active.wider or given.arguments.get("parent_run_id") is not None:
        with active.away_from(stack):
            yield
    else:
        # Beside a run that is not the tests' own it raises without us as well.
        if all(is_ours(one) or not _opened.get(_id(one), ("", True))[1] for one in stack):
            given.arguments["nested"] = True
        yield


def innermost() -> ActiveRun | None:
    """Our run that is active in this thread, or else in another."""
    own = [one for one in _active if one.thread == get_ident()]
    known = own or _active
    return known[-1] if known else None


def _id(entry: Any) -> str:
    return str(entry.info.run_id)


def is_ours(entry: Any) -> bool:
    """Whether an entry of the stack is one of our active runs."""
    return any(one.entry is entry for one in _active)
