"""What MLflow's traces of a run say of tokens, cost and time."""

from __future__ import annotations

import math
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

from pytest_armory.records import fields
from pytest_armory.store.connection import Connection
from pytest_armory.store.tracing import settle

PAGE = 500


class TraceUsage(NamedTuple):
    """One trace: when it began and how long it took in seconds; None is what it does not say."""

    began: float
    seconds: float | None
    tokens_in: int | None
    tokens_out: int | None
    tokens: int | None
    cost: float | None


def traces_of_run(
    connection: Connection, experiment_id: str, run_id: str, problems: list[str]
) -> list[TraceUsage]:
    """Every trace of a run that has ended; a request per page, after what waits is sent.

    ``problems`` gets a sentence for each kind of what cannot be read of them.
    """
    settle()
    search = connection.client.search_traces
    place = "locations" if "locations" in signature(search).parameters else "experiment_ids"
    search = partial(
        search, **{place: [experiment_id]}, run_id=run_id, include_spans=False, max_results=PAGE
    )
    found = connection.pages("searching traces", search)
    return [usage_of(trace.info, problems) for trace in found]


def usage_of(info: Any, problems: list[str]) -> TraceUsage:
    """What an ``mlflow.entities.TraceInfo`` says; its own properties raise for what is not JSON."""
    unreadable: list[str] = []
    metadata = info.trace_metadata
    tokens, cost = (
        fields.read_json(f"a trace's {name}", reader, metadata.get(name, ""), unreadable) or {}
        for name, reader in (("mlflow.trace.tokenUsage", _tokens), ("mlflow.trace.cost", _cost))
    )
    problems += [problem for problem in unreadable if problem not in problems]
    took = info.execution_duration
    return TraceUsage(
        began=info.request_time / 1000,
        seconds=None if took is None else took / 1000,
        tokens_in=tokens.get("input_tokens"),
        tokens_out=tokens.get("output_tokens"),
        tokens=tokens.get("total_tokens"),
        cost=cost.get("total_cost"),
    )


def _finite(value: object) -> float:
    number = fields.number(value)
    if math.isfinite(number):
        return number
    raise fields.UnreadableError("is not finite")


_tokens = fields.members_of(
    dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), fields.optional(fields.count))
)
_cost = fields.members_of({"total_cost": fields.optional(_finite)})  # since MLflow 3.9
