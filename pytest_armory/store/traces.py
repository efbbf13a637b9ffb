"""What MLflow's traces of a run say of tokens, cost and time."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any, NamedTuple

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


def traces_of_run(connection: Connection, experiment_id: str, run_id: str) -> list[TraceUsage]:
    """Every trace of a run that has ended; a request per page, after what waits is sent."""
    settle()
    search = connection.client.search_traces
    place = "locations" if "locations" in signature(search).parameters else "experiment_ids"
    search = partial(
        search, **{place: [experiment_id]}, run_id=run_id, include_spans=False, max_results=PAGE
    )
    found: list[TraceUsage] = []
    token: str | None = None
    while True:
        page = connection.call("searching traces", partial(search, page_token=token))
        found.extend(_usage(trace.info) for trace in page)
        token = page.token
        if not token:
            return found


def _usage(info: Any) -> TraceUsage:
    tokens = getattr(info, "token_usage", None) or {}
    cost = getattr(info, "cost", None) or {}  # since MLflow 3.9
    took = info.execution_duration
    return TraceUsage(
        began=info.request_time / 1000,
        seconds=None if took is None else took / 1000,
        tokens_in=tokens.get("input_tokens"),
        tokens_out=tokens.get("output_tokens"),
        tokens=tokens.get("total_tokens"),
        cost=cost.get("total_cost"),
    )
