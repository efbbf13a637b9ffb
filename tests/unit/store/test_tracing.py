"""Where MLflow's traces go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from types import SimpleNamespace

import mlflow
import pytest

from pytest_armory.store import tracing
from pytest_armory.store.tracing import TraceDestination, _client_of, _given_experiment


@pytest.mark.parametrize("in_force", ["http://127.0.0.1:2", "sqlite:///elsewhere.db"])
def test_the_files_of_a_trace_go_to_the_server_it_began_at(
    in_force: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = "mlflow-artifacts:/1/traces/tr-1/artifacts"
    trace = SimpleNamespace(tags={"mlflow.artifactLocation": location})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", in_force)
    assert mlflow.get_tracking_uri() == in_force
    files = _client_of("http://127.0.0.1:1")._get_artifact_repo_for_trace(trace)
    assert files.artifact_uri.startswith("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("given", "is_read", "experiment"),
    [("7", True, "7"), ("7", False, None), ("catalog.schema", True, None), ("", True, None)],
)
def test_an_experiment_that_the_environment_names_counts_where_mlflow_reads_it(
    given: str, is_read: bool, experiment: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older MLflow does not read the variable; a catalog's schema is no experiment."""
    monkeypatch.setenv("MLFLOW_TRACING_DESTINATION", given)
    registry = SimpleNamespace(**({"_get_trace_location_from_env": None} if is_read else {}))
    assert _given_experiment(registry) == experiment


@pytest.mark.parametrize(
    ("workers", "threads", "at_once"),
    [("", "", 10), ("4", "", 2), ("40", "", 1), ("2", "4", 2), ("0", "4", 4), ("many", "4", 4)],
)
def test_the_workers_of_a_session_send_no_more_at_once_than_one_process_of_mlflow(
    workers: str, threads: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "PYTEST_XDIST_WORKER_COUNT": workers,
        "MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS": threads or "10",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tracing, "_our_uris", set())
    all_there, one_more = Barrier(at_once), Barrier(at_once + 1)
    too_many: list[int] = []

    def start_trace(_: object) -> None:
        all_there.wait(20)
        with suppress(BrokenBarrierError):
            one_more.wait(0.2)
            too_many.append(1)

    monkeypatch.setattr(tracing, "_client_of", lambda _: SimpleNamespace(start_trace=start_trace))
    destination = TraceDestination("http://127.0.0.1:1", print)
    tracing._at_once.cache_clear()
    try:
        with ThreadPoolExecutor(2 * at_once) as pool:
            send = [
                pool.submit(destination.send, "start_trace", ["tr-1"], None)
                for _ in range(2 * at_once)
            ]
            assert [one.result() for one in send] == [None] * (2 * at_once)
        assert too_many == []
    finally:
        tracing._at_once.cache_clear()
