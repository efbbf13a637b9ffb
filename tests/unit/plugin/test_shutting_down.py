"""What a signal that ends the process waits for, before the session is closed at a server."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_armory.plugin import tracked
from pytest_armory.plugin.guard import Guard
from pytest_armory.plugin.process import Process
from pytest_armory.plugin.running import RunningHooks
from pytest_armory.store.destination import resolve


@pytest.mark.parametrize(
    ("uri", "hook_is_at_work"),
    [("http://127.0.0.1:1", False), ("http://127.0.0.1:1", True), ("local", True)],
)
def test_no_hook_goes_on_while_the_session_is_closed(
    monkeypatch: pytest.MonkeyPatch, uri: str, hook_is_at_work: bool
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
        args=(Process(guard, resolve(uri)), None, None),
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


def test_no_hook_begins_while_what_is_known_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook that was at work ends meanwhile: the next one would change what is known."""
    guard, closing, ended = Guard(), threading.Event(), threading.Event()
    guard.holds_signals = True
    begun: list[str] = []

    def close(*_: object) -> None:
        closing.set()
        assert ended.wait(60)
        main.join(0.2)

    def run_hooks() -> None:
        with guard.own_code():
            begun.append("at work")
            guard.let_none_begin()
            shut_down.start()
            assert closing.wait(60)
            with guard.own_code():
                begun.append("inside")
        ended.set()
        with guard.own_code():
            begun.append("next")

    monkeypatch.setattr(tracked, "_close_at_once", close)
    monkeypatch.setattr(tracked, "HOOK", 0.01)
    process = Process(guard, resolve("http://127.0.0.1:1"))
    shut_down = threading.Thread(target=tracked._shut_down, args=(process, None, None), daemon=True)
    main = threading.Thread(target=run_hooks, daemon=True)
    main.start()
    assert ended.wait(60)
    shut_down.join(60)
    assert not shut_down.is_alive()
    assert begun == ["at work", "inside"]


def test_a_worker_ends_when_all_of_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller waits for its lease, and reads what it has stored."""
    done: list[str] = []
    attempts = SimpleNamespace(current=None, is_complete=True)
    monkeypatch.setattr(tracked, "drain_all", lambda: done.append("sent"))
    process = Process(Guard(), resolve(None))
    monkeypatch.setattr(process, "end", lambda _: done.append("ended"))
    running = cast(RunningHooks, SimpleNamespace(attempts=attempts))
    tracked._shut_down(process, None, running)
    assert done == ["sent", "ended"]
