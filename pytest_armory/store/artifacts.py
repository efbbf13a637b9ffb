"""Artifacts: files and texts stored with a run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from functools import cache, partial
from os import getpid, makedirs
from pathlib import Path
from threading import get_ident
from typing import Any
from urllib.parse import urlsplit

from pytest_armory.environment import changed
from pytest_armory.errors import StoreUnreachableError, TrackingError
from pytest_armory.store.connection import Connection
from pytest_armory.store.own_sessions import mocked_part
from pytest_armory.store.translation import ArtifactError, MockedError, translated

_HTTP = ("mlflow-artifacts", "http", "https")
"""The schemes of artifacts that MLflow sends as it does any request."""

_NO_PROGRESS_BAR = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
"""MLflow draws one on stderr for each file."""


def store_files(
    connection: Connection, artifact_uri: str, files: Mapping[str, str | bytes | Path]
) -> None:
    """Store artifacts by their path in a run, each within a budget of its size.

    Each that is refused, or cannot be stored, is named by the error; the others are stored. Raises
    :class:`ArtifactError` with those that an artifact storage across a network has not stored.
    """
    if connection.circuit.is_open:
        raise StoreUnreachableError(connection.circuit.reason)
    doing = "storing artifacts"
    failed: dict[str, TrackingError] = {}
    repository = cache(partial(_repository, connection, artifact_uri))
    with translated(doing, connection.where), ExitStack() as stack:
        temporary = cache(lambda: stack.enter_context(tempfile.TemporaryDirectory()))
        storing = partial(_storing, folder_here(artifact_uri), repository, temporary)
        for path, content in files.items():
            work, size = storing(path, content)
            try:
                _check_mocks(connection, artifact_uri)
                connection.call(doing, work, size, connection.artifact_circuit)
            except TrackingError as error:
                # The caller may change or remove a file, but for a text, until it is tried again.
                if isinstance(error, MockedError) and not isinstance(content, Path):
                    raise
                failed[path] = error
    if not failed:
        return
    text = f"{next(iter(failed.values()))}; not there: {', '.join(failed)}"
    kind = StoreUnreachableError
    waiting = {path: files[path] for path, error in failed.items() if isinstance(error, kind)}
    if waiting and connection.destination.is_remote:
        raise ArtifactError(text, waiting)
    raise TrackingError(text)


def _check_mocks(connection: Connection, artifact_uri: str) -> None:
    """Raise :class:`MockedError` while a test's mock would get what a cloud's library sends."""
    is_cloud = urlsplit(artifact_uri).scheme not in (*_HTTP, "file", "")
    part = mocked_part() if is_cloud and connection.destination.is_server else ""
    if part:
        where = connection.where
        raise MockedError(f"storing artifacts was put off at {where}: {part} is replaced")


def has_files(artifact_uri: str) -> bool:
    """Whether a run may have artifacts that it did not get from this package.

    Known at once of a folder of this machine, else taken for granted.
    """
    folder = folder_here(artifact_uri)
    if folder is None:
        return True
    return folder.exists() and any(file.name not in _OURS for file in folder.iterdir())


def folder_here(artifact_uri: str) -> Path | None:
    """The folder of a run's artifacts, if it is one of this machine."""
    if urlsplit(artifact_uri).scheme not in ("", "file"):
        return None
    from mlflow.utils.file_utils import local_file_uri_to_path

    return Path(local_file_uri_to_path(artifact_uri))


_OURS = ("metrics", "params.json", "samples.json", "samples.parquet")


def read_file(connection: Connection, artifact_uri: str, path: str) -> bytes:
    """The content of one artifact, within a budget; raises :class:`TrackingError` without it."""

    def read() -> bytes:
        with tempfile.TemporaryDirectory() as folder, changed(_NO_PROGRESS_BAR):
            repository = _repository(connection, artifact_uri)
            return Path(repository.download_artifacts(path, folder)).read_bytes()

    doing = f"reading the artifact {path!r}"
    return connection.call(doing, read, circuit=connection.artifact_circuit)


def _storing(
    here: Path | None,
    repository: Callable[[], Any],
    temporary: Callable[[], str],
    path: str,
    content: str | bytes | Path,
) -> tuple[Callable[[], None], int]:
    """What stores one artifact, and how many bytes it uploads."""
    if here is not None and not isinstance(content, Path) and Path(path).name == path:
        return partial(_put, content, here, path), 0
    file = _as_file(content, temporary, path.rpartition("/")[2])
    return partial(_store_file, repository, path, file), file.stat().st_size


_UPLOADING = ".artifact.uploading."
"""What the names of files begin with that MLflow's local storage does not list."""


def _put(content: str | bytes, folder: Path, name: str) -> None:
    """Put a file into a run's folder at once, or replace it: nobody reads a part of it.

    MLflow needs a file that it copies, and takes five times as long.
    """
    new = Path(folder, f"{_UPLOADING}{getpid()}.{get_ident()}")
    makedirs(folder, exist_ok=True)
    try:
        new.write_bytes(_as_bytes(content))
        new.replace(folder / name)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _as_file(content: str | bytes | Path, temporary: Callable[[], str], name: str) -> Path:
    """The file itself, or one of that name in a temporary folder with the content in it."""
    if isinstance(content, Path):
        return content
    file = Path(temporary(), name)
    file.write_bytes(_as_bytes(content))
    return file


def _as_bytes(content: str | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    return content.encode(errors="backslashreplace")


def _store_file(repository: Callable[[], Any], path: str, file: Path) -> None:
    repository().log_artifact(str(file), path.rpartition("/")[0] or None)


def _repository(connection: Connection, artifact_uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(artifact_uri, tracking_uri=connection.uri)
    for pool in (repository.thread_pool, getattr(repository, "chunk_thread_pool", None)):
        if pool is not None:
            pool.submit = partial(_submit_here, pool.submit)
    return repository


def _submit_here(submit: Callable[..., Any], /, *work: Any, **options: Any) -> Any:
    """Have a thread's work be a call of our own, too, if this is one."""
    return submit(copy_context().run, *work, **options)


def list_files(
    connection: Connection, artifact_uri: str, folder: str = ""
) -> list[tuple[str, int | None]]:
    """The artifacts in a folder of a run, with their sizes in bytes; None for a folder."""

    def listed() -> list[tuple[str, int | None]]:
        found = _repository(connection, artifact_uri).list_artifacts(folder or None)
        return [(one.path, None if one.is_dir else one.file_size or 0) for one in found]

    return connection.call("listing artifacts", listed, circuit=connection.artifact_circuit)


class RunArtifacts:
    """One run's artifacts, for files that may be large: requests have no budget."""

    def __init__(self, connection: Connection, artifact_uri: str) -> None:
        self._connection = connection
        self.is_http = urlsplit(artifact_uri).scheme in _HTTP
        self._repository = connection.call_without_budget(
            "storing artifacts", partial(_repository, connection, artifact_uri)
        )

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """The size of each artifact that is stored in the folders of these names."""
        sizes: dict[str, int | None] = {}
        for folder in dict.fromkeys(name.rpartition("/")[0] for name in names):
            found = self._connection.call_without_budget(
                "listing artifacts", partial(self._repository.list_artifacts, folder or None)
            )
            sizes.update({one.path: one.file_size for one in found if not one.is_dir})
        return sizes

    def store(self, file: Path, name: str, original: str) -> None:
        """Store a file under the path ``name``; an error's text says its ``original`` path."""
        doing = f"storing the artifact {original!r}"
        self._connection.call_without_budget(doing, partial(self._log_artifact, file, name))

    def _log_artifact(self, file: Path, name: str) -> None:
        """MLflow takes the file's own name for the last part of the path."""
        folder, _, last = name.rpartition("/")
        if file.name == last:
            self._repository.log_artifact(str(file), folder or None)
            return
        with tempfile.TemporaryDirectory() as temporary:
            renamed = Path(temporary, last)
            try:
                renamed.symlink_to(file.absolute())
            except OSError:  # on Windows only few users may
                shutil.copyfile(file, renamed)
            self._repository.log_artifact(str(renamed), folder or None)


def download_artifacts(connection: Connection, artifact_uri: str, folder: Path) -> None:
    """Download a run's artifacts into a folder, which exists."""
    from mlflow import artifacts

    download = partial(
        artifacts.download_artifacts,
        artifact_uri=artifact_uri,
        dst_path=str(folder),
        tracking_uri=connection.uri,
    )
    connection.call_without_budget("reading artifacts", download)
