"""Whether a change is evidence: worse, not worse, or unclear. Pure functions of numbers.

A gain is this run's value minus the baseline's, with the other sign where higher is worse: a loss
is below 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_armory.statistics import prediction, sample_size
from pytest_armory.statistics.numeric import normal_quantile

if TYPE_CHECKING:
    from pytest_armory.statistics.comparison import Comparison

WORSE, NOT_WORSE, UNCLEAR = "worse", "not worse", "unclear"

OTHER_DATA = "the data changed, so other samples are compared"
"""The remark of a verdict whose baseline has other samples."""

LEAST_FOR_NOISE = 5
"""The fewest earlier sessions that say how a metric scatters."""

LEAST_FOR_TOLERANCE = 8
"""The fewest that are a second source of chance for a tolerance that samples judge."""

MOST_SESSIONS = 20
"""The most earlier sessions that are used, the newest ones."""

_MOST_SPREAD = 1e7
"""Of a metric that scatters by more than so many tolerances, no number of samples tells one."""

_TIME = re.compile(r"(?:^|[/_ ])(?:times?|m?s|seconds?|duration|latency|throughput)(?:$|[/_ ])")


@dataclass(frozen=True)
class Terms:
    """What all gates of a session are judged by.

    ``confidence`` is that of each bound of an interval, one-sided; ``gates`` are the tolerances of
    the session, that share its chance of a false alarm; ``unclear`` says what an unclear verdict
    does: ``pass``, ``fail``, or ``measured``, where the change that was measured decides.
    """

    confidence: float = 0.95
    gates: int = 1
    unclear: str = "pass"

    @property
    def alpha(self) -> float:
        """The chance of a false alarm that one gate may have: ``(1 - confidence) / gates``."""
        return (1 - self.confidence) / max(self.gates, 1)


@dataclass(frozen=True)
class Change:
    """How a metric changed against the baseline's, by today's two numbers alone.

    ``allowed`` is the largest loss that passes, in the metric's unit, with the slack for rounding;
    ``missed`` says that the loss is larger.
    """

    value: float
    base: float
    allowed: float
    missed: bool
    higher_is_worse: bool = False

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        return -1 if self.higher_is_worse else 1


@dataclass(frozen=True)
class Known:
    """What is known of the chance in one metric's change.

    ``comparison`` is that of the samples, in gains, None where there are none; ``history`` are the
    metric's values in earlier sessions, the newest first; ``sessions`` is of how many the baseline
    is the mean; ``remark`` says what is to be known of the samples, ``unreadable`` why the
    baseline's cannot be read, or they are empty.
    """

    comparison: Comparison | None = None
    history: Sequence[float] = ()
    sessions: int = 1
    remark: str = ""
    unreadable: str = ""


@dataclass(frozen=True)
class Evidence:
    """A verdict, ``worse``, ``not worse`` or ``unclear``, and what it was made of.

    ``p`` is the one-sided p of the source of chance that explains a loss best; ``low`` and
    ``high`` are the bounds of the change, each one-sided; ``needed`` are the samples that would
    detect a loss of what is allowed, ``detectable`` is the loss that the present ones detect, each
    with a chance of four in five; ``scatter`` is how far chance alone may move a session down.
    """

    verdict: str
    p: float
    low: float
    high: float
    method: str
    needed: int | None = None
    detectable: float | None = None
    scatter: float | None = None


def weigh(change: Change, known: Known, terms: Terms) -> Evidence:
    """The evidence of a change, where samples are known, and from eight sessions on a history.

    *worse*: the change is ``missed``, and no source of chance that is known explains a loss at all:
    the largest p is at most :attr:`Terms.alpha`. *not worse*: by each source the bound of the loss
    is within what is allowed. *unclear*: the rest. Raises :class:`ValueError` without samples.

    >>> from pytest_armory.statistics.comparison import Sample, compare
    >>> base = Sample(range(200), [1] * 190 + [0] * 10)
    >>> run = Sample(range(200), [1] * 178 + [0] * 22)
    >>> known = Known(compare(run, [base], paired=True))
    >>> weigh(Change(0.89, 0.95, allowed=0.02, missed=True), known, Terms()).verdict
    'worse'
    >>> known = Known(compare(base, [base], paired=True))
    >>> weigh(Change(0.95, 0.95, allowed=0.02, missed=False), known, Terms()).verdict
    'not worse'
    """
    comparison = known.comparison
    if comparison is None:
        raise ValueError("evidence needs the comparison of samples")
    two_sided = 2 * terms.confidence - 1
    low, high = comparison.interval(two_sided)
    p, least, method, scatter = comparison.p, low, comparison.method, None
    history = [change.sign * value for value in known.history[:MOST_SESSIONS]]
    if len(history) >= LEAST_FOR_TOLERANCE:
        gain = change.sign * (change.value - change.base)
        p = max(p, prediction.prediction_p(history, change.sign * change.value))
        by_history = prediction.change_interval(history, gain, known.sessions, two_sided)
        least, scatter = min(low, by_history.low), gain - by_history.low
        method += f"; t over {len(history)} sessions"
    verdict = UNCLEAR
    if change.missed and p <= terms.alpha:
        verdict = WORSE
    elif not change.missed and least >= -change.allowed:
        verdict = NOT_WORSE
    if change.higher_is_worse:
        low, high = -high, -low
    needed = samples_for(comparison, change.allowed, terms.alpha)
    detectable = smallest_loss(comparison, terms.alpha)
    return Evidence(verdict, p, low, high, method, needed, detectable, scatter)


def weigh_noise(
    metric: str, value: float, history: Sequence[float], alpha: float, higher_is_worse: bool
) -> tuple[Evidence, float]:
    """The evidence of one session's value, given earlier ones; and the limit it is held to.

    *worse* beyond Student's prediction bound at ``1 - alpha``, else *not worse*. On logarithms for
    times and rates, see :func:`is_time`, that are all above 0. ``history`` has two values at least,
    of which :data:`MOST_SESSIONS` count.

    >>> found, limit = weigh_noise("accuracy", 0.86, [0.90, 0.91, 0.89, 0.92, 0.90], 0.05, False)
    >>> found.verdict, round(limit, 4)
    ('worse', 0.8774)
    """
    history = history[:MOST_SESSIONS]
    log = is_time(metric) and min(value, *history) > 0
    p = prediction.prediction_p(history, value, upper=higher_is_worse, log=log)
    lower, upper = (
        prediction.prediction_bound(history, 1 - alpha, upper=side, log=log)
        for side in (False, True)
    )
    method = f"t over {len(history)} sessions{', of logarithms' if log else ''}"
    verdict = WORSE if p <= alpha else NOT_WORSE
    evidence = Evidence(verdict, p, value - upper, value - lower, method)
    return evidence, upper if higher_is_worse else lower


def is_time(metric: str) -> bool:
    """Whether a metric is a time or a rate, of which logarithms scatter evenly, by its name.

    >>> list(map(is_time, ["time/predict_seconds", "samples_per_second", "items", "accuracy"]))
    [True, True, False, False]
    """
    return _TIME.search(metric) is not None


def smallest_loss(comparison: Comparison, alpha: float) -> float:
    """The loss that so many samples detect: :func:`~.sample_size.detectable_fall`.

    Of 0 and 1 not less than what samples without any flip leave open, ``z² / (units + z²)``.

    >>> from pytest_armory.statistics.comparison import Sample, compare
    >>> base = Sample(range(200), [1] * 200)
    >>> round(smallest_loss(compare(base, [base], paired=True), 0.05), 4)
    0.0133
    """
    detectable = sample_size.detectable_fall(comparison.variance, comparison.n, alpha)
    if comparison.units is None:
        return detectable
    square = normal_quantile(1 - alpha) ** 2
    return max(detectable, square / (comparison.units + square))


def samples_for(comparison: Comparison, margin: float, alpha: float) -> int | None:
    """The samples that detect a loss of ``margin``: :func:`~.sample_size.needed_samples`.

    Of 0 and 1 not fewer than leave no more open without any flip. None where no number does.

    >>> from pytest_armory.statistics.comparison import Sample, compare
    >>> base = Sample(range(200), [1] * 200)
    >>> samples_for(compare(base, [base], paired=True), 0.02, 0.05)
    133
    """
    if not 0 < margin < math.inf or not math.isfinite(comparison.variance):
        return None
    if math.sqrt(comparison.variance) / margin > _MOST_SPREAD:
        return None
    needed = sample_size.needed_samples(comparison.variance, margin, alpha)
    if comparison.units is None or margin >= 1:
        return needed
    square = normal_quantile(1 - alpha) ** 2
    each = comparison.n / comparison.units
    return max(needed, math.ceil(each * square * (1 / margin - 1)))
