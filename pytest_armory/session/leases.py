"""Leases: files whose lock tells whether the process that created them is alive.

A process of a tracked session keeps its file locked until it ends; the kernel releases the lock
however the process ends. A process ID is not enough: another process, or one in another container,
may have the same.

The descriptor is kept for the lock alone, and the file is written by its path: a test may close
descriptors that are not its own, and the number is then another file's. The lock is lost with it,
so the file's first line identifies the process too, as the kernel does, where that can be read.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from os import close, fstat, getpid, stat, utime, write
from os import open as open_file
from pathlib import Path
from time import sleep
from urllib.parse import quote, unquote

from pytest_armory.store.own_descriptors import are_own, file_of

_SUFFIX = ".lease"
_FIRST_LINE = re.compile(r"(?:-|[\w-]+ \d+)?\n")
"""Without it, all of the file is the journal: an earlier version's."""

_RELEASED = "-"
"""The first line of a lease that its process has left for others to recover from."""


class Lease:
    """The lease of this process, locked. ``path`` is its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first_line = _kernel_identity(getpid())
        self._text = ""
        self._size = 0
        self._write()

    def touch(self) -> None:
        """Say that this process is at work: who closes its runs later knows until when it was."""
        self._lock_again()
        with suppress(OSError):  # a file system gone read-only; then the end is known less exactly
            utime(self.path)

    def write_journal(self, text: str) -> None:
        """Replace the journal: what is needed to close this process's runs if it is killed."""
        self._text = text
        self._lock_again()
        self._write()

    def release(self) -> None:
        """Remove the file and release its lock."""
        if self.path not in _held:  # a forked child process has closed its copy already
            return
        if sys.platform == "win32":  # where open files cannot be removed
            _unlock(self.path)
        with suppress(OSError):
            self.path.unlink()
        if sys.platform != "win32":
            _unlock(self.path)

    def unlock(self) -> None:
        """Release the lock but keep the file, for another process to recover from."""
        if self.path in _held:
            self._first_line = _RELEASED
            self._write()
            _unlock(self.path)

    def _write(self) -> None:
        if self.path not in _held:
            return
        with suppress(OSError):  # a full disk, a removed folder; then less is recovered
            descriptor = open_file(self.path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                # Over what stood there, with spaces after it: a kill never meets an empty file.
                content = f"{self._first_line}\n{self._text}".encode().ljust(self._size)
                write(descriptor, content)
                self._size = len(content)
            finally:
                close(descriptor)

    def _lock_again(self) -> None:
        """Lock the file if a test has closed the descriptor, or removed the file."""
        lock = _held.get(self.path)
        if lock is None or (lock.is_ours and lock.is_at(self.path)):
            return
        lock.close()  # first, for the new one may get the same number
        with suppress(OSError):
            again = _locked(self.path, os.O_RDWR | os.O_CREAT)
            if again is not None:
                _held[self.path] = again
                self._write()


@dataclass(frozen=True)
class DeadLease:
    """The lease of a process that has ended without removing it.

    ``process`` is its owner's :func:`process_name`; ``seen`` is when the owner was last active, in
    milliseconds since the epoch.
    """

    path: Path
    process: str
    seen: int

    @property
    def journal(self) -> str:
        """What its owner has written, truncated if it was killed meanwhile."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return (text if _FIRST_LINE.match(text) is None else text.partition("\n")[2]).rstrip(" ")

    def remove(self) -> None:
        """Remove the file: nothing is left to recover."""
        with suppress(OSError):
            self.path.unlink()


@dataclass(frozen=True)
class _Lock:
    """A locked descriptor, with the device and inode of its file."""

    descriptor: int
    file: tuple[int, int]

    @property
    def is_ours(self) -> bool:
        """Whether the descriptor is still that of the file: a test may have closed it."""
        return are_own({self.descriptor: self.file})

    def is_at(self, path: Path) -> bool:
        """Whether the file is still the one at a path."""
        try:
            return file_of(stat(path)) == self.file
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock. A descriptor that is another file's by now is left alone."""
        if self.is_ours:
            close(self.descriptor)


def host_name() -> str:
    """This machine's name, as in the tag ``armory.host``."""
    return socket.gethostname() or "localhost"


@lru_cache(maxsize=1)
def process_name() -> str:
    """A unique name for this process: ``host:pid:random``."""
    return f"{host_name()}:{getpid()}:{secrets.token_hex(4)}"


def hold(folder: Path) -> Lease | None:
    """Create this process's lease in a folder, locked; None if it has one there already.

    A pytest session may run inside a test of another one. Raises ``OSError``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (quote(process_name(), safe="") + _SUFFIX)
    if path in _held:
        return None
    for _ in range(1000):
        try:
            lock = _locked(path, os.O_RDWR | os.O_CREAT)
        except OSError:  # where there are no locks, nobody would remove it later
            with suppress(OSError):
                path.unlink()
            raise
        # A process in `survey` may have locked it in between, or removed it.
        if lock is not None and lock.is_at(path):
            _held[path] = lock
            return Lease(path)
        if lock is not None:
            lock.close()
        sleep(0.01)
    raise OSError(f"{path} is locked by another process")


def survey(folder: Path) -> tuple[Mapping[str, DeadLease], AbstractSet[str]]:
    """The leases of dead processes, and the names of living ones; one file is open at a time.

    Of a lease that cannot be opened or locked for any other reason than its lock, neither is known.
    """
    dead, alive = {}, set()
    for path in _in_folder(folder):
        process = _owner(path)
        try:
            seen = stat(path).st_mtime_ns // 1_000_000
            lock = None if path in _held else _locked(path)
        except OSError:  # its owner has just ended; it is another user's, or cannot be locked
            continue
        if lock is None or _is_alive(path, process):
            alive.add(process)
        else:
            dead[process] = DeadLease(path, process, seen)
        if lock is not None:
            lock.close()
    return dead, alive


def journals(folder: Path) -> Iterator[str]:
    """What each process has written to its lease, whether or not it is alive."""
    for path in _in_folder(folder):
        yield DeadLease(path, _owner(path), 0).journal


def in_use(folder: Path) -> bool:
    """Whether any other process has a lease in a folder, be it dead or alive."""
    return any(path not in _held for path in _in_folder(folder))


def _in_folder(folder: Path) -> list[Path]:
    """The leases in a folder; of one that cannot be read none is known."""
    with suppress(OSError):
        return sorted(folder.glob(f"*{_SUFFIX}"))
    return []


@contextmanager
def recovering(folder: Path) -> Iterator[bool]:
    """Whether this process alone recovers from the leases of a folder, inside the context."""
    try:
        lock = None if sys.platform == "win32" else _locked(folder, os.O_RDONLY)
        is_alone = lock is not None or sys.platform == "win32"
    except OSError:  # a folder that is not there, or one that cannot be locked
        lock, is_alone = None, True
    try:
        yield is_alone
    finally:
        if lock is not None:
            lock.close()


def _owner(path: Path) -> str:
    return unquote(path.name.removesuffix(_SUFFIX))


def _is_alive(path: Path, process: str) -> bool:
    """Whether the owner of a lease without a lock is alive: a test of its closed the descriptor."""
    host, _, rest = process.partition(":")
    pid = rest.partition(":")[0]
    if host != host_name() or not pid.isdecimal():
        return False
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        first_line = file.readline(200).strip()
        return bool(first_line) and first_line == _kernel_identity(int(pid))
    return False


def _kernel_identity(pid: int) -> str:
    """The boot and the time at which a process started; empty if it is dead or not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else f"{boot} {fields[18]}"
    except (OSError, IndexError, ValueError):  # no Linux, or no such process
        return ""


def _locked(path: Path, flags: int = os.O_RDWR) -> _Lock | None:
    """The file, locked; None if another process has it locked. Raises ``OSError``."""
    descriptor = open_file(path, flags, 0o644)
    try:
        if _flock(descriptor):
            return _Lock(descriptor, file_of(fstat(descriptor)))
    except OSError:
        close(descriptor)
        raise
    close(descriptor)
    return None


_WOULD_BLOCK = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _flock(descriptor: int) -> bool:
    """Whether the lock was free. Raises ``OSError``, as on a file system without locks."""
    try:
        _try_lock(descriptor)
    except OSError as error:
        if error.errno in _WOULD_BLOCK:
            return False
        raise
    return True


_held: dict[Path, _Lock] = {}


def _unlock(path: Path) -> None:
    lock = _held.pop(path, None)
    if lock is not None:
        lock.close()


def _close_held() -> None:
    while _held:
        _held.popitem()[1].close()


# A child would keep the lock after its parent's end; closing its copy keeps the parent's.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held)
