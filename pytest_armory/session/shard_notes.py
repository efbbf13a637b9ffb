"""The notes of a session's shards: what is missing, what differs, what has run twice. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_armory.records.job_tags import ShardNotes, decode_shard_notes
from pytest_armory.records.shard_note import ShardNote
from pytest_armory.report.text import plural
from pytest_armory.session.stored_records import is_session

if TYPE_CHECKING:
    from pytest_armory.store import StoredRun


@dataclass(frozen=True)
class Unfinished:
    """A shard whose newest job has not ended, or has not stored all evaluations that it took.

    ``never_run`` is how many of these the store has no attempt of.
    """

    note: ShardNote
    has_ended: bool
    never_run: int = 0


@dataclass(frozen=True)
class ShardState:
    """How the shards of a session stand; ``problems`` are sentences.

    ``unfinished`` are also those that have ended without an evaluation that they took;
    ``is_open`` says that a shard has not come, or has neither ended nor been killed.
    """

    problems: Sequence[str] = ()
    unfinished: Sequence[Unfinished] = ()
    is_open: bool = False


def notes_of(runs: Sequence[StoredRun]) -> ShardNotes:
    """The notes in the session runs of a session."""
    return decode_shard_notes({k: v for r in runs if is_session(r) for k, v in r.tags.items()})


def state_of(found: ShardNotes, done: Collection[str], killed: Collection[str] = ()) -> ShardState:
    """How the shards stand, with the hashes of the evaluations that have begun.

    ``killed`` are the hashes of jobs that have not ended, and of which nothing more comes.
    """
    newest = _newest(found.notes)
    groups = _groups_of(found.notes, newest)
    missing = list(_missing(groups))
    problems = [
        *missing,
        *_differing(groups),
        *_left_out(groups, found.notes.values()),
        *twice(found),
        *found.problems,
    ]
    every = [
        Unfinished(
            found.notes[job], job in found.ended, _never_run(found.notes[job], found.notes, done)
        )
        for job in newest.values()
    ]
    ended = {(one.note.number, one.note.index) for one in every if one.has_ended}
    replaced = {
        newest[one.note.number, one.note.index]
        for one in every
        if not one.never_run and _is_replaced(one.note, groups, ended)
    }
    unfinished = [
        one
        for one, job in zip(every, newest.values(), strict=True)
        if (one.never_run or not one.has_ended) and job not in replaced
    ]
    is_open = bool(missing) or not {*newest.values()} <= {*found.ended, *killed, *replaced}
    return ShardState(problems, unfinished, is_open)


def twice(found: ShardNotes) -> list[str]:
    """A sentence for each shard that two jobs ran which are not one that ran again."""
    same: dict[tuple[int, int], list[tuple[ShardNote, int]]] = {}
    for job, note in sorted(found.notes.items(), key=lambda one: one[1].began):
        same.setdefault((note.number, note.index), []).append((note, found.ended.get(job, 0)))
    return [
        f"shard {index}/{number} has run twice in this session, on {_hosts(jobs)}; if these are "
        "two legs of a matrix, give each its own --armory-session; a job that runs again takes "
        "--armory-resume, and begins when the first has ended"
        for (number, index), jobs in sorted(same.items())
        if any(_clash(*a, b) for i, (b, _) in enumerate(jobs) for a in jobs[:i])
    ]


def _clash(earlier: ShardNote, ended: int, later: ShardNote) -> bool:
    """Whether the later of two jobs of one shard is not the earlier one that runs again.

    What resumes another job begins when that one has ended, or was killed, which leaves no end:
    legs of a matrix are given --armory-resume as well.
    """
    is_same_leg = bool(later.leg) and earlier.leg == later.leg
    is_resumed = later.resumed and later.began >= ended
    return not (is_resumed or is_same_leg or earlier.attempt != later.attempt)


def _hosts(jobs: Sequence[tuple[ShardNote, int]]) -> str:
    return " and ".join(dict.fromkeys(note.host for note, _ in jobs))


def newest_jobs(found: ShardNotes) -> Collection[str]:
    """The hashes of the newest job of each shard."""
    return _newest(found.notes).values()


def _newest(notes: Mapping[str, ShardNote]) -> dict[tuple[int, int], str]:
    """The newest job of each shard, by number of shards and index."""
    by_start = sorted(notes, key=lambda job: (notes[job].began, job))
    return {(notes[job].number, notes[job].index): job for job in by_start}


_Groups = Mapping[int, Mapping[int, ShardNote]]
"""The newest note of each shard, by the number of shards and the index."""


def _groups_of(notes: Mapping[str, ShardNote], newest: Mapping[tuple[int, int], str]) -> _Groups:
    groups: dict[int, dict[int, ShardNote]] = {}
    for (number, index), job in sorted(newest.items()):
        groups.setdefault(number, {})[index] = notes[job]
    return groups


def _missing(groups: _Groups) -> Iterator[str]:
    """What never came; not of a split that another, complete one of the same tests replaced."""
    complete = {
        note.digest for n, group in groups.items() if len(group) == n for note in group.values()
    }
    for number, group in groups.items():
        absent = [str(i) for i in range(1, number + 1) if i not in group]
        if absent and not {note.digest for note in group.values()} <= complete:
            word = "shard" if len(absent) == 1 else "shards"
            yield f"{word} {_some(absent)} of {number} never came"


def _is_replaced(note: ShardNote, groups: _Groups, ended: Collection[tuple[int, int]]) -> bool:
    """Whether another split of the same tests began after a job, and has ended in all its parts."""
    return any(
        number != note.number
        and all((number, index) in ended for index in range(1, number + 1))
        and all(one.digest == note.digest and one.began > note.began for one in group.values())
        for number, group in groups.items()
    )


def _differing(groups: _Groups) -> Iterator[str]:
    for number, group in groups.items():
        collections: dict[str, list[str]] = {}
        for index, note in group.items():
            text = f"{note.collected:,} tests ({note.digest[:6]})"
            collections.setdefault(text, []).append(str(index))
        if len(collections) > 1:
            parts = [f"{text} in {_some(indices)}" for text, indices in collections.items()]
            yield (
                f"the {number} shards have collected different tests: {'; '.join(parts)}; "
                "what one of them took, another may have taken too, or none"
            )


def _left_out(groups: _Groups, notes: Collection[ShardNote]) -> Iterator[str]:
    """Tests that are in no part of a complete split, which divided them by other durations."""
    for number, group in groups.items():
        digests = {note.digest for note in group.values()}
        same = [note for note in notes if note.digest in digests]
        if len(group) < number or len(digests) > 1 or not all(note.first for note in same):
            continue
        taken = {i for note in same for i in range(note.first, note.first + note.took)}
        left = same[0].collected - len(taken)
        if left > 0:
            yield (
                f"{plural(left, 'test')} of {same[0].collected:,} "
                f"{'is' if left == 1 else 'are'} in no shard: the {number} shards have divided "
                "them differently; give all of them the same --armory-durations, also when one "
                "runs again"
            )


def _some(items: Sequence[str], most: int = 10) -> str:
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _never_run(note: ShardNote, notes: Mapping[str, ShardNote], done: Collection[str]) -> int:
    """How many evaluations of a shard have not begun.

    Also those that an earlier job of it took, which divided the same tests by other durations: it
    may have left some that no newer note has.
    """
    shard = (note.number, note.index, note.digest)
    same = [one for one in notes.values() if (one.number, one.index, one.digest) == shard]
    stretch = (note.first, note.took)
    earlier = [one for one in same if (one.first, one.took) != stretch and one.first]
    taken = {one for job in (note, *earlier) for one in job.known_hashes}
    unknown = note.evaluations - len(note.known_hashes)
    return len(taken.difference(done)) + unknown
