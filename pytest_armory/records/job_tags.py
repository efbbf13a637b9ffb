"""The tags that each job of a session writes to the session run: its note, and how it ended.

As in :mod:`tags`, no decoder raises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pytest_armory.records.fields import read_tag
from pytest_armory.records.hash_tags import first_tags, further_hashes, further_tags
from pytest_armory.records.job_end import JobEnd, fitted, parts, read_job_end
from pytest_armory.records.shard_note import ShardNote, read_shard_note
from pytest_armory.values import TAG_LIMIT

_ENDED = "armory.ended."
_TOOK = "armory.took."
_WAITING = ".waiting"
_NOT_RUN = ".not-run"


@dataclass(frozen=True)
class JobEnds:
    """How jobs of a session ended."""

    ends: tuple[JobEnd, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShardNotes:
    """The notes of a session's jobs, by the job's hash.

    ``ended`` are the hashes of those over, with the time in milliseconds since the epoch, 0 if that
    cannot be read.
    """

    notes: Mapping[str, ShardNote] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def job_end_tag(end: JobEnd, shard: str) -> dict[str, str]:
    """The tags of a session run with the end of one job, truncated to the limits of tags."""
    name, kept = _ended(shard), fitted(end, TAG_LIMIT)
    return {
        name: kept.to_text(),
        **further_tags(name, end.skipped[len(kept.skipped) :]),
        **further_tags(name + _WAITING, end.waiting[len(kept.waiting) :]),
        **further_tags(name + _NOT_RUN, "".join(end.not_run[len(kept.not_run) :])),
    }


def _ended(shard: str) -> str:
    return _ENDED + job_hash(shard)


def job_hash(shard: str) -> str:
    """A job in the names of tags: twelve hexadecimal digits."""
    return hashlib.sha256(shard.encode()).hexdigest()[:12]


def job_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a session run that its jobs have each written for themselves."""
    return {name: value for name, value in tags.items() if name.startswith((_ENDED, _TOOK))}


def shard_note_tag(note: ShardNote, shard: str) -> dict[str, str]:
    """The tags of a session run with the note of one job."""
    name, kept = _TOOK + job_hash(shard), note.kept_hashes(TAG_LIMIT)
    return {name: note.to_text(TAG_LIMIT), **further_tags(name, note.hashes[len(kept) :])}


def decode_shard_notes(tags: Mapping[str, str]) -> ShardNotes:
    """Decode the notes of jobs in a session run's tags."""
    problems: list[str] = []
    names = first_tags(tags, _TOOK)
    read = [(name, read_tag(tags, name, read_shard_note, problems)) for name in names]
    notes = {
        name.removeprefix(_TOOK): replace(
            note, hashes=note.hashes + further_hashes(tags, name, problems)
        )
        for name, note in read
        if note is not None
    }
    ends = {name: read_tag(tags, name, read_job_end, []) for name in first_tags(tags, _ENDED)}
    ended = {name.removeprefix(_ENDED): end.ended if end else 0 for name, end in ends.items()}
    return ShardNotes(notes, ended, tuple(problems))


def decode_job_ends(tags: Mapping[str, str], but: str = "") -> JobEnds:
    """Decode the ends of jobs in a session run's tags, without that of one shard."""
    problems: list[str] = []
    names = [name for name in first_tags(tags, _ENDED) if name != _ended(but)]
    read = [(name, read_tag(tags, name, read_job_end, problems)) for name in names]
    ends = [_with_further(end, tags, name, problems) for name, end in read if end is not None]
    return JobEnds(tuple(ends), tuple(problems))


def _with_further(end: JobEnd, tags: Mapping[str, str], name: str, problems: list[str]) -> JobEnd:
    """The end of a job in the tag ``name``, with the hashes that this tag could not hold."""
    not_run = parts(further_hashes(tags, name + _NOT_RUN, problems))
    return replace(
        end,
        skipped=end.skipped + further_hashes(tags, name, problems),
        waiting=end.waiting + further_hashes(tags, name + _WAITING, problems),
        not_run=(*end.not_run, *not_run),
        not_run_more=max(0, end.not_run_more - len(not_run)),
    )
