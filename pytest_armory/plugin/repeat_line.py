"""Which repeat of a body is at work, in pytest's own line of the test on a terminal."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import pytest

MOST_SHOWN = 10

_BEHIND = "\x1b7\x1b[?7l {}\x1b[?7h\x1b8"
"""Text after the cursor, cut where the line ends; the cursor stays."""

_WIPE = "\x1b[K"


class RepeatLine:
    """Shows which of ``number`` repeats begins; nothing in workers, which have no terminal.

    With ``-v`` ten at most stay in the line, so that it is one. Else the repeat stands after the
    dots while it is at work, unless the test's own output does, which pytest does not capture.
    """

    def __init__(self, config: pytest.Config, number: int) -> None:
        self._number = number
        self._reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._is_captured = self._capture is not None and config.option.capture != "no"
        self._is_shown = False

    def show(self, repeat: int) -> None:
        """Say which repeat begins, counted from 1."""
        reporter, number = self._reporter, self._number
        if reporter is None or not reporter.isatty:
            return
        if reporter.showlongtestinfo:
            if repeat * MOST_SHOWN // number > (repeat - 1) * MOST_SHOWN // number:
                with self._uncaptured():
                    reporter.write(f"{repeat}/{number} ", flush=True)
        elif reporter.verbosity == 0 and reporter.hasmarkup and self._is_captured:
            self._is_shown = True
            self._write(_WIPE + _BEHIND.format(f"{repeat}/{number}"))

    def wipe(self) -> None:
        """Leave the line as pytest has written it."""
        if self._is_shown:
            self._is_shown = False
            self._write(_WIPE)

    def _write(self, text: str) -> None:
        """Write what pytest does not count as a part of its line."""
        with self._uncaptured():
            sys.stdout.write(text)
            sys.stdout.flush()

    def _uncaptured(self) -> AbstractContextManager[object]:
        if self._capture is None:
            return nullcontext()
        context: AbstractContextManager[object] = self._capture.global_and_fixture_disabled()
        return context
