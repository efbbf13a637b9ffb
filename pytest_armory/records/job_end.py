"""How one job of a session ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from json import dumps

from pytest_armory.values import short_hash

HASH = 8
"""The hexadecimal digits of a node id's hash."""


@dataclass(frozen=True)
class JobEnd:
    """The end of one job of a shared session, for the jobs that end later."""

    interrupted: bool = False
    not_run: tuple[str, ...] = ()
    """The hashes of the node ids of evaluations it never started, as many as a tag can hold."""
    not_run_more: int = 0
    """How many more there are than a tag can hold."""
    problems: tuple[str, ...] = ()
    skipped: str = ""
    """The hashes of those that a mark skipped, which have no run, joined; as many as fit."""
    waiting: str = ""
    """Of each attempt that waited to be synced, the hashes of its node id and its run, joined."""
    host: str = ""
    """The machine that they waited on."""
    ended: int = 0
    """When the job ended, in milliseconds since the epoch."""

    @property
    def skipped_hashes(self) -> list[str]:
        """The hashes of those that a mark skipped."""
        return _parts(self.skipped)

    @property
    def waiting_hashes(self) -> list[tuple[str, str]]:
        """The hashes of the node id and of the run of each attempt that waited."""
        parts = _parts(self.waiting)
        return list(zip(parts[::2], parts[1::2], strict=False))

    def to_text(self) -> str:
        """As JSON, for a tag or a lease's journal."""
        return dumps(asdict(self))


def _parts(hashes: str) -> list[str]:
    return [hashes[i : i + HASH] for i in range(0, len(hashes), HASH)]


def file_of_job(name: str, shard: str) -> str:
    """The name of a job's file in the session run that another job has opened."""
    return name.replace(".", f"-{short_hash(shard)}.", 1)
