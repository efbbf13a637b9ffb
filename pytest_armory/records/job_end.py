"""How one job of a session ended."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from json import dumps

from pytest_armory.records import fields
from pytest_armory.values import short_hash

HASH = 8
"""The hexadecimal digits of a hash."""

_OF_JOB = re.compile(rf"-[0-9a-f]{{{HASH}}}\.")

_HASH_SIZE = len('"01234567", ')
"""Characters of a hash in JSON."""


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
        return parts(self.skipped)

    @property
    def waiting_hashes(self) -> list[tuple[str, str]]:
        """The hashes of the node id and of the run of each attempt that waited."""
        every = parts(self.waiting)
        return list(zip(every[::2], every[1::2], strict=False))

    def to_text(self) -> str:
        """As JSON, for a tag or a lease's journal."""
        return dumps(asdict(self))


def parts(hashes: str) -> list[str]:
    """Joined hashes, one by one."""
    return [hashes[i : i + HASH] for i in range(0, len(hashes), HASH)]


def fitted(end: JobEnd, limit: int) -> JobEnd:
    """An end whose text has at most ``limit`` characters, by what can be left out of it."""
    while (over := len(end.to_text()) - limit) > 0:
        if end.skipped:
            end = replace(end, skipped=_cut(end.skipped, over))
        elif end.waiting:
            end = replace(end, waiting=_cut(end.waiting, over))
        elif end.problems:
            end = replace(end, problems=end.problems[:-1])
        else:
            cut = max(1, over // _HASH_SIZE)
            end = replace(end, not_run=end.not_run[:-cut], not_run_more=end.not_run_more + cut)
    return end


def _cut(hashes: str, over: int) -> str:
    return hashes[: max(0, len(hashes) - over) // HASH * HASH]


read_job_end = fields.instance_of(
    JobEnd,
    {
        "interrupted": fields.boolean,
        "not_run": fields.list_of(fields.string),
        "not_run_more": fields.tests,
        "problems": fields.list_of(fields.string),
        "skipped": fields.string,
        "waiting": fields.string,
        "host": fields.string,
        "ended": fields.count,
    },
    required=("not_run", "problems"),
)
"""Reads the end of a job from JSON's builtins; raises :class:`fields.UnreadableError`."""


def file_of_job(name: str, shard: str) -> str:
    """The name of a job's file in the session run that another job has opened.

    A file that has the name of a job keeps it: another job had opened the session run it is from.
    """
    if _OF_JOB.search(name):
        return name
    return name.replace(".", f"-{short_hash(shard)}.", 1)
