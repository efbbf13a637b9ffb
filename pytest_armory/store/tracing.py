"""Where MLflow's traces go: its exporter is pointed to a store, and nothing of it is set up anew.

MLflow makes its exporter for one tracking URI, when the first span begins, and makes it again only
where ``mlflow.set_tracking_uri`` resets all of tracing, what the user has configured included. So
its exporter is given another client meanwhile, and its own one back.

That client reports what could not be sent, which MLflow only logs, and tries again while another
process holds the lock of the database.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import lru_cache
from time import monotonic, sleep
from typing import Any
from weakref import WeakKeyDictionary

from pytest_armory.store.circuit import Circuit
from pytest_armory.store.translation import as_tracking_error

_destination: tuple[Any, str | None] = (None, None)
"""What the user has set as the destination of traces, and the tracking URI in force then."""

_homes: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Each exporter's own client, where we have given it another."""


def remember_destination(uri: str | None) -> None:
    """Note a destination that was set since the last look: its experiment is one of this store."""
    global _destination
    now = _users_destination()
    if now is not _destination[0]:
        _destination = now, uri


def point_to(uri: str, report: Callable[[str], None], users: Callable[[], str]) -> None:
    """Have the exporter send traces to ``uri``; ``report`` is told what it could not send.

    What waits to be sent goes where it belonged first. Traces for which the user has named an
    experiment of another store, by ``mlflow.tracing.set_destination``, go there: by the same id
    this one has a stranger's. ``users`` gives the tracking URI that the user has set.
    """
    remember_destination(uri)
    exporter = _exporter()
    if exporter is None:
        return
    client = exporter._client
    if _destination[0] is not None and _destination[1] != uri:
        if client.tracking_uri == uri:  # made by MLflow since ours is in force
            settle()
            exporter._client = _client_of(users())
        return
    if isinstance(client, _client_class()):
        if (client.tracking_uri, client.report) == (uri, report):
            return
    else:
        _homes[exporter] = client
    settle()
    exporter._client = _client_class()(uri, report)


def point_home(users: Callable[[], str]) -> None:
    """Have the exporter send traces where the user's tracking URI says, by its own client if so.

    ``users`` gives that URI.
    """
    exporter = _exporter()
    if exporter is None:
        return
    client, uri = exporter._client, users()
    if not isinstance(client, _client_class()):
        return
    settle()
    home = _homes.pop(exporter)
    exporter._client = home if home.tracking_uri == uri else _client_of(uri)


def _client_of(uri: str) -> Any:
    # Not by its constructor, which opens the store: nobody may ever need it.
    client = object.__new__(_plain_class())
    client.tracking_uri = uri
    return client


def settle() -> None:
    """Wait until what our exporters hold is sent, within the budget of a call, and report."""
    for exporter in list(_homes) or filter(None, [_exporter()]):
        _await(exporter)


def _await(exporter: Any) -> None:
    deadline = monotonic() + Circuit.budget
    provider = sys.modules["mlflow.tracing.provider"]
    processor: Any = getattr(provider, "_get_span_processor", lambda: None)()
    if getattr(processor, "_batch_delegate", None) is not None:
        processor.force_flush(Circuit.budget * 1000)
    queue = getattr(getattr(exporter, "_async_queue", None), "_queue", None)
    if queue is not None:
        with queue.all_tasks_done:
            while queue.unfinished_tasks and monotonic() < deadline:
                queue.all_tasks_done.wait(max(0.0, deadline - monotonic()))
    client = exporter._client
    if isinstance(client, _client_class()):
        client.report_lost()
        if queue is not None and queue.unfinished_tasks:
            client.report(
                f"traces are still being sent after {Circuit.budget:g} s, and may be lost"
            )


def _exporter() -> Any:
    """MLflow's exporter for its own stores, if a span has begun by now and tracing is enabled."""
    provider = sys.modules.get("mlflow.tracing.provider")
    if provider is None:
        return None
    exporter = provider._get_trace_exporter()
    return exporter if hasattr(getattr(exporter, "_client", None), "tracking_uri") else None


def _users_destination() -> Any:
    """The experiment that the user sends traces to, if so."""
    provider = sys.modules.get("mlflow.tracing.provider")
    registry = getattr(provider, "_MLFLOW_TRACE_USER_DESTINATION", None)
    destination = registry.get() if registry is not None else None
    return destination if getattr(destination, "experiment_id", None) else None


@lru_cache(maxsize=1)
def _plain_class() -> Any:
    from mlflow.tracing.client import TracingClient

    return TracingClient


@lru_cache(maxsize=1)
def _client_class() -> Any:
    """A client that reports what it could not send, and waits for a database's lock."""

    class ReportingClient(_plain_class()):  # type: ignore[misc] # MLflow's class has no types
        def __init__(self, uri: str, report: Callable[[str], None]) -> None:
            self.tracking_uri = uri
            self.report = report
            self._lost: dict[str, str] = {}

        def start_trace(self, trace_info: Any) -> Any:
            return self._sent(trace_info.trace_id, super().start_trace, trace_info)

        def log_spans(self, location: str, spans: list[Any]) -> Any:
            ids = [span.trace_id for span in spans[:1]]
            return self._sent(ids[0] if ids else "", super().log_spans, location, spans)

        def _upload_trace_data(self, trace_info: Any, trace_data: Any) -> Any:
            sent = self._sent(
                trace_info.trace_id, super()._upload_trace_data, trace_info, trace_data
            )
            self._lost.pop(trace_info.trace_id, None)  # its spans are in there
            return sent

        def _sent(self, trace_id: str, send: Callable[..., Any], *arguments: Any) -> Any:
            deadline = monotonic() + Circuit.budget
            while True:
                try:
                    return send(*arguments)
                except NotImplementedError:  # the store keeps spans with the trace's data
                    raise
                except Exception as error:
                    if "database is locked" not in str(error) or monotonic() > deadline:
                        self._lost[trace_id] = str(as_tracking_error(error))
                        raise
                sleep(random.uniform(0.01, 0.1))

        def report_lost(self) -> None:
            """Tell of the traces that were not stored whole."""
            reasons: dict[str, int] = {}
            while self._lost:
                _, reason = self._lost.popitem()
                reasons[reason] = reasons.get(reason, 0) + 1
            for reason, count in reasons.items():
                self.report(f"{count:,} trace{'s' * (count != 1)} could not be sent: {reason}")

    return ReportingClient
