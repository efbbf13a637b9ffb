"""The descriptors of a database: which are noted, and what is known of them later."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_armory.store import own_descriptors
from pytest_armory.store.own_descriptors import Descriptors, are_own, noting

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


def test_the_descriptors_of_one_connection_are_noted(database: str, tmp_path: Path) -> None:
    known: Descriptors = {}
    with noting(database, known), (tmp_path / "other").open("w"):
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
    with noting(str(path), known):
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
    with noting(database, {}), noting(database, known):
        connection = sqlite3.connect(database)
    assert known == {}
    assert are_own(known)
    connection.close()
