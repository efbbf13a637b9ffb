"""Over HTTP: the same runs as in a database, and how few requests they cost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence

import pytest
from conftest import Evals
from faults import Session
from mlflow import MlflowClient
from servers import Proxy

from pytest_armory.cli import main as commands

BUSY = """
    import numpy as np, pytest
    from pytest_armory import Engine, Evaluation
    def load(**settings): return settings
    @pytest.fixture(scope="session")
    def data(track_call):
        return track_call(load, **dict.fromkeys(map("s{{}}".format, range(60)), 1))
    @pytest.mark.evaluation(name="busy {salt}")
    @pytest.mark.parametrize("eps", range({count}))
    def test_a(data, eps):
        x = np.arange(8.0).reshape(4, 2)
        metrics = dict.fromkeys(map("m{{}}".format, range(300)), lambda targets, found: 1.0)
        Engine(Evaluation(name="e", dataset=[(x, x)], model=lambda x: x, metrics=metrics)).run()
"""


def busy(count: int, salt: object) -> str:
    return BUSY.format(count=count, salt=salt)


def per_evaluation(seen: Sequence[str]) -> list[str]:
    kept = [request.rpartition("/mlflow/")[2] for request in seen]
    return [name for name in kept if name.startswith("runs/") and "search" not in name]


def test_an_evaluation_costs_three_requests_on_its_way_and_one_behind_it(
    evals: Evals, proxy: Proxy
) -> None:
    """However many parameters and metrics; and the last one never holds up the next test."""
    next_run = threading.Event()
    held_up = []

    def hold_closing_back(request: str) -> None:
        # The first evaluation's closing is answered only when the second has opened its run.
        if request.endswith("runs/create") and proxy.count("runs/create") == 3:
            next_run.set()
        if request.endswith("runs/update") and proxy.count("runs/update") == 1:
            held_up.append(not next_run.wait(20))

    proxy.before = hold_closing_back
    evals.write(busy(3, time.monotonic_ns()))
    result = evals.run("--armory-tracking-uri", proxy.url)
    result.assert_outcomes(passed=3)
    assert held_up == [False]
    runs = per_evaluation(proxy.seen)
    # Of the session's run: one to open, one for its counts and summary, one to close.
    assert runs.count("runs/create") - 1 == 3
    assert runs.count("runs/update") - 1 == 3
    assert (runs.count("runs/log-batch") - 1) / 3 == 2
    assert len(runs) == 3 + 3 * 4


def test_the_session_over_http_is_as_in_a_database(
    evals: Evals, mlflow_server: str, each_way: Sequence[str]
) -> None:
    check_a_session(evals, mlflow_server, each_way)


@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
def test_a_server_over_postgresql(evals: Evals, postgres_server: str, way: Sequence[str]) -> None:
    check_a_session(evals, postgres_server, way)
    assert commands.main(["recover", "--armory-tracking-uri", postgres_server]) == 0
    assert commands.main(["sessions", "--armory-tracking-uri", postgres_server]) == 0


def check_a_session(evals: Evals, mlflow_server: str, each_way: Sequence[str]) -> None:
    name = f"http {time.monotonic_ns()}"  # the server is everybody's
    evals.write(f"""
        import mlflow, numpy as np, pytest
        from pytest_armory import track_metrics
        def load(n): return n
        @pytest.fixture(scope="session")
        def data(track_call): return track_call(load, n=1)
        @pytest.mark.evaluation(name="{name}")
        @pytest.mark.parametrize("eps", [0.1, 0.2])
        def test_a(data, eps, evaluation_run):
            track_metrics({{"accuracy": eps, "cm": np.eye(2)}})
            mlflow.log_text("hello", "own.txt")
            evaluation_run.set_tags({{"url": evaluation_run.url}})
        @pytest.mark.evaluation(name="{name}")
        def test_b(data): assert 0, "no"
    """)
    result = evals.run("--armory-tracking-uri", mlflow_server, *each_way)
    result.assert_outcomes(passed=2, failed=1)
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name(name)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    (session,) = [run for run in runs.values() if run.data.tags["armory.kind"] == "session"]
    children = {name: run for name, run in runs.items() if run is not session}
    assert {name: run.info.status for name, run in children.items()} == {
        "test_a[0.1]": "FINISHED", "test_a[0.2]": "FINISHED", "test_b": "FAILED",
    }  # fmt: skip
    for run in children.values():
        assert run.data.tags["mlflow.parentRunId"] == session.info.run_id
        assert run.data.params["load.n"] == "1"
    good = children["test_a[0.1]"]
    assert good.data.metrics["accuracy"] == 0.1
    shown = f"{mlflow_server}/#/experiments/{experiment.experiment_id}/runs/{good.info.run_id}"
    shown += "?workflowType=machine_learning"
    assert good.data.tags["url"] == shown
    paths = {f.path for f in client.list_artifacts(good.info.run_id)}
    assert paths == {"metrics", "own.txt"}
    assert [f.path for f in client.list_artifacts(children["test_b"].info.run_id)] == [
        "failure.txt"
    ]
    page = f"*see {mlflow_server}/#/experiments/{experiment.experiment_id}/runs/*{shown[-30:]}"
    result.stdout.fnmatch_lines([page])
    evals.check_invariant(result, attempts=0)


def test_the_tests_own_user_info_is_never_shown(evals: Evals, mlflow_server: str) -> None:
    uri = mlflow_server.replace("://", "://me:s3cret@")
    evals.write(
        """
        import pytest
        @pytest.mark.evaluation
        def test_a(evaluation_run): print(evaluation_run.url); assert 0
        """
    )
    result = evals.run("--armory-tracking-uri", uri, "-v")
    result.assert_outcomes(failed=1)
    assert "s3cret" not in result.stdout.str() + result.stderr.str()


def test_recovering_at_a_server(
    evals: Evals,
    start: Callable[..., Session],
    mlflow_server: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation(name="recovered")
        def test_done(): pass
        def test_long(mark, stay):
            mark("long")
            stay()
    """)
    there = ("--armory-tracking-uri", mlflow_server)
    session = start(*there)
    session.wait_for("long")
    client = MlflowClient(mlflow_server)

    def status() -> dict[str, str]:
        experiment = client.get_experiment_by_name("recovered")
        runs = client.search_runs([experiment.experiment_id])
        return {run.info.run_name.split()[-1]: run.info.status for run in runs}

    session.wait_until(lambda: status()["test_done"] == "FINISHED")  # behind the next test
    session.send(signal.SIGKILL)
    session.gone()
    open_ones = {"test_long": "RUNNING", "session": "RUNNING"}
    assert status() == {"test_done": "FINISHED", **open_ones}
    assert commands.main(["sessions", *there]) == 0
    assert "running" in capsys.readouterr().out
    assert commands.main(["recover", *there]) == 0
    assert "test_long, interrupted" in capsys.readouterr().out
    assert status() == {"test_done": "FINISHED", **dict.fromkeys(open_ones, "KILLED")}
    assert commands.main(["recover", *there]) == 0
    assert "nothing to close" in capsys.readouterr().out
    assert commands.main(["sessions", *there]) == 0
    assert "1 passed, 1 interrupted" in capsys.readouterr().out
