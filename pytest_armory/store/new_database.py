"""The file of a new local database: made whole by one process, or not at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_armory.errors import TrackingError


def prepare_database(path: Path, migrate: Callable[[Path], None], timeout: float = 120.0) -> None:
    """Create the SQLite database at ``path`` if it is missing or empty, completely or not at all.

    However many processes call this at once, one builds it (``migrate`` is called with a temporary
    file in the same folder, already in WAL mode) under a file lock and renames it into place.
    ``timeout`` is in seconds. Raises :class:`TrackingError`.
    """
    if _has_content(path):
        return
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock"), timeout=timeout):
            if _has_content(path):
                return
            _discard(fresh)  # left by a process that was killed meanwhile
            try:
                _switch_to_wal(fresh)
                migrate(fresh)
                _checkpoint(fresh)
                _discard(path)  # SQLite would apply a removed database's journal to this one
                fresh.rename(path)
            finally:
                _discard(fresh)
    except Timeout:
        raise TrackingError(
            f"the local database {path} is being made by another process for more than "
            f"{timeout:.0f} s; if there is none, remove {path.name}.lock beside it"
        ) from None
    except (OSError, sqlite3.Error, NotImplementedError) as error:  # the last is filelock's
        advice = _NO_LOCKS if _is_without_locks(error) else ""
        raise TrackingError(f"the local database {path} cannot be made: {error}{advice}") from error


_NO_LOCKS = (
    ": its file system has no locks, which SQLite needs; set ARMORY_HOME to a folder on another, "
    "or give a server by --armory-tracking-uri"
)


def _is_without_locks(error: Exception) -> bool:
    number = getattr(error, "errno", None)
    return number in (ENOLCK, EOPNOTSUPP, ENOSYS) or isinstance(error, NotImplementedError)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _switch_to_wal(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _checkpoint(path: Path) -> None:
    """Write everything to the one file that is renamed, and sync that to the disk."""
    connection = sqlite3.connect(path)  # whose journal keeps the old name
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _discard(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
