"""Earlier runs of an evaluation, as far as verdicts need them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytest_armory.records import Outcome
from pytest_armory.records.judging_tag import VERSION
from pytest_armory.records.sample_tag import SAMPLES
from pytest_armory.records.tags import GATES, decode_attempt, origin_of
from pytest_armory.values.totals import total

if TYPE_CHECKING:
    from pytest_armory.store import StoredRun


LARGEST = 1e150
"""The largest value, of a sample or a session, of which a variance can be computed."""


@dataclass(frozen=True)
class PastRun:
    """A run of an evaluation in an earlier session.

    ``worse`` are the metrics that its own gates called worse, or could not judge, though they might
    be: neither is what a metric scatters by. ``digests`` say which data its scores
    are of; ``repeats`` is of how many repeats its metrics are the means; ``start`` is in
    milliseconds since the epoch. ``unreadable`` says what of its tags cannot be read.
    """

    run_id: str
    session: str
    start: int
    metrics: Mapping[str, float]
    artifact_uri: str = ""
    version: str = ""
    has_samples: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    worse: Sequence[str] = ()
    repeats: int = 1
    unreadable: Sequence[str] = field(default_factory=list)


def past_run(run: StoredRun) -> PastRun:
    """A run in the store, without the numbers that no gate is on."""
    read = decode_attempt(run.tags, {})
    return PastRun(
        run_id=run.run_id,
        session=origin_of(run.tags).session,
        start=run.start,
        metrics={k: v for k, v in run.metrics.items() if not k.startswith("system/")},
        artifact_uri=run.artifact_uri,
        version=run.tags.get(VERSION, ""),
        has_samples=SAMPLES in run.tags,
        digests={**read.data, **read.digests},
        worse=[v.metric for v in read.verdicts if v.verdict == "worse" or v.unread],
        repeats=read.repeats,
        unreadable=list(read.problems),
    )


def has_passed_body(run: StoredRun) -> bool:
    """Whether a test's own body has passed: then its gates, if it had any, were judged."""
    outcome = run.tags.get("armory.outcome")
    if outcome in (Outcome.PASSED.value, Outcome.XPASSED.value):
        return True
    others = (Outcome.FAILED.value, Outcome.ERROR.value, Outcome.XFAILED.value)
    return outcome in others and GATES in run.tags


def has_noise_gate(run: StoredRun) -> bool:
    """Whether a run has a gate on what earlier sessions scatter; its verdicts may be several tags.

    A text that merely has the word in it counts too.
    """
    return any("noise" in text for name, text in run.tags.items() if name.startswith(GATES))


def has_unread_gate(run: StoredRun) -> bool:
    """Whether a gate might have been missed, but something could not be read that judges it."""
    if not any(
        '"unread": true' in text for name, text in run.tags.items() if name.startswith(GATES)
    ):
        return False
    return any(verdict.unread for verdict in decode_attempt(run.tags, {}).verdicts)


def is_history(run: PastRun, newest: PastRun) -> bool:
    """Whether a run is history for all metrics of the newest run: alike, and none worse.

    >>> newest = PastRun("b", "s2", 2, {})
    >>> is_history(PastRun("a", "s1", 1, {}), newest)
    True
    >>> is_history(PastRun("a", "s1", 1, {}, worse=["accuracy"]), newest)
    False
    """
    is_same = (run.version, run.repeats) == (newest.version, newest.repeats)
    return is_same and _are_alike(run.digests, newest.digests) and not run.worse


def of_one_data(
    runs: Sequence[PastRun], digests: Mapping[str, str], metric: str = ""
) -> list[PastRun]:
    """The runs that are of these data of a metric; without any, those of the newest run's.

    The first one is the newest.
    """
    same = [run for run in runs if _are_alike(run.digests, digests, metric)]
    return same or [run for run in runs if _are_alike(run.digests, runs[0].digests, metric)]


def _are_alike(first: Mapping[str, str], second: Mapping[str, str], metric: str = "") -> bool:
    """Whether a metric is of the same data: by its samples, else by all scores that both have."""
    if metric in first and metric in second:
        return first[metric] == second[metric]
    return all(second.get(score, digest) == digest for score, digest in first.items())


@dataclass(frozen=True)
class PastEvaluation:
    """One version of an evaluation in earlier sessions.

    ``runs`` are those to compare with, the newest first, whatever their data are; ``history`` are
    those of the sessions before. A metric is compared in runs of one data of it: the evaluation's
    ``own`` digests, or without any of these the newest run's.
    """

    runs: Sequence[PastRun] = ()
    history: Sequence[PastRun] = ()

    def metrics(self, own: Mapping[str, str] = MappingProxyType({})) -> dict[str, float] | None:
        """The mean of each metric over the runs that have it, in the newest run's order.

        None without any run.
        """
        if not self.runs:
            return None
        means = {}
        for name in dict.fromkeys(name for run in self.runs for name in run.metrics):
            runs = of_one_data(self.runs, own, name)
            if values := [run.metrics[name] for run in runs if name in run.metrics]:
                means[name] = values[0] if len(values) == 1 else total(values) / len(values)
        return means

    def digests(self, own: Mapping[str, str]) -> dict[str, str]:
        """The digest of each score's data in the newest run to compare it with."""
        scores = dict.fromkeys(score for run in self.runs for score in run.digests)
        newest = {score: of_one_data(self.runs, own, score)[0].digests for score in scores}
        return {score: known[score] for score, known in newest.items() if score in known}

    def history_of(self, metric: str, own: Mapping[str, str], repeats: int = 1) -> list[float]:
        """A metric's value in each earlier session, the newest first.

        That of the session's first attempt whose gate on the metric was not worse. Runs of other
        data of the metric, or of another number of ``repeats``, of which the means scatter more or
        less, are left out.
        """
        values: dict[str, tuple[int, float]] = {}
        for run in self.history:
            value = run.metrics.get(metric, math.nan)
            if metric in run.worse or not abs(value) <= LARGEST:
                continue
            if run.repeats != repeats or not _are_alike(run.digests, own, metric):
                continue
            if run.session not in values or run.start < values[run.session][0]:
                values[run.session] = (run.start, value)
        return [value for _, value in sorted(values.values(), reverse=True)]


def from_wire(members: Mapping[str, Any]) -> dict[str, dict[str, list[PastRun]]]:
    """Runs by experiment and node id, from what ``asdict`` and JSON made of them."""
    return {
        experiment: {nodeid: [PastRun(**run) for run in runs] for nodeid, runs in found.items()}
        for experiment, found in members.items()
    }
