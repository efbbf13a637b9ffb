"""Where MLflow's traces go: nothing of its tracing is set up anew, but its processor's exporter.

MLflow makes its exporter for one tracking URI, when the first span begins, and makes it again only
where ``mlflow.set_tracking_uri`` resets all of tracing, what the user has configured included. So
its span processor is given another exporter meanwhile, and its own one back; what waits to be sent
goes on where it belongs, with the exporter that it was given to.

The client of that exporter reports what could not be sent, which MLflow only logs, and tries again
while another process holds the lock of the database.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import copy
from functools import lru_cache
from random import uniform
from time import monotonic, sleep
from typing import Any
from weakref import WeakKeyDictionary

from filelock import FileLock, Timeout

from pytest_armory.store.circuit import Circuit
from pytest_armory.store.translation import as_tracking_error

_destination: tuple[Any, str | None] = (None, None)
"""What the user has set as the destination of traces, and the tracking URI in force then."""

_homes: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Each span processor's own exporter, where we have given it another."""

_ours: list[Any] = []
"""Our exporters that may still hold something, and the one in use."""


def remember_destination(uri: str | None) -> None:
    """Note a destination that was set since the last look: its experiment is one of this store."""
    global _destination
    now = _users_destination()
    if now is not _destination[0]:
        _destination = now, uri


def point_to(uri: str, report: Callable[[str], None], users: Callable[[], str]) -> None:
    """Have traces sent to ``uri``; ``report`` is told what could not be sent.

    Traces for which the user has named an experiment of another store, by
    ``mlflow.tracing.set_destination``, go there: by the same id this one has a stranger's.
    ``users`` gives the tracking URI that the user has set.
    """
    remember_destination(uri)
    processor = _processor()
    if processor is None:
        return
    exporter = processor.span_exporter
    if _destination[0] is not None and _destination[1] != uri:
        if exporter._client.tracking_uri == uri:  # made by MLflow since ours is in force
            _use(processor, _copy(exporter, _client_of(users())))
        return
    if not isinstance(exporter._client, _client_class()):
        _homes[processor] = exporter
        known = [one for one in _ours if one._client.tracking_uri == uri]
        if not known:
            _ours.append(_copy(exporter, _client_class()(uri)))
        exporter = known[-1] if known else _ours[-1]
        _use(processor, exporter)
    exporter._client.report = report


def point_home(users: Callable[[], str]) -> None:
    """Have traces sent where the user's tracking URI says, by MLflow's own exporter if so.

    ``users`` gives that URI.
    """
    processor = _processor()
    if processor is None or processor not in _homes:
        return
    home, uri = _homes.pop(processor), users()
    _use(processor, home if home._client.tracking_uri == uri else _copy(home, _client_of(uri)))


def _use(processor: Any, exporter: Any) -> None:
    """Give a span processor another exporter; spans that wait in it go to the one before."""
    _flush_batches()
    batches = getattr(processor, "_batch_delegate", None)
    if batches is not None:
        vars(getattr(batches, "_batch_processor", batches)).update(_exporter=exporter)
    processor.span_exporter = exporter


def _flush_batches() -> None:
    batches = getattr(_processor(), "_batch_delegate", None)
    if batches is not None:
        batches.force_flush(int(Circuit.budget * 1000))


def _copy(exporter: Any, client: Any) -> Any:
    """An exporter with the same settings, and a client and a queue of its own."""
    other = copy(exporter)
    other._client = client
    if hasattr(exporter, "_async_queue"):
        other._async_queue = type(exporter._async_queue)()
        # It waits for its own tasks at exit, and would do so before the spans in batches come.
        atexit.unregister(_flush_batches)
        atexit.register(_flush_batches)
    if hasattr(exporter, "_deferred_root_spans"):
        other._deferred_root_spans, other._deferred_lock = {}, threading.Lock()
    return other


def _client_of(uri: str) -> Any:
    # Not by its constructor, which opens the store: nobody may ever need it.
    client = object.__new__(_plain_class())
    client.tracking_uri = uri
    return client


def settle() -> None:
    """Wait until what our exporters hold is sent, as long as they get on, and report what was lost.

    An exporter that gets on with nothing for the budget of a call is not waited for.
    """
    processor = _processor()
    _flush_batches()
    for exporter in list(_ours):
        if not _is_sent(exporter):
            exporter._client.report(
                f"traces are still being sent after {Circuit.budget:g} s; they may be lost"
            )
        elif processor is None or exporter is not processor.span_exporter:
            _ours.remove(exporter)
        exporter._client.report_lost()


def _is_sent(exporter: Any) -> bool:
    queue = getattr(getattr(exporter, "_async_queue", None), "_queue", None)
    if queue is None:
        return True
    with queue.all_tasks_done:
        left, since = queue.unfinished_tasks, monotonic()
        while queue.unfinished_tasks and monotonic() < since + Circuit.budget:
            queue.all_tasks_done.wait(0.05)
            if queue.unfinished_tasks < left:
                left, since = queue.unfinished_tasks, monotonic()
        return not queue.unfinished_tasks


def _processor() -> Any:
    """MLflow's span processor for its own stores, if a span has begun and tracing is enabled."""
    provider = sys.modules.get("mlflow.tracing.provider")
    if provider is None:
        return None
    if hasattr(provider, "_get_span_processor"):
        processor = provider._get_span_processor()
    else:  # before MLflow 3.6
        tracer = getattr(provider, "_MLFLOW_TRACER_PROVIDER", None)
        processors = getattr(
            getattr(tracer, "_active_span_processor", None), "_span_processors", ()
        )
        processor = processors[0] if processors else None
    client = getattr(getattr(processor, "span_exporter", None), "_client", None)
    return processor if hasattr(client, "tracking_uri") else None


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


_threads = threading.Lock()


def _turns(uri: str) -> Callable[[], AbstractContextManager[object]]:
    """What has the exporters of all processes take turns in a SQLite database; else nothing.

    MLflow sends from ten threads. Each reads before it writes, and SQLite lets only one of those go
    on that have read the same: the others fail at once, however long they would wait.
    """
    from sqlalchemy.engine import make_url

    database = make_url(uri).database if uri.startswith("sqlite") else None
    if not database:
        return nullcontext

    @contextmanager
    def turn() -> Iterator[None]:
        with _threads, suppress(Timeout), FileLock(f"{database}.traces.lock", Circuit.budget):
            yield

    return turn


@lru_cache(maxsize=1)
def _client_class() -> Any:
    """A client that reports what it could not send, and waits for a database's lock."""

    class ReportingClient(_plain_class()):  # type: ignore[misc] # MLflow's class has no types
        def __init__(self, uri: str) -> None:
            self.tracking_uri = uri
            self.report: Callable[[str], None] = lambda _: None
            self._lost: dict[str, str] = {}
            self._turns = _turns(uri)

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
                    with self._turns():
                        return send(*arguments)
                except NotImplementedError:  # the store keeps spans with the trace's data
                    raise
                except Exception as error:
                    if "database is locked" not in str(error) or monotonic() > deadline:
                        self._lost[trace_id] = str(as_tracking_error(error))
                        raise
                sleep(uniform(0.01, 0.1))

        def report_lost(self) -> None:
            """Tell of the traces that were not stored whole."""
            reasons: dict[str, int] = {}
            while self._lost:
                _, reason = self._lost.popitem()
                reasons[reason] = reasons.get(reason, 0) + 1
            for reason, count in reasons.items():
                self.report(f"{count:,} trace{'s' * (count != 1)} could not be sent: {reason}")

    return ReportingClient
