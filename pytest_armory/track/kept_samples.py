"""The samples of one run: their means as metrics, and the rows that gates and files are made of."""

from __future__ import annotations

import math
import warnings
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from pytest_armory.errors import MetricWarning
from pytest_armory.records.sample_tag import DatasetIdentity, SampleTag, data_tag
from pytest_armory.tables import SampleRows, SampleTable, Score, UnfitError
from pytest_armory.track.logged_metrics import LoggedMetrics
from pytest_armory.values import legal_key, legal_keys, redact_text

if TYPE_CHECKING:
    from pytest_armory.gates.functions import MetricFunction

TRACKED = "track_samples"
"""What measured a score that no engine has measured."""


PARTIAL_SECONDS = 30.0
"""The least time between two partial copies of the samples in the store."""

GROWTH = 1.1
"""By how much the rows must have grown for another partial copy."""

DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True)
class SampleResults:
    """What is written of samples besides the files."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[DatasetIdentity] = ()

    @property
    def values(self) -> list[tuple[str, float, int]]:
        """The metrics as they are written: name, value and step."""
        return [(name, value, 0) for name, value in self.metrics.items()]


class EngineRows:
    """The rows of one evaluation of the engine, by the names that it gave its scores.

    Those that they have in MLflow may change while rows are added.
    """

    def __init__(self, table: SampleTable, rows: SampleRows, given: Sequence[str]) -> None:
        self._table, self._rows, self._given = table, rows, given

    def add(
        self,
        scores: Mapping[str, array[float]],
        *,
        ids: Any = None,
        groups: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Add the rows of a batch."""
        with self._table.lock:
            names = zip(self._rows.scores, self._given, strict=True)
            named = {name: scores[given] for name, given in names}
            self._table.check_scores(named)
            self._rows.add(named, ids=ids, groups=groups, columns=columns)

    def rename(self, keys: Mapping[str, str]) -> None:
        """Give the scores the names of their metrics, by the names that were given."""
        names = dict(zip(self._rows.scores, self._given, strict=True))
        self._rows.rename({name: keys.get(given, name) for name, given in names.items()})


class KeptSamples:
    """The table of a run's samples, filled by engines and by ``track_samples``."""

    def __init__(self, metrics: LoggedMetrics) -> None:
        self.table = SampleTable()
        self.data = SampleTable()
        """Ids and targets of evaluations without scores of samples: which data they were of."""
        self.confidence = DEFAULT_CONFIDENCE
        self.digests: dict[str, str] = {}
        """The digest of each score's data, once the results are known."""
        self.functions: dict[str, MetricFunction] = {}
        """The metrics that are functions of all predictions, by the names that they have."""
        self.changes: Mapping[str, Mapping[object, float]] = {}
        """By how much a score changed against the baseline, by score and by the sample's id."""
        self._metrics = metrics
        self._opened: dict[str, list[EngineRows]] = {}
        self._keys: dict[str, Mapping[str, str]] = {}
        self._stored_at: float | None = None
        self._stored_rows = 0

    def open(
        self, evaluation: str, scores: Sequence[str], dataset: str, higher_is_worse: Sequence[str]
    ) -> EngineRows:
        """The rows of an evaluation of the engine, empty.

        A score whose name is another evaluation's metric is named ``{evaluation}/{score}``, as
        its metric will be; in a repeat each is named as its metric was. Without scores the rows are
        of its data alone, and each has a value of the score "".
        """
        if not scores:
            with self.data.lock:
                return EngineRows(self.data, self.data.rows_of(evaluation, [""], dataset), [""])
        known = self._keys.get(evaluation, {})
        keys = zip(scores, legal_keys(scores), strict=True)
        names = {name: known.get(name) or self._own_name(key, evaluation) for name, key in keys}
        if self._stored_at is None:
            self._stored_at = monotonic()
        with self.table.lock:
            rows = self.table.rows_of(evaluation, list(names.values()), dataset)
        rows.higher_is_worse = {names[name] for name in higher_is_worse}
        opened = EngineRows(self.table, rows, scores)
        self._opened.setdefault(evaluation, []).append(opened)
        return opened

    def _own_name(self, score: str, evaluation: str) -> str:
        first, *_ = self._metrics.measured_by(score) or [evaluation]
        return score if first == evaluation else legal_key(f"{evaluation}/{score}")

    def end(self, evaluation: str, keys: Mapping[str, str], *, is_partial: bool) -> None:
        """Note that an evaluation has ended, of all its samples unless ``is_partial``.

        ``keys`` are its metrics' names in MLflow by those given: that of a score may be another
        one than it was opened with, for another metric of the results, or of the run, has it.
        """
        self._keys[evaluation] = keys
        with self.table.lock:
            for opened in self._opened.pop(evaluation, ()):
                opened.rename(keys)
            for rows in self.table.parts:
                if rows.source == evaluation:
                    rows.is_complete = not is_partial
            self._name_apart()
        for rows in self.data.parts:
            rows.is_complete = rows.is_complete or (rows.source == evaluation and not is_partial)

    def _name_apart(self) -> None:
        """Name the scores of what has not ended ``{evaluation}/{score}`` where others have them.

        Rows of an earlier repeat of the same evaluation keep their names.
        """
        known: dict[str, str] = {}
        for rows in sorted(self.table.parts, key=lambda rows: not rows.is_complete):
            taken = [name for name in rows.scores if known.get(name, rows.source) != rows.source]
            rows.rename({name: legal_key(f"{rows.source}/{name}") for name in taken})
            known = {**dict.fromkeys(rows.scores, rows.source), **known}

    def add(
        self,
        scores: Mapping[str, array[float]],
        *,
        ids: Any = None,
        groups: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Add rows of ``track_samples``, and note the means. Raises :class:`UnfitError`."""
        with self.table.lock:
            keys = zip(legal_keys(list(scores)), scores.items(), strict=True)
            named = {self._own_key(key, name): values for key, (name, values) in keys}
            rows = self.table.rows_of_scores(list(named))
            self.table.check_scores(named)
            rows.add(named, ids=ids, groups=groups, columns=columns)
            rows.is_complete = True
            self._metrics.taken(named, TRACKED)
            means = {name: rows.mean(name) for name in named}
            self._metrics.note({name: mean for name, mean in means.items() if mean is not None}, 0)

    def _own_key(self, key: str, score: str) -> str:
        """The name that a score of ``track_samples`` has in MLflow, unless it is another's."""
        key = self._metrics.stored_name(key, score)
        if problem := self._metrics.refused(key, score):
            raise UnfitError(f"the score {score!r} cannot be kept: {problem}")
        first, *_ = self._metrics.measured_by(key) or [TRACKED]
        if first != TRACKED:
            raise UnfitError(
                f"the score {score!r} is one of the evaluation {first!r}; take another name"
            )
        return key

    def is_copy_due(self) -> bool:
        """Whether a partial copy is to be stored now, of a table that still grows."""
        now = monotonic()
        if self._stored_at is None:
            self._stored_at = now
        grown = self.table.count > self._stored_rows * GROWTH
        if not grown or now - self._stored_at < PARTIAL_SECONDS:
            return False
        self._stored_at, self._stored_rows = now, self.table.count
        return True

    def begin_repeat(self) -> None:
        """Begin another repeat of the evaluation's body."""
        self.table.begin_repeat()
        self.data.begin_repeat()

    def partial_tags(self) -> dict[str, str]:
        """The tag of the run while rows are still to come."""
        return SampleTag(self._count_rows(), is_partial=True).to_tags()

    def _count_rows(self) -> int:
        from pytest_armory.tables.arrow import count_rows

        with self.table.lock:
            return count_rows(self.table)

    def results(self) -> SampleResults:
        """The means of ``track_samples``, the intervals of all scores, and which data they are of.

        An evaluation that was cut short has neither metrics nor data; a metric that is not the
        mean of its samples, as it is NaN or was logged by the test itself, no interval.
        """
        datasets: dict[DatasetIdentity, None] = {}
        for rows in (rows for rows in self.data.parts if rows.is_complete):
            score = rows.score("")
            datasets[_identity(rows, score, score.digest)] = None
        data = data_tag(self.digests_of_data())
        if not self.table:
            return SampleResults(tags=data, datasets=list(datasets))
        self._name_apart()
        metrics: dict[str, float] = {}
        digests: dict[str, str] = {}
        for rows, name in self.table.each_score():
            if not rows.is_complete:
                continue
            score = rows.score(name)
            # Computed once for all scores of the same rows.
            known = next((digests[other] for other in rows.scores if other in digests), None)
            digests[name] = known = known or score.digest
            datasets[_identity(rows, score, known)] = None
            logged = self._metrics.values.get(name)
            if logged is not None and not score.has_mean(logged):
                continue  # it was logged since, as another value
            if not rows.source and not rows.has_repeats and score.mean is not None:
                metrics[name] = score.mean
            metrics |= intervals(score, self.confidence)
        self._metrics.note(metrics, 0)
        self.digests = digests
        tag = SampleTag(self._count_rows(), self.table.is_partial, digests)
        return SampleResults(metrics, {**tag.to_tags(), **data}, list(datasets))

    def digests_of_data(self) -> dict[str, str]:
        """The digests of the data of evaluations that keep no samples, by what they are called."""
        # No score has such a name.
        return {
            f"{redact_text(rows.source)}'s data": rows.score("").digest
            for rows in self.data.parts
            if rows.is_complete
        }

    def digests_so_far(self) -> dict[str, str]:
        """The digests of the data that are complete, while the test runs: those of scores too."""
        digests = self.digests_of_data()
        for rows in (rows for rows in self.table.parts if rows.is_complete and rows.scores):
            digests |= dict.fromkeys(rows.scores, rows.score(next(iter(rows.scores))).digest)
        return digests


def _identity(rows: SampleRows, score: Score, digest: str) -> DatasetIdentity:
    samples = len(set(score.ids.tolist())) if score.repeats is not None else len(score)
    return DatasetIdentity(rows.dataset, digest, samples)


def intervals(score: Score, confidence: float) -> dict[str, float]:
    """The ends of a score's confidence interval as metrics; none where the data tell nothing.

    Wilson's for 0 and 1, Student's t for other numbers, and cluster-robust where samples belong
    together: of 0 and 1 Wilson's of as many samples as there are groups, where these do not
    differ, and else within 0 and 1. Samples without a value are left out.
    """
    from pytest_armory.statistics.intervals import clustered_interval, mean_interval, wilson

    valid, clusters = score.valid, score.valid.clusters
    if not len(valid):
        return {}
    if clusters is not None:
        low, high = clustered_interval(valid.values, clusters, confidence)
        if valid.is_binary and low == high:  # no group differs, which does not say that none will
            units = len(set(clusters.tolist()))
            low, high = wilson(float(valid.values.mean()) * units, units, confidence)
    elif valid.is_binary:
        low, high = wilson(float(valid.values.sum()), len(valid), confidence)
    else:
        low, high = mean_interval(valid.values, confidence)
    if not (math.isfinite(low) and math.isfinite(high)):
        return {}
    if valid.is_binary:
        low, high = max(low, 0.0), min(high, 1.0)
    return {
        legal_key(f"{score.name}/ci_{end}"): value for end, value in (("low", low), ("high", high))
    }


def warn_of_missing(scores: Mapping[str, array[float]]) -> None:
    """Issue one warning for all scores that have no value for some sample."""
    missing = {name: sum(value != value for value in values) for name, values in scores.items()}
    texts = [
        f"{count:,} of {len(scores[name]):,} values of the score {name!r}"
        for name, count in missing.items()
        if count
    ]
    if texts:
        warnings.warn(
            f"{', '.join(texts)} are None or NaN: such rows are kept, and left out of the mean",
            MetricWarning,
            stacklevel=3,
        )
