"""The descriptors of a database: which are noted, and what is known of them later."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from pytest_armory.errors import TrackingError
from pytest_armory.store import own_descriptors
from pytest_armory.store.circuit import Circuit
from pytest_armory.store.database import tune
from pytest_armory.store.own_descriptors import (
    SUFFIXES,
    Descriptors,
    are_own,
    are_too_few,
    noting,
)

pytestmark = pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="lists no descriptors")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """A database with a write-ahead log, which another connection has open."""
    path = str(tmp_path / "some.db")
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE t (x)")
    yield path
    other.close()


def files_of(database: str) -> list[str]:
    return [database + suffix for suffix in SUFFIXES]


def test_the_descriptors_of_one_connection_are_noted(database: str, tmp_path: Path) -> None:
    known: Descriptors = {}
    with noting(files_of(database), known), (tmp_path / "other").open("w"):
        connection = sqlite3.connect(database)
        connection.execute("SELECT * FROM t").fetchall()
    assert len(known) == 2  # its file and the log; the index is the process's
    assert are_own(known)
    connection.close()
    assert not are_own(known)


def test_a_number_that_another_file_has_is_not_own(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    path.touch()
    known: Descriptors = {}
    with noting([str(path)], known):
        number = os.open(path, os.O_RDWR)
    assert list(known) == [number]
    with (tmp_path / "other").open("w") as other:
        os.dup2(other.fileno(), number)
    assert not are_own(known)
    os.close(number)
    assert not are_own(known)


def test_none_is_noted_where_another_thread_takes_too_long(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_descriptors, "_LOCK_WAIT", 0.01)
    known: Descriptors = {}
    with noting([database], {}), noting(files_of(database), known):
        connection = sqlite3.connect(database)
    assert known == {}
    assert are_own(known)
    connection.close()


def test_descriptors_that_another_thread_has_closed_are_not_missing(database: str) -> None:
    """What a thread of the user's opens while ours are noted looks like ours."""
    known: Descriptors = {}
    with noting(files_of(database), known):
        ours, users = sqlite3.connect(database), sqlite3.connect(database)
        for connection in (ours, users):
            connection.execute("SELECT * FROM t").fetchall()
    files = {*known.values()}
    users.close()
    assert not are_own(known)
    assert not are_too_few(files, [known])
    assert are_too_few(files, [known, known, known])
    ours.close()


def test_a_users_connection_that_opens_with_ours_and_closes(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptors look like ours, which are in use on; that a test closes those is noticed."""
    engine = create_engine(f"sqlite:///{database}", poolclass=NullPool)
    tune(Path(database), Circuit())
    connect = engine.dialect.connect
    users: list[sqlite3.Connection] = []

    def read_as_user(statement: str) -> None:
        if "journal_mode" in statement:
            users[-1].execute("SELECT * FROM t").fetchall()

    def connect_with_user(*arguments: Any, **options: Any) -> Any:
        users.append(sqlite3.connect(database))
        ours = connect(*arguments, **options)
        ours.set_trace_callback(read_as_user)
        return ours

    monkeypatch.setattr(engine.dialect, "connect", connect_with_user)
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            connection.exec_driver_sql("PRAGMA busy_timeout = 1")
        for user in users:
            user.close()
        for connection in (first, second):
            connection.exec_driver_sql("PRAGMA busy_timeout = 1")
        first.close()
        second.exec_driver_sql("PRAGMA busy_timeout = 1")
        log = os.stat(f"{database}-wal").st_ino
        for number in map(int, os.listdir("/dev/fd")):
            with suppress(OSError):
                if os.fstat(number).st_ino == log:
                    os.close(number)
        with pytest.raises(TrackingError, match="a test has closed its file descriptors"):
            second.exec_driver_sql("PRAGMA busy_timeout = 1")
