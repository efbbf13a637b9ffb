"""The end of a session in the process that reports: its summary, made, written and printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import RLock, Timer

import pytest

from pytest_armory.environment import value_of
from pytest_armory.errors import TrackingError
from pytest_armory.plugin import xdist
from pytest_armory.plugin.options import Settings
from pytest_armory.plugin.process import Process
from pytest_armory.plugin.uncaptured import uncaptured
from pytest_armory.records import EvaluationRecord
from pytest_armory.report.files import write_text_file, written_text
from pytest_armory.report.summary import Summary
from pytest_armory.report.terminal import terminal_lines
from pytest_armory.session.ledger import Ledger, evaluations_under_way
from pytest_armory.session.session_runs import closing
from pytest_armory.session.signals import GRACE

SOON = 2.5
"""Seconds for the store to answer, of a session that a signal cuts off, until it is printed
what is known without it."""


class SessionEnd:
    """The end of a session; ``summary`` is None until then, and if it has no evaluation.

    ``collected`` is how many tests the workers have collected.
    """

    def __init__(
        self, config: pytest.Config, settings: Settings, ledger: Ledger, process: Process
    ) -> None:
        self.config = config
        self.settings = settings
        self.ledger = ledger
        self.process = process
        self.summary: Summary | None = None
        self.collected = 0
        self.has_ended = False
        self._was_interrupted = True
        self._printed: Summary | None = None
        self._is_written = False
        self._known: Summary | None = None
        """What was known when a signal cut the session off."""
        self._printing = RLock()

    @property
    def failed_strictly(self) -> bool:
        """Whether something was not tracked, which `--armory-strict` does not allow."""
        return self.summary is not None and self._fails_strictly(self.summary)

    def _fails_strictly(self, summary: Summary) -> bool:
        is_short = bool(summary.problems or summary.lost or summary.waiting)
        return self.settings.strict and is_short

    def finish(self, interrupted: bool) -> None:
        """Close the session and summarize it; then end the process's part, even if that failed."""
        self._was_interrupted = interrupted
        is_complete = False
        with self.process.guard.step():
            self._sum_up(interrupted)
            is_complete = self.ledger.is_complete
        if self.summary is None:
            with self.process.guard.step():
                self._sum_up_what_is_known(interrupted)
        self._end(is_complete)

    def _end(self, is_complete: bool) -> None:
        with self.process.guard.step():
            self.process.end(is_complete)
        self.has_ended = True

    def finish_again(self) -> None:
        """Do what Ctrl-C has kept from being done; if it does so again, say what does it."""
        if self.process.guard.was_broken_off:
            self.ledger.edit = lambda _: None  # it may be what has taken so long
        try:
            if self.summary is None:
                self.finish(self._was_interrupted)
            else:  # the session is closed, and its summary is written
                self._end(self.ledger.is_complete)
        except BaseException:
            terminal = self.config.pluginmanager.get_plugin("terminalreporter")
            if terminal is not None:
                terminal.write_line(f"armory: cut off: `{self._recover}` closes what is left open")
            raise

    @property
    def _recover(self) -> str:
        return f"pytest-armory recover{self.ledger.store_option}"

    def _sum_up(self, interrupted: bool) -> None:
        unexpected = [*self.process.guard.problems]
        self.ledger.problems += [*self.process.problems, *unexpected]
        # xdist takes no report of a worker after a Ctrl-C.
        is_unreported = bool(self.ledger.planned) and xdist.is_controller(self.config)
        self.ledger.is_behind = interrupted and (self.process.guard.was_broken_off or is_unreported)
        is_cut_off = interrupted and bool(evaluations_under_way(self.ledger))
        if is_cut_off:  # a run of a worker may be the first to be found
            self.process.begin(is_cut_off)
        if (self.ledger.crashes or is_cut_off) and not self.ledger.planned:
            self.process.notes.append(
                f"no worker has reported which of the {self.collected} collected tests are "
                "evaluations: those that never ran are not counted"
            )
        summary = self.ledger.finish(interrupted, self.process.notes)
        with self._printing:
            self.summary = summary
            if self.summary is not None:
                del self.process.guard.problems[: len(unexpected)]  # the summary has them
                with self.process.guard.step():
                    self.summary = self._write(self.summary)
        if self.summary is not None:
            with self.process.guard.step():
                self.summary = self._with_page(self.summary)

    def _with_page(self, summary: Summary) -> Summary:
        """Write the session's page if that is asked for; returns the summary, with problems."""
        path = self.settings.html
        if path is None:
            return summary
        from pytest_armory.session.page import write_and_store_page

        known, notes = len(self.ledger.problems), [*summary.notes]
        try:
            write_and_store_page(self.ledger, summary, path)
            notes.append(f"the report is {written_text(path)}")
        except (OSError, TrackingError) as error:
            reason = getattr(error, "strerror", None) or error
            self.ledger.problems.append(f"the report could not be written to {path}: {reason}")
        problems = [*summary.problems, *self.ledger.problems[known:]]
        return replace(summary, problems=problems, notes=notes)

    def _sum_up_what_is_known(self, interrupted: bool) -> None:
        """Summarize what was reported, where the end of the session has failed."""
        failures = self.process.guard.problems
        if not failures:
            return
        # What no summary shows is shown by the hook of every session, which fails a strict one too.
        failures[:] = dict.fromkeys([*self.ledger.problems, *failures])
        self.ledger.problems[:] = failures
        with self._printing:
            self.summary = self.ledger.known(interrupted, self.process.notes)
            if self.summary is not None:
                failures.clear()
                self.summary = self._write(self.summary)

    def _write(self, summary: Summary) -> Summary:
        is_again, self._is_written = self._is_written, True
        return _write_summary(summary, self.settings, is_again)

    def interrupt_early(self, current: EvaluationRecord | None) -> list[Callable[[], object]]:
        """Sum up what is known of a session that is cut off; the requests that close its runs.

        It is printed if the store does not answer soon. ``current`` is the attempt under way in
        this process, if any.
        """
        if self.summary is not None:
            return []
        note = (
            "cut off before the store has answered: this is what was reported; runs that are open "
            f"in {GRACE:g} s are closed by `{self._recover}`"
        )
        summary = self.ledger.known(True, [*self.process.notes, note], current)
        if summary is None:
            return []
        self._known = summary
        soon = Timer(SOON, self._print_known, [summary])
        soon.daemon = True
        soon.start()
        return closing(self.ledger.runs, summary)

    def _print_known(self, summary: Summary) -> None:
        with self._printing, self.process.guard.step():
            if self.summary is None:
                self._print_uncaptured(self._write(summary))

    def close_opened_since(self) -> list[Callable[[], object]]:
        """The requests that close the session runs which a hook at work has opened since."""
        return closing(self.ledger.runs, self._known) if self._known is not None else []

    def interrupt(self) -> None:
        """Close and print the session while a test runs."""
        if self.summary is None:
            self.finish(interrupted=True)
        if self.summary is not None and not _agree(self.summary, self._printed):
            self._print_uncaptured(self.summary)

    def _print_uncaptured(self, summary: Summary) -> None:
        # A test is running, so output would be captured as its own.
        with uncaptured(self.config.pluginmanager):
            self._print(summary)

    def print(self) -> None:
        """Print the summary, once."""
        if self.summary is not None and self._printed is None:
            self._print(self.summary)

    def _print(self, summary: Summary) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        width = terminal._tw.fullwidth
        lines = terminal_lines(summary, width, self.config.get_verbosity())
        self._printed = summary
        terminal.write_sep("=", "evaluations")
        for line in lines:
            for text, colour in line.parts:
                terminal.write(text, **({colour: True} if colour else {}))
            terminal.write_line("")
        if self._fails_strictly(summary):
            terminal.write_line("armory: --armory-strict: not all was tracked, see above", red=True)
        terminal.flush()  # this process may be about to end


def _agree(summary: Summary, printed: Summary | None) -> bool:
    """Whether what was printed before the store had answered is what the store holds."""
    if printed is None:
        return False
    return _held(summary) == _held(printed)


def _held(summary: Summary) -> list[tuple[str, str, bool]]:
    """What is held of each evaluation, and whether that waits to be uploaded."""
    return sorted((one.nodeid, str(one.outcome), one.waiting) for one in summary.records)


def _write_summary(summary: Summary, settings: Settings, again: bool) -> Summary:
    """Write the Markdown files; returns the summary, with what could not be written.

    ``again`` is whether this summary replaces an earlier one, so that it is not appended.
    """
    step = value_of("GITHUB_STEP_SUMMARY")
    problems = list(summary.problems)
    for path, append in ((settings.summary, False), (Path(step) if step else None, True)):
        if path is None or (append and again):
            continue
        try:
            write_text_file(path, summary.text, append)
        except OSError as error:
            problems.append(f"the summary could not be written to {path}: {error.strerror}")
    return replace(summary, problems=problems)
