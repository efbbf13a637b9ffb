"""Two proportions: tests and intervals of their difference, paired and unpaired.

One side is this run, the other the baseline. Paired, only the samples count of which the answers
differ: ``worse`` were right and are wrong now, ``better`` the other way round.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_armory.statistics.intervals import Interval, wilson
from pytest_armory.statistics.numeric import floats, normal_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Paired


def exact_p(worse: int, better: int) -> float:
    """McNemar's exact one-sided p: chance alone makes so many of the flips ones for the worse.

    ``P(X >= worse)`` where X is binomial with ``worse + better`` trials and probability 1/2. The
    two-sided p is twice the smaller of this and of that with the sides exchanged.

    Source: Q. McNemar, Psychometrika 12:153, 1947.

    >>> 2 * exact_p(7, 1)
    0.0703125
    """
    return _upper_tail(worse, worse + better)


def mid_p(worse: int, better: int) -> float:
    """McNemar's one-sided mid-p: ``P(X > worse) + P(X = worse) / 2``; 0.5 without flips.

    X is as in :func:`exact_p`, which is too careful: with few flips it rejects in 1 to 4 % of cases
    where 5 % are allowed.

    Source: M. W. Fagerland, S. Lydersen, P. Laake, BMC Med. Res. Methodol. 13:91, 2013.

    >>> 2 * mid_p(7, 1)
    0.0390625
    """
    flips = worse + better
    return (_upper_tail(worse, flips) + _upper_tail(worse + 1, flips)) / 2


def _upper_tail(successes: int, trials: int) -> float:
    """P(X >= successes) of a binomial with probability 1/2."""
    from scipy.special import bdtrc

    if successes <= 0:
        return 1.0
    return float(bdtrc(successes - 1, trials, 0.5)) if successes <= trials else 0.0


def tango(better: float, worse: float, n: int, confidence: float = 0.95) -> Interval:
    """Tango's score interval of the difference ``(better - worse) / n`` of paired proportions.

    The differences d at which the score ``(b - c - n d) / sqrt(n (2 q + d (1 - d)))`` is ± the
    normal quantile at ``(1 + confidence) / 2``, where ``b = better``, ``c = worse`` and q is the
    most likely share of flips for the worse if the difference is d:
    ``q = (sqrt(B² - 8 n C) - B) / 4 n``, ``B = (2 n - b + c) d - b - c``, ``C = -c d (1 - d)``.
    It has a width where there are no flips. Raises :class:`ValueError` unless ``n > 0`` and
    ``0 <= better + worse <= n``.

    Source: T. Tango, Statistics in Medicine 17:891, 1998.

    >>> low, high = tango(12, 2, 50)
    >>> print(f"{low:.4f} {high:.4f}")
    0.0611 0.3447
    """
    if n <= 0 or min(better, worse) < 0 or better + worse > n:
        raise ValueError(f"{better} better and {worse} worse of {n}")
    z = normal_quantile((1 + confidence) / 2)
    return Interval(-_tango_end(worse, better, n, z), _tango_end(better, worse, n, z))


def _tango_end(b: float, c: float, n: int, z: float) -> float:
    """The upper end, by bisection: the score falls in d, and is 0 at the difference itself."""
    low, high = (b - c) / n, 1.0
    while low < (middle := (low + high) / 2) < high:
        if _tango_score(b, c, n, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def _tango_score(b: float, c: float, n: int, d: float) -> float:
    linear = (2 * n - b + c) * d - b - c
    root = math.sqrt(max(linear * linear + 8 * n * c * d * (1 - d), 0.0))
    q = (root - linear) / (4 * n)
    variance = n * (2 * q + d * (1 - d))
    distance = b - c - n * d
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def sparse_interval(
    gains: ArrayLike, confidence: float = 0.95, *, are_shares: bool = True
) -> Interval:
    """Tango's interval of a mean of gains that are mostly 0, as of answers averaged by sample.

    ``gains`` has shape (n,), one for each independent unit. They are taken for flips of one size,
    ``h = sum(g²) / sum(|g|)``: h times :func:`tango`'s interval of ``sum(g > 0) / h`` better and
    ``sum(|g < 0|) / h`` worse, and no end nearer to the mean than without any flip. Of 0 and 1,
    answered once, it is mostly :func:`tango`'s. Where few gains differ from 0, Student's t says too
    early that a fall is within a margin: of a model worse by the margin in 7 to 14 % of cases,
    where 5 % are allowed.

    ``are_shares`` says that gains are from -1 to 1, and a flip may be as large; of others it is
    taken to be of size h, and without any gain the interval has no width.

    Source: none but :func:`tango`'s; how often it errs is measured by ``benchmarks/evidence.py``.

    >>> low, high = sparse_interval([-0.2] * 3 + [0.2] * 2 + [0] * 195)
    >>> print(f"{low:.4f} {high:.4f}")
    -0.0198 0.0178
    >>> low, high = sparse_interval([-20] * 3 + [20] * 2 + [0] * 195, are_shares=False)
    >>> print(f"{low:.4f} {high:.4f}")
    -0.6895 0.4515
    """
    array = floats(gains)
    n, largest = len(array), float(abs(array).max())
    none = tango(0, 0, n, confidence)
    if largest == 0:
        return none if are_shares else Interval(0.0, 0.0)
    array = array / largest  # the squares of others may be too large, or 0
    size = abs(array)
    unit = float(size @ size) / float(size.sum())
    better, worse = (float(side.sum()) / unit for side in (array.clip(min=0), -array.clip(max=0)))
    most = min(1.0, n / (better + worse))  # but for rounding it is never more than n
    low, high = tango(better * most, worse * most, n, confidence)
    mean, flip = float(array.mean()), 1 / largest if are_shares else unit
    ends = min(unit * low, mean + flip * none.low), max(unit * high, mean + flip * none.high)
    if are_shares:
        return Interval(max(ends[0] * largest, -1.0), min(ends[1] * largest, 1.0))
    return Interval(ends[0] * largest, ends[1] * largest)


# Unpaired


def pooled_p(successes: int, n: int, base_successes: int, base_n: int) -> float:
    """The one-sided p of the pooled score test that the first proportion is the lower one.

    ``Φ(z)``, ``z = (p1 - p2) / sqrt(p (1 - p) (1/n1 + 1/n2))`` where p is the proportion of both
    together; 0.5 where p is 0 or 1. ``z²`` is Pearson's χ² of the table of two by two.

    Source: K. Pearson, 1900; G. J. G. Upton, J. R. Stat. Soc. A 145:86, 1982.

    >>> round(pooled_p(48, 80, 56, 70), 6)
    0.004023
    """
    from scipy.special import ndtr

    together = (successes + base_successes) / (n + base_n)
    variance = together * (1 - together) * (1 / n + 1 / base_n)
    if variance <= 0:
        return 0.5
    return float(ndtr((successes / n - base_successes / base_n) / math.sqrt(variance)))


def separation_p(n: int, base_n: int) -> float:
    """The one-sided mid-p that chance alone puts all of n values below all of ``base_n`` others.

    ``1 / (2 C(n + base_n, n))``: half the permutation test's p. It is for sides without any spread,
    of which t makes no p.

    Source: R. A. Fisher, "The Design of Experiments", 1935, section 21; the half as in
    :func:`mid_p`.

    >>> round(separation_p(3, 3), 12)
    0.025
    """
    from scipy.special import betaln

    # As C may be too large for a float: 1 / C(a + b, a) = (a + b + 1) B(a + 1, b + 1).
    logarithm = math.log(n + base_n + 1) + float(betaln(n + 1, base_n + 1))
    return math.exp(logarithm) / 2


def newcombe(
    successes: float, n: int, base_successes: float, base_n: int, confidence: float = 0.95
) -> Interval:
    """Newcombe's interval of the difference of two independent proportions, first minus second.

    ``d - sqrt((p1 - l1)² + (u2 - p2)²)`` and ``d + sqrt((u1 - p1)² + (p2 - l2)²)``, where l and u
    are the ends of :func:`~pytest_armory.statistics.intervals.wilson`'s interval of each.

    Source: R. G. Newcombe, Statistics in Medicine 17:873, 1998, method 10.

    >>> low, high = newcombe(56, 70, 48, 80)
    >>> print(f"{low:.4f} {high:.4f}")
    0.0524 0.3339
    """
    p1, p2 = successes / n, base_successes / base_n
    low1, high1 = wilson(successes, n, confidence)
    low2, high2 = wilson(base_successes, base_n, confidence)
    return Interval(
        p1 - p2 - math.hypot(p1 - low1, high2 - p2), p1 - p2 + math.hypot(high1 - p1, p2 - low2)
    )
