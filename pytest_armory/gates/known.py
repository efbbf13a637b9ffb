"""What is known of the chance in an evaluation's metrics: samples, and earlier sessions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from pytest_armory.errors import TrackingError
from pytest_armory.gates.evidence import OTHER_DATA, Known
from pytest_armory.gates.flips import flips
from pytest_armory.gates.functions import SECONDS, MetricFunction, UnfitError, resampled
from pytest_armory.gates.parse import Tolerance
from pytest_armory.gates.past_runs import LARGEST, PastRun, of_one_data
from pytest_armory.statistics.comparison import NoPairsError, Sample, compare
from pytest_armory.store.destination import Destination
from pytest_armory.tables import SampleRows, SampleTable, Score, changes
from pytest_armory.values import redact_text

NO_SAMPLES = "the baseline has no samples of it, so the change alone decides"
OTHER_MEAN = "it is not the mean of its samples, so the change alone decides"
OTHER_MEAN_BEFORE = "it is not the mean of its samples in the baseline, so the change alone decides"
NO_PAIRS = "no sample has been scored by both, so other samples are compared"
UNREADABLE = "cannot be compared: the baseline's samples cannot be read"
TOO_LARGE = "its samples have values too large to be squared, so the change alone decides"

FLIPS = 10
"""How many of the samples that changed are shown of a missed gate."""


@dataclass
class Sources:
    """Where an evaluation's samples and those of its baseline are, and the values before.

    ``runs`` are the baseline's, whatever their data are, ``digests`` say which data the own scores
    are of. ``read`` reads the samples of an earlier run, and raises :class:`TrackingError`;
    ``history`` gives a metric's values in earlier sessions. ``problems`` are the errors that it
    raised. ``own`` is None for an evaluation without samples. ``functions`` are the metrics that
    are functions of all predictions, by the metric's name; ``written`` gives what differs once one
    of them has logged something.
    """

    own: SampleTable | None
    runs: Sequence[PastRun]
    read: Callable[[PastRun], SampleTable]
    history: Callable[[str], Sequence[float]] = lambda _: ()
    problems: list[str] = field(default_factory=list)
    functions: Mapping[str, MetricFunction] = field(default_factory=dict)
    alpha: float = 0.05
    written: Callable[[], object] = lambda: None
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own = self.own if self.own is not None else SampleTable()
        self._tables: dict[str, SampleTable] = {}
        self._scores: dict[tuple[int, str], Score | None] = {}
        self._seconds, self._waiting = SECONDS, 0

    def of(
        self, tolerances: Mapping[str, Tolerance], metrics: Mapping[str, float]
    ) -> dict[str, Known]:
        """What is known of each metric that has a tolerance."""
        self._waiting = sum(metric in self.functions for metric in tolerances if metric in metrics)
        return {
            metric: self._known(metric, tolerance, metrics[metric])
            for metric, tolerance in tolerances.items()
            if metric in metrics
        }

    @property
    def names(self) -> list[str]:
        """The evaluation's own scores."""
        return self._own.names

    def flips(self, metric: str, higher_is_worse: bool, most: int = FLIPS) -> list[str]:
        """The samples whose score changed, the worst first; none where they cannot be told."""
        pair = self._pair(metric)
        return flips(*pair, higher_is_worse, most) if pair is not None else []

    def changes(self, metric: str) -> dict[object, float]:
        """By how much the score of each sample that changed did, by id."""
        pair = self._pair(metric)
        if pair is None:
            return {}
        ids, gains = changes(*pair)
        return dict(zip(ids.tolist(), gains.tolist(), strict=True))

    def _pair(self, metric: str) -> tuple[Score, Score] | None:
        """A score and the baseline's, of the same samples, where the baseline's have been read."""
        score = self._score(self._own, metric)
        known = [run.run_id for run in self._runs(metric) if run.run_id in self._tables]
        if score is None or not known:
            return None
        base = self._score(self._tables[known[0]], metric)
        return None if base is None or base.digest != score.digest else (score, base)

    def _score(self, table: SampleTable, metric: str) -> Score | None:
        """A score of a table, made once, for its digest takes time."""
        key = (id(table), metric)
        if key not in self._scores:
            self._scores[key] = table.score(metric)
        return self._scores[key]

    def read_flips(self, metric: str, most: int) -> list[str]:
        """The same, whether or not the metric has a gate. Raises :class:`TrackingError`."""
        part = self._own.part_of(metric)
        self._read(metric)
        return self.flips(metric, part is not None and metric in part.higher_is_worse, most)

    def _known(self, metric: str, tolerance: Tolerance, value: float) -> Known:
        score = self._score(self._own, metric)
        if tolerance.noise:
            return Known(history=self.history(metric))
        if score is None and metric in self.functions and self._own and self.runs:
            began = perf_counter()
            try:
                return self._of_function(metric, tolerance, value)
            finally:
                self._waiting -= 1
                self._seconds = max(0.0, self._seconds - (perf_counter() - began))
        if score is None or not self.runs or not len(score.valid):
            return Known()
        if not score.has_mean(value):
            return Known(remark=OTHER_MEAN)
        runs = self._runs(metric)
        if not any(run.has_samples for run in runs):
            return Known(remark=NO_SAMPLES)
        try:
            bases = [(key, self._score(table, metric)) for key, table in self._read(metric).items()]
        except TrackingError as error:
            self.problems.append(f"the baseline's samples cannot be read: {error}")
            return Known(unreadable=UNREADABLE)
        found = {key: base for key, base in bases if base is not None and len(base.valid)}
        if not found:
            return Known(remark=NO_SAMPLES)
        before = {run.run_id: run.metrics.get(metric, math.nan) for run in runs}
        if not all(base.has_mean(before[key]) for key, base in found.items()):
            return Known(remark=OTHER_MEAN_BEFORE)
        return self._compared(score, list(found.values()), tolerance)

    def _compared(self, score: Score, bases: Sequence[Score], tolerance: Tolerance) -> Known:
        if any(bool((abs(side.valid.values) > LARGEST).any()) for side in (score, *bases)):
            return Known(remark=TOO_LARGE)
        is_same = all(base.digest == score.digest for base in bases)
        compared = partial(
            compare,
            _sample(score),
            [_sample(base) for base in bases],
            higher_is_worse=tolerance.higher_is_worse,
        )
        remark = "" if is_same else OTHER_DATA
        try:
            try:
                comparison = compared(paired=is_same)
            except NoPairsError:
                comparison, remark = compared(paired=False), NO_PAIRS
        except ValueError as error:
            return Known(remark=f"{error}, so the change alone decides")
        return Known(comparison, self.history(score.name), len(bases), remark)

    def _of_function(self, metric: str, tolerance: Tolerance, value: float) -> Known:
        function = self.functions[metric]
        of_it = (p for p in self._own.parts if p.count and p.source == function.evaluation)
        own = next(of_it, None)
        if own is None or not any(run.has_samples for run in self._runs(metric)):
            return Known(remark=NO_SAMPLES if own is not None else "")
        try:
            parts = self._parts_of(function.evaluation, metric)
            bases = [(part, run.metrics[metric]) for part, run in parts if metric in run.metrics]
            if not bases:
                return Known(remark=NO_SAMPLES)
            comparison, remark = resampled(
                function,
                (own, value),
                bases,
                higher_is_worse=tolerance.higher_is_worse,
                alpha=self.alpha,
                seconds=self._seconds / max(self._waiting, 1),
                written=self.written,
            )
        except TrackingError as error:
            self.problems.append(f"the baseline's samples cannot be read: {error}")
            return Known(unreadable=UNREADABLE)
        except UnfitError as error:
            return Known(remark=str(error))
        return Known(comparison, self.history(metric), len(bases), remark)

    def _parts_of(self, evaluation: str, metric: str) -> list[tuple[SampleRows, PastRun]]:
        """The rows of an evaluation in the baseline's runs."""
        tables, stored = self._read(metric), redact_text(evaluation)
        return [
            (part, run)
            for run in self._runs(metric)
            if run.run_id in tables
            for part in tables[run.run_id].parts
            if part.source == stored
        ]

    def _runs(self, metric: str) -> list[PastRun]:
        """The baseline's runs that are of one data of a metric."""
        return of_one_data(self.runs, self.digests, metric)

    def _read(self, metric: str) -> dict[str, SampleTable]:
        """The samples of these runs, of those that have some, each read once."""
        runs = [run for run in self._runs(metric) if run.has_samples]
        for run in runs:
            if run.run_id not in self._tables:
                self._tables[run.run_id] = self.read(run)
        return {run.run_id: self._tables[run.run_id] for run in runs}


def samples_at(where: Destination, run_id: str, artifact_uri: str) -> SampleTable:
    """The samples of a run, one artifact; raises :class:`TrackingError` if they cannot be read."""
    from pytest_armory.store import open_store
    from pytest_armory.tables.files import PARQUET, read_parquet

    content = open_store(where).read_file(artifact_uri, PARQUET)
    try:
        return read_parquet(content)
    except ValueError as error:
        raise TrackingError(f"the artifact {PARQUET!r} of the run {run_id}: {error}") from None


def _sample(score: Score) -> Sample:
    valid = score.valid
    return Sample(valid.ids, valid.values, valid.groups, repeats=valid.repeats is not None)
