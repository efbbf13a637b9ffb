"""Ctrl-C and what ours is doing meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from pytest_armory.signals import interrupt_deferred, uninterrupted


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C as Python hears it, whatever shell this was started from."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_one_waits_and_a_second_does_not() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupt_deferred():  # noqa: PT012 - it says where
        ctrl_c()
        done.append(1)
        ctrl_c()
        done.append(2)
    assert done == [1]


def test_what_the_code_inside_raises_does_not_swallow_it() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, interrupt_deferred():  # noqa: PT012
        ctrl_c()
        pytest.fail("a gate is missed")
    assert isinstance(raised.value.__context__, pytest.fail.Exception)


def test_an_import_is_not_broken_off_by_a_second_one_either() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupt_deferred():  # noqa: PT012 - it says where
        with uninterrupted():
            ctrl_c()
            ctrl_c()
            done.append(1)
        done.append(2)
        ctrl_c()
        done.append(3)
    assert done == [1, 2]
