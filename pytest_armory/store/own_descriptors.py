"""The file descriptors that SQLite keeps for a database of ours, which a test may close.

SQLite goes on writing to the numbers that it knows, whatever files have them by then, and does not
tell which these are: they are those that appear while it opens a database. Where the system does
not list a process's descriptors, none is known. A thread of the user's may open one at that time,
and close it: then there are as many as before, and none is lost.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from os import fstat, listdir, stat  # bound here: a test may patch them

Descriptors = dict[int, tuple[int, int]]
"""The device and inode of the file of each."""

SUFFIXES = ("", "-wal", "-shm")
"""Of the files of a database: its log and the log's index are opened by the first statement."""

_LOCK_WAIT = 1.0
"""Seconds: a process that was forked while another thread had the lock would wait for ever."""

_lock = threading.Lock()


@contextmanager
def noting(paths: Collection[str], known: Descriptors) -> Iterator[None]:
    """Add to ``known`` the descriptors of these files that are opened in the block.

    One block at a time: what another connection opens, and closes, is not this one's. Where others
    take too long none is noted.
    """
    if not _lock.acquire(timeout=_LOCK_WAIT):
        yield
        return
    try:
        before = _descriptors_of(_files_at(paths))
        yield
        now = _descriptors_of(_files_at(paths))
    finally:
        _lock.release()
    known |= {number: file for number, file in now.items() if before.get(number) != file}


def are_own(known: Mapping[int, tuple[int, int]]) -> bool:
    """Whether every descriptor is still that of the same file."""
    try:
        return all(file_of(fstat(number)) == file for number, file in known.items())
    except OSError:
        return False


def are_too_few(files: Collection[tuple[int, int]], noted: Iterable[Descriptors]) -> bool:
    """Whether one of the files has fewer descriptors than connections that have noted it."""
    needed = Counter(file for known in noted for file in {*known.values()} & {*files})
    now = Counter(_descriptors_of(files).values())
    return any(now[file] < number for file, number in needed.items())


def never_close(connection: object) -> None:
    """Keep a connection open for as long as the process lives: closing it writes to its files."""
    import ctypes  # here, for no other use has need of it

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _files_at(paths: Iterable[str]) -> set[tuple[int, int]]:
    files = set()
    for path in paths:
        with suppress(OSError):
            files.add(file_of(stat(path)))
    return files


def _descriptors_of(files: Collection[tuple[int, int]]) -> Descriptors:
    """The descriptors that this process has of these files."""
    found: Descriptors = {}
    with suppress(OSError):
        for name in listdir("/dev/fd"):
            with suppress(OSError):  # that of the list itself is closed by now
                file = file_of(fstat(int(name)))
                if file in files:
                    found[int(name)] = file
    return found


def file_of(status: os.stat_result) -> tuple[int, int]:
    """The device and inode of a file."""
    return status.st_dev, status.st_ino
