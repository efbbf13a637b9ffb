"""The sentences of evidence: why a verdict is what it is, and what it would need."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_armory.gates.evidence import (
    MOST_SESSIONS,
    NOT_WORSE,
    UNCLEAR,
    Change,
    Evidence,
    Known,
)

if TYPE_CHECKING:
    from pytest_armory.statistics.comparison import Comparison


def evidence_text(evidence: Evidence, change: Change, known: Known) -> str:
    """What a verdict rests on, to follow it and a colon; empty where a word says it all.

    >>> evidence_text(Evidence("worse", 0.00005, -0.04, 0.01, "t over 9 sessions"),
    ...               Change(0.9, 0.92, 0.01, True), Known(history=[0.92] * 9))
    '9 earlier sessions do not scatter as far (p 0.00005)'
    """
    if evidence.verdict == UNCLEAR:
        return _joined(_unclear_text(evidence, change, known), known)
    if evidence.verdict == NOT_WORSE:
        return "; ".join(filter(None, (_left_out_text(known), known.remark)))
    if known.comparison is None:
        return f"{_sessions(known)} do not scatter as far (p {p_text(evidence.p)})"
    return _joined(_worse_text(evidence, change, known), known)


def _joined(text: str, known: Known) -> str:
    return "; ".join(filter(None, (text, _left_out_text(known), known.remark)))


def _left_out_text(known: Known) -> str:
    count = known.comparison.left_out if known.comparison is not None else 0
    if not count:
        return ""
    which = "1 sample without a pair is" if count == 1 else f"{count:,} samples without a pair are"
    return f"{which} left out"


def _sessions(known: Known) -> str:
    return f"{min(len(known.history), MOST_SESSIONS)} earlier sessions"


def _worse_text(evidence: Evidence, change: Change, known: Known) -> str:
    comparison = known.comparison
    assert comparison is not None
    is_proportion = comparison.units is not None
    p = f"(p {p_text(evidence.p)})"
    if comparison.worse is None:
        counted = f"{comparison.n:,} samples {p}"
    else:
        samples = f"of {comparison.n:,} samples {comparison.worse:,} got worse"
        counted = f"{samples}, {comparison.better:,} better {p}"
    word = _word(change)
    low, high = sorted((-change.sign * evidence.low, -change.sign * evidence.high))
    text = f"{counted}; the {word} is {range_text(low, high, is_proportion)}"
    if evidence.scatter is not None:
        text += f"; {_sessions(known)} do not scatter as far"
    return text


def _unclear_text(evidence: Evidence, change: Change, known: Known) -> str:
    comparison = known.comparison
    if comparison is None or evidence.detectable is None:
        return f"p {p_text(evidence.p)}"
    is_proportion = comparison.units is not None
    parts = [_detectable_text(evidence.detectable, comparison, change)]
    if evidence.needed is not None and (evidence.detectable or evidence.needed > comparison.n):
        allowed = amount_text(change.allowed, is_proportion)
        verb = "needs" if allowed == "1 point" else "need"
        parts[0] += f", {allowed} {verb} about {_about(evidence.needed):,}"
        if evidence.needed <= comparison.n:
            parts[0] += f": the {_word(change)} is near that"
    elif evidence.needed is None and 0 < evidence.detectable < math.inf:
        parts[0] += f", and no number of samples tells every {_word(change)} of more than "
        parts[0] += amount_text(change.allowed, is_proportion)
    if evidence.scatter is not None:
        scatter = amount_text(evidence.scatter, is_proportion)
        parts.append(f"{_sessions(known)} scatter by {scatter}")
    return "; ".join(filter(None, parts))


def _word(change: Change) -> str:
    return "rise" if change.higher_is_worse else "fall"


def _detectable_text(detectable: float, comparison: Comparison, change: Change) -> str:
    """What so many samples tell; empty where they tell all, and leave it to earlier sessions."""
    word = _word(change)
    samples = f"{comparison.n:,} sample{'s' * (comparison.n != 1)}"
    if math.isinf(detectable):
        return f"one sample, or one group, tells no {word}"
    if detectable == 0:
        return f"{samples} of one change are too few to tell a {word}" if change.missed else ""
    is_proportion = comparison.units is not None
    if is_proportion and detectable >= 1:  # there is no such fall
        return f"{samples} {'is' if comparison.n == 1 else 'are'} too few to tell a {word}"
    amount = amount_text(detectable, is_proportion)
    return f"{samples} tell{'s' * (comparison.n == 1)} {word}s of {amount} and more"


def _about(count: int) -> int:
    """A count in two significant digits, rounded up."""
    step: int = 10 ** max(len(str(count)) - 2, 0)
    return math.ceil(count / step) * step


def p_text(p: float) -> str:
    """A p without an exponent, in one significant digit, of 0.001 and more in two.

    >>> p_text(0.000047), p_text(0.0234), p_text(0.5), p_text(1e-12)
    ('0.00005', '0.023', '0.5', 'below 0.000001')
    """
    if p < 1e-6:
        return "below 0.000001"
    digits = 1 if p < 0.001 else 2
    decimals = digits - 1 - math.floor(math.log10(p))
    return f"{p:.{max(decimals, 0)}f}".rstrip("0").rstrip(".")


def amount_text(amount: float, is_proportion: bool) -> str:
    """A change in two significant digits, in points if it is one of a proportion.

    >>> amount_text(0.0193, True), amount_text(0.01, True), amount_text(0.0193, False)
    ('1.9 points', '1 point', '0.019')
    """
    if not is_proportion:
        return _two_digits(amount)
    points = _two_digits(amount * 100)
    return f"{points} point{'' if points == '1' else 's'}"


def _two_digits(number: float) -> str:
    """A number in two significant digits, without an exponent up to a million.

    >>> _two_digits(0.0153), _two_digits(99.9), _two_digits(2449)
    ('0.015', '100', '2,400')
    """
    text = f"{number:.2g}"
    return f"{float(text):,.0f}" if 99.5 <= abs(number) < 1e6 else text


def range_text(low: float, high: float, is_proportion: bool) -> str:
    """Two ends of a range, or the one amount that both are.

    >>> range_text(0.0153, 0.0371, True), range_text(-0.5, 1.25, False), range_text(0.1, 0.1, False)
    ('1.5 to 3.7 points', '-0.5 to 1.2', '0.1')
    """
    scale = 100 if is_proportion else 1
    first, last = _two_digits(low * scale), _two_digits(high * scale)
    if first == last:
        return amount_text(low, is_proportion)
    return f"{first} to {last}{' points' * is_proportion}"
