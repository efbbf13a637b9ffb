"""Requests in the background: in order, and their errors reported in the thread that submits."""

from __future__ import annotations

import itertools
import sys
import threading
from types import FrameType

from pytest_armory.errors import TrackingError
from pytest_armory.store.background import Background


def test_a_local_database_is_written_at_once() -> None:
    background, done = Background(is_remote=False), []
    errors: list[TrackingError] = []
    background.submit(lambda: done.append(threading.current_thread()), errors.append)
    assert done == [threading.current_thread()]

    def fail() -> None:
        raise TrackingError("no")

    background.submit(fail, errors.append)
    assert [str(error) for error in errors] == ["no"]


def test_a_server_is_written_in_order_in_another_thread() -> None:
    background, done = Background(is_remote=True), []
    wait = threading.Event()
    errors: list[tuple[threading.Thread, str]] = []

    def write(number: int) -> None:
        wait.wait(10)
        done.append((number, threading.current_thread() is threading.main_thread()))
        if number == 1:
            raise TrackingError("no")

    for number in range(3):
        background.submit(
            lambda number=number: write(number),
            lambda error: errors.append((threading.current_thread(), str(error))),
        )
    assert done == []
    wait.set()
    background.drain()
    assert done == [(0, False), (1, False), (2, False)]
    assert errors == [(threading.current_thread(), "no")]


def test_it_can_be_used_again_after_it_was_drained() -> None:
    background, done = Background(is_remote=True), []
    for number in range(2):
        background.submit(lambda number=number: done.append(number), lambda _: None)
        background.drain()
        background.drain()
    assert done == [0, 1]


def test_another_thread_may_drain_it_at_any_instruction() -> None:
    """As before it forks: nothing is lost or done twice, and each failure is reported once."""

    def fail() -> None:
        raise TrackingError("no")

    def drained_at(number: int) -> tuple[bool, list[int], int]:
        background, done = Background(is_remote=True), []
        errors: list[TrackingError] = []
        left = [number]

        def trace(frame: FrameType, event: str, _: object) -> object:
            if frame.f_globals.get("Background") is not Background:
                return None
            frame.f_trace_opcodes = True
            left[0] -= event == "opcode"
            if not left[0] and event == "opcode":
                other = threading.Thread(target=background.drain)
                other.start()
                other.join()
            return trace

        background.submit(fail, errors.append)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for i in range(2):
                background.submit(lambda i=i: done.append(i), errors.append)
            background.drain()
        finally:
            sys.settrace(before)
        background.drain()
        return left[0] > 0, done, len(errors)

    for number in itertools.count(1):
        is_over, done, errors = drained_at(number)
        assert (done, errors) == ([0, 1], 1)
        if is_over:
            break
    assert number > 50
