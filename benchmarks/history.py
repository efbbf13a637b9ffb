"""What looking up a baseline with its history costs: python benchmarks/history.py [EVALUATIONS]

A local database with 20 sessions of so many evaluations (default: 1,000), each with 10 metrics and
the tags of a run that has samples, is filled by SQL; then the baseline is looked up as a session
does before its first test. Printed are CPU seconds and the peak of memory, of a process of its own.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_armory.gates import baselines
from pytest_armory.gates.parse import parse_reference
from pytest_armory.store import destination, open_store
from pytest_armory.store.database import ensure_database, sqlite_uri

SESSIONS, METRICS = 20, 10


def fill(path: Path, evaluations: int) -> None:
    """Insert the runs."""
    ensure_database(path, path.parent / "artifacts")
    store = open_store(destination.resolve(sqlite_uri(path)))
    experiment = int(store.experiments.id_of("benchmark"))
    runs, tags, metrics = [], [], []
    for session in range(SESSIONS):
        start = 1_700_000_000_000 + session * 100_000
        own = {"armory.kind": "session", "armory.session": f"s{session}"}
        every = [(f"{session:016x}{0:016x}", own, {"passed": 1.0, "evaluations": 1.0})]
        for i in range(evaluations):
            about = {
                "armory.kind": "evaluation", "armory.session": f"s{session}",
                "armory.nodeid": f"tests/test_it.py::test_it[{i}]", "armory.outcome": "passed",
                "armory.samples": json.dumps({"rows": 200, "partial": False, "data": {}}),
            }  # fmt: skip
            values = {f"metric_{k}": 0.9 + session / 1000 for k in range(METRICS)}
            every.append((f"{session:016x}{i + 1:016x}", about, values))
        for run_id, about, values in every:
            runs.append(
                (run_id, run_id, "FINISHED", start, start + 1, experiment, f"/tmp/{run_id}")
            )
            tags += [(key, value, run_id) for key, value in about.items()]
            metrics += [(key, value, start, 0, 0, run_id) for key, value in values.items()]
    with sqlite3.connect(path) as database:
        database.executemany(
            "INSERT INTO runs (run_uuid, name, source_type, entry_point_name, user_id, status, "
            "start_time, end_time, source_version, lifecycle_stage, experiment_id, artifact_uri) "
            "VALUES (?, ?, 'LOCAL', '', '', ?, ?, ?, '', 'active', ?, ?)",
            runs,
        )
        database.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", tags)
        database.executemany(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            metrics,
        )


def peak_memory() -> int:
    """The most memory that this process has had, in KiB; Linux alone says so."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def look_up(path: Path) -> None:
    """Look the baseline up, and print what it cost."""
    where = destination.resolve(sqlite_uri(path))
    open_store(where).experiments.ids()
    before = peak_memory()
    began = time.process_time()
    found = baselines.find(where, parse_reference("latest"))
    seconds = time.process_time() - began
    peak = peak_memory()
    (evaluations,) = found.history.values()
    lengths = {len(runs) for runs in evaluations.values()}
    print(
        f"{len(evaluations):,} evaluations, {max(lengths)} sessions: {seconds:.1f} s of CPU, "
        f"{(peak - before) / 1024:.0f} MiB more at the peak"
    )


def main() -> None:
    """Fill a database and look up its baseline in another process."""
    if sys.argv[1:2] == ["--look-up"]:
        look_up(Path(sys.argv[2]))
        return
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlruns" / "mlflow.db"
        fill(path, evaluations)
        subprocess.run([sys.executable, __file__, "--look-up", str(path)], check=True)


if __name__ == "__main__":
    main()
