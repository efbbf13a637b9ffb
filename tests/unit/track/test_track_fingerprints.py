"""What `track_call` records of the data that it is given."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_armory.track import fingerprints, get_current_params, track_call, tracking_context


class Dataset:
    """As Hugging Face's."""

    _fingerprint = "5fd2"


class DatasetDict(dict[str, Any]):
    """As Hugging Face's."""


Dataset.__module__, DatasetDict.__module__ = "datasets.arrow_dataset", "datasets.dataset_dict"


def load(path: Any = None, *more: Any, auth_token: Any = None, data: Any = None) -> None:
    """Take anything."""


def recorded(*args: Any, func: Any = load, **kwargs: Any) -> dict[str, str]:
    """What is recorded besides the arguments."""
    with tracking_context():
        track_call(func, *args, **kwargs)
        found = get_current_params()
        return {k: v for k, v in found.items() if k.endswith((".sha256", ".fingerprint"))}


def test_files_and_datasets(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"rows")
    digest = hashlib.sha256(b"rows").hexdigest()
    assert recorded(file) == recorded(path=file) == {"load.path.sha256": digest}
    assert recorded(func=partial(load, file)) == {"load.path.sha256": digest}
    assert recorded(str(file), tmp_path, file) == {}
    assert recorded(tmp_path / "none") == recorded(tmp_path) == {}
    assert recorded(auth_token=file) == {}
    file.write_bytes(b"other rows")
    assert recorded(file) == {"load.path.sha256": hashlib.sha256(b"other rows").hexdigest()}
    assert recorded(Dataset()) == {"load.path.fingerprint": "5fd2"}
    assert recorded(data=DatasetDict(test=Dataset(), train=3)) == {
        "load.data.test.fingerprint": "5fd2"
    }


def test_a_file_is_read_once_and_a_large_one_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"rows")
    recorded(file)
    monkeypatch.setattr(Path, "read_bytes", lambda _: 1 / 0)
    assert len(recorded(file)) == 1
    monkeypatch.setattr(fingerprints, "MOST_BYTES", 3)
    assert recorded(file) == {}
