"""What is said of files that were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_armory.report.files import written_text


def test_where_a_file_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert written_text(tmp_path / "new" / "a.html") == f"written to {Path('new/a.html')}"
    assert written_text(Path("a.html")) == "written to a.html"
    assert written_text(tmp_path.parent / "a.html") == f"written to {tmp_path.parent / 'a.html'}"


def test_where_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test may have removed it: the file is there all the same."""

    def gone(_: type[Path]) -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", classmethod(gone))
    assert written_text(tmp_path / "a.html") == f"written to {tmp_path / 'a.html'}"
