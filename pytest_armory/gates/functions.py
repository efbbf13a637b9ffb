"""Metrics that are functions of all predictions, as F1 and AUC: the bootstrap of their change."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from pytest_armory.statistics.bootstrap import LEAST, Resamples, bootstrap
from pytest_armory.statistics.comparison import Comparison, of_resamples
from pytest_armory.statistics.numeric import stacked_columns
from pytest_armory.tables import SampleRows, Score
from pytest_armory.values import metric_values

SECONDS = 10.0
"""The most that the resamples of one evaluation take, of all its gates together."""

CLASSES = 16
"""The most classes of which the scores are kept with the samples."""

RESAMPLES, MOST_RESAMPLES = 1000, 10_000

_NEAR = 1e-6

NO_PREDICTIONS = "its predictions were not kept, so the change alone decides"
NOT_REPRODUCED = (
    "the predictions that were kept do not give its value again, so the change alone decides"
)
TOO_SLOW = (
    f"{LEAST} resamples of it would take longer than {SECONDS:g} s, so the change alone decides"
)


@dataclass(frozen=True)
class MetricFunction:
    """A metric ``f(targets, predictions)`` of one evaluation, and the name of its result.

    ``key`` is the result's part that is the metric: ``report/macro avg/f1-score`` of ``report``.
    """

    evaluation: str
    function: Callable[[Any, Any], object]
    name: str
    key: str

    def __call__(self, targets: Any, predictions: Any) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resample may lack a class
            result = self.function(targets, predictions)
        return metric_values({self.name: result}).numbers.get(self.key, math.nan)


def functions_of(
    evaluation: str,
    results: Mapping[str, str],
    functions: Mapping[str, Callable[[Any, Any], object]],
) -> list[MetricFunction]:
    """The metrics that are a part of a function's result.

    ``results`` has each metric's name before it was made a legal one: ``f1``, ``report/macro avg``.
    """
    found = []
    for key, given in results.items():
        names = [name for name in functions if given == name or given.startswith(f"{name}/")]
        if names:
            name = max(names, key=len)
            found.append(MetricFunction(evaluation, functions[name], name, key))
    return found


class UnfitError(Exception):
    """Why the bootstrap cannot be used, in a sentence."""


def resampled(
    metric: MetricFunction,
    own: tuple[SampleRows, float],
    bases: Sequence[tuple[SampleRows, float]],
    *,
    higher_is_worse: bool,
    alpha: float,
    seconds: float,
) -> tuple[Comparison, float, str]:
    """The comparison of a metric, the seconds it took, and what is to be said of it.

    Rows come with the metric's value. Raises :class:`UnfitError`.
    """
    began = perf_counter()
    sides = [_side(metric, rows, value) for rows, value in (own, *bases)]
    paired, score = _paired(sides)
    sign = -1 if higher_is_worse else 1

    def gain(rows: Any) -> float:
        new, *old = (metric(targets[rows], predictions[rows]) for targets, predictions in paired)
        return sign * (new - sum(old) / len(old))

    n = len(score)
    asked = min(max(RESAMPLES, math.ceil(4 / alpha)), MOST_RESAMPLES)
    try:
        found = bootstrap(gain, n, score.clusters, resamples=asked, seconds=seconds)
        whole = gain(slice(None))
    except Exception as error:  # noqa: BLE001 - a user's function, on rows it has never seen
        text = f"it raised {error!r} of a resample, so the change alone decides"
        raise UnfitError(text) from None
    if not found.are_enough:
        raise UnfitError(TOO_SLOW)
    return of_resamples(whole, found, n), perf_counter() - began, _fewer(found)


def _fewer(found: Resamples) -> str:
    done = len(found.changes)
    return f"only {done:,} of {found.asked:,} resamples were computed" if done < found.asked else ""


_Side = tuple[Score, Any, Any]


def _side(metric: MetricFunction, rows: SampleRows, value: float) -> _Side:
    """The targets and predictions that give a metric's value again, with the ids."""
    score = rows.score(next(iter(rows.scores)))
    valid = score.valid
    if valid.targets is None:
        raise UnfitError(NO_PREDICTIONS)
    candidates = list(_predictions(rows, score))
    if not candidates:
        raise UnfitError(NO_PREDICTIONS)
    raised = ""
    for predictions in candidates:
        try:
            again = metric(valid.targets, predictions)
        except Exception as error:  # noqa: BLE001 - the function wants them in another form
            raised = f" (it raised {error!r})"
            continue
        if math.isclose(again, value, rel_tol=_NEAR, abs_tol=1e-9):
            return score, valid.targets, predictions
    raise UnfitError(f"{NOT_REPRODUCED}{raised}")


def _predictions(rows: SampleRows, score: Score) -> Iterator[Any]:
    """Class scores if they were kept, of shape (n, classes), then one prediction for each."""
    known = score.values == score.values  # the others had an error
    kept = (rows.columns.get(class_column(i)) for i in range(CLASSES))
    columns = [column.array(rows.count)[known] for column in kept if column is not None]
    if columns:
        yield stacked_columns(columns)
    if score.valid.predictions is not None:
        yield score.valid.predictions


def class_column(index: int) -> str:
    """The name of the column with the scores of one class."""
    return f"prediction[{index}]"


def _paired(sides: Sequence[_Side]) -> tuple[list[tuple[Any, Any]], Score]:
    """Targets and predictions of each side in the order of the first one's ids."""
    first = sides[0][0]
    if any(side[0].repeats is not None for side in sides):
        raise UnfitError("its samples are repeated, so the change alone decides")
    if any(side[0].digest != first.digest for side in sides):
        raise UnfitError("the data changed, so the change alone decides")
    valid = [score.valid for score, _, _ in sides]
    places = [{key: i for i, key in enumerate(one.ids.tolist())} for one in valid]
    common = [key for key in places[0] if all(key in place for place in places)]
    ordered = []
    for (_, targets, predictions), place in zip(sides, places, strict=True):
        order = [place[key] for key in common]
        ordered.append((targets[order], predictions[order]))
    first = valid[0].selected([places[0][key] for key in common])
    return ordered, first
