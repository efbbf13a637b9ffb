"""Many shards against one MLflow server over PostgreSQL: ``python benchmarks/shards.py [64]``.

Each shard is a process of its own that runs pytest, forked from one that has imported MLflow, so
that they all reach the server at once. It needs ``pgserver`` and ``psycopg2``, as the tests do.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests.adapters

EACH = 4
"""Evaluations of a shard."""

SUITE = """
import pytest
from pytest_armory import track_call, track_metrics

def load(n): return n

@pytest.mark.evaluation(name="shards")
@pytest.mark.parametrize("i", range({count}))
def test_a(i):
    track_call(load, n=i)
    track_metrics({{"accuracy": 0.9}})
"""


@contextmanager
def server(folder: Path, workers: int) -> Iterator[str]:
    """The URL of MLflow's server over a PostgreSQL of its own."""
    import pgserver

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        database = pgserver.get_server(folder / "pg", cleanup_mode="delete")
    uri = database.get_uri().replace("postgresql:", "postgresql+psycopg2:")
    url, port = "http://127.0.0.1:5987", "5987"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--port", port, "--workers", str(workers)),
        *("--backend-store-uri", uri, "--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.txt").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(f"{url}/health")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        database.cleanup()


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def shard(folder: Path, url: str, index: int, number: int, start: float) -> None:
    """Run one shard in this process, and write what it measured."""
    import pytest

    from pytest_armory.session.session_runs import SessionRuns

    sent, opened = [], []
    send, open_run = requests.adapters.HTTPAdapter.send, SessionRuns._open

    def counted(self, request, *args, **kwargs):  # type: ignore[no-untyped-def]
        sent.append(time.monotonic())
        return send(self, request, *args, **kwargs)

    def timed(self, *args):  # type: ignore[no-untyped-def]
        begun = time.monotonic()
        try:
            return open_run(self, *args)
        finally:
            opened.append(time.monotonic() - begun)

    requests.adapters.HTTPAdapter.send = counted
    SessionRuns._open = timed
    os.chdir(folder)
    output = os.open(folder / f"log-{index}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    time.sleep(max(0.0, start - time.monotonic()))
    begun = time.monotonic()
    status = pytest.main(
        [
            *("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("--armory-track", "--armory-tracking-uri", url, "--armory-session", "many"),
            *("--armory-shard", f"{index}/{number}", "-o", "armory_budget=120", "test_it.py"),
        ]
    )
    measured = {
        "status": int(status),
        "seconds": time.monotonic() - begun,
        "requests": len(sent),
        "opening": opened[0] if opened else 0.0,
    }
    (folder / f"shard-{index}.json").write_text(json.dumps(measured))


def run(folder: Path, url: str, number: int) -> list[dict[str, float]]:
    """Run all shards at once; what each of them measured."""
    (folder / "test_it.py").write_text(SUITE.format(count=number * EACH))
    start = time.monotonic() + 5
    children = []
    for index in range(1, number + 1):
        child = os.fork()
        if child == 0:
            try:
                shard(folder, url, index, number, start)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return [json.loads(path.read_text()) for path in folder.glob("shard-*.json")]


def state_at(url: str) -> dict[str, int]:
    """What the server holds of the session: evaluations, open ones, session runs."""
    import mlflow

    client = mlflow.MlflowClient(url)
    ids = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(ids, max_results=50_000)
    sessions = [run for run in found if run.data.tags.get("armory.kind") == "session"]
    attempts = [run for run in found if run.data.tags.get("armory.kind") == "evaluation"]
    return {
        "evaluations": len({run.data.tags["armory.nodeid"] for run in attempts}),
        "attempts": len(attempts),
        "open": sum(run.info.status == "RUNNING" for run in found),
        "session runs": len(sessions),
        "without session run": len(
            {run.info.run_id for run in attempts}
            - {
                run.info.run_id
                for run in attempts
                if run.data.tags.get("mlflow.parentRunId") in {s.info.run_id for s in sessions}
            }
        ),
    }


def waiting_in(home: Path) -> int:
    """How many evaluations wait in the local database, those begun at the server too."""
    import mlflow

    from pytest_armory.store.database import sqlite_uri

    path = home / "mlruns" / "mlflow.db"
    if not path.exists():
        return 0
    client = mlflow.MlflowClient(sqlite_uri(path))
    ids = [one.experiment_id for one in client.search_experiments()]
    query = "tags.`armory.kind` = 'evaluation'"
    return sum("armory.synced" not in r.data.tags for r in client.search_runs(ids, query))


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``pytest-armory``."""
    words = (sys.executable, "-m", "pytest_armory.cli.main", *words)
    return subprocess.run(words, capture_output=True, text=True)


def main() -> None:
    """Measure, and print the figures of ``docs/clusters.md``."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow  # noqa: F401

    import pytest_armory.plugin.tracked  # noqa: F401

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["ARMORY_HOME"] = str(folder / "home")
        with server(folder, workers) as url:
            measured = run(folder, url, number)
            before, waiting = state_at(url), waiting_in(folder / "home")
            first = command("report", "many", "--armory-tracking-uri", url)
            synced = command("sync") if waiting else None
            after, left = state_at(url), waiting_in(folder / "home")
            last = command("report", "many", "--armory-tracking-uri", url) if synced else first
    opening = sorted(one["opening"] for one in measured)
    total = sum(one["requests"] for one in measured)
    print(f"{number} shards, {os.cpu_count()} cores, {workers} server worker(s)")
    print(f"ended: {len(measured)}, with exit status 0: {sum(not m['status'] for m in measured)}")
    print(f"of {number * EACH:,} evaluations at the server: {_described(before)}")
    print(f"waiting in the local database: {waiting:,}")
    print(f"requests per evaluation, all told: {total / (number * EACH):.1f}")
    print(f"requests per shard: {total / max(len(measured), 1):.1f}")
    print(f"opening the session run: median {statistics.median(opening):.2f} s, ", end="")
    print(f"slowest {opening[-1]:.2f} s")
    print(f"slowest shard: {max(one['seconds'] for one in measured):.1f} s")
    print(f"report's exit status: {first.returncode}")
    if synced is not None:
        print(f"sync's exit status: {synced.returncode}, left waiting: {left:,}")
        print(f"at the server then: {_described(after)}")
        print(f"report's exit status then: {last.returncode}")
    print(*[line for line in last.stdout.splitlines() if not line.startswith("  ")], sep="\n")


def _described(state: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in state.items())


if __name__ == "__main__":
    main()
