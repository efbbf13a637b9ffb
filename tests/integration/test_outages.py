"""Servers that are dead, slow, sick or closed: verdicts stand, and nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import outages
import pytest
from conftest import Evals, counts_of
from loopback import Handler
from mlflow import MlflowClient
from mlflow.entities import Run
from outages import status
from servers import Fault, ForkServer, Proxy, proxied, served

from pytest_armory.budget import within
from pytest_armory.cli import main as commands
from pytest_armory.store import circuit, open_store
from pytest_armory.store.circuit import _circuits

SOURCE = """
    import mlflow, pytest
    from pytest_armory import track_metrics
    pytestmark = pytest.mark.evaluation(name="NAME")
    @pytest.mark.parametrize("i", range(3))
    def test_a(i, evaluation_run):
        track_metrics({"accuracy": i / 4})
        mlflow.log_metric("own", i)
        assert i != 2, "worse"
"""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An experiment of the test's own; the server is everybody's."""
    return f"{request.node.name} {time.monotonic_ns()}"


def run(
    evals: Evals, uri: str, name: str, *args: str, budget: int = 2, source: str = SOURCE
) -> pytest.RunResult:
    evals.pytester.makeini(f"[pytest]\narmory_budget = {budget}")
    evals.write(source.replace("NAME", name))
    result = evals.run("--armory-tracking-uri", uri, *args)
    result.assert_outcomes(passed=2, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    return result


def there(server: str, name: str) -> list[Run]:
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(name)
    return client.search_runs([experiment.experiment_id]) if experiment else []


def attempts(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if "armory.nodeid" in run.data.tags]


def check_brought(evals: Evals, server: str, name: str, count: int = 3) -> None:
    """After a sync the server has everything, once."""
    assert commands.main(["sync", "--to", server]) in (0, 1)
    runs = there(server, name)
    mine = attempts(runs)
    assert sorted(run.info.run_name for run in mine) == [f"test_a[{i}]" for i in range(count)]
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
    for run in mine:
        i = int(run.data.params["i"])
        assert run.data.metrics["accuracy"] == i / 4
        assert run.data.metrics["own"] == i
        assert run.data.tags["armory.outcome"] == ("failed" if i == 2 else "passed")
    assert [run.info.status for run in evals.read() if run.info.status == "RUNNING"] == []


def forget_outage() -> None:
    """As another process has not seen it."""
    open_store.cache_clear()
    _circuits.clear()


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each call over the network may have taken that was sent, in seconds."""
    sent: list[float] = []

    def noting(seconds: float, work: Callable[[], object]) -> object:
        sent.append(seconds)
        return within(seconds, work)

    monkeypatch.setattr(circuit, "within", noting)
    monkeypatch.setattr(circuit, "PAUSE", 1e6)  # on a busy machine a session may take longer
    return sent


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request that is cut off fail at once: a budget is for a server that is only slow."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


JSON, NO_SERVER = '{{"error_code": "{}", "message": "no"}}', "it is no MLflow tracking server"
FAULTS: dict[str, tuple[Fault, str]] = {
    "black-hole": (outages.black_hole, "no answer within 2 s"),
    "reset": (outages.reset, "IncompleteRead"),
    "slow-drip": (outages.drip, "no answer within 2 s"),
    "401": (status(401, "no"), "the login was refused (UNAUTHENTICATED); check MLFLOW_TRACKING_"),
    "403": (status(403, "no"), "the login was refused (PERMISSION_DENIED)"),
    "404": (status(404, "<html>nothing here"), "it is no MLflow server, or not well"),
    "405": (status(405, "<html>not here"), "it is no MLflow server, or not well"),
    "404-json": (status(404, JSON.format("ENDPOINT_NOT_FOUND"), "application/json"), NO_SERVER),
    "404-other": (status(404, JSON.format("no_route"), "application/json"), NO_SERVER),
    "501-json": (status(501, JSON.format("NOT_IMPLEMENTED"), "application/json"), NO_SERVER),
    "log-in-page": (status(200, "<html>log in"), "it is no MLflow server, or not well"),
    "empty-answer": (
        status(200, "{}", "application/json"),
        "it is no MLflow server, it answered with",
    ),
    "401-of-a-gateway": (
        status(401, '{"message": "Unauthorized"}', "application/json"),
        "it is no MLflow server, or not well (it responded {'message': 'Unauthorized'})",
    ),
    "500-of-a-gateway": (status(500, '{"message": "oops"}', "application/json"), ""),
    "500": (status(500, "oops"), ""),
    "502": (status(502, "<html><h1>Bad gateway</h1>"), ""),
    "429": (status(429, "slow down", Retry_After="1"), ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_from_the_start(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str, limits: list[float], fault: str
) -> None:
    """The budget is waited for once."""
    proxy.fault, reported = FAULTS[fault]
    result = run(evals, proxy.url, name)
    assert limits == [2.0]
    assert result.duration < 60  # what has no limit would take minutes
    text = result.stdout.str()
    assert "3 evaluations: 2 passed, 1 failed" in text
    assert f"waiting for {proxy.url}: 3 evaluations, recorded locally" in text
    assert f"bring them there with `pytest-armory sync --armory-tracking-uri {proxy.url}`" in text
    assert reported in text
    assert "<h1>" not in text
    if fault[:3] in ("401", "403", "404", "405", "501") or fault == "log-in-page":
        assert len(proxy.seen) == 1  # what cannot succeed is not tried again
    assert there(mlflow_server, name) == []
    local = attempts(evals.read())
    assert len(local) == 3
    assert {r.data.tags["armory.destination"] for r in local} == {proxy.url}
    evals.check_invariant(result, 3)
    if fault in ("reset", "502"):
        check_brought(evals, mlflow_server, name)


SICK = """
    import os, mlflow, pytest
    pytestmark = pytest.mark.evaluation(name="NAME")
    @pytest.fixture(scope="session", autouse=True)
    def chosen():
        if "CHOOSE": mlflow.set_experiment("NAME chosen")
    def sick(run):
        os.environ["SICK"] = "1"
        run.log_metrics({"after": 1})
        del os.environ["SICK"]
"""

HALVES = {
    "a-gate-on-the-first-half": """
    @pytest.mark.evaluation(at_least={"accuracy": 0.5})
    def test_a(evaluation_run, tmp_path):
        weights = tmp_path / "weights.bin"
        weights.write_bytes(b"epoch-1")
        evaluation_run.log_artifact(weights)
        mlflow.log_metric("accuracy", 0.9)
        sick(evaluation_run)
        weights.write_bytes(b"epoch-2")
        evaluation_run.log_artifact(weights)
    """,
    "a-run-of-the-tests-own": """
    def test_a(evaluation_run):
        with mlflow.start_run(nested=True):
            sick(evaluation_run)
            mlflow.log_metric("inner", 2)
        mlflow.log_metric("outer", 3)
    """,
    "an-experiment-of-the-tests-own": """
    def test_a(evaluation_run):
        sick(evaluation_run)
        with mlflow.start_run(nested=True):
            mlflow.log_metric("inner", 2)
    """,
}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("half", HALVES)
def test_a_call_of_ours_that_fails_changes_no_verdict(
    evals: Evals,
    proxy: Proxy,
    mlflow_server: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    half: str,
) -> None:
    """The run goes on locally, while the server is well again for the test's own calls."""

    def fault(proxy: Proxy, handler: Handler) -> bool:
        ours = "SICK" in os.environ and "log-batch" in handler.path
        return ours and outages.reset(proxy, handler)

    monkeypatch.delenv("SICK", raising=False)
    proxy.fault = fault
    choose = "x" if half == "an-experiment-of-the-tests-own" else ""
    evals.write((SICK + HALVES[half]).replace("NAME", name).replace("CHOOSE", choose))
    result = evals.run("--armory-tracking-uri", proxy.url)
    result.assert_outcomes(passed=1)
    assert "waiting for" in result.stdout.str()
    forget_outage()
    assert commands.main(["sync"]) == 0
    runs = {str(run.info.run_name): run for run in there(mlflow_server, name)}
    mine = runs["test_a"]
    assert mine.data.metrics["after"] == 1
    client = MlflowClient(mlflow_server)
    if half == "a-gate-on-the-first-half":
        assert mine.data.metrics["accuracy"] == 0.9
        path = client.download_artifacts(mine.info.run_id, "weights.bin")
        assert Path(path).read_bytes() == b"epoch-2"
    elif half == "a-run-of-the-tests-own":
        assert mine.data.metrics["outer"] == 3
        (inner,) = [run for run in runs.values() if "inner" in run.data.metrics]
        assert inner.info.status == "FINISHED"
    else:
        (inner,) = [run for run in runs.values() if "inner" in run.data.metrics]
        assert inner.data.tags["mlflow.parentRunId"] == mine.info.run_id


def test_a_file_that_waits_is_not_put_over_a_newer_one(
    evals: Evals, mlflow_server: str, name: str
) -> None:
    evals.write(f"""
    import pytest
    from unittest import mock

    @pytest.mark.evaluation(name={name!r})
    def test_a(evaluation_run, tmp_path):
        file, other = tmp_path / "f.txt", tmp_path / "other.txt"
        file.write_text("first")
        with mock.patch("requests.Session.request"):
            evaluation_run.log_artifact(file)
        for content in ("second", "third"):
            for path in (file, other):
                path.write_text(content)
                evaluation_run.log_artifact(path)
    """)
    evals.run("--armory-tracking-uri", mlflow_server).assert_outcomes(passed=1)
    assert commands.main(["sync"]) == 0
    (run,) = [run for run in there(mlflow_server, name) if run.info.run_name == "test_a"]
    for file in ("f.txt", "other.txt"):
        path = MlflowClient(mlflow_server).download_artifacts(run.info.run_id, file)
        assert Path(path).read_text(encoding="utf-8") == "third"


@pytest.mark.usefixtures("at_once")
def test_a_value_whose_answer_is_lost_is_stored_once(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str
) -> None:
    lost: list[str] = []

    def answer_is_lost(proxy: Proxy, handler: Handler) -> bool:
        if lost or "log-batch" not in handler.path:
            return False
        lost.append(handler.path)
        proxy.fault = outages.reset
        return outages.reset(proxy, handler)

    proxy.after = answer_is_lost
    evals.write(f"""
        import pytest
        @pytest.mark.evaluation(name="{name}")
        def test_a(evaluation_run): evaluation_run.log_metrics({{"loss": 0.5}}, step=2)
    """)
    evals.run("--armory-tracking-uri", proxy.url).assert_outcomes(passed=1)
    assert lost
    forget_outage()
    proxy.fault = proxy.after = None
    assert commands.main(["sync"]) == 0
    (mine,) = attempts(there(mlflow_server, name))
    history = MlflowClient(mlflow_server).get_metric_history(mine.info.run_id, "loss")
    assert [(one.value, one.step) for one in history] == [(0.5, 2)]


def test_a_run_inside_another_in_another_experiment_waits_too(
    evals: Evals, mlflow_server: str, nobody: str, name: str
) -> None:
    evals.write(f"""
        import mlflow, pytest
        @pytest.mark.evaluation(name="{name}")
        def test_a():
            other = mlflow.create_experiment("{name} other")
            with mlflow.start_run(nested=True, experiment_id=other): mlflow.log_metric("inner", 1)
    """)
    evals.run("--armory-tracking-uri", nobody).assert_outcomes(passed=1)
    assert commands.main(["sync", "--to", mlflow_server]) == 0
    (inner,) = there(mlflow_server, f"{name} other")
    (mine,) = attempts(there(mlflow_server, name))
    assert inner.data.tags["mlflow.parentRunId"] == mine.info.run_id


@pytest.mark.usefixtures("at_once")
def test_counts_are_of_the_experiment_wherever_its_evaluations_are(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some of them at the server, and some recorded locally until it is back."""
    proxy.fault = outages.after(14, outages.reset)
    evals.write(f"""
        import pytest
        @pytest.mark.evaluation(name="{name}")
        def test_first(): pass
        @pytest.mark.evaluation(name="{name} other")
        def test_second(): pass
        @pytest.mark.evaluation(name="{name}")
        @pytest.mark.parametrize("i", range(3))
        def test_third(i): assert i != 2
        @pytest.mark.evaluation(name="{name} other")
        def test_last(): pass
    """)
    result = evals.run("--armory-tracking-uri", proxy.url)
    result.assert_outcomes(passed=5, failed=1)
    waiting = int(re.search(r"waiting for .*: (\d) evaluation", result.stdout.str())[1])
    assert 0 < waiting < 6
    proxy.fault = None
    forget_outage()
    assert commands.main(["sync", "--armory-tracking-uri", proxy.url]) == 0
    found = {}
    for experiment in (name, f"{name} other"):
        runs = there(mlflow_server, experiment)
        (session,) = [run for run in runs if run.data.tags.get("armory.kind") == "session"]
        found[experiment] = counts_of(session)
        assert session.data.metrics["session/evaluations"] == 6
        assert session.data.metrics["session/failed"] == 1
    assert found == {
        name: {"evaluations": 4, "passed": 3, "failed": 1},
        f"{name} other": {"evaluations": 2, "passed": 2},
    }
    capsys.readouterr()
    assert commands.main(["sessions", "--armory-tracking-uri", mlflow_server]) == 0
    assert "5 passed, 1 failed" in capsys.readouterr().out.splitlines()[1]


def test_nobody_listens(evals: Evals, mlflow_server: str, nobody: str, name: str) -> None:
    result = run(evals, nobody, name, "-n1")
    result.stdout.fnmatch_lines(["waiting for *: 3 evaluations, recorded locally"])
    (session,) = evals.sessions()
    assert session.data.metrics["evaluations"] == 3
    evals.check_invariant(result, 3, "-n1")
    check_brought(evals, mlflow_server, name)


LOGGING = """
    import logging, pytest
    from mlflow import MlflowClient
    from pytest_armory import track_metrics
    @pytest.mark.evaluation(name="{name}")
    def test_a(caplog):
        track_metrics({{"a": 1}})
        assert [*caplog.get_records("setup"), *caplog.records] == []
    @pytest.mark.evaluation(name="{name}")
    def test_own(caplog, evaluation_run):
        if evaluation_run.url:
            MlflowClient().search_experiments()
            assert "urllib3.connectionpool" in [one.name for one in caplog.records]
"""


@pytest.mark.parametrize("is_there", [True, False])
def test_a_tests_log_has_nothing_of_our_requests(
    evals: Evals, mlflow_server: str, nobody: str, name: str, is_there: bool
) -> None:
    """A test may assert that nothing was logged; what its own requests log is there."""
    evals.write(LOGGING.format(name=name))
    url = mlflow_server if is_there else nobody
    result = evals.run("--armory-tracking-uri", url, "-o", "log_level=DEBUG")
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("requests", [1, 3, 5, 6, 8, 11])
def test_a_server_that_dies_in_the_middle(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str, requests: int
) -> None:
    """Between any two requests: the halves of a run come together again."""
    proxy.fault = outages.after(requests, outages.reset)
    # A test's own `mlflow.*` call that the server dies under fails as it would without us.
    source = SOURCE.replace('mlflow.log_metric("own", i)', 'track_metrics({"own": i})')
    result = run(evals, proxy.url, name, source=source)
    text = result.stdout.str()
    assert "3 evaluations: 2 passed, 1 failed" in text
    assert "not stored" not in text
    proxy.fault = None
    check_brought(evals, mlflow_server, name)


def test_a_test_that_reads_its_run_when_the_server_dies(
    evals: Evals, proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has logged before is in it, although it is in the other half."""
    outage = partial(setattr, proxy, "fault", outages.reset)
    monkeypatch.setattr(outages, "began", outage, raising=False)
    source = f"""
        import mlflow, outages, pytest
        @pytest.mark.evaluation(name="{name}")
        @pytest.mark.parametrize("i", range(3))
        def test_a(i, evaluation_run):
            evaluation_run.log_metric("before", i, step=3)
            evaluation_run.log_metric("both", 1)
            evaluation_run.log_param("lr", 0.1)
            evaluation_run.set_tag("team", "vision")
            outages.began()
            evaluation_run.log_metrics({{"before": 7, "after": i}})
            mlflow.log_metric("both", 2)
            data = evaluation_run.data
            assert data.metrics == {{"before": i, "both": 2, "after": i}}
            assert data.params == {{"i": str(i), "lr": "0.1"}}
            assert data.tags["team"] == "vision"
            assert i != 2, "worse"
    """
    result = run(evals, proxy.url, name, source=source)
    result.stdout.fnmatch_lines(["*AssertionError: worse*"])


@pytest.mark.parametrize(
    ("where", "options"),
    [("test", ()), ("fixture", ()), ("test", ("-p", "rerunfailures", "--reruns=1"))],
    ids=["test", "fixture", "rerun"],
)
def test_a_server_that_dies_with_a_worker(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str, where: str, options: tuple[str, ...]
) -> None:
    """The controller knows what has crashed, reported or not, and `sync` closes it.

    No such session has passed, unless the test is run again and passes.
    """
    gone = evals.pytester.path / "gone"

    def die(proxy: Proxy, handler: Handler) -> bool:
        while handler.path.endswith("runs/update") and not gone.exists():
            time.sleep(0.02)  # so that the first test's run is not closed either
        return gone.exists() and outages.reset(proxy, handler)

    proxy.fault = die
    evals.pytester.makeini("[pytest]\narmory_budget = 3")
    evals.write(f"""
        import os, pytest
        from pathlib import Path
        from pytest_armory import track_metrics
        def crash_once(i, where):
            if i == 1 and where == "{where}" and not Path("gone").exists():
                Path("gone").touch()
                os._exit(3)
        @pytest.fixture
        def thing(request):
            crash_once(request.node.callspec.params["i"], "fixture")
        @pytest.mark.evaluation(name="{name}")
        @pytest.mark.parametrize("i", range(2))
        def test_a(i, thing):
            track_metrics({{"accuracy": i}})
            crash_once(i, "test")
    """)
    result = evals.run("--armory-tracking-uri", proxy.url, "-n1", *options)
    proxy.fault = None
    assert commands.main(["sync"]) == 0
    runs = there(mlflow_server, name)
    tags = [(run.info, run.data.tags) for run in attempts(runs)]
    ends = {(own["armory.nodeid"][-2], info.status, own["armory.outcome"]) for info, own in tags}
    expected = {("0", "FINISHED", "passed"), ("1", "FAILED", "crashed")}
    assert ends == expected | ({("1", "FINISHED", "passed")} if options else set())
    assert len(tags) == len(ends)
    (session,) = [run for run in runs if run.data.tags.get("armory.kind") == "session"]
    assert session.info.status == ("FINISHED" if options else "FAILED")
    assert {own["mlflow.parentRunId"] for _, own in tags} == {session.info.run_id}
    result.stdout.fnmatch_lines([f"waiting for *: {len(tags)} evaluations, *"])
    gone.unlink()
    off = evals.run("-n1", *options, track=False)
    assert (off.ret, off.parseoutcomes()) == (result.ret, result.parseoutcomes())


def test_a_server_that_dies_with_the_worker_of_a_test_that_a_fixture_has_marked(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str
) -> None:
    """Its run opens when its body begins, and no report has said so."""
    gone = evals.pytester.path / "gone"
    proxy.fault = lambda proxy, handler: gone.exists() and outages.reset(proxy, handler)
    evals.pytester.makeini("[pytest]\narmory_budget = 3")
    evals.write(f"""
        import os, pytest
        from pathlib import Path
        evaluation = pytest.mark.evaluation(name="{name}")
        @evaluation
        def test_a(): pass
        @pytest.fixture
        def marked(request):
            request.node.add_marker(evaluation)
        def test_b(marked):
            Path("gone").touch()
            os._exit(3)
    """)
    evals.run("--armory-tracking-uri", proxy.url, "-n1").assert_outcomes(passed=1, failed=1)
    proxy.fault = None
    assert commands.main(["sync"]) == 0
    runs = there(mlflow_server, name)
    ends = {(run.info.run_name, run.data.tags["armory.outcome"]) for run in attempts(runs)}
    assert ends == {("test_a", "passed"), ("test_b", "crashed")}
    assert {run.info.status for run in runs if run not in attempts(runs)} == {"FAILED"}


@pytest.mark.parametrize("workers", [("-p", "no:xdist"), ("-n1",)], ids=["no-xdist", "n1"])
def test_what_is_recorded_locally_has_the_baseline_of_its_experiment(
    evals: Evals, proxy: Proxy, name: str, workers: tuple[str, ...]
) -> None:
    """Which has another id in the local database, that may be another experiment's at the server.

    A fall is missed as if the server was there, where its samples are not needed for that.
    """
    gone = evals.pytester.path / "gone"
    proxy.fault = lambda proxy, handler: gone.exists() and outages.reset(proxy, handler)
    evals.pytester.makeini("[pytest]\narmory_budget = 3")
    source = f"""
        import pytest
        from pathlib import Path
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(name="{name}", baseline={{"accuracy": "-10%"}})
        @pytest.mark.parametrize("i", range(2))
        def test_a(i):
            if ACCURACY == 0.5:
                Path("gone").touch()
            track_metrics({{"accuracy": ACCURACY}})
    """
    evals.write(source.replace("ACCURACY", "0.1").replace(name, f"another than {name}"))
    evals.run("--armory-tracking-uri", proxy.url, *workers, "--armory-session=another")
    evals.write(source.replace("ACCURACY", "1.0"))
    evals.run("--armory-tracking-uri", proxy.url, *workers, "--armory-session=before")
    evals.write(source.replace("ACCURACY", "0.5"))
    options = ("--armory-baseline=latest", "--armory-session=now")
    result = evals.run("--armory-tracking-uri", proxy.url, *workers, *options)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["baseline latest: session before"])
    result.stdout.fnmatch_lines(["waiting for *: 2 evaluations, *"])
    waiting = [run for run in evals.read() if "armory.nodeid" in run.data.tags]
    assert {run.data.tags["armory.outcome"] for run in waiting} == {"failed"}


def test_a_slow_server_is_not_the_tests_time(evals: Evals, proxy: Proxy, name: str) -> None:
    """Neither a time limit nor a gate on the duration counts it."""

    left: list[tuple[float, float]] = []

    def slow(_: Proxy, handler: Handler) -> bool:
        if handler.path.endswith("log-batch") and proxy.count("log-batch") == 1:
            left.append(signal.getitimer(signal.ITIMER_REAL))
            time.sleep(3)
        return False

    proxy.fault = slow
    evals.write(f"""
        import pytest, signal
        from pytest_armory import track_metrics
        @pytest.mark.timeout(600, method="signal")
        @pytest.mark.evaluation(name="{name}", at_most={{"duration_seconds": 3}})
        def test_a():
            track_metrics({{"a": 1}})
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 600
    """)
    evals.run("--armory-tracking-uri", proxy.url, "-p", "timeout").assert_outcomes(passed=1)
    assert left == [(0, 0)]
    (run_of_it,) = attempts(there(proxy.url, name))
    assert run_of_it.data.metrics["duration_seconds"] < 3


def test_a_server_that_dies_when_the_last_test_runs(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str
) -> None:
    """Its session run is closed as what it was, by `sync`."""
    proxy.fault = outages.after(9, outages.reset)
    source = SOURCE.replace('mlflow.log_metric("own", i)', 'track_metrics({"own": i})')
    run(evals, proxy.url, name, source=source)
    proxy.fault = None
    assert commands.main(["sync"]) == 0
    runs = there(mlflow_server, name)
    (session,) = [one for one in runs if one.data.tags.get("armory.kind") == "session"]
    assert session.info.status == "FAILED"
    assert session.data.metrics["passed"] == 2
    assert {one.data.tags["mlflow.parentRunId"] for one in attempts(runs)} == {session.info.run_id}
    assert len(attempts(runs)) == 3
    # How many of them go on locally depends on what was under way in the background.
    assert {one.info.status for one in evals.read()} <= {"FINISHED", "FAILED"}


@pytest.mark.parametrize(
    ("first", "way"), [("sync", ()), ("recover", ("-n1",))], ids=["sync", "recover-n1"]
)
@pytest.mark.parametrize("by", ["name", "id"])
@pytest.mark.usefixtures("at_once")
def test_a_session_run_whose_experiment_has_nothing_waiting(
    evals: Evals,
    proxy: Proxy,
    mlflow_server: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
    first: str,
    way: tuple[str, ...],
) -> None:
    """The server goes down when its evaluations have ended: sync closes it all the same."""
    client = MlflowClient(mlflow_server)
    if by == "id":
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client.create_experiment(name))
    named = f'(name="{name}")' if by == "name" else ""
    down = evals.pytester.path / "down"
    proxy.fault = lambda one, handler: down.exists() and outages.reset(one, handler)
    evals.write(f"""
        import pytest, time
        from pathlib import Path
        from mlflow import MlflowClient
        @pytest.mark.evaluation{named}
        @pytest.mark.parametrize("i", range(2))
        def test_first(i): assert i != 1
        def test_ordinary():
            client = MlflowClient("{mlflow_server}")
            found = client.get_experiment_by_name("{name}").experiment_id
            ended = "attributes.status != 'RUNNING'"
            while len(client.search_runs([found], ended)) < 2: time.sleep(0.05)
            Path("{down}").touch()
        @pytest.mark.evaluation(name="{name} other")
        def test_second(): pass
    """)
    result = evals.run("--armory-tracking-uri", proxy.url, *way)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*the end of this job is recorded locally, `pytest-armory sync*"])
    evals.check_accounted(1)
    down.unlink()
    forget_outage()
    if first == "recover":
        assert commands.main(["recover", "--armory-tracking-uri", proxy.url]) == 0
    assert commands.main(["sync", "--armory-tracking-uri", proxy.url]) == 0
    for experiment, failed in ((name, 1), (f"{name} other", 0)):
        runs = there(mlflow_server, experiment)
        (session,) = [run for run in runs if run.data.tags.get("armory.kind") == "session"]
        assert session.info.status == "FAILED"
        assert counts_of(session)["evaluations"] == 1 + failed
        assert session.data.metrics["failed"] == failed
        assert session.data.metrics["session/evaluations"] == 3
        assert "armory.recovered" not in session.data.tags
        assert "3 evaluations" in session.data.tags["mlflow.note.content"]
        mine = attempts(runs)
        assert len(mine) == 1 + failed
        assert {one.data.tags["mlflow.parentRunId"] for one in mine} == {session.info.run_id}
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    assert client.get_experiment_by_name(f"experiment {given}") is None


def test_two_jobs_that_end_while_their_server_is_down(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str
) -> None:
    """The one has opened the session run at the server, the other the one that waits here."""
    down = evals.pytester.path / "down"
    proxy.fault = lambda one, handler: down.exists() and outages.reset(one, handler)
    shared = name.replace(" ", "-")
    options = ("--armory-track", "--armory-tracking-uri", proxy.url, "--armory-session", shared)
    evals.write(f"""
        import pytest, subprocess, sys, time
        from pathlib import Path
        from mlflow import MlflowClient
        pytestmark = pytest.mark.evaluation(name="{name}")
        def test_first(): pass
        def test_at_the_server():
            client = MlflowClient("{mlflow_server}")
            found = [client.get_experiment_by_name("{name}").experiment_id]
            while not client.search_runs(found, "tags.`armory.kind` = 'session'"): time.sleep(0.05)
            Path("{down}").touch()
            other = [sys.executable, "-m", "pytest", __file__, "-k", "second", *{options}]
            assert subprocess.run([*other, "-o", "armory_budget=1"]).returncode == 0
        def test_second(): pass
    """)
    result = evals.run(*options[1:], "-k", "not second")
    result.assert_outcomes(passed=2, deselected=1)
    down.unlink()
    forget_outage()
    assert commands.main(["sync", "--armory-tracking-uri", proxy.url]) == 0
    runs = there(mlflow_server, name)
    (session,) = [run for run in runs if run.data.tags["armory.kind"] == "session"]
    assert session.info.status == "FINISHED"
    assert counts_of(session)["evaluations"] == session.data.metrics["passed"] == 3
    assert commands.main(["report", shared, "--armory-tracking-uri", proxy.url]) == 0
    files = [one.path for one in MlflowClient(mlflow_server).list_artifacts(session.info.run_id)]
    named = re.compile(r"environment(-[0-9a-f]{8})?\.txt")
    assert len([path for path in files if named.fullmatch(path)]) == 3, files
    assert all(map(named.fullmatch, set(files) - {"summary.md", "uncommitted.patch"})), files


@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
def test_a_file_that_is_refused_is_reported(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str, way: tuple[str, ...]
) -> None:
    """Too large for a proxy, say: the server is well, and everything else is there."""

    def refuse(_: Proxy, handler: Handler) -> bool:
        is_file = handler.command == "PUT" and "summary.md" not in handler.path
        return is_file and status(413, "too large")(proxy, handler)

    proxy.fault = refuse
    result = run(evals, proxy.url, name, *way, budget=10)
    result.stdout.fnmatch_lines(["warning: storing artifacts failed at *413*(test_a?2?)"])
    result.stdout.no_fnmatch_line("*waiting for*")
    assert len(attempts(there(mlflow_server, name))) == 3
    evals.check_accounted(3, there=there(mlflow_server, name))


STORAGES: dict[str, Fault] = {
    "507": status(507, "full"),
    "black-hole": outages.black_hole,
    "reset": outages.reset,
}


STORAGE_SAYS = {
    "507": "HTTP 507 Insufficient Storage: full",
    "black-hole": "no answer within 2 s",
    "reset": "*Error: *",
}


@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.usefixtures("at_once")
def test_an_artifact_storage_that_fails_while_the_server_is_well(
    evals: Evals,
    proxy: Proxy,
    mlflow_server: str,
    name: str,
    way: tuple[str, ...],
    storage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its files wait for sync by themselves, and a warning names each; everything else is there."""

    def refuse(proxy: Proxy, handler: Handler) -> bool:
        return "mlflow-artifacts" in handler.path and STORAGES[storage](proxy, handler)

    proxy.fault = refuse
    evals.pytester.makeconftest(f"""
        from pytest_armory.store.circuit import circuit_of
        circuit_of("{proxy.url} artifacts").budget = 2.0
    """)
    result = run(evals, proxy.url, name, *way, budget=10)
    line = f"pytest-armory sync --armory-tracking-uri {proxy.url}"
    result.stdout.fnmatch_lines(
        [
            f"warning: storing artifacts failed at {proxy.url}: {STORAGE_SAYS[storage]}"
            "; not there: failure.txt*; recorded locally, "
            f"`{line}` uploads it (test_a?2?)",
        ]
    )
    result.stdout.fnmatch_lines(["warning: *; not there: *summary.md*; recorded locally, *"])
    result.stdout.no_fnmatch_line("*waiting for*")
    assert len(attempts(there(mlflow_server, name))) == 3
    assert {one.info.status for one in there(mlflow_server, name)} == {"FINISHED", "FAILED"}
    assert attempts(evals.read()) == []
    before = {one.info.run_id: one.info.end_time for one in there(mlflow_server, name)}
    forget_outage()
    proxy.fault = None
    capsys.readouterr()
    assert commands.main(line.split()[1:]) == 0
    assert "uploaded artifacts of " in capsys.readouterr().out  # and no runs
    client = MlflowClient(mlflow_server)
    stored = {
        str(one.info.run_name): [file.path for file in client.list_artifacts(one.info.run_id)]
        for one in there(mlflow_server, name)
    }
    assert "failure.txt" in stored["test_a[2]"]
    assert [named for named, files in stored.items() if "summary.md" in files]
    assert {one.info.run_id: one.info.end_time for one in there(mlflow_server, name)} == before
    assert commands.main(["sync"]) == 0
    assert len(there(mlflow_server, name)) == len(before)
    evals.check_accounted(3, there=there(mlflow_server, name))


@pytest.mark.usefixtures("at_once")
def test_a_close_that_fails_is_one_attempt(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str
) -> None:
    """It fails behind the next test; the run goes on locally, and is counted once."""

    def sick(_: Proxy, handler: Handler) -> bool:
        return handler.path.endswith("runs/update") and outages.reset(proxy, handler)

    proxy.fault = sick
    result = run(evals, proxy.url, name, budget=10)
    text = result.stdout.str()
    assert "3 evaluations: 2 passed, 1 failed" in text
    assert "earlier attempt" not in text
    proxy.fault = None
    assert commands.main(["sync"]) == 0
    forget_outage()
    assert commands.main(["recover", "--armory-tracking-uri", proxy.url]) == 0
    check_brought(evals, mlflow_server, name)


REPLACED = """
    import time, pytest
    from mlflow import MlflowClient
    from pytest_armory import track_metrics
    pytestmark = pytest.mark.evaluation(name="NAME")
    def test_before(): track_metrics({"x": 1})
    def is_all_there():
        client = MlflowClient("SERVER")
        runs = client.search_runs([client.get_experiment_by_name("NAME").experiment_id])
        mine = [run for run in runs if "armory.nodeid" in run.data.tags]
        linked = ["mlflow.parentRunId" in run.data.tags for run in mine]
        return linked == [True, True] and "FINISHED" in {run.info.status for run in mine}
    def test_during(evaluation_run):
        track_metrics({"early": 1})
        while not is_all_there(): time.sleep(0.05)
        open("REPLACED", "w").close()
        time.sleep(0.6)
        track_metrics({"x": 2})
    def test_after(): track_metrics({"x": 3})
    def test_last(): track_metrics({"x": 4})
"""


@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
@pytest.mark.parametrize("silence", [0.5, 60.0], ids=["noticed", "unnoticed"])
def test_a_server_that_is_restarted_with_an_empty_database(
    evals: Evals,
    mlflow_server: str,
    emptied_server: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    way: tuple[str, ...],
    silence: float,
) -> None:
    """What is recorded later goes to the experiment of that name, whatever its id was before."""
    flag = evals.pytester.path / "replaced"
    evals.pytester.makeconftest(f"""
        import pytest_armory.store.connection as connection
        connection.RESTART = {silence}
    """)
    monkeypatch.setattr("pytest_armory.store.connection.RESTART", silence)
    source = REPLACED.replace("NAME", name).replace("SERVER", mlflow_server)
    evals.write(source.replace("REPLACED", str(flag)))
    with proxied(mlflow_server) as proxy:

        def replace(_: str) -> None:
            if flag.exists():
                proxy.server = emptied_server

        proxy.before = replace
        result = evals.run("--armory-tracking-uri", proxy.url, *way)
        result.assert_outcomes(passed=4)
        text = result.stdout.str()
    client = MlflowClient(emptied_server)
    found = {e.name: client.search_runs([e.experiment_id]) for e in client.search_experiments()}
    assert [named for named, runs in found.items() if runs and "somebody" in named] == []
    mine = attempts(found[name])
    by_name = {run.info.run_name: run for run in mine}
    assert {*by_name} == {"test_after", "test_during", "test_last"}
    assert by_name["test_during"].data.metrics.keys() >= {"early", "x"}
    (session,) = [run for run in found[name] if run not in mine]
    assert {run.data.tags["mlflow.parentRunId"] for run in mine} == {session.info.run_id}
    assert session.data.metrics["passed"] == 4
    assert "RUNNING" not in {run.info.status for run in found[name]}
    assert "4 evaluations: 4 passed" in text
    assert "not stored: 1 evaluation" in text  # it is gone
    assert "opened again, without steps and artifacts stored before (test_during)" in text
    evals.check_invariant(result, 4, *way, lost=1, there=found[name])


@pytest.fixture(scope="module")
def emptied_server(
    tmp_path_factory: pytest.TempPathFactory,
    database_template: Path,
    mlflow_server: str,
    fork_server: ForkServer,
) -> Iterator[str]:
    """Another server, where the next experiments of the first have ids that are somebody else's."""
    folder = tmp_path_factory.mktemp("emptied")
    shutil.copy(database_template, folder / "mlflow.db")
    last = MlflowClient(mlflow_server).create_experiment(f"probe {time.monotonic_ns()}")
    with served(fork_server(), folder) as url:
        client = MlflowClient(url)
        for number in range(int(last) + 20):
            client.create_experiment(f"somebody's {number}")
        yield url


def test_a_secret_that_the_server_sends_back(
    evals: Evals, proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "planted-secret")
    answer = '{"error_code": "INVALID_PARAMETER_VALUE", "message": "not planted-secret"}'
    proxy.fault = status(400, answer, kind="application/json")
    result = run(evals, proxy.url, name, budget=10)
    assert "planted-secret" not in result.stdout.str() + result.stderr.str()
    result.stdout.fnmatch_lines(["warning: *[[]redacted]*"])


def test_a_server_that_comes_back_within_the_budget(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str
) -> None:
    proxy.fault = outages.until(2, status(503, "starting"))
    result = run(evals, proxy.url, name, budget=10)
    assert "waiting" not in result.stdout.str()
    assert len(attempts(there(mlflow_server, name))) == 3


def test_retry_after_is_honoured(evals: Evals, proxy: Proxy, mlflow_server: str, name: str) -> None:
    proxy.fault = outages.until(1, status(429, "slow down", Retry_After="1"))
    run(evals, proxy.url, name, budget=10)
    assert proxy.times[1] - proxy.times[0] >= 1
    assert len(attempts(there(mlflow_server, name))) == 3


def test_an_answer_that_is_lost_makes_no_second_run(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str
) -> None:
    lost: list[str] = []

    def lose_the_first_run(proxy: Proxy, handler: Handler) -> bool:
        if not handler.path.endswith("runs/create") or len(lost) >= 2:
            return False
        lost.append(handler.path)
        return outages.reset(proxy, handler)

    proxy.after = lose_the_first_run
    run(evals, proxy.url, name, budget=10)
    assert len(lost) == 2
    runs = there(mlflow_server, name)
    assert sorted(run.info.run_name for run in attempts(runs)) == [f"test_a[{i}]" for i in range(3)]
    assert len(runs) == 4


@pytest.mark.usefixtures("at_once")
def test_a_session_whose_server_comes_back_needs_no_sync_for_the_rest(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_armory.store.circuit.PAUSE", 0.0)
    monkeypatch.setattr("pytest_armory.store.circuit.PROBE", 60.0)
    proxy.fault = outages.until(1, outages.reset)
    result = run(evals, proxy.url, name, budget=10)
    result.stdout.fnmatch_lines(["waiting for *: 1 evaluation, recorded locally"])
    assert len(attempts(there(mlflow_server, name))) == 2
    check_brought(evals, mlflow_server, name)


def test_strict_sessions_fail(evals: Evals, nobody: str) -> None:
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    for args in (("--armory-strict",), ("-o", "armory_strict=true")):
        result = evals.run("--armory-tracking-uri", nobody, *args)
        result.assert_outcomes(passed=1)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["armory: --armory-strict: not all was tracked, see above"])
    assert evals.run("--armory-strict").ret == pytest.ExitCode.OK


def test_a_budget_that_cannot_be_used(evals: Evals) -> None:
    evals.write("def test_a(): pass")
    for text in ("ten", "0", "-1", "1e9"):
        result = evals.run("-o", f"armory_budget={text}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*armory_budget must be seconds above 0*as in armory_budget*"])


def test_a_port_that_takes_connections_and_says_nothing(
    evals: Evals, name: str, limits: list[float]
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        result = run(evals, f"http://127.0.0.1:{listening.getsockname()[1]}", name)
        assert limits == [2.0]
        assert result.duration < 60
    evals.check_invariant(result, 3)


def test_an_experiment_by_its_id_waits_for_that_one(
    evals: Evals, mlflow_server: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(mlflow_server)
    experiment_id = client.create_experiment(name)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment_id)
    with proxied(mlflow_server) as proxy:
        proxy.fault = status(500)
        evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
        # In a process of its own, for a request that was given up may still be on its way.
        args = ("--armory-tracking-uri", proxy.url, "-o", "armory_budget=1")
        result = evals.run(*args, subprocess=True)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["waiting for *: 1 evaluation, recorded locally"])
        proxy.fault = None
        assert commands.main(["sync"]) == 0
    found = client.search_runs([experiment_id])
    assert sorted(str(run.info.run_name).split()[-1] for run in found) == ["session", "test_a"]
    assert not any("armory.experiment_id" in run.data.tags for run in found)


def test_a_server_that_dies_with_the_first_evaluation_of_an_experiment_by_its_id(
    evals: Evals, proxy: Proxy, mlflow_server: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session run was not opened there: `sync` opens it in that experiment, and makes none."""
    client = MlflowClient(mlflow_server)
    experiment_id = client.create_experiment(name)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment_id)
    gone = evals.pytester.path / "gone"
    proxy.fault = lambda proxy, handler: gone.exists() and outages.reset(proxy, handler)
    evals.pytester.makeini("[pytest]\narmory_budget = 3")
    evals.write("""
        import os, pytest
        from pathlib import Path
        @pytest.fixture
        def thing():
            Path("gone").touch()
            os._exit(3)
        @pytest.mark.evaluation
        def test_a(thing): pass
    """)
    result = evals.run("--armory-tracking-uri", proxy.url, "-n1")
    result.stdout.fnmatch_lines(["waiting for *: 1 evaluation, recorded locally"])
    proxy.fault = None
    assert commands.main(["sync"]) == 0
    kinds = [run.data.tags["armory.kind"] for run in client.search_runs([experiment_id])]
    assert sorted(kinds) == ["evaluation", "session"]
    assert client.get_experiment_by_name(f"experiment {experiment_id}") is None


@pytest.mark.parametrize("driver", ["postgresql+psycopg2", "postgresql+no_such_driver"])
def test_a_database_across_a_network_that_cannot_be_opened(
    evals: Evals, nobody: str, name: str, driver: str, each_way: Sequence[str]
) -> None:
    """Nothing is tried for minutes, and all waits, whether it is down or has no driver here."""
    pytest.importorskip("psycopg2")
    uri = f"{driver}://ann:her-passw0rd@{nobody.removeprefix('http://')}/x"
    source = SOURCE.replace("import mlflow, pytest", "import pytest")
    source = source.replace('mlflow.log_metric("own", i)', "pass")
    started = time.monotonic()
    result = run(evals, uri, name, *each_way, source=source)
    assert time.monotonic() - started < 60
    text = result.stdout.str() + result.stderr.str()
    assert "3 evaluations: 2 passed, 1 failed, recorded locally for " in text
    assert "waiting for postgresql+" in text
    assert "her-passw0rd" not in text
    assert "retried in" not in text
    evals.check_accounted(3)
    forget_outage()
    assert commands.main(["sync", "--armory-tracking-uri", uri]) == 1


def test_requests_that_fail_are_kept_of_a_few_attempts(
    evals: Evals, proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a long session whose server refuses all would keep all its output in memory."""
    body = '{"error_code": "INTERNAL_ERROR", "message": "disk full"}'
    fault = outages.status(400, body, "application/json")
    proxy.fault = lambda proxy, handler: "log-batch" in handler.path and fault(proxy, handler)
    evals.write(f"""
        import pytest
        pytestmark = pytest.mark.evaluation(name="{name}")
        @pytest.mark.parametrize("i", range(4))
        def test_a(i): pass
    """)
    tried = []
    for most in (1, 4):
        monkeypatch.setattr("pytest_armory.plugin.attempts.MOST_FAILING", most)
        result = evals.run("--armory-tracking-uri", proxy.url)
        result.assert_outcomes(passed=4)
        assert "disk full (test_a[0], test_a[1], test_a[2] and 1 more)" in result.stdout.str()
        tried.append(proxy.count("log-batch") - sum(tried))
    assert tried[1] - tried[0] == 3
