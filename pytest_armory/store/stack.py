"""The stack of active runs that MLflow's fluent API keeps for each thread, the innermost last."""

from __future__ import annotations

import os
from collections.abc import Collection
from threading import get_ident
from types import ModuleType
from typing import Any

from pytest_armory.store._mlflow import import_mlflow
from pytest_armory.store.own_requests import own

_reads: dict[int, int] = {}


def fluent_api() -> ModuleType:
    """MLflow's module."""
    import_mlflow()
    from mlflow.tracking import fluent

    module: ModuleType = fluent
    return module


def last_ended() -> str | None:
    """The run that this thread has ended last."""
    last: str | None = fluent_api()._last_active_run_id.get()
    return last


def note_ended(run_id: str) -> None:
    """Have ``mlflow.last_active_run()`` of this thread read a run that is no longer active."""
    fluent_api()._last_active_run_id.set(run_id)


def current_stack() -> list[Any]:
    """This thread's stack, brought up to date; that we read it does not count."""
    thread = get_ident()
    before = _reads.get(thread, 0)
    with own():
        stack: list[Any] = fluent_api()._active_run_stack.get()
    _reads[thread] = before
    return stack


def stack_of(thread: int) -> list[Any]:
    """The stack of any thread, as it is."""
    variable = fluent_api()._active_run_stack
    if thread == get_ident():
        with own():
            mine: list[Any] = type(variable).get(variable)
        return mine
    every: dict[int, list[Any]] = type(variable).get_all_thread_values(variable)
    return every.get(thread, [])


def note_read() -> None:
    """Note that code of this thread reads its stack, as each ``mlflow.log_*`` does."""
    thread = get_ident()
    _reads[thread] = _reads.get(thread, 0) + 1


def reads() -> int:
    """How often code of this thread has read its stack."""
    return _reads.get(get_ident(), 0)


def all_reads() -> int:
    """How often code has read the stack, in any thread; a fork counts, for the child has a copy."""
    return sum(_reads.values())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=note_read)


def take_open(run_ids: Collection[str]) -> list[str]:
    """Those of the runs that are still active in this thread, no longer so."""
    stack = current_stack()
    taken = [run.info.run_id for run in stack if run.info.run_id in run_ids]
    stack[:] = [run for run in stack if run.info.run_id not in taken]
    return taken
