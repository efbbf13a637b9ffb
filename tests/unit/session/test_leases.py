"""Leases: what their locks say, and what is done where the lock is lost or cannot be asked."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import ANY

import pytest

from pytest_armory.session import leases
from pytest_armory.session.leases import Lease, hold, process_name, recovering, survey

IN_A_CHILD = """
import sys
from pathlib import Path
from pytest_armory.session.leases import hold, process_name
lease = hold(Path(sys.argv[1]))
lease.write_journal("what it knew")
print(process_name(), flush=True)
exec(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path, code: str = "") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Another process that has a lease and then runs some code; its name, and it."""
    command = [sys.executable, "-c", IN_A_CHILD, str(folder), code]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout
        try:
            name = process.stdout.readline().strip()
            assert process.stdout.readline() == "ready\n"
            yield name, process
        finally:
            process.kill()


def stale(folder: Path, count: int) -> set[str]:
    folder.mkdir(exist_ok=True)
    names = {f"{leases.host_name()}:{10**7 + i}:0123abcd" for i in range(count)}
    for name in names:
        (folder / f"{name.replace(':', '%3A')}.lease").write_text("boot 1\n")
    return names


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    lease = hold(tmp_path / "leases")
    assert lease is not None
    yield lease
    lease.release()


def descriptor_of(lease: Lease) -> int:
    return leases._held[lease.path].descriptor


def close(lease: Lease, _: Path) -> None:
    os.close(descriptor_of(lease))


def reuse(lease: Lease, own: Path) -> None:
    """Close it, as `os.closerange` does, and open a file that gets its number."""
    number = descriptor_of(lease)
    os.close(number)
    descriptor = os.open(own, os.O_RDWR)
    os.dup2(descriptor, number)
    if descriptor != number:
        os.close(descriptor)


def replace(lease: Lease, own: Path) -> None:
    descriptor = os.open(own, os.O_RDWR)
    os.dup2(descriptor, descriptor_of(lease))
    os.close(descriptor)


WAYS: list[Callable[[Lease, Path], None]] = [close, reuse, replace]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["touch", "write_journal", "unlock", "release", "fork"])
def test_the_users_file_is_never_touched(
    lease: Lease, tmp_path: Path, way: Callable[[Lease, Path], None], end: str
) -> None:
    own = tmp_path / "own.txt"
    own.write_text("the user's")
    number = descriptor_of(lease)
    way(lease, own)
    if end == "fork":
        child = os.fork()
        if child == 0:
            is_open = way is close or os.fstat(number).st_ino == own.stat().st_ino
            os._exit(0 if is_open and not leases._held else 1)
        assert os.waitpid(child, 0)[1] == 0
    elif end == "write_journal":
        lease.write_journal("{}" * 1000)
    else:
        getattr(lease, end)()
        assert lease.path.exists() == (end != "release")
    assert own.read_text() == "the user's"
    if way is not close:
        assert os.fstat(number).st_ino == own.stat().st_ino
        os.close(number)
    if end in ("touch", "write_journal"):  # and it is locked again
        assert leases._held[lease.path].is_ours
        assert survey(lease.path.parent) == ({}, {process_name()})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel is not asked")
@pytest.mark.parametrize(
    "code",
    [
        "import os; os.closerange(3, 256)",
        "import os; os.closerange(3, 256); files = [open(sys.executable) for _ in range(9)]",
        "from pytest_armory.session import leases; leases._close_held()",
    ],
)
def test_a_process_that_lost_its_lock_is_alive_until_it_ends(tmp_path: Path, code: str) -> None:
    with another_process(tmp_path, code) as (name, process):
        assert survey(tmp_path) == ({}, {name})
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 300  # it is not waited for: a zombie is no process
        while survey(tmp_path)[1] and time.monotonic() < deadline:
            time.sleep(0.02)
        dead, alive = survey(tmp_path)
        assert ({*dead}, alive) == ({name}, set())
        assert dead[name].journal == "what it knew"
        dead[name].remove()
        assert survey(tmp_path) == ({}, set())


def test_leases_whose_names_are_no_process(tmp_path: Path) -> None:
    names = [f"{leases.host_name()}:{pid}:0" for pid in ("²", "x", "", "-1")] + ["²", ""]
    for name in names:
        (tmp_path / f"{name}.lease").write_text("boot 1\n")
    assert survey(tmp_path) == (dict.fromkeys(names, ANY), set())


def test_a_lease_that_is_left_is_dead_while_its_process_lives(tmp_path: Path) -> None:
    with another_process(tmp_path, "lease.unlock()") as (name, _):
        assert {*survey(tmp_path)[0]} == {name}


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_lease_that_was_removed_is_made_again(lease: Lease, what: str) -> None:
    lease.write_journal("one")
    lease.path.unlink()
    if what == "folder":
        lease.path.parent.rmdir()
        lease.touch()
        lease.write_journal("two")
        assert not lease.path.parent.exists()
        lease.path.parent.mkdir()
    lease.touch()
    assert survey(lease.path.parent) == ({}, {process_name()})
    assert "one" in lease.path.read_text() or what == "folder"


def test_more_leases_than_descriptors(tmp_path: Path) -> None:
    names = stale(tmp_path, 1200)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as free:  # other tests of this process may have left many open
        limit = free.fileno() + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, soft), hard))
    try:
        dead, alive = survey(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ({*dead}, alive) == (names, set())


def test_of_a_folder_that_cannot_be_read_no_lease_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one on a network's file system that is gone; `recover --session` needs none."""
    lease = hold(tmp_path)
    assert lease is not None

    def glob(*_: object) -> Iterator[Path]:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", glob)
        assert survey(tmp_path) == ({}, set())
        assert [*leases.journals(tmp_path)] == []
        assert not leases.in_use(tmp_path)
    lease.release()


def test_a_lease_that_cannot_be_locked_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process of each session on a file system without locks would leave one for good."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(leases, "_try_lock", flock)
    with pytest.raises(OSError, match="No locks available"):
        hold(tmp_path)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EMFILE, errno.EIO])
def test_only_a_lock_says_that_a_process_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    stale(tmp_path, 3)
    (tmp_path / "a folder.lease").mkdir()

    def fails(*_: object) -> None:
        raise OSError(number, "as on a file system without locks")

    monkeypatch.setattr(fcntl, "flock", fails)
    assert survey(tmp_path) == ({}, set())
    with recovering(tmp_path) as is_alone:
        assert is_alone


def test_one_process_recovers_at_a_time(tmp_path: Path) -> None:
    with recovering(tmp_path) as first, recovering(tmp_path) as second:
        assert (first, second) == (True, False)
    with recovering(tmp_path) as third, recovering(tmp_path / "missing") as other:
        assert third
        assert other
