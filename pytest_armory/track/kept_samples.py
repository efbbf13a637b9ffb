"""The samples of one run: their means as metrics, and the rows that gates and files are made of."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_armory.errors import MetricWarning
from pytest_armory.tables import SampleRows, SampleTable
from pytest_armory.track.logged_metrics import LoggedMetrics
from pytest_armory.values import legal_key

TRACKED = "track_samples"
"""What measured a score that no engine has measured."""


class EngineRows:
    """The rows of one evaluation of the engine, by the names that its scores have in MLflow."""

    def __init__(self, rows: SampleRows, names: Mapping[str, str]) -> None:
        self._rows = rows
        self._names = names

    def add(
        self,
        scores: Mapping[str, array[float]],
        *,
        ids: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Add the rows of a batch."""
        named = {self._names[name]: values for name, values in scores.items()}
        self._rows.add(named, ids=ids, columns=columns)


class KeptSamples:
    """The table of a run's samples, filled by engines and by ``track_samples``."""

    def __init__(self, metrics: LoggedMetrics) -> None:
        self.table = SampleTable()
        self._metrics = metrics

    def open(
        self, evaluation: str, scores: Sequence[str], dataset: str, higher_is_worse: Sequence[str]
    ) -> EngineRows:
        """The rows of an evaluation of the engine, empty.

        A score whose name is another evaluation's metric is named ``{evaluation}/{score}``, as
        its metric will be.
        """
        names = {name: self._own_name(legal_key(name), evaluation) for name in scores}
        rows = self.table.rows_of(evaluation, list(names.values()), dataset)
        rows.higher_is_worse = {names[name] for name in higher_is_worse}
        return EngineRows(rows, names)

    def _own_name(self, score: str, evaluation: str) -> str:
        first, *_ = self._metrics.measured_by(score) or [evaluation]
        return score if first == evaluation else legal_key(f"{evaluation}/{score}")

    def complete(self, evaluation: str, renamed: Mapping[str, str]) -> None:
        """Note that an evaluation has ended; ``renamed`` are metrics that another one has."""
        for rows in self.table.parts:
            if rows.source == evaluation:
                rows.rename(renamed)
                rows.is_complete = True

    def add(
        self,
        scores: Mapping[str, array[float]],
        *,
        ids: Any = None,
        groups: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Add rows of ``track_samples``, and note the means. Raises :class:`UnfitError`."""
        named = {legal_key(name): values for name, values in scores.items()}
        rows = self.table.rows_of_scores(list(named))
        rows.add(named, ids=ids, groups=groups, columns=columns)
        rows.is_complete = True
        new = [name for name in named if not self._metrics.measured_by(name)]
        self._metrics.taken(new, TRACKED)
        means = {name: rows.mean(name) for name in named}
        self._metrics.note({name: mean for name, mean in means.items() if mean is not None}, 0)


def warn_of_missing(scores: Mapping[str, array[float]], stacklevel: int = 2) -> None:
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
            stacklevel=stacklevel + 1,
        )
