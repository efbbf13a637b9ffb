"""Ctrl-C and what ours is doing meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from pytest_armory.signals import PATIENCE, interrupt_deferred, uninterrupted


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C as Python hears it, whatever shell this was started from."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_many_wait_until_ours_has_taken_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pressed three times at once it breaks nothing off; pressed again a while later it does."""
    now = [0.0]
    monkeypatch.setattr("pytest_armory.signals.monotonic", lambda: now[0])
    done = []
    with pytest.raises(KeyboardInterrupt), interrupt_deferred():  # noqa: PT012 - it says where
        for second in (0.0, 0.1, PATIENCE, PATIENCE + 0.1):
            now[0] = second
            ctrl_c()
            done.append(second)
    assert done == [0.0, 0.1, PATIENCE]


def test_what_the_code_inside_raises_does_not_swallow_it() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, interrupt_deferred():  # noqa: PT012
        ctrl_c()
        pytest.fail("a gate is missed")
    assert isinstance(raised.value.__context__, pytest.fail.Exception)


@pytest.mark.parametrize("in_a_hook", [False, True])
def test_what_ends_by_itself_is_never_broken_off(
    monkeypatch: pytest.MonkeyPatch, in_a_hook: bool
) -> None:
    """An import, a transaction; in a test's own code too."""
    now = [0.0]
    monkeypatch.setattr("pytest_armory.signals.monotonic", lambda: now[0])
    done = []
    with pytest.raises(KeyboardInterrupt), interrupt_deferred() if in_a_hook else nullcontext():  # noqa: PT012
        with uninterrupted():
            for now[0] in (0.0, 100.0, 200.0):
                ctrl_c()
            done.append(1)
        done.append(2)
        ctrl_c()
        done.append(3)
    assert done == ([1, 2] if in_a_hook else [1])
