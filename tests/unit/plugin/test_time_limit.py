"""A time limit of which a thread has the clock stands still while gates are judged."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pytest_timeout import Settings

from pytest_armory.plugin import time_limit


def item_with(calls: list[Any]) -> pytest.Item:
    def set_timer(item: pytest.Item, settings: Settings) -> None:
        time_limit.note(item, settings)
        calls.append(settings.timeout)

    hook = SimpleNamespace(
        pytest_timeout_cancel_timer=lambda item: calls.append("cancelled"),  # noqa: ARG005
        pytest_timeout_set_timer=set_timer,
    )
    item = SimpleNamespace(stash=pytest.Stash(), config=SimpleNamespace(hook=hook))
    return cast("pytest.Item", item)


def settings_of(method: str, timeout: float = 5.0) -> Settings:
    return Settings(timeout, method, False, False)


def test_the_clock_goes_on_with_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    item = item_with(calls)
    now = 100.0
    monkeypatch.setattr(time_limit, "monotonic", lambda: now)
    time_limit.note(item, settings_of("thread"))
    for _ in range(2):  # a second pause knows what the first has left
        now += 0.5
        with time_limit.paused(item):
            now += 2
    assert calls == ["cancelled", 4.5, "cancelled", 4.0]
    time_limit.note(item, settings_of("thread", 0.01))
    now += 0.02
    with pytest.raises(ValueError, match="of a gate"), time_limit.paused(item):
        raise ValueError("of a gate")
    assert calls[-1] == time_limit.LEAST


def test_an_alarm_and_no_limit_are_left_alone() -> None:
    calls: list[Any] = []
    item = item_with(calls)
    with time_limit.paused(item):
        pass
    time_limit.note(item, settings_of("signal"))
    with time_limit.paused(item):
        pass
    assert calls == []

    def elsewhere() -> None:
        with time_limit.paused(item):
            pass

    # There pytest-timeout has no alarm, and takes a thread.
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert calls[0] == "cancelled"
