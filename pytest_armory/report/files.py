"""The files that reports are written to."""

from __future__ import annotations

from pathlib import Path


def written_text(path: Path) -> str:
    """Where something was written: below the current folder as it is called from there."""
    here = Path.cwd()
    inside = path.is_absolute() and path.is_relative_to(here)
    return f"written to {path.relative_to(here) if inside else path}"


def write_text_file(path: Path, text: str, append: bool = False) -> None:
    """Write a text to a file, or append it; creates its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+" if append else "w", encoding="utf-8", errors="backslashreplace") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")
        file.write(text)
