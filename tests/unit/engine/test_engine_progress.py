"""Progress: what it says, when, and that the terminal's line leaves nothing behind."""

# ruff: noqa: ARG001, ARG005 - stand-ins take whatever the engine gives them.

from __future__ import annotations

import io
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_armory.engine import Engine, Evaluation, Progress
from pytest_armory.engine import progress as progress_module
from pytest_armory.engine import run as run_module
from pytest_armory.engine.progress import TerminalLine, Ticker

PROGRESS = Progress(name="pgd", batches=12, total=40, samples=3072, seconds=6.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines that a terminal would show."""
        lines = [[]]
        column = 0
        for character in self.getvalue():
            if character == "\n":
                lines.append([])
            if character in "\r\n":
                column = 0
                continue
            lines[-1][column : column + 1] = [character]
            column += 1
        return ["".join(line).rstrip() for line in lines]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    # pytest sets the real ones anew before it calls the test.
    monkeypatch.setattr(progress_module, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setattr(progress_module, "os", SimpleNamespace(environ={}))
    monkeypatch.setattr(progress_module, "SHOW_SECONDS", 0.0)
    return terminal


def len_ones(inputs: Any) -> list[int]:
    return [1] * len(inputs)


def evaluation(batches: int = 3, **changes: Any) -> Evaluation:
    dataset = [([1, 2], [1, 2])] * batches
    return Evaluation(**{"name": "pgd", "dataset": dataset, "model": len_ones, **changes})


def test_its_words() -> None:
    assert str(PROGRESS) == "pgd: batch 12/40, 3,072 samples, 512 samples/s"
    endless = Progress(name="pgd", batches=12, total=None, samples=3072, seconds=0.0)
    assert str(endless) == "pgd: batch 12, 3,072 samples, 0 samples/s"


def test_it_says_which_repeat_it_is_of_several() -> None:
    second = replace(PROGRESS, repeat=2, repeats=5)
    assert str(second) == "pgd 2/5: batch 12/40, 3,072 samples, 512 samples/s"
    logged: list[dict[str, float]] = []
    log = SimpleNamespace(
        log_step_metrics=lambda numbers, step: logged.append(numbers),
        store_samples_on_the_way=lambda: None,
    )
    clock = Clock()
    ticker = Ticker(None, log, clock)
    clock.now += 5
    ticker.tick(second)
    assert [numbers["progress/repeat"] for numbers in logged] == [2.0]


def test_shown_five_times_a_second_and_logged_every_five_seconds() -> None:
    clock = Clock()
    shown_at: list[float] = []
    logged: list[tuple[float, dict[str, float], int]] = []
    log = SimpleNamespace(
        log_step_metrics=lambda numbers, step: logged.append((clock.now, numbers, step)),
        store_samples_on_the_way=lambda: None,
    )
    ticker = Ticker(lambda progress: shown_at.append(clock.now), log, clock)
    for _ in range(1200):  # 12 seconds of batches
        clock.now += 0.01
        if clock.now >= ticker.due:
            ticker.tick(PROGRESS)
    assert 40 < len(shown_at) <= 60
    assert shown_at[0] >= 100.2
    assert [round(when) for when, _, _ in logged] == [105, 110]
    assert logged[0][1:] == (
        {"progress/samples": 3072.0, "progress/samples_per_second": 512.0},
        11,
    )


def test_a_slow_store_is_not_asked_more_often() -> None:
    clock = Clock()
    asked = []

    def log_step_metrics(numbers: Any, step: int) -> None:
        asked.append(clock.now)
        clock.now += 20

    log = SimpleNamespace(log_step_metrics=log_step_metrics, store_samples_on_the_way=lambda: None)
    ticker = Ticker(None, log, clock)
    while clock.now < 160:
        clock.now += 1
        if clock.now >= ticker.due:
            ticker.tick(PROGRESS)
    assert asked == [105, 130, 155]


def test_without_anybody_to_call_it_is_never_due() -> None:
    assert Ticker(None, None).due == float("inf")


def test_a_run_logs_steps_with_the_batch_index(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    writer = SimpleNamespace(
        log_step_metrics=lambda numbers, step: steps.append(step),
        log_evaluation=lambda *measured: {},
        store_samples_on_the_way=lambda: None,
        repeats=SimpleNamespace(current=1, number=5),
    )
    run = SimpleNamespace(writer=writer)
    track = SimpleNamespace(current_run=lambda: run, convert_result=lambda result: None)
    monkeypatch.setattr(run_module, "_track", lambda: track)
    shown: list[Progress] = []
    Engine(evaluation(), progress=shown.append).run()
    assert steps == []
    assert (shown[-1].repeat, shown[-1].repeats) == (2, 5)
    assert str(shown[-1]).startswith("pgd 2/5: batch 3/3, ")
    monkeypatch.setattr(progress_module, "LOG_SECONDS", 0.0)
    Engine(evaluation()).run()
    assert steps == [0, 1, 2]


def test_a_callable_is_called_at_the_end_too(terminal: Terminal) -> None:
    calls: list[Progress] = []
    Engine(evaluation(), progress=calls.append).run()
    assert [(p.batches, p.total, p.samples) for p in calls] == [
        (1, 3, 2),
        (2, 3, 4),
        (3, 3, 6),
        (3, 3, 6),
    ]
    assert terminal.getvalue() == ""


def test_the_terminal_shows_one_line_and_then_none(terminal: Terminal) -> None:
    seen: list[list[str]] = []
    Engine(evaluation(model=lambda x: (seen.append(terminal.screen()), x)[1])).run()
    assert seen[0] == [""]
    assert seen[2][0].startswith("pgd: batch 2/3, 4 samples, ")
    assert len(seen[2]) == 1
    assert terminal.screen() == [""]


def test_the_line_is_wiped_when_the_run_fails(terminal: Terminal) -> None:
    def fails(inputs: Any) -> Any:
        if terminal.getvalue():
            raise ValueError
        return inputs

    with pytest.raises(ValueError, match="pgd"):
        Engine(evaluation(model=fails)).run()
    assert terminal.getvalue()
    assert terminal.screen() == [""]


def test_pytests_own_line_is_left_alone(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress_module.os.environ["PYTEST_CURRENT_TEST"] = "test_a.py::test_b"
    terminal.write("test_a.py::test_b ")
    Engine(evaluation()).run()
    assert terminal.screen() == ["test_a.py::test_b", ""]


@pytest.mark.parametrize("why", ["off", "not a terminal", "no stream", "worker"])
def test_nothing_is_written(why: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "not a terminal":
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    if why == "no stream":
        monkeypatch.setattr(progress_module.sys, "stderr", None)
    if why == "worker":
        progress_module.os.environ["PYTEST_XDIST_WORKER"] = "gw0"
    Engine(evaluation(), progress=False if why == "off" else None).run()
    assert terminal.getvalue() == ""


def test_narrow_terminals_and_odd_names(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((20, 24)))
    line = TerminalLine(terminal)
    line(Progress("a\x1b[2J\nb", 1, 2, 3, 1.0))
    assert terminal.screen() == ["a?[2J?b: batch 1/2,"]
    line(Progress("a", 1, None, 3, 1.0))
    assert terminal.screen() == ["a: batch 1, 3 sampl"]
    line.wipe()
    assert terminal.screen() == [""]
