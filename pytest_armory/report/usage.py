"""What the evaluations of a session used together: tokens and cost, by ``track_usage``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, isnan, nan

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.text import plural
from pytest_armory.values.totals import total

USAGE = ("tokens/input", "tokens/output", "tokens/total", "cost")
"""What can be added up of it."""

_TRACES, _CALLED, _ALL_REPEATS = "traces", "traces/without_tokens", "all_repeats/"


def _usage_of(records: Sequence[EvaluationRecord]) -> list[Mapping[str, float]]:
    """The metrics of each attempt that called ``track_usage``, over all its repeats."""
    used = [record.metrics for record in records if _CALLED in record.metrics]
    return [_of_all_repeats(m) if _ALL_REPEATS + _CALLED in m else m for m in used]


def _of_all_repeats(metrics: Mapping[str, float]) -> dict[str, float]:
    return {
        name.removeprefix(_ALL_REPEATS): value
        for name, value in metrics.items()
        if name.startswith(_ALL_REPEATS)
    }


def usage_totals(records: Sequence[EvaluationRecord]) -> dict[str, float]:
    """The usage of all attempts, earlier ones too; without what is not known of any of them."""
    used = _usage_of(records)
    known = {name: [m[name] for m in used if _is_known(m, name)] for name in USAGE}
    return {name: total(values) for name, values in known.items() if values}


def _is_known(metrics: Mapping[str, float], name: str) -> bool:
    """Whether a value was logged, and nothing that is not known was added to it since."""
    return not isnan(metrics.get(name, nan))


def usage_lines(records: Sequence[EvaluationRecord]) -> list[str]:
    """A line with the usage of all attempts; none if none of them called ``track_usage``."""
    if not _usage_of(records):
        return []
    totals = usage_totals(records)
    kinds = [
        f"{totals[f'tokens/{kind}']:,.0f} {kind}"
        for kind in ("input", "output")
        if f"tokens/{kind}" in totals
    ]
    tokens = _total(records, "tokens/total", "{:,.0f} tokens") or "tokens unknown"
    cost = _total(records, "cost", "cost {:,.4g} USD") or "cost unknown"
    of_kinds = f" ({', '.join(kinds)})" if kinds else ""
    return [f"used: {tokens}{of_kinds}, {cost}{_without_tokens(records)}"]


def _without_tokens(records: Sequence[EvaluationRecord]) -> str:
    """How many traces are in no sum, as those of failed calls and of streams without usage."""
    known = [metrics for metrics in _usage_of(records) if _is_known(metrics, "tokens/total")]
    counts = [(metrics[_CALLED], metrics.get(_TRACES, nan)) for metrics in known]
    counts = [both for both in counts if all(map(isfinite, both))]  # a test may log them itself
    missing, traces = (int(total([both[i] for both in counts])) for i in (0, 1))
    return f"; {missing:,} of {plural(traces, 'trace')} without tokens" if missing else ""


def _total(records: Sequence[EvaluationRecord], name: str, form: str) -> str:
    """A total, with the number of attempts of which it is not known; "" without any."""
    used = _usage_of(records)
    missing = sum(not _is_known(metrics, name) for metrics in used)
    if missing == len(used):
        return ""
    text = form.format(usage_totals(records)[name])
    return f"{text} and unknown in {plural(missing, 'evaluation')}" if missing else text
