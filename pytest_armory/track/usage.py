"""Tokens, cost and latency of a run, by its MLflow traces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_armory.records import USAGE
from pytest_armory.track.context import current_run
from pytest_armory.track.repeats import ALL_REPEATS
from pytest_armory.values.totals import total

if TYPE_CHECKING:
    from pytest_armory.store.traces import TraceUsage
    from pytest_armory.track.run import EvaluationRun

_UNTRACKED = "is unknown: usage is read from MLflow's traces, and nothing is tracked"
_UNREAD = "is unknown: the traces of the run cannot be read"


def track_usage() -> dict[str, float]:
    """Log what MLflow's traces of the current run say of tokens, cost and latency; returns it.

    ``tokens/input``, ``tokens/output`` and ``tokens/total``; ``cost`` in US dollars;
    ``latency/p50`` and ``latency/p95`` in seconds, of whole traces; ``traces``, and
    ``traces/without_tokens``. What no trace says is not logged, and a gate on it is not judged;
    ``cost`` is not logged either where a trace has tokens and no cost. Of traces that have ended:
    call it after the last answer. In a repeated body it is of this repeat, and of all repeats so
    far under ``all_repeats/``; what one repeat does not know has no mean. What an earlier call
    knew and this one does not becomes NaN. Outside every run, and in one that is not tracked,
    nothing is logged.
    """
    run = current_run()
    if run is None:
        return {}
    repeats = run.writer.repeats
    is_tracked = run.connection.location is not None
    traces = _traces(run) if is_tracked else None
    why = _UNREAD if is_tracked else _UNTRACKED
    if repeats is None:
        return _log(run, traces, why)
    _log(run, traces, why, ALL_REPEATS)
    began = repeats.began - 1e-3  # traces have milliseconds
    return _log(run, traces and [trace for trace in traces if trace.began >= began], why)


def _log(
    run: EvaluationRun, traces: Sequence[TraceUsage] | None, why: str, prefix: str = ""
) -> dict[str, float]:
    """Log the usage of traces, and note what is not known of it; returns it.

    ``why`` says why there are no traces.
    """
    logged, repeats = run.writer.metrics, run.writer.repeats
    usage = {} if traces is None else summed(traces)
    new = {f"{prefix}{name}": value for name, value in usage.items()}
    missing = {
        f"{prefix}{name}": why if traces is None else _reason(name, traces)
        for name in USAGE
        if name not in usage
    }
    stale = [
        name
        for name in missing
        if logged.values.get(name, math.nan) == logged.usage.get(name)  # no one else's
    ]
    if new or stale:
        run.writer.log_results({**new, **dict.fromkeys(stale, math.nan)}, {})
    logged.usage.update(new)
    logged.unknown.update(missing)
    if repeats is not None and not prefix:
        repeats.note_unknown(missing)
    return usage


def _traces(run: EvaluationRun) -> list[TraceUsage] | None:
    """The traces of a run; None if they cannot be read."""
    from pytest_armory.store.traces import traces_of_run

    connection = run.connection
    found: list[list[TraceUsage]] = []
    problems: list[str] = []

    def read() -> None:
        found.append(
            [
                trace
                for part in connection.parts
                for trace in traces_of_run(
                    part.store.connection, part.experiment_id, part.run_id, problems
                )
            ]
        )

    with connection.waiting():
        connection.attempt(read)
    connection.problems += [one for one in problems if one not in connection.problems]
    return found[0] if found else None


def summed(traces: Sequence[TraceUsage]) -> dict[str, float]:
    """The sums over traces and the percentiles of their time; without what is not known."""
    named: dict[str, list[float | None]] = {
        "tokens/input": [trace.tokens_in for trace in traces],
        "tokens/output": [trace.tokens_out for trace in traces],
        "tokens/total": [trace.tokens for trace in traces],
        "cost": [trace.cost for trace in traces],
    }
    if any(trace.cost is None and trace.tokens for trace in traces):
        named["cost"] = []
    known = {name: [v for v in values if v is not None] for name, values in named.items()}
    seconds = sorted(trace.seconds for trace in traces if trace.seconds is not None)
    return {
        **{name: float(total(values)) for name, values in known.items() if values},
        **({"latency/p50": percentile(seconds, 0.5)} if seconds else {}),
        **({"latency/p95": percentile(seconds, 0.95)} if seconds else {}),
        "traces": float(len(traces)),
        "traces/without_tokens": float(sum(trace.tokens is None for trace in traces)),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of sorted values lies, interpolated as NumPy's default does."""
    position = share * (len(values) - 1)
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (position - low) * (values[high] - values[low])


def _reason(name: str, traces: Sequence[TraceUsage]) -> str:
    if not traces:
        return "is unknown: the run has no traces, as mlflow.openai.autolog() makes them"
    if name == "cost" and any(trace.tokens for trace in traces):
        count = sum(trace.cost is None and bool(trace.tokens) for trace in traces)
        return f"is unknown: {count:,} of {len(traces):,} traces have tokens and no cost"
    return f"is unknown: none of {len(traces):,} traces says it"
