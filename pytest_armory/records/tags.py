"""Encoding of records as tags, metrics and journals, and decoding of these.

The content of a store is not trusted, and a journal may be truncated if its process was killed. So
no decoder here raises: what cannot be read is left out, and ``problems`` has a sentence for it,
which does not quote it. An object is read completely or not at all; members that a newer version
has added are ignored. What a job writes to the session run itself is in :mod:`job_tags`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count, takewhile
from json import dumps

from pytest_armory.records import fields
from pytest_armory.records.evaluation import EvaluationRecord, Outcome, Verdict
from pytest_armory.records.fields import (
    UnreadableError,
    read_json,
    read_optional,
    read_tag,
    read_value,
)
from pytest_armory.records.job_end import JobEnd, read_job_end
from pytest_armory.records.judging_tag import JUDGING, Judging, read_judging
from pytest_armory.records.sample_tag import DATA, SAMPLES, read_sample_tag
from pytest_armory.records.wire import read_record, read_verdict
from pytest_armory.values import TAG_LIMIT, clip, metric_values

GATES = "armory.gates"
CHIEF = "armory.chief"
BASELINE = "armory.baseline"
CHANGED = "armory.data_changed"
ATTEMPT = "armory.attempt"
REPEATS = "armory.repeats"  # how often the body has run, if several times
OUTCOME = "armory.outcome"
KEY = "armory.key"  # which a run that may wait shares with its copies
REMOTE_RUN = "armory.remote_run_id"  # of its first half, which had reached the server
DURATION = "duration_seconds"

_OUTCOMES = tuple(outcome.value for outcome in Outcome)

COUNTS = ("evaluations", *_OUTCOMES, "gates_missed", "gates_unread", "running")
"""The metrics of a session run that count the evaluations of its experiment."""

SESSION_COUNTS = (*COUNTS, "not_run")
"""Those that count the evaluations of the session, under :func:`session_count`.

What never ran has no run, and so no experiment.
"""

PART = "armory.part"

_VERDICT_TEXTS = (1000, 300, 0)
"""Limits on a verdict's text in a tag, tried in this order until the tag fits."""


# Which run it is


class Kind(str, enum.Enum):
    """The kind of a run; the tag ``armory.kind``."""

    EVALUATION = "evaluation"
    SESSION = "session"


@dataclass(frozen=True)
class Origin:
    """The session, job and process that opened a run; empty if its tags do not have them."""

    session: str = ""
    shard: str = ""
    process: str = ""

    @property
    def reporter(self) -> str:
        """The process that reports the job, and closes its runs: a job is named after it."""
        return self.shard.rpartition(":")[0]


def kind_of(tags: Mapping[str, str]) -> Kind | None:
    """The kind of a run; None for one that a test's own code opened."""
    kind = tags.get("armory.kind")
    return Kind(kind) if kind in set(Kind) else None


def origin_of(tags: Mapping[str, str]) -> Origin:
    """The origin of a run."""
    return Origin(*(tags.get(f"armory.{name}", "") for name in ("session", "shard", "process")))


# An attempt at an evaluation


@dataclass(frozen=True)
class AttemptTags:
    """An attempt as its run stores it."""

    attempt: int = 1
    worker: str = ""
    parent_id: str | None = None
    outcome: Outcome | None = None
    duration: float = 0.0
    chief: tuple[str, ...] = ()
    baseline: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    """The digests of the data of evaluations that keep no samples, by what they are called."""
    changed: tuple[str, ...] = ()
    repeats: int = 1
    problems: tuple[str, ...] = ()


def gate_tags(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """The tags of the gates' verdicts: ``armory.gates``, continued in ``armory.gates.1`` etc."""
    parts: list[list[str]] = [[]]
    for text in filter(None, map(_verdict_text, verdicts)):
        if sum(map(len, parts[-1])) + 2 * len(parts[-1]) + len(text) + 2 > TAG_LIMIT:
            parts.append([])
        parts[-1].append(text)
    names = (GATES, *(f"{GATES}.{i}" for i in range(1, len(parts))))
    return {n: f"[{', '.join(part)}]" for n, part in zip(names, parts, strict=True) if part}


def _verdict_text(verdict: Verdict) -> str:
    """A verdict as JSON that fits into a tag; empty if none does."""
    cut = [
        replace(verdict, text=clip(verdict.text, limit), evidence=clip(verdict.evidence, limit))
        for limit in _VERDICT_TEXTS
    ]
    cut = [*cut[:1], *(replace(one, flips=()) for one in cut)]
    texts = (dumps(asdict(verdict)) for verdict in cut)
    return next((text for text in texts if len(text) + 2 <= TAG_LIMIT), "")


def display_tags(
    chief: Sequence[str], baseline: Mapping[str, float], changed: Sequence[str] = ()
) -> dict[str, str]:
    """The tags of what tables show of an attempt, for other jobs and later commands."""
    given = {CHIEF: chief, BASELINE: baseline, CHANGED: changed}
    texts = {name: dumps(value) for name, value in given.items() if value}
    return {name: text for name, text in texts.items() if len(text) <= TAG_LIMIT}


def decode_attempt(tags: Mapping[str, str], metrics: Mapping[str, float]) -> AttemptTags:
    """Decode the tags and metrics of an attempt's run."""
    problems: list[str] = []
    baseline = read_tag(tags, BASELINE, fields.mapping_of(fields.number), problems)
    samples = read_optional(f"the tag {SAMPLES}", read_sample_tag, tags.get(SAMPLES), problems)
    seconds = read_optional(f"the metric {DURATION}", _seconds, metrics.get(DURATION), problems)
    return AttemptTags(
        attempt=read_optional(f"the tag {ATTEMPT}", _count, tags.get(ATTEMPT), problems) or 1,
        worker=tags.get("armory.worker", ""),
        parent_id=tags.get("mlflow.parentRunId"),
        outcome=decode_outcome(tags, problems),
        duration=seconds or 0.0,
        chief=read_tag(tags, CHIEF, fields.list_of(fields.string), problems) or (),
        baseline=metric_values(baseline or {}).numbers,
        verdicts=tuple(_verdicts(tags, problems)),
        digests=samples.digests if samples is not None else {},
        data=read_tag(tags, DATA, fields.mapping_of(fields.string), problems) or {},
        changed=read_tag(tags, CHANGED, fields.list_of(fields.string), problems) or (),
        repeats=read_optional(f"the tag {REPEATS}", _count, tags.get(REPEATS), problems) or 1,
        problems=tuple(dict.fromkeys(problems)),
    )


def decode_outcome(tags: Mapping[str, str], problems: list[str] | None = None) -> Outcome | None:
    """The outcome of a run, if it has one; an invalid one is added to ``problems``."""
    problems = [] if problems is None else problems
    name = read_optional(
        f"the tag {OUTCOME}",
        fields.one_of(_OUTCOMES),
        tags.get(OUTCOME),
        problems,
    )
    return Outcome(name) if name else None


def attempt_number(tags: Mapping[str, str]) -> int:
    """The number of an attempt in its tags; 1 without a valid one."""
    return read_optional(ATTEMPT, _count, tags.get(ATTEMPT), []) or 1


def repeats_of(tags: Mapping[str, str]) -> int:
    """How often the body of a run has run; 1 without a valid number.

    >>> repeats_of({"armory.repeats": "5"}), repeats_of({}), repeats_of({"armory.repeats": "x"})
    (5, 1, 1)
    """
    return read_optional(REPEATS, _count, tags.get(REPEATS), []) or 1


def _count(value: object) -> int:
    text = fields.string(value)
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise UnreadableError("is not a count")


def _seconds(value: object) -> float:
    seconds = fields.number(value)
    if math.isfinite(seconds) and seconds >= 0:
        return seconds
    raise UnreadableError("is not a duration")


def _verdicts(tags: Mapping[str, str], problems: list[str]) -> Iterator[Verdict]:
    names = (f"{GATES}.{i}" if i else GATES for i in count())
    for name in takewhile(tags.get, names):
        for item in read_tag(tags, name, fields.list_of(fields.anything), problems) or ():
            verdict = read_value(f"a verdict in the tag {name}", read_verdict, item, problems)
            if verdict is not None:
                yield verdict


# A session


@dataclass(frozen=True)
class Counts:
    """The numbers of a session's evaluations, in all and by outcome."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Journal:
    """The journal of a process: its current attempt, or the end of its job."""

    record: EvaluationRecord | None = None
    end: JobEnd | None = None
    problems: tuple[str, ...] = ()


def session_count(name: str) -> str:
    """The metric of a session run that is a count over all of its session."""
    return f"session/{name}"


def has_session_counts(metrics: Mapping[str, float]) -> bool:
    """Whether a session run's counts are of its own experiment, with its session's beside them."""
    return any(session_count(name) in metrics for name in SESSION_COUNTS)


def decode_counts(metrics: Mapping[str, float]) -> Counts:
    """Decode the counts of a session run's own experiment; other metrics are ignored."""
    return _counts(metrics, {name: name for name in COUNTS})


def decode_session_counts(metrics: Mapping[str, float]) -> Counts:
    """Decode a session run's counts over all of its session.

    Before 0.2.0 a session run had no others, and no prefix to their names.
    """
    has_prefix = has_session_counts(metrics)
    names = {name: session_count(name) if has_prefix else name for name in SESSION_COUNTS}
    return _counts(metrics, names)


def _counts(metrics: Mapping[str, float], names: Mapping[str, str]) -> Counts:
    problems: list[str] = []
    given = {name: metrics[key] for name, key in names.items() if key in metrics}
    read = {
        name: read_value(f"the metric {names[name]}", fields.tests, value, problems)
        for name, value in given.items()
    }
    return Counts({n: v for n, v in read.items() if v is not None}, tuple(problems))


def decode_judging(tags: Mapping[str, str], problems: list[str]) -> Judging | None:
    """Decode what a session's verdicts depend on; an unreadable tag is added to ``problems``."""
    return read_optional(f"the tag {JUDGING}", read_judging, tags.get(JUDGING), problems)


def decode_journal(text: str) -> Journal:
    """Decode a lease's journal; empty if its process has not written one."""
    problems: list[str] = []
    members = read_json("the journal", fields.mapping_of(fields.anything), text, problems)
    if members is None:
        return Journal(problems=tuple(problems))
    if "nodeid" in members:
        record = read_value("the journal", read_record, members, problems)
        return Journal(record=record, problems=tuple(problems))
    end = read_value("the journal", read_job_end, members, problems)
    return Journal(end=end, problems=tuple(problems))
