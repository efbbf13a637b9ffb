"""How far a run is: when to report it, and the terminal line that does."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TextIO

SHOW_SECONDS = 0.2
LOG_SECONDS = 5.0


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    `batches` and `samples` are those done, `total` is the number of all batches or None if the
    dataset has no length, `seconds` is the time since the run began. `repeat` of `repeats` counts
    from 1, where the test's body runs several times.
    """

    name: str
    batches: int
    total: int | None
    samples: int
    seconds: float
    repeat: int = 1
    repeats: int = 1

    @property
    def samples_per_second(self) -> float:
        """Samples per second so far, over the complete time."""
        return self.samples / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        of = "" if self.total is None else f"/{self.total:,}"
        repeat = f" {self.repeat}/{self.repeats}" if self.repeats > 1 else ""
        return (
            f"{self.name}{repeat}: batch {self.batches:,}{of}, {self.samples:,} samples, "
            f"{self.samples_per_second:,.0f} samples/s"
        )


class RepeatCount(Protocol):
    """Which repeat of a test's body this is, counted from 0, and how many there are."""

    current: int
    number: int


class StepLog(Protocol):
    """The part of the current tracked run that is used here."""

    @property
    def repeats(self) -> RepeatCount | None:
        """The repeats of the test's body, if it has any."""

    def store_samples_on_the_way(self) -> None:
        """Store a partial copy of the samples so far, where that is due."""

    def log_step_metrics(self, numbers: Mapping[str, float], step: int) -> None:
        """Write metrics at a step."""


class TerminalLine:
    """One line of a terminal, overwritten until it is cleared."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.width = 0

    def __call__(self, progress: Progress) -> None:
        text = "".join(c if c.isprintable() else "?" for c in str(progress))
        text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line cannot be rewritten
        # pytest's own line, with the test's name, is not complete yet: it is not overwritten.
        start = "\n" if not self.width and "PYTEST_CURRENT_TEST" in os.environ else "\r"
        self.stream.write(f"{start}{text:<{self.width}}")
        self.stream.flush()
        self.width = len(text)

    def wipe(self) -> None:
        """Leave the line empty, with the cursor at its start."""
        if self.width:
            self.stream.write(f"\r{'':<{self.width}}\r")
            self.stream.flush()
            self.width = 0


def terminal_line() -> TerminalLine | None:
    """A line on standard error if that is a terminal."""
    # Under pytest-xdist several processes share the terminal, and would mix their lines.
    if sys.stderr is None or "PYTEST_XDIST_WORKER" in os.environ or not sys.stderr.isatty():
        return None
    return TerminalLine(sys.stderr)


class Ticker:
    """Decides when progress is shown and logged; `due` is the next time that it has to be called.

    Nothing is shown or logged before a full interval has passed, and an interval begins when the
    previous output is done, so that a slow terminal or store is not used more often.
    """

    def __init__(
        self,
        show: Callable[[Progress], object] | None,
        log: StepLog | None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.show, self.log, self.clock = show, log, clock
        self.begun = clock()
        self.show_due = self.begun + SHOW_SECONDS if show else float("inf")
        self.log_due = self.begun + LOG_SECONDS if log else float("inf")
        self.due = min(self.show_due, self.log_due)

    @property
    def repeat(self) -> tuple[int, int]:
        """Which repeat of the test's body this is, counted from 1, of how many."""
        repeats = self.log.repeats if self.log is not None else None
        return (repeats.current + 1, repeats.number) if repeats is not None else (1, 1)

    def tick(self, progress: Progress) -> None:
        """Show and log what is due by now."""
        now = self.clock()
        if self.show is not None and now >= self.show_due:
            self.show(progress)
            self.show_due = self.clock() + SHOW_SECONDS
        if self.log is not None and now >= self.log_due:
            self.log.log_step_metrics(_step_metrics(progress), progress.batches - 1)
            self.log.store_samples_on_the_way()
            self.log_due = self.clock() + LOG_SECONDS
        self.due = min(self.show_due, self.log_due)


def _step_metrics(progress: Progress) -> dict[str, Any]:
    repeat = {"progress/repeat": float(progress.repeat)} if progress.repeats > 1 else {}
    return {
        "progress/samples": float(progress.samples),
        "progress/samples_per_second": progress.samples_per_second,
        **repeat,
    }
