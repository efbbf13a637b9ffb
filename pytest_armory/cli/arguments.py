"""Arguments of commands: whole numbers, and files to write."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_armory.errors import ArmoryUsageError


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise :class:`ArmoryUsageError` where the file cannot be written."""
    try:
        yield
    except OSError as error:
        raise ArmoryUsageError(f"{path} cannot be written: {error.strerror or error}") from None
