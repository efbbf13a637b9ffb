"""Tags, metrics and journals: what was encoded comes back, and anything else never raises."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_records import records, verdicts

from pytest_armory.records import EvaluationRecord, JobEnd, Outcome, Verdict, from_wire, to_wire
from pytest_armory.records.fields import MOST_TESTS
from pytest_armory.records.job_tags import (
    decode_job_ends,
    decode_shard_notes,
    job_end_tag,
    shard_note_tag,
)
from pytest_armory.records.judging_tag import Judging
from pytest_armory.records.sample_tag import SampleTag, data_tag
from pytest_armory.records.shard_note import ShardNote
from pytest_armory.records.tags import (
    COUNTS,
    SESSION_COUNTS,
    AttemptTags,
    Kind,
    decode_attempt,
    decode_counts,
    decode_journal,
    decode_judging,
    decode_outcome,
    decode_session_counts,
    display_tags,
    gate_tags,
    kind_of,
    origin_of,
)
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.summary import Summary, outcome_counts
from pytest_armory.report.terminal import terminal_lines
from pytest_armory.session.jobs import with_other_jobs
from pytest_armory.session.shard_notes import state_of
from pytest_armory.values import TAG_LIMIT, clip, short_hash

text = st.text(st.characters(), max_size=30)
legal_names = st.text("abc/_ ", min_size=1, max_size=8).map(lambda name: f"m{name}m")
legal_names = legal_names.filter(lambda name: "//" not in name)
hashes = st.text("0123456789abcdef", min_size=8, max_size=8)
job_ends = st.builds(
    JobEnd,
    interrupted=st.booleans(),
    not_run=st.lists(hashes, max_size=5).map(tuple),
    not_run_more=st.integers(0, 10**6),
    problems=st.lists(text, max_size=3).map(tuple),
    waiting=st.builds(lambda test, run, n: (test + run) * n, hashes, hashes, st.integers(0, 1000)),
    host=text,
    ended=st.integers(0, 2**53),
)

scalars = (
    st.none()
    | st.booleans()
    | st.floats()
    | text
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**53 + 1, "passed", "\ud800", "\x00"])
)
field_names = st.sampled_from(
    [
        *asdict(Verdict("", "", "", None, None)), *asdict(JobEnd()), *asdict(EvaluationRecord("")),
        *asdict(ShardNote(1, 1, "", 1, 1)), *asdict(Judging()), "rows", "partial", "data",
    ]
)  # fmt: skip
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(field_names | text, inner, max_size=8)
    ),
    max_leaves=25,
)


def nearly(value: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object of ours with some members replaced by anything, and some missing."""
    changes = st.dictionaries(st.sampled_from(sorted(value)), json_values, max_size=2)
    missing = st.lists(st.sampled_from(sorted(value)), max_size=2)
    return st.builds(
        lambda changed, gone: {k: v for k, v in {**value, **changed}.items() if k not in gone},
        changes,
        missing,
    )


VERDICT = asdict(Verdict("m", "at_least 1", "passed", 1.0, 1.0))
RECORD = json.loads(to_wire(EvaluationRecord("n", run_id="r", verdicts=(Verdict(**VERDICT),))))
NOTE = asdict(ShardNote(1, 2, "d", 3, 2, evaluations=1, hashes="01234567"))
JUDGING = asdict(Judging("latest", ("s",), gates=2))
SAMPLES = {"rows": 3, "partial": False, "data": {"d": ["m"]}}
objects = (
    nearly(VERDICT) | nearly(RECORD) | nearly(asdict(JobEnd(problems=("p",)))) | nearly(NOTE)
    | nearly(JUDGING) | nearly(SAMPLES)
)  # fmt: skip
any_json = json_values | objects | st.lists(objects, max_size=3)
any_text = (
    st.text(st.characters(), max_size=200)
    | any_json.map(json.dumps)
    | st.builds(lambda value, end: json.dumps(value)[:end], any_json, st.integers(0, 80))
    | st.sampled_from(["[" * 100_000, '{"a":' * 50_000, "9" * 5000, "1e999", "NaN", "²", "٣", "0"])
)
tag_names = st.sampled_from(
    [
        "armory.gates", "armory.gates.1", "armory.gates.2", "armory.chief", "armory.baseline",
        "armory.ended.1", "armory.ended.", "armory.attempt", "armory.outcome", "armory.kind",
        "armory.shard", "armory.process", "armory.session", "armory.worker", "mlflow.parentRunId",
        "armory.samples", "armory.data_changed", "armory.judging", "armory.took.1", "armory.data",
        "armory.took.1.1", "armory.ended.1.1", "armory.ended.1.waiting.1",
    ]
)  # fmt: skip
any_tags = st.dictionaries(tag_names, any_text, max_size=6)
used = ("traces/without_tokens", "tokens/total", "cost")
any_metrics = st.dictionaries(
    st.sampled_from([*COUNTS, *used, "duration_seconds", "a"]), st.floats()
)


def check_sentences(problems: object) -> None:
    assert type(problems) is tuple
    assert all(type(problem) is str and problem.isprintable() for problem in problems)
    assert len(problems) == len(set(problems))


def check_numbers(numbers: object) -> None:
    assert type(numbers) is dict
    assert all(type(name) is str and type(value) is float for name, value in numbers.items())


def check_texts(texts: object) -> None:
    assert type(texts) is tuple
    assert all(type(one) is str for one in texts)


def check_verdicts(given: object) -> None:
    assert type(given) is tuple
    for verdict in given:
        assert type(verdict) is Verdict
        assert {type(verdict.metric), type(verdict.rule), type(verdict.text)} == {str}
        assert verdict.state in ("passed", "failed", "unjudged")
        for value in (verdict.value, verdict.limit, verdict.baseline):
            assert value is None or type(value) is float
        assert verdict.higher_is_worse in (None, True, False)


def check_record(record: EvaluationRecord) -> None:
    assert type(record) is EvaluationRecord
    assert {type(record.nodeid), type(record.worker)} == {str}
    assert type(record.attempt) is int
    assert record.attempt >= 0
    assert type(record.waiting) is bool
    assert record.outcome is None or type(record.outcome) is Outcome
    assert type(record.duration) is float
    for name in (record.run_id, record.experiment_id, record.parent_id, record.url):
        assert name is None or type(name) is str
    for numbers in (record.metrics, record.baseline):
        check_numbers(numbers)
    assert all(type(k) is str and type(v) is str for k, v in record.params.items())
    check_texts(record.problems)
    check_texts(record.chief)
    check_verdicts(record.verdicts)


def check_job_end(end: JobEnd) -> None:
    assert type(end) is JobEnd
    assert type(end.interrupted) is bool
    assert type(end.not_run_more) is int
    assert 0 <= end.not_run_more <= MOST_TESTS
    check_texts(end.not_run)
    check_texts(end.problems)
    assert all(isinstance(one, str) for pair in end.waiting_hashes for one in pair)
    assert isinstance(end.host, str)
    assert 0 <= end.ended <= 2**53


# Anything


@settings(max_examples=400, deadline=None)
@given(any_tags, any_metrics)
def test_any_tags_of_an_attempt(tags: dict[str, str], metrics: dict[str, float]) -> None:
    read = decode_attempt(tags, metrics)
    assert type(read.attempt) is int
    assert 1 <= read.attempt < 10**9
    assert read.outcome is None or type(read.outcome) is Outcome
    assert read.outcome == decode_outcome(tags)
    assert math.isfinite(read.duration)
    assert read.duration >= 0
    check_texts(read.chief)
    check_texts(read.changed)
    assert all(type(one) is str for pair in read.digests.items() for one in pair)
    check_numbers(read.baseline)
    check_verdicts(read.verdicts)
    check_sentences(read.problems)


@settings(max_examples=200, deadline=None)
@given(any_tags, any_metrics)
def test_reports_take_whatever_was_read(tags: dict[str, str], metrics: dict[str, float]) -> None:
    read = decode_attempt(tags, metrics)
    record = EvaluationRecord(
        "n",
        attempt=read.attempt,
        worker=read.worker,
        outcome=read.outcome,
        duration=read.duration,
        metrics=metrics,
        chief=read.chief,
        baseline=dict(read.baseline),
        verdicts=read.verdicts,
    )
    other = replace(record, nodeid="m", metrics={name: -value for name, value in metrics.items()})
    summary = Summary("s", "w", [record, other], others_not_run=1)
    assert to_markdown(summary)
    assert terminal_lines(summary, 100, 1)
    counts = outcome_counts(summary, "1")
    assert all(math.isfinite(counts[name]) for name in counts if not name.endswith(used))


@settings(max_examples=300, deadline=None)
@given(any_tags, st.sampled_from(["", "shard"]))
def test_any_tags_of_a_session(tags: dict[str, str], but: str) -> None:
    read, found = decode_job_ends(tags, but), decode_shard_notes(tags)
    for end in read.ends:
        check_job_end(end)
    for note in found.notes.values():
        assert 1 <= note.index <= note.number < 10**6
        check_texts(tuple(note.known_hashes))
    problems: list[str] = []
    judging = decode_judging(tags, problems)
    assert judging is None or (0 < judging.confidence < 1 and 1 <= judging.pooled <= 100)
    for some in (read.problems, found.problems, tuple(problems)):
        check_sentences(some)
    state = state_of(found, ())
    record = EvaluationRecord("n", verdicts=decode_attempt(tags, {}).verdicts)
    summary = Summary("s", "w", [record], judging=judging, problems=state.problems)
    assert to_markdown(with_other_jobs(summary, read.ends, JobEnd()))
    assert kind_of(tags) in (None, *Kind)
    assert all(type(value) is str for value in asdict(origin_of(tags)).values())


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*SESSION_COUNTS, "loss"]), st.floats() | st.integers()))
def test_any_metrics_of_a_session(metrics: dict[str, float]) -> None:
    read = decode_counts(metrics)
    assert all(type(value) is int and 0 <= value <= MOST_TESTS for value in read.numbers.values())
    assert {*read.numbers} <= {*COUNTS} & {*metrics}
    assert len(read.numbers) + len(read.problems) == len({*COUNTS} & {*metrics})
    check_sentences(read.problems)
    for prefix in ("", "session/"):  # an earlier version's, this one's
        whole = decode_session_counts({f"{prefix}{name}": v for name, v in metrics.items()})
        assert {k: v for k, v in whole.numbers.items() if k != "not_run"} == read.numbers


@settings(max_examples=400, deadline=None)
@given(any_text)
def test_any_journal(journal: str) -> None:
    read = decode_journal(journal)
    if read.record is not None:
        check_record(read.record)
    if read.end is not None:
        check_job_end(read.end)
    assert (read.record is None) or (read.end is None)
    assert bool(journal) == bool(read.record or read.end or read.problems)
    check_sentences(read.problems)


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_a_wire_is_a_record_or_refused(wire: str) -> None:
    try:
        record = from_wire(wire)
    except ValueError:
        return
    check_record(record)


# There and back


@given(st.lists(verdicts, max_size=8))
@example([Verdict("m" * 200, "r" * 50, "failed", 1.0, 2.0, text="é" * 1000)] * 5)
def test_verdicts_there_and_back(given: list[Verdict]) -> None:
    tags = gate_tags(given)
    assert all(len(value) <= TAG_LIMIT for value in tags.values())
    read = decode_attempt(tags, {})
    assert read.problems == ()
    assert repr(read.verdicts) == repr(tuple(given))


@given(st.lists(text, max_size=4), st.dictionaries(legal_names, st.floats(), max_size=4))
def test_what_tables_show_there_and_back(chief: list[str], baseline: dict[str, float]) -> None:
    read = decode_attempt(display_tags(chief, baseline), {})
    assert read.problems == ()
    assert read.chief == tuple(chief)
    assert repr(read.baseline) == repr(baseline)


@given(job_ends)
def test_a_job_end_there_and_back(end: JobEnd) -> None:
    tags = job_end_tag(end, "a")
    assert decode_job_ends(tags, "b").ends == (end,)
    assert decode_job_ends(tags, "a").ends == ()
    assert decode_journal(end.to_text()).end == end


def test_other_tags_there_and_back() -> None:
    note, judging = ShardNote(**NOTE), Judging("latest", ("s",), gates=2)
    (read,) = decode_shard_notes(shard_note_tag(note, "a")).notes.values()
    assert read == note
    for one in (judging, replace(judging, sessions=None), Judging()):
        assert decode_judging(one.to_tags(), []) == one
    samples = SampleTag(3, digests={"m": "d"})
    assert decode_attempt(samples.to_tags(), {}).digests == {"m": "d"}
    assert decode_attempt(data_tag({"digits's data": "d"}), {}).data == {"digits's data": "d"}


@given(records)
def test_a_record_there_and_back_by_the_journal(record: EvaluationRecord) -> None:
    read = decode_journal(to_wire(record))
    assert read.problems == ()
    assert repr(read.record) == repr(record)


@pytest.mark.parametrize("outcome", Outcome)
def test_an_attempt_there_and_back(outcome: Outcome) -> None:
    tags = {
        "armory.attempt": "12",
        "armory.outcome": outcome.value,
        "armory.worker": "gw1",
        "mlflow.parentRunId": "p",
    }
    expected = AttemptTags(12, "gw1", "p", outcome, 2.5)
    assert decode_attempt(tags, {"duration_seconds": 2.5}) == expected
    assert decode_attempt({}, {}) == AttemptTags()


def test_a_verdict_too_long_for_a_tag_keeps_what_fits() -> None:
    rocket = Verdict("m", "at_least 1", "failed", 0.0, 1.0, text="🚀" * 2000)
    whole = Verdict("m" * 9000, "at_least 1", "failed", 0.0, 1.0)
    tags = gate_tags([rocket, whole])
    assert all(len(value) <= TAG_LIMIT for value in tags.values())
    assert decode_attempt(tags, {}).verdicts == (replace(rocket, text=clip(rocket.text, 300)),)


def test_a_job_end_too_long_for_a_tag_keeps_what_fits() -> None:
    end = JobEnd(not_run=tuple(f"{i:08x}" for i in range(50_000)), problems=("p",) * 9)
    tags = job_end_tag(end, "a")
    (read,) = decode_job_ends(tags, "b").ends
    assert all(len(value) <= TAG_LIMIT for value in tags.values())
    assert len(next(iter(tags.values()))) + 24 > TAG_LIMIT
    assert len(read.not_run) + read.not_run_more == 50_000
    assert len(read.not_run) > 40_000
    assert read.not_run == end.not_run[: len(read.not_run)]
    assert read.problems == ()


def test_further_hashes_that_cannot_be_read_are_named() -> None:
    tags = job_end_tag(JobEnd(waiting="0123abcd" * 4000), "a")
    tags |= shard_note_tag(ShardNote(**{**NOTE, "hashes": "0123abcd" * 2000}), "a")
    assert decode_job_ends(tags).problems == decode_shard_notes(tags).problems == ()
    further = sorted(name for name in tags if name.endswith(".1"))
    tags |= dict.fromkeys(further, "0123abc")
    problems = [*decode_job_ends(tags).problems, *decode_shard_notes(tags).problems]
    assert problems == [f"the tag {name} cannot be read: it is not of hashes" for name in further]
    assert len(further) == 2


def test_what_never_ran_and_runs_later_does_not_count() -> None:
    """However many: each is known, and what this job never ran either counts once."""
    nodeids = [f"test_it.py::test_a[{i}]" for i in range(2000)]
    end = JobEnd(interrupted=True, not_run=tuple(map(short_hash, nodeids)))
    ends = decode_job_ends(job_end_tag(end, "a")).ends
    records = [EvaluationRecord(nodeid, outcome=Outcome.PASSED) for nodeid in nodeids]
    whole = with_other_jobs(Summary("s", "w", records), ends, JobEnd())
    assert (whole.others_not_run, whole.interrupted) == (0, False)
    summary = Summary("s", "w", records[:1990], not_run=4)
    never_run = [short_hash(nodeid) for nodeid in nodeids[1996:]]
    some = with_other_jobs(summary, ends, JobEnd(not_run=tuple(never_run)))
    assert (some.of_all_jobs().not_run, some.interrupted) == (10, True)


# What is said of what cannot be read


def gates(*items: object) -> dict[str, str]:
    return {"armory.gates": json.dumps(items)}


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({"armory.gates": "5"}, "the tag armory.gates cannot be read: it is not a list"),
        ({"armory.gates": "[{"}, "the tag armory.gates cannot be read: it is not JSON"),
        (
            {"armory.gates": "[" * 9**5},
            "the tag armory.gates cannot be read: it is nested too deep",
        ),
        ({"armory.gates": "9" * 5000}, "the tag armory.gates cannot be read: it is not JSON"),
        (
            gates({**VERDICT, "value": "1"}),
            "a verdict in the tag armory.gates cannot be read: it has a field value that is not a "
            "number",
        ),
        (gates({**VERDICT, "limit": True}), "a field limit that is not a number"),
        (gates({**VERDICT, "limit": 10**400}), "a field limit that is too large a number"),
        (gates({**VERDICT, "state": "odd"}), "that is none of passed, failed, unjudged"),
        (gates({**VERDICT, "state": []}), "that is none of passed, failed, unjudged"),
        (gates({**VERDICT, "higher_is_worse": 1}), "that is neither true nor false"),
        (gates({"metric": "m"}), "it has no field rule"),
        (gates(VERDICT, 1), "it is not an object"),
        ({"armory.chief": '"abc"'}, "the tag armory.chief cannot be read: it is not a list"),
        ({"armory.chief": "[1]"}, "it has an item that is not a string"),
        ({"armory.baseline": "[]"}, "the tag armory.baseline cannot be read: it is not an object"),
        ({"armory.baseline": '{"a": {}}'}, "it has a member that is not a number"),
        ({"armory.attempt": "²"}, "the tag armory.attempt cannot be read: it is not a count"),
        (
            {"armory.attempt": "9" * 5000},
            "the tag armory.attempt cannot be read: it is not a count",
        ),
        (
            {"armory.outcome": "odd"},
            "the tag armory.outcome cannot be read: it is none of passed, f",
        ),
    ],
)
def test_each_has_a_sentence(tags: dict[str, str], problem: str) -> None:
    read = decode_attempt(tags, {})
    (found,) = read.problems
    assert problem in found
    assert replace(read, problems=(), verdicts=()) == AttemptTags()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_duration_that_is_none(value: float) -> None:
    read = decode_attempt({}, {"duration_seconds": value})
    assert read.duration == 0
    assert read.problems == ("the metric duration_seconds cannot be read: it is not a duration",)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.5, 1e300])
def test_a_count_that_is_none(value: float) -> None:
    read = decode_counts({"passed": value, "failed": 2.0, "loss": value})
    assert read.numbers == {"failed": 2}
    assert read.problems == ("the metric passed cannot be read: it is not a count",)


def test_one_part_that_cannot_be_read_leaves_the_others() -> None:
    verdict = Verdict(**VERDICT)
    tags = {**gates(VERDICT, None), "armory.gates.1": "{", "armory.gates.2": json.dumps([VERDICT])}
    assert decode_attempt(tags, {}).verdicts == (verdict, verdict)
    read = decode_attempt({**tags, "armory.chief": '["a"]', "armory.baseline": "5"}, {})
    assert read.chief == ("a",)
    assert len(read.problems) == 3


def test_members_that_a_newer_version_has_added_are_ignored() -> None:
    assert decode_attempt(gates({**VERDICT, "p_value": [0.1]}), {}).verdicts == (
        Verdict(**VERDICT),
    )
    end = {**asdict(JobEnd(True)), "newer": {}}
    assert decode_journal(json.dumps(end)).end == JobEnd(True)
    assert decode_journal(json.dumps({**RECORD, "newer": 1})).record == from_wire(
        json.dumps(RECORD)
    )


@pytest.mark.parametrize(("index", "number"), [(0, 1), (3, 2), (1, 2**53)])
def test_a_note_of_no_shard(index: int, number: int) -> None:
    """Whoever looks for the shards that are missing counts them."""
    text = json.dumps({**NOTE, "index": index, "number": number})
    read = decode_shard_notes({"armory.took.x": text, "armory.took.y": json.dumps(NOTE)})
    assert list(read.notes.values()) == [ShardNote(**NOTE)]
    assert read.problems == ("the tag armory.took.x cannot be read: it is of no shard",)


READERS: list[Callable[[str], tuple[str, ...]]] = [
    lambda text: decode_journal(text).problems,
    lambda text: decode_job_ends({"armory.ended.x": text}).problems,
]


@pytest.mark.parametrize("read", READERS, ids=["journal", "tag"])
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (to_wire(EvaluationRecord("n"))[:-9], "is not JSON"),
        ("{}", "has no field not_run"),
        ('{"not_run": [1], "problems": []}', "has a field not_run that has an item that is not a"),
        ('{"not_run": [], "problems": [], "not_run_more": -1}', "not_run_more that is not a count"),
        ('{"not_run": [], "problems": [], "not_run_more": 10000001}', "more tests than a session"),
        ('{"not_run": [], "problems": [], "not_run_more": 1e15}', "more tests than a session can"),
        ('{"not_run": [], "problems": [], "interrupted": 0}', "that is neither true nor false"),
    ],
)
def test_no_job_end(read: Callable[[str], tuple[str, ...]], given: str, reason: str) -> None:
    (problem,) = read(given)
    assert " cannot be read: it " in problem
    assert reason in problem


def test_an_empty_journal_is_no_problem() -> None:
    assert decode_journal("").problems == ()
