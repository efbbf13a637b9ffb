"""Writing to the terminal while a test runs, whose output pytest captures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest


@contextmanager
def uncaptured(plugins: pytest.PytestPluginManager) -> Iterator[None]:
    """Let pytest's reporter write to the terminal meanwhile, from a thread other than the main one.

    Capturing is not suspended where it replaces a descriptor: the main thread goes on, and resumes
    it when its test begins the next phase.
    """
    capture: Any = plugins.get_plugin("capturemanager")
    terminal: Any = plugins.get_plugin("terminalreporter")
    capturing = getattr(capture, "_global_capturing", None)
    saved = getattr(getattr(capturing, "out", None), "targetfd_save", None)
    writer: Any = getattr(terminal, "_tw", None)
    if saved is None or not hasattr(writer, "_file"):
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            yield
        return
    file = writer._file
    with os.fdopen(os.dup(saved), "w", encoding=file.encoding, errors=file.errors) as real:
        writer._file = real
        try:
            yield
        finally:
            writer._file = file
