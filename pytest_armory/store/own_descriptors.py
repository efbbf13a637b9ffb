"""The file descriptors that SQLite keeps for a database of ours, which a test may close.

SQLite goes on writing to the numbers that it knows, whatever files have them by then, and does not
tell which these are: they are those that appear while it opens a database. Where the system does
not list a process's descriptors, none is known.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import fstat, listdir, stat  # bound here: a test may patch them

Descriptors = dict[int, tuple[int, int]]
"""The device and inode of the file of each."""

_LOCK_WAIT = 1.0
"""Seconds: a process that was forked while another thread had the lock would wait for ever."""

_lock = threading.Lock()


@contextmanager
def noting(database: str, known: Descriptors) -> Iterator[None]:
    """Add to ``known`` the descriptors of a database that are opened in the block.

    One block at a time: what another connection opens, and closes, is not this one's. Where others
    take too long none is noted.
    """
    if not _lock.acquire(timeout=_LOCK_WAIT):
        yield
        return
    try:
        before = _descriptors_of(database)
        yield
        now = _descriptors_of(database)
    finally:
        _lock.release()
    known |= {number: file for number, file in now.items() if before.get(number) != file}


def are_own(known: Mapping[int, tuple[int, int]]) -> bool:
    """Whether every descriptor is still that of the same file."""
    try:
        return all(_file_of(fstat(number)) == file for number, file in known.items())
    except OSError:
        return False


def never_close(connection: object) -> None:
    """Keep a connection open for as long as the process lives: closing it writes to its files."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _descriptors_of(database: str) -> Descriptors:
    """The descriptors of this process that are the database's file, its log or its index."""
    files = set()
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            files.add(_file_of(stat(database + suffix)))
    found: Descriptors = {}
    with suppress(OSError):
        for name in listdir("/dev/fd"):
            with suppress(OSError):  # that of the list itself is closed by now
                file = _file_of(fstat(int(name)))
                if file in files:
                    found[int(name)] = file
    return found


def _file_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
