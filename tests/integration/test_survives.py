"""What tests and machines do to a session besides killing it: forks, locks, extreme values."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Evals
from faults import Session
from mlflow.entities import Run

from pytest_armory.records import EvaluationRecord, Outcome, from_wire, to_wire
from pytest_armory.session.identity import Identity
from pytest_armory.session.ledger import Ledger
from pytest_armory.store.circuit import Circuit
from pytest_armory.store.destination import resolve


def evaluations(evals: Evals) -> list[Run]:
    return [run for run in evals.read() if run.data.tags.get("armory.kind") == "evaluation"]


STRAYS = """
    import os, subprocess, sys, threading
    import mlflow, pytest
    from pytest_armory import track_metrics
    pytestmark = pytest.mark.evaluation
    def test_thread():
        thread = threading.Thread(target=lambda: mlflow.log_metric("in_thread", 1))
        thread.start()
        thread.join()
    def test_nested():
        with mlflow.start_run(nested=True):
            mlflow.log_metric("nested", 1)
    def test_fork():
        pid = os.fork()
        if pid == 0:
            try:
                mlflow.log_metric("in_child", 1)
                track_metrics({"never": 1})
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        track_metrics({"in_parent": 1})
    def test_multiprocessing():
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(
            target=track_metrics, args=({"never": 1},)
        )
        child.start()
        child.join()
        assert child.exitcode == 0
    def test_subprocess():
        script = "import mlflow; mlflow.log_metric('in_subprocess', 1)"
        subprocess.run([sys.executable, "-c", script], check=True)
"""


def test_what_a_test_starts_finds_its_place_and_ends(evals: Evals) -> None:
    """Runs that threads and children open are the test's own, in its experiment, and closed."""
    evals.write(STRAYS)
    result = evals.run("-s", subprocess=True)
    result.assert_outcomes(passed=5)
    runs = {run.info.run_id: run for run in evals.read()}
    mine = {run.info.run_name: run for run in evaluations(evals)}
    opened = {
        runs[run.data.tags["armory.opened_in"]].info.run_name: run
        for run in runs.values()
        if "armory.opened_in" in run.data.tags
    }
    logged = {name: set(run.data.metrics) for name, run in opened.items()}
    assert logged == {
        "test_thread": {"in_thread"}, "test_nested": {"nested"}, "test_fork": {"in_child"},
        "test_subprocess": {"in_subprocess"},
    }  # fmt: skip
    assert {run.info.experiment_id for run in opened.values()} == {
        run.info.experiment_id for run in mine.values()
    }
    left = {name for name, run in opened.items() if "armory.left_open_in" in run.data.tags}
    assert left == {"test_thread", "test_fork"}
    result.stdout.fnmatch_lines_random(
        [f"warning: the MLflow run {opened[name].info.run_id} was left open *" for name in left]
    )
    assert {name: set(run.data.metrics) - {"duration_seconds"} for name, run in mine.items()} == {
        "test_thread": set(), "test_nested": set(), "test_fork": {"in_parent"},
        "test_multiprocessing": set(), "test_subprocess": set(),
    }  # fmt: skip
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    result.stderr.fnmatch_lines(["armory: process * was forked from the one that tracks to *"])
    evals.check_invariant(result, 5, subprocess=True)


def test_a_child_that_comes_back_into_pytest_writes_nothing(evals: Evals) -> None:
    evals.write("""
        import os, pytest
        pytestmark = pytest.mark.evaluation
        def test_returns_twice():
            if os.fork():
                os.wait()
        def test_after(): pass
    """)
    evals.run(subprocess=True)
    assert sorted(run.info.run_name for run in evaluations(evals)) == [
        "test_after", "test_returns_twice",
    ]  # fmt: skip
    evals.check_accounted(attempts=2)  # what the two processes print comes in any order


def test_pytest_inside_a_test(evals: Evals) -> None:
    """A tracked session inside another one is a session of its own, and both are whole."""
    evals.write(
        """
        import pytest
        from pytest_armory import track_metrics
        pytest_plugins = "pytester"
        @pytest.mark.evaluation
        def test_outer(pytester):
            pytester.makepyfile(test_in='''
                import pytest
                from pytest_armory import track_metrics
                @pytest.mark.evaluation
                def test_inner(): track_metrics({"inner": 1})
            ''')
            result = pytester.runpytest_inprocess(
                "--armory-track", "-p", "no:cacheprovider", "-p", "no:hypothesispytest",
                "-p", "no:randomly", "-W", "ignore::pytest.PytestDeprecationWarning",
            )
            result.assert_outcomes(passed=1)
            track_metrics({"outer": 1})
        """
    )
    result = evals.run(subprocess=True)  # as other plugins keep options in globals
    result.assert_outcomes(passed=1)
    metrics = {run.info.run_name: run.data.metrics for run in evaluations(evals)}
    assert set(metrics["test_outer"]) == {"outer", "duration_seconds"}
    assert set(metrics["test_inner"]) == {"inner", "duration_seconds"}
    assert len(evals.sessions()) == 2
    evals.check_invariant(result, 2, subprocess=True)


def test_a_crowd_on_a_fresh_database(
    evals: Evals,
    start: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Two sessions at once of four processes each, hundreds of evaluations, no database yet."""
    evals.home = tmp_path / "fresh"
    monkeypatch.setenv("ARMORY_HOME", str(evals.home))
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(100))
        def test_a(i, evaluation_run):
            evaluation_run.log_metrics({"i": i})
    """)
    sessions = [start("-n3", "-q"), start("-n3", "-q")]
    for session in sessions:
        assert session.wait() == 0, session.output
        assert "… 60 more, all of them good; " in session.output
        assert "100 evaluations: 100 passed, tracked to" in session.output
        assert "warning: " not in session.output
    database = evals.home / "mlruns" / "mlflow.db"
    with sqlite3.connect(database) as connection:
        ((whole,),) = connection.execute("PRAGMA integrity_check")
        stored = connection.execute("SELECT status, count(*) FROM runs GROUP BY status")
        assert dict(stored.fetchall()) == {"FINISHED": 202}
        values = connection.execute(
            "SELECT value, count(*) FROM metrics WHERE key = 'i' GROUP BY 1"
        )
        assert dict(values.fetchall()) == dict.fromkeys(range(100), 2)
    assert whole == "ok"
    off = start("-n3", "-q", track=False)
    assert [session.end for session in sessions] == [off.end] * 2


@contextmanager
def locked(database: Path, seconds: float = 600) -> Iterator[None]:
    """Hold the database's write lock, as another process would; to the end, or so long."""
    script = (
        "import select, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); "
        "select.select([sys.stdin], [], [], float(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(database), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def test_a_database_locked_for_seconds(evals: Evals) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        def test_a(evaluation_run): evaluation_run.log_metrics({"a": 1})
    """)
    with locked(evals.home / "mlruns" / "mlflow.db", 3):
        result = evals.run()
    result.assert_outcomes(passed=1)
    assert "warning" not in result.stdout.str()
    assert evals.run_of("test_a").data.metrics["a"] == 1
    evals.check_invariant(result, attempts=1)


def test_many_and_absurd_values(evals: Evals) -> None:
    evals.write("""
        import math, pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation
        def test_many(evaluation_run):
            evaluation_run.log_metrics({f"m{i}": i for i in range(5000)})
            evaluation_run.log_params({f"p{i}": "x" * 100 for i in range(500)})
        @pytest.mark.evaluation
        @pytest.mark.filterwarnings("ignore:.*is no metric")
        def test_absurd(evaluation_run):
            track_metrics({
                "nan": math.nan, "up": math.inf, "down": -math.inf,
                "none": None, "text": "a", "a": 1,
            })
            loop = {}
            loop["loop"] = loop
            class Bad:
                def __repr__(self): raise RuntimeError("no")
            evaluation_run.log_params({
                "loop": loop, "bad": Bad(), "big": "x" * 1_000_000, "nul": "a\\0b",
                "surrogate": "\\ud800", "fine": 1,
            })
    """)
    result = evals.run()
    result.assert_outcomes(passed=2)
    many, absurd = evals.run_of("test_many"), evals.run_of("test_absurd")
    assert len(many.data.metrics) == 5001
    assert len(many.data.params) == 500
    assert set(absurd.data.metrics) == {"nan", "up", "down", "a", "duration_seconds"}
    assert absurd.data.tags["armory.infinite_metrics"] == "down=-inf, up=inf"
    assert set(absurd.data.params) == {"loop.loop", "bad", "big", "nul", "surrogate", "fine"}
    assert len(absurd.data.params["big"]) <= 6000
    result.stdout.fnmatch_lines(["*test_absurd  passed * down -inf *"])
    evals.check_invariant(result, attempts=2)


def test_what_the_controller_keeps_of_an_evaluation(evals: Evals) -> None:
    """Two thousand evaluations must not fill it: under 4 kB each, and pytest keeps more itself."""
    identity = Identity("s", "p")
    ledger = Ledger(resolve(None), identity)
    tracemalloc.start()
    for i in range(2000):
        record = EvaluationRecord(
            f"test_it.py::test_a[{i}]", run_id=f"{i:032}", parent_id="p", metrics={"accuracy": i}
        )
        ledger.planned.add(record.nodeid)
        ledger.reported.add(record.nodeid)
        ledger.take(from_wire(to_wire(record)))
        ledger.take(from_wire(to_wire(replace(record, outcome=Outcome.PASSED))))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / 2000 < 4000
    assert evals.home.exists()


def test_a_database_locked_for_good(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is waited for once: after that nothing waits, and what is lost is reported."""
    waited: list[str] = []
    watch = Circuit.watch

    def noting(circuit: Circuit, work: Callable[[], object]) -> object:
        try:  # MLflow alone would wait for twenty seconds, each time
            return watch(circuit, work)
        except TimeoutError as error:
            waited.append(str(error))
            raise

    monkeypatch.setattr(Circuit, "watch", noting)
    monkeypatch.setattr("pytest_armory.store.circuit.PAUSE", 1e6)  # the machine may be busy
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(5))
        def test_a(i): assert i != 3
    """)
    with locked(evals.home / "mlruns" / "mlflow.db"):
        result = evals.run("-o", "armory_budget=2")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        ["not stored: 5 evaluations", "warning: * the database was locked *"]
    )
    evals.check_invariant(result, attempts=5, lost=5)
    assert len(waited) == 1


TABLES_TAG = "mlflow.loggedArtifacts"


def test_a_tag_of_mlflows_that_cannot_be_read(evals: Evals) -> None:
    """Anyone may set the tag that names a run's tables: that is said, and no test fails by it."""
    evals.write("""
        import mlflow, pytest
        from pytest_armory import track_samples
        pytestmark = pytest.mark.evaluation
        @pytest.mark.parametrize("text", ["x", "{}", "3", "null", "[" * 4000])
        def test_table(text, evaluation_run):
            mlflow.set_tag("mlflow.loggedArtifacts", text)
            evaluation_run.log_table({"a": [1]}, "t.json")
        def test_samples(evaluation_run):
            evaluation_run.log_table({"a": [1]}, "t.json")
            mlflow.set_tag("mlflow.loggedArtifacts", "x")
            track_samples({"correct": [1, 0]})
    """)
    result = evals.run()
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines([f"warning: the tag {TABLES_TAG} cannot be read: it is not *"])
    tags = [run.data.tags[TABLES_TAG] for run in evaluations(evals)]
    assert [len(json.loads(tag)) for tag in tags] == [1, 1, 1, 1, 1, 2]
    evals.check_invariant(result, 6)
