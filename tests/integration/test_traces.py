"""Traces of evaluations that cannot be sent, or not at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Evals
from loopback import Handler
from mlflow import MlflowClient
from outages import status
from servers import Proxy

from pytest_armory.store.database import sqlite_uri

TRACED = """
    import mlflow, pytest
    @mlflow.trace
    def answer(x): return x + 1
    @pytest.mark.evaluation
    @pytest.mark.parametrize("x", range(3))
    def test_a(x): assert answer(x) == x + 1
"""


LATE = """
    import mlflow, pytest
    spans = []
    @pytest.mark.evaluation
    def test_a(): spans.append(mlflow.start_span_no_context("late"))
    def test_b(): spans.pop().end()
    def test_c(): pass
"""
"""A trace that ends when the run is closed that it began in."""


def refuse_traces(proxy: Proxy, handler: Handler) -> bool:
    """Answer what stores traces with an error that no retry would change."""
    is_trace = "/traces" in handler.path and handler.command == "POST"
    return is_trace and status(400, "no traces here")(proxy, handler)


@pytest.mark.parametrize(
    ("source", "way"),
    [(TRACED, ()), (LATE, ()), (LATE, ("-n2", "--dist=loadfile"))],
    ids=["one", "late", "late-n2"],
)
def test_traces_that_cannot_be_sent_are_reported_and_fail_a_strict_session(
    evals: Evals, proxy: Proxy, source: str, way: tuple[str, ...]
) -> None:
    proxy.fault = refuse_traces
    evals.write(source)
    result = evals.run("--armory-tracking-uri", proxy.url, *way, subprocess=True)
    result.assert_outcomes(passed=3)
    assert result.ret == 0
    reported = [line for line in result.outlines if "could not be sent" in line]
    assert len(reported) == 1, result.outlines
    assert "1 trace could not be sent" in reported[0]
    strict = ("--armory-tracking-uri", proxy.url, "--armory-strict", *way)
    assert evals.run(*strict, subprocess=True).ret == 1


def test_all_traces_of_many_threads_and_workers_are_stored(evals: Evals, armory_home: Path) -> None:
    evals.write("""
        from concurrent.futures import ThreadPoolExecutor
        import mlflow, pytest
        @mlflow.trace
        def answer(x): return x + 1
        @pytest.mark.evaluation(name="many")
        @pytest.mark.parametrize("x", range(8))
        def test_a(x):
            with ThreadPoolExecutor(8) as pool:
                assert sum(pool.map(answer, range(12))) == 78
    """)
    result = evals.run("-n4", "--armory-strict", subprocess=True)
    result.assert_outcomes(passed=8)
    assert result.ret == 0
    client = MlflowClient(sqlite_uri(armory_home / "mlruns" / "mlflow.db"))
    experiment = client.get_experiment_by_name("many")
    assert experiment is not None
    locations = [experiment.experiment_id]
    found = client.search_traces(locations=locations, max_results=500)
    assert len(found) == 96
    assert {len(trace.data.spans) for trace in found} == {1}
    runs = {run.info.run_id for run in evals.runs().values()}
    assert {trace.info.trace_metadata["mlflow.sourceRun"] for trace in found} == runs
