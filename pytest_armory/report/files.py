"""The files that reports are written to."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def written_text(path: Path) -> str:
    """Where something was written: below the current folder as it is called from there."""
    with suppress(OSError, ValueError):  # a test has removed the folder; it is somewhere else
        return f"written to {path.relative_to(Path.cwd())}"
    return f"written to {path}"


def write_text_file(path: Path, text: str, append: bool = False) -> None:
    """Write a text to a file, or append it; creates its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+" if append else "w", encoding="utf-8", errors="backslashreplace") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")
        file.write(text)
