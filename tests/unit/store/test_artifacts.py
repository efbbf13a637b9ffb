"""Artifacts that are stored in a folder of this machine; what other storages respond."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from pytest_armory.errors import StoreUnreachableError, TrackingError
from pytest_armory.store.artifacts import has_files, store_files
from pytest_armory.store.circuit import Circuit
from pytest_armory.store.translation import as_tracking_error


def call(doing: str, work: Callable[[], None], size: int, circuit: Circuit) -> None:
    """Do a request as a connection does it, with an error of our own kind."""
    del size, circuit
    try:
        work()
    except OSError as error:
        raise TrackingError(f"{doing}: {error}") from None


@pytest.fixture
def here() -> Any:
    """A connection to a local database, of which storing artifacts needs no more."""
    return SimpleNamespace(
        circuit=Circuit(),
        artifact_circuit=Circuit(),
        where="here",
        uri="sqlite://",
        call=call,
        destination=SimpleNamespace(is_remote=False),
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("as_uri", [Path.as_uri, str], ids=["uri", "path"])
def test_each_kind_of_content_is_stored_under_its_path(
    here: Any, tmp_path: Path, as_uri: Callable[[Path], str]
) -> None:
    folder, file = tmp_path / "a #1" / "artifacts", tmp_path / "w.bin"
    uri = as_uri(folder)
    file.write_bytes(b"\0w")
    files = {"a #?.json": "\u00e9\n", "odd": "\ud800", "b": b"\0", "metrics/x": "1", "w.bin": file}
    store_files(here, uri, {"a #?.json": "before"})
    store_files(here, uri, files)
    assert contents(folder) == {
        "a #?.json": b"\xc3\xa9\n",
        "odd": b"\\ud800",
        "b": b"\0",
        "metrics/x": b"1",
        "w.bin": b"\0w",
    }
    assert has_files(uri)


def test_a_file_that_is_replaced_is_never_half_there(
    here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "artifacts", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("not ours")
    (folder / "samples.json").symlink_to(elsewhere)
    store_files(here, folder.as_uri(), {"samples.json": "old"})
    assert elsewhere.read_text() == "not ours"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store_files(here, folder.as_uri(), {"samples.json": "new"})
    assert contents(folder) == {"samples.json": b"old"}
    assert not has_files(folder.as_uri())


def test_what_cannot_be_stored_is_named_and_the_rest_is_stored(here: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(TrackingError, match=r"; not there: a\.txt$"):
        store_files(here, tmp_path.as_uri(), {"a.txt": "1", "b.txt": "2"})
    assert contents(tmp_path) == {"b.txt": b"2"}


def response(content: bytes | None, reason: str) -> requests.Response:
    """One of requests, whose body was read whole, or in part as a stream."""
    found = requests.Response()
    found.status_code, found.reason = 503, reason
    found.raw = BytesIO(b"streamed")
    if content is None:
        next(found.iter_content(2))
    else:
        found._content = content  # type: ignore[attr-defined] # as `send` does
    return found


@pytest.mark.parametrize(
    ("responded", "says"),
    [
        (response(b"slow down", "Busy"), "HTTP 503 Busy: slow down"),
        (response(None, "Busy"), "HTTP 503 Busy"),
        (SimpleNamespace(status_code=503, reason="Busy", text=lambda: "azure"), "HTTP 503 Busy"),
        (SimpleNamespace(status_code=503, reason_phrase="Busy", text="httpx"), "HTTP 503 Busy"),
        (SimpleNamespace(status_code=503), "HTTP 503"),
    ],
    ids=["requests", "stream", "azure", "httpx", "bare"],
)
def test_what_a_storage_responds_is_read_where_it_was(responded: Any, says: str) -> None:
    error = RuntimeError("its own words")
    error.response = responded  # type: ignore[attr-defined] # as exceptions of HTTP libraries have it
    known = as_tracking_error(error)
    assert (type(known), str(known)) == (StoreUnreachableError, says)
