"""Leases: files whose lock tells whether the process that created them is alive.

A process of a tracked session keeps its file locked until it ends; the kernel releases the lock
however the process ends. A process ID is not enough: another process, or one in another container,
may have the same.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import sleep
from urllib.parse import quote, unquote

_SUFFIX = ".lease"


@dataclass(frozen=True)
class Lease:
    """A lease that this process has locked.

    ``process`` is its owner's :func:`process_name`; ``seen`` is when the owner was last active, in
    milliseconds since the epoch.
    """

    path: Path
    descriptor: int
    process: str
    seen: int

    def touch(self) -> None:
        """Say that this process is at work: who closes its runs later knows until when it was."""
        with suppress(OSError):  # a file system gone read-only; then the end is known less exactly
            os.utime(self.path)

    def write_journal(self, text: str) -> None:
        """Replace the journal: what is needed to close this process's runs if it is killed."""
        with suppress(OSError):  # a full disk; then less is recovered
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            os.write(self.descriptor, text.encode())

    @property
    def journal(self) -> str:
        """What its owner has written, truncated if it was killed meanwhile."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return os.read(self.descriptor, os.fstat(self.descriptor).st_size).decode(errors="replace")

    def release(self) -> None:
        """Remove the file and release its lock."""
        if self.descriptor not in _held:  # a forked child process has closed its copy already
            return
        if sys.platform == "win32":  # where open files cannot be removed
            self.unlock()
        with suppress(OSError):
            self.path.unlink()
        if sys.platform != "win32":
            self.unlock()

    def unlock(self) -> None:
        """Release the lock but keep the file, for another process to recover from."""
        if self.descriptor in _held:
            del _held[self.descriptor]
            os.close(self.descriptor)


def host_name() -> str:
    """This machine's name, as in the tag ``armory.host``."""
    return socket.gethostname() or "localhost"


@lru_cache(maxsize=1)
def process_name() -> str:
    """A unique name for this process: ``host:pid:random``."""
    return f"{host_name()}:{os.getpid()}:{secrets.token_hex(4)}"


def hold(folder: Path) -> Lease | None:
    """Create this process's lease in a folder, locked; None if it has one there already.

    A pytest session may run inside a test of another one. Raises ``OSError``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (quote(process_name(), safe="") + _SUFFIX)
    if path in _held.values():
        return None
    for _ in range(1000):
        lease = _lock(path, os.O_CREAT)
        # A process in `survey` may have locked it in between, or removed it.
        if lease is not None and path.exists():
            return lease
        sleep(0.01)
    raise OSError(f"{path} is locked by another process")


def survey(folder: Path) -> tuple[list[Lease], set[str]]:
    """The leases of dead processes, locked by this one; and the names of living processes."""
    dead, alive = [], set()
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        lease = _lock(path)
        if lease is not None:
            dead.append(lease)
        elif path.exists():
            alive.add(_owner(path))
    return dead, alive


def _owner(path: Path) -> str:
    return unquote(path.name.removesuffix(_SUFFIX))


def _lock(path: Path, flags: int = 0) -> Lease | None:
    try:
        descriptor = os.open(path, os.O_RDWR | flags, 0o644)
    except OSError:  # its owner has just ended; or it is another user's, or not a file
        return None
    if not _flock(descriptor):
        os.close(descriptor)
        return None
    _held[descriptor] = path
    return Lease(path, descriptor, _owner(path), os.fstat(descriptor).st_mtime_ns // 1_000_000)


if sys.platform == "win32":
    import msvcrt

    def _flock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _flock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held; or a file system without locks
            return False
        return True


_held: dict[int, Path] = {}


def _close_held() -> None:
    while _held:
        os.close(_held.popitem()[0])


# A child would keep the lock after its parent's end; closing its copy keeps the parent's.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held)
