"""Which part a job runs: notation, environments, the split."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.records.job_end import JobEnd
from pytest_armory.records.job_tags import (
    ShardNotes,
    decode_job_ends,
    decode_shard_notes,
    job_end_tag,
    job_tags,
    shard_note_tag,
)
from pytest_armory.records.shard_note import ShardNote
from pytest_armory.session.durations import PLAIN, weights
from pytest_armory.session.shard_notes import state_of
from pytest_armory.session.shards import Shard, digest, part_of, read_shard


def slurm(task: int, count: int, first: int = 0, step: int = 1) -> dict[str, str]:
    names = ("TASK_ID", "TASK_COUNT", "TASK_MIN", "TASK_STEP", "JOB_ID")
    values = (task, count, first, step, 77)
    return {f"SLURM_ARRAY_{n}": str(v) for n, v in zip(names, values, strict=True)}


GITLAB = {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "8", "CI_PIPELINE_ID": "9", "CI_JOB_NAME": "e 2/8"}
BUILDKITE = {
    "BUILDKITE_PARALLEL_JOB": "1",
    "BUILDKITE_PARALLEL_JOB_COUNT": "8",
    "BUILDKITE_BUILD_ID": "b",
    "BUILDKITE_RETRY_COUNT": "1",
}
CIRCLE = {"CIRCLE_NODE_INDEX": "1", "CIRCLE_NODE_TOTAL": "8", "CIRCLE_WORKFLOW_ID": "c"}
GITHUB = {"GITHUB_RUN_ID": "5", "GITHUB_RUN_ATTEMPT": "3"}

SHARDS = [
    ("2/8", {}, "2/8", ""),
    ("1/1", {}, "1/1", ""),
    ("auto", slurm(0, 3), "1/3", "77"),
    ("auto", slurm(2, 3), "3/3", "77"),
    ("auto", slurm(14, 3, first=10, step=4), "2/3", "77"),
    ("auto", slurm(7, 1, first=7), "1/1", "77"),  # one task of an array, submitted again
    ("auto/3", slurm(1, 3), "2/3", "77"),
    ("2/3", slurm(0, 1), "2/3", "77"),
    ("auto/8", {"JOB_COMPLETION_INDEX": "1"}, "2/8", ""),
    ("auto", GITLAB, "2/8", "9"),
    ("auto", BUILDKITE, "2/8", "b"),
    ("auto", CIRCLE, "2/8", "c"),
    ("2/8", GITHUB, "2/8", "5"),
    ("2/8", {**GITHUB, "JOB_COMPLETION_INDEX": "1"}, "2/8", "5"),  # a runner inside Kubernetes
]


@pytest.mark.parametrize(("text", "environ", "expected", "session"), SHARDS)
def test_the_shard(text: str, environ: dict[str, str], expected: str, session: str) -> None:
    job = read_shard(text, environ)
    assert (str(job.shard), job.session) == (expected, session)
    assert environ.get(job.session_from, "") == session


def test_a_job_that_runs_again_is_known_by_its_environment() -> None:
    assert read_shard("auto", BUILDKITE).attempt == "1"
    assert read_shard("2/8", GITHUB).attempt == "3"
    assert read_shard("auto", GITLAB).leg == "e 2/8"
    assert read_shard("auto/2", {"JOB_COMPLETION_INDEX": "0", "HOSTNAME": "e-0"}).leg == "e-0"
    assert read_shard("auto", {**slurm(0, 1), "SLURM_RESTART_COUNT": "2"}).attempt == "2"


REFUSED = [
    *((text, {}, "got") for text in ("3/2", "0/2", "2", "a/b", "-1/2", "1/0", "auto/", "auto/x")),
    ("auto", {}, "needs an environment that numbers its jobs"),
    ("auto/4", GITHUB, "needs an environment that numbers its jobs"),
    ("auto", {"JOB_COMPLETION_INDEX": "0"}, "auto/8"),
    ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, "got 3/2 (JOB_COMPLETION_INDEX='2')"),
    ("auto/4", GITLAB, "contradicts CI_NODE_TOTAL=8"),
    ("auto", {**GITLAB, "CI_NODE_INDEX": "9"}, "from 1 to N"),
    ("auto", {**GITLAB, "CI_NODE_TOTAL": "many"}, "CI_NODE_TOTAL must be a whole number"),
    ("auto", slurm(7, 3, first=1), "evenly spaced"),  # --array=1,3,7
    ("auto", slurm(3, 3, step=2), "evenly spaced"),
]


@pytest.mark.parametrize(("text", "environ", "expected"), REFUSED)
def test_what_is_no_shard(text: str, environ: dict[str, str], expected: str) -> None:
    with pytest.raises(ArmoryUsageError) as caught:
        read_shard(text, environ)
    assert expected in str(caught.value)


def test_shards_divide_a_collection_into_stretches_of_about_equal_weight() -> None:
    chance = random.Random(0)
    for _ in range(300):
        size, number = chance.randrange(0, 40), chance.randrange(1, 12)
        kind = chance.choice(
            [lambda: 1.0, lambda: 0.0, chance.random, lambda: chance.expovariate(1)]
        )
        weights = [kind() for _ in range(size)]
        parts = [part_of(weights, Shard(i, number)) for i in range(1, number + 1)]
        assert [i for part in parts for i in part] == list(range(size))
        loads = [sum(weights[i] for i in part) for part in parts]
        assert max(loads) <= sum(weights) / number + max(weights, default=0) + 1e-9
        if len(set(weights)) == 1:
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_durations_that_are_not_known() -> None:
    tests = [("a", True), ("b", True), ("c", True), ("p", False), ("q", False)]
    assert weights(tests, {}) == weights(tests, {"gone": 9.0}) == [1.0] * 5
    assert weights(tests, {"a": 2.0, "b": 4.0}) == [2.0, 4.0, 3.0, PLAIN, PLAIN]
    assert weights(tests, {"p": 0.5}) == [0.5] * 5


# What the notes of a session say


def note(index: int, number: int = 2, began: int = 0, **other: object) -> ShardNote:
    values = {"digest": "d", "collected": 9, "took": 3, "host": f"h{index}", **other}
    return ShardNote(index, number, began=began, **values)  # type: ignore[arg-type]


def problems(*notes: ShardNote) -> str:
    found = ShardNotes({str(i): one for i, one in enumerate(notes)})
    return "; ".join(state_of(found, ()).problems)


AGAIN = [
    ({}, {}, True),
    ({"attempt": "1"}, {"attempt": "1"}, True),
    ({"attempt": "1"}, {"attempt": "2"}, False),  # run again by hand, or requeued
    ({"attempt": ""}, {"attempt": "1"}, False),
    ({}, {"resumed": True}, False),
    ({"resumed": True}, {}, True),
    ({"leg": "e 1/2"}, {"leg": "e 1/2"}, False),  # a job that its CI has retried
    ({"leg": "e: [3.12]"}, {"leg": "e: [3.13]"}, True),
]


@pytest.mark.parametrize(("first", "second", "reported"), AGAIN)
def test_one_shard_twice(
    first: dict[str, object], second: dict[str, object], reported: bool
) -> None:
    text = problems(note(1, began=1, **first), note(1, began=2, **second), note(2))
    assert ("shard 1/2 has run twice" in text) is reported
    assert ("its own --armory-session" in text) is reported


@pytest.mark.parametrize(
    ("second", "ended", "reported"),
    [
        ({}, 6, True),  # two legs of a matrix, whose command has --armory-resume
        ({}, 5, False),
        ({}, None, False),  # killed, or still at work
        ({"attempt": "1"}, 9, False),  # requeued while the first was being shut down
    ],
)
def test_one_shard_twice_at_once(
    second: dict[str, object], ended: int | None, reported: bool
) -> None:
    jobs = {"a": note(1, began=1), "b": note(1, began=5, resumed=True, **second), "c": note(2)}
    ends = {} if ended is None else {"a": ended}
    text = "; ".join(state_of(ShardNotes(jobs, ends), ()).problems)
    assert ("shard 1/2 has run twice" in text) is reported
    assert ("begins when the first has ended" in text) is reported


def test_what_is_missing_and_what_differs() -> None:
    assert problems(note(1), note(2)) == ""
    assert problems(note(3, 4), note(1, 4)) == "shards 2, 4 of 4 never came"
    assert "9 tests (d) in 1; 8 tests (e) in 2" in problems(
        note(1), note(2, digest="e", collected=8)
    )
    fixed = note(1, began=5, digest="e", attempt="2")  # the newest note of a shard counts
    assert problems(note(1), fixed, note(2, digest="e")) == ""
    # Of two splits each is judged by itself; one that another has replaced is not missed.
    assert problems(note(1), note(2), note(1, 3, digest="e")) == "shards 2, 3 of 3 never came"
    assert problems(note(1, 3), note(1, attempt="2"), note(2)) == ""


def test_shards_that_have_not_ended() -> None:
    notes = {"a": note(1), "b": note(2, evaluations=3, hashes="0000000111111112")}
    state = state_of(ShardNotes(notes, {"a": 1}), {"11111112"})
    (unfinished,) = state.unfinished
    assert (unfinished.note.index, unfinished.never_run) == (2, 2)


DIVIDED = [
    (((1, 5), (6, 4)), ""),
    (((1, 1), (6, 4)), "4 tests of 9 are in no shard: the 2 shards have divided them differently"),
    (((1, 4), (6, 4)), "1 test of 9 is in no shard"),
    (((1, 5), (3, 7)), ""),  # some of them twice
    (((1, 9), (1, 0)), ""),
    (((1, 1), (0, 4)), ""),  # a note of an earlier version
]


@pytest.mark.parametrize(("parts", "expected"), DIVIDED)
def test_parts_that_leave_tests_out(parts: Sequence[tuple[int, int]], expected: str) -> None:
    """As with other durations in each job."""
    text = problems(*(note(i, first=f, took=t) for i, (f, t) in enumerate(parts, 1)))
    assert bool(text) is bool(expected)
    assert text.startswith(expected)
    elsewhere = note(2, began=-1, first=2, took=8, resumed=True)  # an earlier job of a shard
    again = [note(i, first=f, took=t, resumed=True) for i, (f, t) in enumerate(parts, 1)]
    assert problems(elsewhere, *again) == ""


def test_what_an_earlier_job_of_a_shard_took_by_other_durations() -> None:
    old = note(2, first=4, took=6, evaluations=2, hashes="0000000111111112")
    new = note(2, began=1, first=6, took=4, evaluations=1, hashes="11111112", resumed=True)
    notes = {"a": note(1, first=1, took=5), "b": old, "c": new}
    ends = dict.fromkeys(notes, 1)
    (unfinished,) = state_of(ShardNotes(notes, ends), {"11111112"}).unfinished
    assert unfinished.never_run == 1
    assert state_of(ShardNotes(notes, ends), {"00000001", "11111112"}).unfinished == []
    # The same part, of which one is no evaluation any more.
    again = notes | {"b": note(2, first=6, took=4, evaluations=2, hashes=old.hashes)}
    assert state_of(ShardNotes(again, ends), {"11111112"}).unfinished == []


@pytest.mark.parametrize(
    ("began", "digest", "ended", "done", "expected"),
    [
        (2, "d", ("b", "c"), True, []),
        (2, "d", ("b",), True, [1, 2]),  # the other split has not ended either
        (0, "d", ("b", "c"), True, [1]),  # it began before
        (2, "e", ("b", "c"), True, [1]),  # of other tests
        (2, "d", ("b", "c"), False, [1]),
    ],
)
def test_a_killed_job_of_a_split_that_another_has_replaced(
    began: int, digest: str, ended: Sequence[str], done: bool, expected: Sequence[int]
) -> None:
    """As where an array that was killed is resumed as a larger one: nothing is left of the job."""
    killed = note(1, 1, began=1, evaluations=1, hashes="00000001")
    parts = [note(i, 2, began=began, digest=digest) for i in (1, 2)]
    notes = {"a": killed, "b": parts[0], "c": parts[1]}
    found = ShardNotes(notes, dict.fromkeys(ended, 9))
    state = state_of(found, {"00000001"} if done else ())
    assert [one.note.index for one in state.unfinished] == expected
    assert state.is_open is (expected != [])


def test_a_note_fits_into_a_tag() -> None:
    long = note(1, evaluations=5000, hashes="01234567" * 5000)
    assert len(long.to_text(8000)) <= 8000
    assert digest(["a", "b"]) != digest(["b", "a"]) != digest(["a\nb"])


def test_more_evaluations_than_a_tag_can_hold() -> None:
    """Those that have run, and those that a mark skipped, are known one by one all the same."""
    hashes = [f"{i:08x}" for i in range(5000)]
    tags = shard_note_tag(note(1, 1, evaluations=5000, hashes="".join(hashes)), "job")
    tags |= job_end_tag(JobEnd(skipped="".join(hashes[2000:4000])), "job")
    assert max(map(len, tags.values())) <= 8000
    assert job_tags({**tags, "other": "x"}) == tags
    found, ends = decode_shard_notes(tags), decode_job_ends(tags)
    assert (found.problems, ends.problems) == ((), ())
    assert len(found.notes) == len(found.ended) == len(ends.ends) == 1
    assert decode_job_ends(tags, "job").ends == ()
    done = {*hashes[:2000], *hashes[4000:], *ends.ends[0].skipped_hashes}
    assert state_of(found, done).unfinished == []
    (unfinished,) = state_of(found, done - {hashes[2500], hashes[4999]}).unfinished
    assert unfinished.never_run == 2
