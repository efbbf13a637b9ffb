"""What a signal that ends the process waits for, before the session is closed at a server."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pytest_armory.plugin import tracked
from pytest_armory.plugin.guard import Guard
from pytest_armory.plugin.process import Process
from pytest_armory.store.destination import resolve


@pytest.mark.parametrize("hook_is_at_work", [False, True])
def test_no_hook_goes_on_while_the_session_is_closed(
    monkeypatch: pytest.MonkeyPatch, hook_is_at_work: bool
) -> None:
    """Unless it takes long: what is known is closed meanwhile, and the rest when it is done."""
    guard, done = Guard(), threading.Event()
    is_free: list[bool] = []

    def take() -> None:
        is_free.append(guard.busy.acquire(blocking=False))
        if is_free[-1]:
            guard.busy.release()

    def close(*_: object) -> None:
        other = threading.Thread(target=take)
        other.start()
        other.join()
        done.set()

    monkeypatch.setattr(tracked, "_close_at_once", close)
    monkeypatch.setattr(tracked, "HOOK", 0.01 if hook_is_at_work else 60.0)
    shut_down = threading.Thread(
        target=tracked._shut_down,
        args=(Process(guard, resolve("http://127.0.0.1:1")), None, None),
        daemon=True,
    )
    if hook_is_at_work:
        with guard.busy:
            shut_down.start()
            assert done.wait(60)
    else:
        shut_down.start()
    shut_down.join(60)
    assert not shut_down.is_alive()
    take()
    assert is_free == [False, False]  # for good


def test_no_hook_begins_from_the_signal_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the thread that shuts down is; a hook at work is done."""
    guard, waits = Guard(), 0

    def wait() -> None:
        nonlocal waits
        waits += 1

    guard.holds_signals = True
    monkeypatch.setattr(guard, "_never", SimpleNamespace(wait=wait))
    with guard.own_code():
        guard.let_none_begin()
        with guard.own_code():
            assert waits == 0
    with guard.own_code():
        assert waits == 1
