"""Where MLflow's traces go: each to the store that was in force when its first span began.

MLflow makes its exporter for one tracking URI, when the first span begins, and makes it again only
where ``mlflow.set_tracking_uri`` resets all of tracing, what the user has configured included. So
the exporter stays, with its queue and its settings, and gets another client: one that knows of each
trace where it began, and sends it there by whichever client that takes. A trace of an evaluation
may end when its run is long closed, or in another store.

What could not be sent is reported, which MLflow only logs, and tried again while another process
holds the lock of the database.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from time import monotonic
from typing import Any
from weakref import WeakSet

from filelock import FileLock, Timeout

from pytest_armory.environment import value_of
from pytest_armory.store.circuit import Circuit
from pytest_armory.store.own_requests import own
from pytest_armory.store.retrying import retried
from pytest_armory.store.translation import as_tracking_error


class TraceDestination:
    """Where traces of one of our runs go; ``report`` takes a sentence for what was lost."""

    def __init__(self, uri: str, report: Callable[[str], None]) -> None:
        self.uri = uri
        self.report = report
        _our_uris.add(uri)
        self._lost: dict[str, str] = {}

    def close(self) -> None:
        """What is lost from now on is none of the run's problems."""
        self.report = _late.append

    def send(self, method: str, trace_ids: Sequence[str], *arguments: Any) -> Any:
        """Call a method of MLflow's client for traces, again while the database is locked."""
        work = partial(self._send_in_turn, getattr(_client_of(self.uri), method), *arguments)
        try:
            sent = retried(work, _is_locked, Circuit.budget, (0.01, 0.1))
        except NotImplementedError:  # the store keeps spans with the trace's data
            raise
        except Exception as error:
            self._lost.update(dict.fromkeys(trace_ids, str(as_tracking_error(error))))
            raise
        if method == "_upload_trace_data":  # its spans are in there
            self._lost.pop(trace_ids[0], None)
        return sent

    def _send_in_turn(self, send: Callable[..., Any], *arguments: Any) -> Any:
        with _turn(_database_of(self.uri)):
            return send(*arguments)

    def report_lost(self) -> None:
        """Report the traces that were not stored completely."""
        reasons: dict[str, int] = {}
        while self._lost:
            _, reason = self._lost.popitem()
            reasons[reason] = reasons.get(reason, 0) + 1
        for reason, count in reasons.items():
            self.report(f"{count:,} trace{'s' * (count != 1)} could not be sent: {reason}")


class _Dispatcher:
    """In the place of an exporter's client: sends each trace where it began.

    ``own`` is the user's client, for all traces that did not begin in a run of ours.
    """

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def start_trace(self, trace_info: Any) -> Any:
        if trace_info.trace_id in _began:
            _ended.add(trace_info.trace_id)
        return self._send("start_trace", [trace_info.trace_id], trace_info)

    def log_spans(self, location: str, spans: Sequence[Any]) -> Any:
        by_destination: dict[TraceDestination | None, list[Any]] = {}
        for span in spans:
            by_destination.setdefault(_began.get(span.trace_id), []).append(span)
        sent: list[Any] = []
        for some in by_destination.values():
            ids = [span.trace_id for span in some]
            sent += self._send("log_spans", ids, location, some) or []
        return sent

    def link_prompt_versions_to_trace(self, trace_id: str, prompts: Any) -> Any:
        return self._send("link_prompt_versions_to_trace", [trace_id], trace_id, prompts)

    def _upload_trace_data(self, trace_info: Any, trace_data: Any) -> Any:
        return self._send("_upload_trace_data", [trace_info.trace_id], trace_info, trace_data)

    def _upload_attachments(self, trace_info: Any, attachments: Any) -> Any:
        return self._send("_upload_attachments", [trace_info.trace_id], trace_info, attachments)

    def _send(self, method: str, trace_ids: Sequence[str], *arguments: Any) -> Any:
        destination = _began.get(trace_ids[0])
        if destination is None:
            return getattr(self._own, method)(*arguments)
        return destination.send(method, trace_ids, *arguments)


_began: dict[str, TraceDestination] = {}
"""The traces that began in a run of ours, and may not be sent yet."""

_ended: set[str] = set()
"""Those of them that their exporter has begun to send since the last look."""

_ended_before: set[str] = set()
"""Those it had begun to send by then."""

_late: list[str] = []
"""What was lost of runs that are closed."""

_our_uris: set[str] = set()
"""The tracking URIs that were in force for runs of ours."""

_exporters: WeakSet[Any] = WeakSet()
"""The exporters that have a dispatcher."""

Destination = tuple[Any, str | None]
"""Where the user sends traces, an experiment, and the tracking URI in force when that was set."""

_destination: Destination = (None, None)
"""Of the whole process: set by a call, or by a variable of the environment."""

_destination_here: ContextVar[Destination] = ContextVar("destination", default=(None, None))
"""Of one thread or task: set with ``context_local=True``, which precedes."""


def remember_destination(uri: str | None) -> Destination:
    """The user's destination; one set since the last look is an experiment of the store ``uri``."""
    global _destination
    everywhere, here = _users_destinations()
    _destination = _noted(_destination, everywhere, uri)
    _destination_here.set(_noted(_destination_here.get(), here, uri))
    return _destination if here is None else _destination_here.get()


def _noted(before: Destination, now: Any, uri: str | None) -> Destination:
    is_same = now == before[0] if isinstance(now, str) else now is before[0]
    return before if is_same else (now, uri)


def begin(trace_id: str, destination: TraceDestination | None, users: Callable[[], str]) -> None:
    """Note where a trace begins: in a run of ours, or (None) in the user's own code.

    One for which the user has named an experiment of another store, by
    ``mlflow.tracing.set_destination``, goes there: in ours, the same ID is another experiment.
    ``users`` gives the tracking URI that the user has set.
    """
    _dispatch(users)
    if destination is None:
        return
    experiment, uri = remember_destination(destination.uri)
    if experiment is None or uri == destination.uri:
        _began[trace_id] = destination


def _dispatch(users: Callable[[], str]) -> None:
    """Give the exporter in use a dispatcher, if it has none."""
    exporter = getattr(_processor(), "span_exporter", None)
    if exporter is None or isinstance(exporter._client, _Dispatcher):
        return
    client = exporter._client
    # MLflow may have made it while a URI of ours was in force.
    own = _client_of(users()) if client.tracking_uri in _our_uris else client
    exporter._client = _Dispatcher(own)
    _exporters.add(exporter)


def settle() -> None:
    """Wait until all that has ended is sent, as long as that gets on, and report what was lost.

    An exporter that gets on with nothing for the budget of a call is not waited for.
    """
    _flush_batches()
    slow = [exporter for exporter in list(_exporters) if not _is_sent(exporter)]
    destinations = set(_began.values())
    for destination in destinations:
        if slow:
            destination.report(
                f"traces are still being sent after {Circuit.budget:g} s; they may be lost"
            )
        destination.report_lost()
    if not slow:
        for trace_id in _ended_before:
            _began.pop(trace_id, None)
        _ended_before.clear()
        _ended_before.update(_ended)
        _ended.clear()


def take_late() -> list[str]:
    """What was lost of runs that were closed by then; nothing when it is called again."""
    late, _late[:] = list(dict.fromkeys(_late)), []
    return late


def _flush_batches() -> None:
    batches = getattr(_processor(), "_batch_delegate", None)
    if batches is not None:
        batches.force_flush(int(Circuit.budget * 1000))


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


def _users_destinations() -> tuple[Any, Any]:
    """The experiments that the user sends traces to: of the process, and of this thread or task."""
    provider = sys.modules.get("mlflow.tracing.provider")
    registry = getattr(provider, "_MLFLOW_TRACE_USER_DESTINATION", None)
    if registry is None:
        return None, None
    with own():
        everywhere, here = registry._global_value, registry._context_local_value.get()
    return _experiment(everywhere) or _given_experiment(registry), _experiment(here)


def _given_experiment(registry: Any) -> str | None:
    """The ID that the environment names, where MLflow reads it; a catalog's schema has a dot."""
    given = value_of("MLFLOW_TRACING_DESTINATION") or ""
    is_read = hasattr(registry, "_get_trace_location_from_env")
    return given if is_read and given and "." not in given else None


def _experiment(destination: Any) -> Any:
    return destination if getattr(destination, "experiment_id", None) else None


@lru_cache(maxsize=64)
def _client_of(uri: str) -> Any:
    from mlflow.tracing.client import TracingClient

    # Not by its constructor, which opens the store: nobody may ever need it.
    client = object.__new__(TracingClient)
    client.tracking_uri = uri
    client._get_artifact_repo_for_trace = partial(_files_of, uri)
    return client


def _files_of(uri: str, trace_info: Any) -> Any:
    """Where the files of a trace are: MLflow would ask the server that is in force by now."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracing.utils.artifact_utils import get_artifact_uri_for_trace
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

    given = add_databricks_profile_info_to_artifact_uri(get_artifact_uri_for_trace(trace_info), uri)
    return get_artifact_repository(given, uri)


@lru_cache(maxsize=64)
def _database_of(uri: str) -> str | None:
    """The file of a SQLite database."""
    from sqlalchemy.engine import make_url

    return make_url(uri).database if uri.startswith("sqlite") else None


_threads = threading.Lock()


@lru_cache(maxsize=1)
def _at_once() -> threading.Semaphore:
    """As many as MLflow sends at once from one process, shared out to the session's workers.

    MLflow's server holds one connection to its database while it asks for a second one to store a
    trace. It has 15; where as many traces come at once, it answers nobody for minutes.
    """
    from mlflow.environment_variables import MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS

    workers = value_of("PYTEST_XDIST_WORKER_COUNT") or ""
    divided_by = max(1, int(workers)) if workers.isdecimal() else 1
    return threading.Semaphore(max(1, MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS.get() // divided_by))


@contextmanager
def _turn(database: str | None) -> Iterator[None]:
    """Have the exporters of all processes take turns in a SQLite database, and spare a server.

    MLflow sends from ten threads. Each reads before it writes, and SQLite lets only one of those go
    on that have read the same: the others fail at once, however long they would wait.
    """
    with ExitStack() as held:
        if database:
            held.enter_context(_threads)
            with suppress(Timeout):  # it may go well without
                held.enter_context(FileLock(f"{database}.traces.lock", Circuit.budget))
        elif (turns := _at_once()).acquire(timeout=Circuit.budget):
            held.callback(turns.release)
        yield


def _is_locked(error: Exception) -> bool:
    return "database is locked" in str(error)
