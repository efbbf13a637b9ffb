"""Metrics, bounds and tolerances -> verdicts, and the sentences of these. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import NamedTuple

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.gates.evidence import (
    LEAST_FOR_NOISE,
    UNCLEAR,
    WORSE,
    Change,
    Evidence,
    Known,
    Terms,
    weigh,
    weigh_noise,
)
from pytest_armory.gates.evidence_text import evidence_text
from pytest_armory.gates.formatting import distinct_number, exact_number
from pytest_armory.gates.parse import Tolerance, parse_tolerance
from pytest_armory.records import USAGE, EvaluationRecord, Verdict

SLACK = 2e-7
"""The slack for floating-point rounding at a tolerance's limit, relative to the baseline's value.

In float32, 0.95 is less than 95 % of 1.0: this is a little more than the rounding error of both
values. It is never more than a thousandth of what the tolerance itself allows, so that there is
none for a tolerance of zero, nor for the bounds ``at_least`` and ``at_most``.
"""

NAMED = 5
"""How many of the logged metrics are named if none is similar to the missing one."""

_BASELINE_RULE = "baseline "

_OF_SEQUENCE = (
    "was logged as a list or an array, which no gate judges; log one number, such as its mean, or "
    "each value with `step=`; one value for each sample is for `track_samples`, which logs the mean"
)


class _Finding(NamedTuple):
    """A gate's judgement of a value; the fields are those of :class:`Verdict`."""

    state: str
    text: str
    limit: float | None = None


def judge(
    metrics: Mapping[str, float],
    *,
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
    tolerances: Mapping[str, Tolerance] | None = None,
    session_tolerances: Mapping[str, Tolerance] | None = None,
    baseline: Mapping[str, float] | None = None,
    sequences: Set[str] = frozenset(),
    known: Mapping[str, Known] | None = None,
    terms: Terms = Terms(),  # noqa: B008 - it is frozen
) -> list[Verdict]:
    """One verdict for every gate: bounds first, then tolerances, each in the order given.

    ``tolerances`` and the bounds require their metrics, so that one never logged fails;
    ``session_tolerances`` apply to metrics that were logged and are not in ``tolerances``.
    ``baseline`` holds the baseline run's metrics, None if there is no such run. Gates on the
    ``sequences``, which were logged as a list or an array, are missed. ``known`` is what is known
    of the chance in a metric's change, by the ``terms`` of the session. Never raises for bounds
    that :func:`~pytest_armory.gates.parse.bounds_problem` finds nothing wrong with.
    """
    compared = dict(tolerances or {})
    for metric in filter(metrics.__contains__, session_tolerances or {}):
        compared.setdefault(metric, (session_tolerances or {})[metric])
    verdicts = [
        *(_judge_bound(metrics, m, float(b), "at_least") for m, b in (at_least or {}).items()),
        *(_judge_bound(metrics, m, float(b), "at_most") for m, b in (at_most or {}).items()),
        *(
            _judge_tolerance(metrics, m, t, baseline, (known or {}).get(m, Known()), terms)
            for m, t in compared.items()
        ),
    ]
    return [_missed(v, _OF_SEQUENCE) if v.metric in sequences else v for v in verdicts]


def _missed(verdict: Verdict, text: str) -> Verdict:
    return replace(verdict, state="failed", text=text)


def judge_again(
    record: EvaluationRecord,
    baseline: Mapping[str, float] | None,
    known: Mapping[str, Known] | None = None,
    terms: Terms = Terms(),  # noqa: B008 - it is frozen
) -> EvaluationRecord:
    """The record with another baseline run's metrics, and its gates on that judged by them.

    The tolerances are those of its verdicts, and what an unclear one does; the verdicts of its
    bounds stay as they are. A rule that cannot be read is not judged.
    """
    kept = [_not_on_baseline(v) for v in record.verdicts if _tolerance_of(v) is None]
    policies = {v.metric: v.unclear or "pass" for v in record.verdicts if depends_on_baseline(v)}
    compared = [
        verdict
        for metric, tolerance in tolerances_of(record).items()
        for verdict in judge(
            record.metrics,
            tolerances={metric: tolerance},
            baseline=baseline,
            known=known,
            terms=replace(terms, unclear=policies[metric]),
        )
    ]
    return replace(record, baseline=dict(baseline or {}), verdicts=(*kept, *compared))


def tolerances_of(record: EvaluationRecord) -> dict[str, Tolerance]:
    """The tolerances that a record's gates were, by metric; what cannot be read is left out."""
    found = ((verdict.metric, _tolerance_of(verdict)) for verdict in record.verdicts)
    return {metric: tolerance for metric, tolerance in found if tolerance is not None}


def _tolerance_of(verdict: Verdict) -> Tolerance | None:
    """The tolerance of a gate on a baseline; None for a bound, or for a rule from a store that
    cannot be read."""
    if not depends_on_baseline(verdict):
        return None
    try:
        return parse_tolerance(verdict.rule.removeprefix(_BASELINE_RULE))
    except ArmoryUsageError:
        return None


def _not_on_baseline(verdict: Verdict) -> Verdict:
    if not depends_on_baseline(verdict):
        return verdict
    return replace(verdict, state="unjudged", text="has a tolerance that cannot be read")


def depends_on_baseline(verdict: Verdict) -> bool:
    """Whether a verdict is that of a tolerance, and not of a list or an array."""
    return verdict.rule.startswith(_BASELINE_RULE) and verdict.text != _OF_SEQUENCE


def unread(verdict: Verdict) -> Verdict:
    """The verdict if the store could not be read: a metric that seems missing is not judged."""
    if verdict.state != "failed" or verdict.value is not None:
        return verdict
    return replace(verdict, state="unjudged", text="cannot be read back from the store")


# Bounds


def _judge_bound(metrics: Mapping[str, float], metric: str, bound: float, kind: str) -> Verdict:
    is_upper, rule = kind == "at_most", f"{kind} {exact_number(bound)}"
    value = _number_of(metrics, metric)
    if value is None:
        found = _Finding("failed", _never_logged(metric, metrics))
    else:
        found = _check_bound(value, bound, is_upper, rule)
    return Verdict(
        metric, rule, found.state, value, bound, text=found.text, higher_is_worse=is_upper
    )


def _check_bound(value: float, bound: float, is_upper: bool, rule: str) -> _Finding:
    """``value <= bound`` for an upper bound, else ``value >= bound``; NaN misses both."""
    if math.isnan(value):
        return _Finding("failed", f"misses {rule}, as NaN misses every bound")
    if value <= bound if is_upper else value >= bound:
        return _Finding("passed", f"meets {rule}")
    excess = distinct_number(abs(value - bound))
    return _Finding("failed", f"is {'above' if is_upper else 'below'} {rule} by {excess}")


# Tolerances


def allowed_change(base: float, tolerance: Tolerance) -> float:
    """The change that a tolerance allows, in the metric's unit.

    ``amount``, or ``amount / 100 * |base|`` of a percentage; NaN for 0 % of infinity.
    """
    return tolerance.amount / 100 * abs(base) if tolerance.percent else tolerance.amount


def rounding_slack(base: float, allowed: float) -> float:
    """The slack at the limit, in the metric's unit: see :data:`SLACK`.

    ``min(SLACK * max(|base|, allowed), allowed / 1000)``; the second keeps ``"+1"`` exact on a
    count of millions, and ``"-0"`` everywhere.
    """
    return min(SLACK * max(abs(base), allowed), allowed / 1000)


def _judge_tolerance(
    metrics: Mapping[str, float],
    metric: str,
    tolerance: Tolerance,
    baseline: Mapping[str, float] | None,
    known: Known,
    terms: Terms,
) -> Verdict:
    value, base = _number_of(metrics, metric), _number_of(baseline or {}, metric)
    unclear = "" if terms.unclear == "pass" else terms.unclear
    if base is None:
        text = "is not in the baseline run" if baseline is not None else "has no baseline run"
        missing = f", and {_never_logged(metric, metrics)}" if value is None else ""
        found = _Finding("unjudged", text + missing)
    elif value is None:
        found = _Finding("failed", _never_logged(metric, metrics))
    elif tolerance.noise:
        judged = _judge_noise(metric, value, base, tolerance, known, terms)
        return replace(judged, unclear=unclear)
    else:
        found = _check_change(value, base, tolerance)
    rule, higher = f"{_BASELINE_RULE}{tolerance}", tolerance.higher_is_worse
    verdict = Verdict(
        metric, rule, found.state, value, found.limit, base, found.text, higher, unclear=unclear
    )
    return _with_evidence(verdict, tolerance, known, terms)


def _check_change(value: float, base: float, tolerance: Tolerance) -> _Finding:
    """Whether a value is no further on the worse side of ``base`` than the tolerance allows.

    ``sign * value <= sign * limit + slack``, where ``limit = base + sign * allowed`` and ``sign``
    is 1 if higher is worse, else -1. A change for the better passes. NaN is not judged, nor a
    percentage of zero or of infinity.
    """
    if math.isnan(value) or math.isnan(base):
        return _Finding("unjudged", "is NaN" if math.isnan(value) else "is NaN in the baseline run")
    sign = 1 if tolerance.higher_is_worse else -1
    allowed = allowed_change(base, tolerance)
    limit = base + sign * allowed
    change = _change_text(value, base, tolerance)
    if sign * value <= sign * base:
        return _Finding("passed", change, None if math.isnan(limit) else limit)
    if tolerance.percent and (base == 0 or math.isinf(base)):
        return _Finding("unjudged", _no_percentage_text(base, tolerance))
    passed = sign * value <= sign * limit + rounding_slack(base, allowed)
    text = f'{change}; "{tolerance}" allows {distinct_number(limit, value)}'
    return _Finding("passed" if passed else "failed", text, limit)


def _with_evidence(verdict: Verdict, tolerance: Tolerance, known: Known, terms: Terms) -> Verdict:
    """A verdict, decided by what is known of the samples, if anything is."""
    if verdict.state == "unjudged" or verdict.value is None or verdict.baseline is None:
        return verdict
    allowed = allowed_change(verdict.baseline, tolerance)
    if known.unreadable and not math.isnan(verdict.value):
        missed = verdict.state == "failed"
        text = known.unreadable + "; by the change alone it is missed" * missed
        return replace(verdict, state="unjudged", text=text, unread=missed)
    if known.comparison is None or not math.isfinite(allowed):
        return replace(verdict, evidence=known.remark)
    change = Change(
        value=verdict.value,
        base=verdict.baseline,
        allowed=allowed + rounding_slack(verdict.baseline, allowed),
        missed=verdict.state == "failed",
        higher_is_worse=tolerance.higher_is_worse,
    )
    return _decided(verdict, weigh(change, known, terms), change, known, terms)


def _decided(
    verdict: Verdict, found: Evidence, change: Change, known: Known, terms: Terms
) -> Verdict:
    """A verdict with its evidence, and the state that this gives it."""
    comparison, text = known.comparison, verdict.text
    if found.verdict == UNCLEAR and terms.unclear != "measured":
        state = "failed" if terms.unclear == "fail" else "passed"
        text += ", and whether it is worse is unclear" * (state == "failed")
    else:
        state = verdict.state
    return replace(
        verdict,
        state=state,
        text=text,
        verdict=found.verdict,
        p=found.p,
        low=found.low,
        high=found.high,
        worse=comparison.worse if comparison else None,
        better=comparison.better if comparison else None,
        needed=found.needed,
        method=found.method,
        evidence=evidence_text(found, change, known),
    )


def _judge_noise(
    metric: str, value: float, base: float, tolerance: Tolerance, known: Known, terms: Terms
) -> Verdict:
    """Whether a value is within what earlier sessions scatter; that needs some of them."""
    higher = tolerance.higher_is_worse
    rule = f"{_BASELINE_RULE}{tolerance}"
    verdict = Verdict(metric, rule, "unjudged", value, None, base, higher_is_worse=higher)
    if math.isnan(value) or known.unreadable:
        return replace(verdict, text="is NaN" if math.isnan(value) else known.unreadable)
    history = [past for past in known.history if math.isfinite(past)]
    if len(history) < LEAST_FOR_NOISE:
        count = f"{len(history)} earlier session{'s' * (len(history) != 1)}"
        return replace(verdict, text=f'has {count}; "{tolerance}" needs {LEAST_FOR_NOISE}')
    found, limit = weigh_noise(metric, value, history, terms.alpha, higher)
    sign = 1 if higher else -1
    # As everywhere: in float32 an unchanged value may differ in its last place.
    missed = found.verdict == WORSE and sign * (value - limit) > SLACK * abs(limit)
    allows = f'"{tolerance}" allows {distinct_number(limit, value)}'
    text = f"{_change_text(value, base, tolerance)}; {allows}"
    change = Change(value, base, abs(limit - base), missed, higher)
    verdict = replace(verdict, state="failed" if missed else "passed", limit=limit, text=text)
    found = found if missed else replace(found, verdict="not worse")
    return _decided(verdict, found, change, replace(known, comparison=None, remark=""), terms)


def _change_text(value: float, base: float, tolerance: Tolerance) -> str:
    """The change from the baseline's value, in percent if the tolerance is."""
    if value == base:
        return f"is the baseline's {distinct_number(base)}"
    percent = tolerance.percent and base != 0 and math.isfinite(base)
    change = abs(value - base) / abs(base) * 100 if percent else abs(value - base)
    change = float(f"{change:.9g}")  # without what 1.0 - 0.98 leaves in the last place
    amount = distinct_number(change, tolerance.amount, digits=2 if percent else 4) + " %" * percent
    direction = f"rose {amount} above" if value > base else f"fell {amount} below"
    return f"{direction} the baseline's {distinct_number(base, value)}"


def _no_percentage_text(base: float, tolerance: Tolerance) -> str:
    absolute = Tolerance(0.01, False, tolerance.higher_is_worse)
    return (
        f"has a baseline of {distinct_number(base)}, which has no percentage; without %, as "
        f'"{absolute}", it can be judged'
    )


# Metrics


def _number_of(metrics: Mapping[str, float], metric: str) -> float | None:
    return float(metrics[metric]) if metric in metrics else None


def _never_logged(metric: str, metrics: Iterable[str]) -> str:
    import difflib

    names = {name.casefold(): name for name in metrics}
    nearest = difflib.get_close_matches(metric.casefold(), names, n=1)
    if nearest:
        return f"was never logged; did you mean {names[nearest[0]]!r}?"
    if metric in USAGE:
        return "was never logged; `track_usage()`, called after the last answer, logs it"
    some = ", ".join(map(repr, list(names.values())[:NAMED]))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"was never logged; logged were {some}{more}" if some else "was never logged"


# What a test fails with


def failure_text(verdicts: Iterable[Verdict]) -> str:
    """The text that a test fails with: a line for each missed gate; "" if there is none."""
    failed = [verdict for verdict in verdicts if verdict.state == "failed"]
    # Once each: a metric that was never logged misses all its gates with the same text.
    rows = list(dict.fromkeys(map(_failure_row, failed)))
    if not rows:
        return ""
    missed = f"{len(failed)} gate{'s' * (len(failed) != 1)} missed"
    if len(rows) == 1:  # then it all fits in pytest's short summary
        *words, evidence = rows[0]
        first = f"{missed}: {' '.join(filter(None, words))}"
        return f"{first}\n  {evidence}" if evidence else first
    names, values = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = []
    for name, value, text, evidence in rows:
        lines.append(f"  {name:{names}}  {f'{value:{values}}  ' if value else ''}{text}")
        lines += [f"    {evidence}"] if evidence else []
    return "\n".join([f"{missed}: {', '.join(dict.fromkeys(row[0] for row in rows))}", *lines])


def _failure_row(verdict: Verdict) -> tuple[str, str, str, str]:
    value = "" if verdict.value is None else distinct_number(verdict.value, verdict.limit)
    name = verdict.metric if verdict.metric.isprintable() else repr(verdict.metric)
    evidence = f"{verdict.verdict}: {verdict.evidence}" if verdict.verdict else ""
    return name, value, verdict.text, evidence
