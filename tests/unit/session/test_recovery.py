"""What is said of sessions whose runs were left open."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_armory.records import JobEnd
from pytest_armory.session.leases import DeadLease
from pytest_armory.session.recovery import Recovery, _ended, notes_of
from pytest_armory.store import StoredRun

TAGS = {"armory.session": "s", "armory.shard": "host:1:a:0", "armory.process": "host:2:b"}
RUN = StoredRun("r", "0", "", "RUNNING", 0, None, 0, "", {}, {}, TAGS)


@pytest.mark.parametrize(
    ("journal", "said"),
    [
        ("", "session s was killed: closed 1 run it left open"),
        ("{", "session s was killed: closed 1 run it left open"),
        (JobEnd().to_text(), "session s has ended: closed 1 run it left open"),
    ],
)
def test_a_session_that_has_ended_was_not_killed(tmp_path: Path, journal: str, said: str) -> None:
    """As one whose server was out of reach: the process that reports it leaves its end behind."""
    path = tmp_path / "lease"
    path.write_text(journal)
    dead = {"host:1:a": DeadLease(path, "host:1:a", 0), "host:2:b": DeadLease(path, "host:2:b", 0)}
    assert notes_of(Recovery([RUN], ended=_ended([RUN], dead))) == [said]
