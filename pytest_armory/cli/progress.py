"""How far a command has come, on a terminal."""

from __future__ import annotations

import shutil
import sys

from pytest_armory.report.text import columns, printable, shorten


class ProgressLine:
    """A line on a terminal that rewrites itself; nothing elsewhere."""

    def __init__(self) -> None:
        self.rewrites = sys.stdout.isatty()
        self._width = 0

    def show(self, text: str) -> None:
        """Put a text in the place of the one before."""
        if self.rewrites:
            available = shutil.get_terminal_size().columns - 1
            line = shorten(printable(text), available, keep_start=True)
            self._write(line + " " * (self._width - columns(line)))
            self._width = columns(line)

    def clear(self) -> None:
        """Make room for a line that stays."""
        if self._width:
            self._write(" " * self._width + "\r")
            self._width = 0

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(f"\r{text}")
        sys.stdout.flush()
