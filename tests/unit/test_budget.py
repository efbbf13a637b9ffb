"""Calls with a limit on their time."""

from __future__ import annotations

import threading

import pytest

from pytest_armory.budget import within


def test_a_call_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while Python 3.12 exits: a worker's run is closed then all the same."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert within(1, lambda: 3) == 3
    with pytest.raises(OSError, match="away"):
        within(1, _fail)


def _fail() -> None:
    raise OSError("away")
