"""Metrics that are functions of all predictions, as F1 and AUC: the bootstrap of their change."""

from __future__ import annotations

import logging
import math
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple

from pytest_armory.gates.evidence import OTHER_DATA
from pytest_armory.records import Verdict
from pytest_armory.statistics.bootstrap import LEAST, TRIAL, Resamples, bootstrap
from pytest_armory.statistics.comparison import BOOTSTRAP, Comparison, of_resamples
from pytest_armory.statistics.numeric import stacked_columns
from pytest_armory.tables import SampleRows, Score
from pytest_armory.values import metric_values

SECONDS = 10.0
"""The most that the resamples of one evaluation take, of all its gates together."""

CLASSES = 16
"""The most classes of which the scores are kept with the samples."""

RESAMPLES, MOST_RESAMPLES = 1000, 10_000

STOPPING = (KeyboardInterrupt, SystemExit)
"""What a user's function may not be kept from raising; ``pytest.skip`` in it is no reason to."""

_NEAR = 1e-6

NO_PREDICTIONS = "its predictions were not kept, so the change alone decides"
NOT_REPRODUCED = (
    "the predictions that were kept do not give its value again, so the change alone decides"
)
LOGS = "it logs something whenever it is called, so the change alone decides"


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


def is_of_resamples(verdict: Verdict) -> bool:
    """Whether a verdict is on a function of all predictions, of which a test draws resamples."""
    return BOOTSTRAP in verdict.method


def without_resamples(verdict: Verdict) -> Verdict:
    """A verdict on a function of all predictions of which the test drew none: it is told apart.

    >>> without_resamples(Verdict("f1", "baseline -2%", "unjudged", 0.5, None)).method
    'bootstrap'
    >>> without_resamples(Verdict("f1", "at_least 0.5", "passed", 0.5, 0.5)).method
    ''
    """
    is_of_samples = verdict.rule.startswith("baseline ") and "noise" not in verdict.rule
    return replace(verdict, method=verdict.method or BOOTSTRAP) if is_of_samples else verdict


class UnfitError(Exception):
    """Why the bootstrap cannot be used, in a sentence."""


@contextmanager
def isolated() -> Iterator[None]:
    """While a user's function is called again: what it prints and logs is left out.

    What it draws from the generators of ``random``, NumPy and torch is given back, so that later
    tests get the numbers that they get untracked.
    """
    numpy, torch = sys.modules["numpy"].random, sys.modules.get("torch")
    disabled = logging.root.manager.disable
    states = random.getstate(), numpy.get_state(), torch.get_rng_state() if torch else None
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
            random.setstate(states[0])
            numpy.set_state(states[1])
            if torch is not None:
                torch.set_rng_state(states[2])


@isolated()
def resampled(
    metric: MetricFunction,
    own: tuple[SampleRows, float],
    bases: Sequence[tuple[SampleRows, float]],
    *,
    higher_is_worse: bool,
    alpha: float,
    seconds: float,
    written: Callable[[], object] = lambda: None,
) -> tuple[Comparison, str]:
    """The comparison of a metric, and what is to be said of it, in so many ``seconds``.

    Rows come with the metric's value; where those of the baseline are other samples, each side is
    resampled by itself. ``written`` gives what differs once the function has logged something.
    Raises :class:`UnfitError`.
    """
    began, before = perf_counter(), written()
    sides = [_side(metric, *own)]
    if written() != before:
        raise UnfitError(LOGS)
    if sides[0].seconds * (1 + len(bases)) > seconds * TRIAL:
        raise UnfitError(_too_slow(seconds))
    sides += [_side(metric, rows, value) for rows, value in bases]
    is_same = all(side.score.digest == sides[0].score.digest for side in sides)
    drawn = [_aligned(one) for one in ([sides] if is_same else [sides[:1], sides[1:]])]
    sign = -1 if higher_is_worse else 1
    raised: list[BaseException] = []

    def gain(*rows: Any) -> float:
        each = [(side, which) for (one, _), which in zip(drawn, rows, strict=True) for side in one]
        try:
            new, *old = (metric(targets[rows], known[rows]) for (targets, known), rows in each)
        except STOPPING:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's function, of rows that lack a class
            raised.append(error)
            return math.nan
        return sign * (new - sum(old) / len(old))

    (n, groups), *others = [(len(score), score.clusters) for _, score in drawn]
    left = seconds - (perf_counter() - began)
    asked = min(max(RESAMPLES, math.ceil(4 / alpha)), MOST_RESAMPLES)
    # Masks, of which rows are copies, as of resamples.
    whole = gain(*(score.values == score.values for _, score in drawn))
    other = others[0] if others else None
    found = bootstrap(gain, n, groups, others=other, resamples=asked, seconds=left)
    if math.isnan(whole) or not found.are_enough:
        is_late = found.is_late and not math.isnan(whole)
        raise UnfitError(_too_slow(seconds) if is_late else _of_none(raised))
    remarks = ("" if is_same else OTHER_DATA, _fewer(found, raised))
    return of_resamples(whole, found, n, paired=is_same), "; ".join(filter(None, remarks))


def _named(error: BaseException) -> str:
    # What `pytest.skip` raises has its text alone for a repr.
    return (
        repr(error) if isinstance(error, Exception) else f"{type(error).__name__}({str(error)!r})"
    )


def _of_none(raised: Sequence[BaseException]) -> str:
    what = f"it raised {_named(raised[0])}" if raised else "it is NaN"
    return f"{what} of resamples, so the change alone decides"


def _too_slow(seconds: float) -> str:
    has = f"{seconds:.2g} s that it has"
    return f"{LEAST} resamples of it take longer than the {has}, so the change alone decides"


def _fewer(found: Resamples, raised: Sequence[BaseException]) -> str:
    done = len(found.changes)
    if done == found.asked:
        return ""
    why = f", it raised {_named(raised[0])} of {len(raised):,}" if raised else ""
    return f"only {done:,} of {found.asked:,} resamples were computed{why}"


class _Side(NamedTuple):
    """What gives a metric's value again, and the seconds that this took."""

    score: Score
    targets: Any
    predictions: Any
    seconds: float


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
        began = perf_counter()
        try:
            again = metric(valid.targets.copy(), predictions.copy())  # it may change them
        except STOPPING:
            raise
        except BaseException as error:  # noqa: BLE001 - the function wants them in another form
            raised = f" (it raised {_named(error)})"
            continue
        if math.isclose(again, value, rel_tol=_NEAR, abs_tol=1e-9):
            return _Side(score, valid.targets, predictions, perf_counter() - began)
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


def _aligned(sides: Sequence[_Side]) -> tuple[list[tuple[Any, Any]], Score]:
    """Targets and predictions of each side, of the same samples, in the order of the first one's.

    With the first one's score.
    """
    first = sides[0].score
    if any(side.score.repeats is not None for side in sides):
        raise UnfitError("its samples are repeated, so the change alone decides")
    if any(side.score.digest != first.digest for side in sides):
        raise UnfitError("the baseline's sessions are of several data, so the change alone decides")
    valid = [side.score.valid for side in sides]
    places = [{key: i for i, key in enumerate(one.ids.tolist())} for one in valid]
    common = [key for key in places[0] if all(key in place for place in places)]
    ordered = []
    for side, place in zip(sides, places, strict=True):
        order = [place[key] for key in common]
        ordered.append((side.targets[order], side.predictions[order]))
    first = valid[0].selected([places[0][key] for key in common])
    return ordered, first
