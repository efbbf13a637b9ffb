"""One attempt at an evaluation, its outcome and its gates."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Outcome(str, enum.Enum):
    """The outcome of one attempt; the tag ``armory.outcome``."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    XPASSED = "xpassed"
    CRASHED = "crashed"
    INTERRUPTED = "interrupted"

    @property
    def status(self) -> str:
        """MLflow's run status for this outcome: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        if self in (Outcome.FAILED, Outcome.ERROR, Outcome.CRASHED):
            return "FAILED"
        return "KILLED" if self is Outcome.INTERRUPTED else "FINISHED"

    @property
    def is_good(self) -> bool:
        """Whether the attempt does not fail the session."""
        return self.status == "FINISHED"


STATES = ("passed", "failed", "unjudged")
"""The states of a verdict."""

VERDICTS = ("", "worse", "not worse", "unclear")
"""What evidence says of a change; empty where there is none."""

USAGE = (
    *("tokens/input", "tokens/output", "tokens/total"),
    *("cost", "latency/p50", "latency/p95"),
)
"""The metrics of ``track_usage()`` that may be unknown."""


@dataclass(frozen=True)
class Verdict:
    """The verdict of one gate on one metric.

    ``rule`` is the gate as its user wrote it (``at_least 0.9``, ``baseline -2%``); ``state`` is one
    of :data:`STATES`; ``value`` was logged (None: never) and compared with ``limit`` (None: with
    nothing); ``baseline`` is the baseline run's value, if there is one; ``text`` continues a
    sentence that begins with the metric's name. Numbers are builtin floats, NaN and infinities
    among them.

    ``verdict`` is one of :data:`VERDICTS`; ``p`` is one-sided, ``low`` and ``high`` are the bounds
    of the change, ``worse`` and ``better`` count samples, ``needed`` is how many of them the
    tolerance needs, ``method`` names the tests; ``evidence`` is the sentence that follows;
    ``unclear`` is what an unclear verdict does, where that is not to pass. ``flips`` are lines on
    the samples that changed, of a missed or unclear gate, the worst first. ``unread`` says that it
    was not judged because something could not be read, and might be missed: its session is no
    baseline.
    """

    metric: str
    rule: str
    state: str
    value: float | None
    limit: float | None
    baseline: float | None = None
    text: str = ""
    higher_is_worse: bool | None = None
    verdict: str = ""
    p: float | None = None
    low: float | None = None
    high: float | None = None
    worse: int | None = None
    better: int | None = None
    needed: int | None = None
    method: str = ""
    evidence: str = ""
    unclear: str = ""
    flips: tuple[str, ...] = ()
    unread: bool = False


class AttemptPlace(NamedTuple):
    """Which attempt it is: its number, and where it was made."""

    nodeid: str
    attempt: int
    job: str
    worker: str


@dataclass(frozen=True, slots=True)  # a session keeps those of thousands of tests
class EvaluationRecord:
    """One attempt at one evaluation.

    ``outcome`` is None while the attempt is under way, ``run_id`` None where no run could be
    opened; ``waiting`` says that it is recorded locally until it is synced, ``unreachable`` that it
    is so because its server did not respond; ``duration`` is in seconds, over setup, call and
    teardown; ``params`` are those that wait to be written with what is measured; ``problems`` are
    the sentences that say what of it was not stored, or could not be read from the store. ``chief``
    names the metrics that tables show, none for the usual choice; ``baseline`` holds those of the
    run it is compared with. ``digests`` say which data its scores are of, and ``changed`` names the
    scores whose data are not the baseline's. ``experiment`` is the experiment's name, where it is
    known: the local database has other ids than a server. ``confirmed`` says that the store has
    acknowledged all of it, and that no other code can have written to its run. ``copy_key`` is the
    tag ``armory.key``, which its run and copies share. ``job`` is that of its session which ran it,
    empty for the one that reports.
    """

    nodeid: str
    attempt: int = 1
    worker: str = ""
    run_id: str | None = None
    experiment_id: str | None = None
    parent_id: str | None = None
    url: str | None = None
    waiting: bool = False
    unreachable: bool = False
    outcome: Outcome | None = None
    duration: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    chief: tuple[str, ...] = ()
    baseline: dict[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    experiment: str = ""
    confirmed: bool = False
    copy_key: str = ""
    job: str = ""

    @property
    def place(self) -> AttemptPlace:
        """Which attempt it is, and where it was made."""
        return AttemptPlace(self.nodeid, self.attempt, self.job, self.worker)

    @property
    def key(self) -> tuple[str, int, str]:
        """The identity of the attempt within its session."""
        return (self.nodeid, self.attempt, self.worker)


def last_attempts(items: Sequence[T], place_of: Callable[[T], AttemptPlace]) -> list[T]:
    """The last attempt at every evaluation, of attempts in their order.

    Where several workers of one job ran the same attempt, as ``--dist=each`` has it, each counts.
    Two jobs may each have counted from 1.
    """
    places = [place_of(item) for item in items]
    times = Counter(place._replace(worker="") for place in places)
    parallel = {place.nodeid for place, count in times.items() if count > 1}
    last: dict[tuple[str, str], T] = {}
    for item, place in zip(items, places, strict=True):
        last[(place.nodeid, place.worker if place.nodeid in parallel else "")] = item
    return list(last.values())


def is_one_of_each_test(records: Sequence[EvaluationRecord]) -> bool:
    """Whether no test has more than one of these attempts, as in most sessions."""
    return len({record.nodeid for record in records}) == len(records)


def count_outcomes(records: Iterable[EvaluationRecord]) -> dict[str, int]:
    """How many attempts had each outcome, in the order of :class:`Outcome`, zeros left out."""
    seen = [record.outcome for record in records]
    return {outcome.value: seen.count(outcome) for outcome in Outcome if outcome in seen}


def local_name(experiment: str, experiment_id: str | None) -> str:
    """An experiment's name in the local database; without a name one of the id that was given."""
    return experiment or f"experiment {experiment_id}"
