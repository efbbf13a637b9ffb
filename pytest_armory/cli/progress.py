"""The progress line of a command."""

from __future__ import annotations

import shutil
import sys

from pytest_armory.report.text import columns, printable, shorten


class ProgressLine:
    """A line on a terminal that is overwritten; nothing if the output is not a terminal."""

    def __init__(self) -> None:
        self.rewrites = sys.stdout.isatty()
        self._width = 0

    def show(self, text: str) -> None:
        """Replace the text of the line."""
        if self.rewrites:
            available = shutil.get_terminal_size().columns - 1
            line = shorten(printable(text), available, keep_start=True)
            self._write(line + " " * (self._width - columns(line)))
            self._width = columns(line)

    def clear(self) -> None:
        """Clear the line, before one that stays is printed."""
        if self._width:
            self._write(" " * self._width + "\r")
            self._width = 0

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(f"\r{text}")
        sys.stdout.flush()
