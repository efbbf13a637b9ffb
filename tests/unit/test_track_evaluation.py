"""track_evaluation in a script: one context, one MLflow run, whatever happens inside."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import artifacts_of, text_of
from mlflow import MlflowClient
from mlflow.entities import Run

from pytest_armory.errors import (
    ArmoryUsageError,
    MetricWarning,
    ParameterWarning,
    TrackingError,
    TrackingWarning,
)
from pytest_armory.store import destination, open_store
from pytest_armory.store.database import sqlite_uri
from pytest_armory.track import (
    EvaluationRun,
    current_run,
    get_current_params,
    init_tracking_uri,
    track_call,
    track_evaluation,
    track_metrics,
    track_param,
    track_params,
    track_system_metrics,
    tracking_context,
)
from pytest_armory.track.evaluation import running
from pytest_armory.track.results import converting

pytestmark = pytest.mark.usefixtures("armory_home", "elsewhere")

Read = Callable[..., list[Run]]
Steps = Callable[[Run, str], list[tuple[int, float]]]


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    with tracking_context():
        yield


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder in which nothing may appear, as when MLflow falls back to its default."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def only(read_runs: Read) -> Callable[..., Run]:
    """The one run of the home's database, or of another."""

    def read(uri: str | None = None) -> Run:
        (run,) = read_runs(uri)
        return run

    return read


@pytest.fixture
def database(tmp_path: Path, database_template: Path) -> str:
    """The URI of another database than the home's."""
    path = tmp_path / "other.db"
    path.write_bytes(database_template.read_bytes())
    return sqlite_uri(path)


def load(**kwargs: Any) -> None:
    """A loader."""


def evaluate(body: Callable[[EvaluationRun], object] = lambda _: None, **options: Any) -> None:
    """An evaluation in one statement."""
    with track_evaluation(**{"name": "digits", **options}) as run:
        body(run)


@pytest.fixture
def client(armory_home: Path) -> MlflowClient:
    """Asks the home's database."""
    return MlflowClient(sqlite_uri(armory_home / "mlruns" / "mlflow.db"))


# --- A run ---------------------------------------------------------------------------------------


def test_a_run_holds_what_was_recorded_before_and_inside(
    only: Callable[..., Run], client: MlflowClient
) -> None:
    track_param("before", 1)
    with track_evaluation("digits", description="A note.", run_name="first", tags={"n": 1}) as run:
        track_call(load, split="test")
        track_metrics({"accuracy": 0.5})
        assert only().info.status == "RUNNING"
    stored = only()
    assert stored.info.run_id == run.run_id
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "first")
    assert client.get_experiment(stored.info.experiment_id).name == "digits"
    assert stored.data.params == {
        "before": "1",
        "load._func": "test_track_evaluation.load",
        "load.split": "test",
    }
    assert stored.data.metrics == {"accuracy": 0.5}
    assert stored.data.tags["mlflow.note.content"] == "A note."
    assert stored.data.tags["n"] == "1"
    assert stored.data.tags["armory.kind"] == "evaluation"


def test_a_run_that_is_killed_says_what_it_was_before(only: Callable[..., Run]) -> None:
    track_param("before", 1)
    with track_evaluation("digits"):
        assert only().data.params == {"before": "1"}


def test_parameters_recorded_inside_are_forgotten_after(read_runs: Read) -> None:
    track_param("before", 1)
    for i in range(2):
        with track_evaluation("digits"):
            track_param("inside", i)
    assert get_current_params() == {"before": 1}
    assert [run.data.params["inside"] for run in read_runs()] == ["0", "1"]


def test_a_tracking_context_inside_is_not_the_runs(only: Callable[..., Run]) -> None:
    with track_evaluation("digits"), tracking_context():
        track_param("apart", 1)
        track_metrics({"a": 1})  # but the run is
    assert only().data.params == {}
    assert only().data.metrics == {"a": 1.0}


def test_the_default_name_is_the_experiments(only: Callable[..., Run]) -> None:
    with track_evaluation("digits"):
        pass
    assert only().info.run_name == "digits"


def test_artifacts_are_beside_the_database(armory_home: Path, only: Callable[..., Run]) -> None:
    with track_evaluation("digits") as run:
        run.log_dict({"a": [1]}, "deep/a.json")
    (path,) = artifacts_of(only()).values()
    assert armory_home / "mlruns" / "artifacts" in path.parents
    assert json.loads(path.read_text()) == {"a": [1]}


def test_a_decorator_opens_a_run_for_each_call(read_runs: Read) -> None:
    @track_evaluation("digits")
    def evaluate(value: float) -> None:
        track_metrics({"value": value})

    evaluate(1)
    evaluate(2)
    assert [run.data.metrics["value"] for run in read_runs()] == [1.0, 2.0]


@pytest.mark.parametrize("name", ["", None, 3])
def test_the_name_must_be_one(name: Any, read_runs: Read) -> None:
    with pytest.raises(ArmoryUsageError, match="the name must be the experiment's"):
        evaluate(name=name)
    assert read_runs() == []


# --- How it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "FAILED"),
        (AssertionError("no"), "FAILED"),
        (pytest.fail.Exception("no"), "FAILED"),  # which is no Exception
        (KeyboardInterrupt(), "KILLED"),
        (asyncio.CancelledError(), "KILLED"),
        (GeneratorExit(), "KILLED"),
        (SystemExit(), "FINISHED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(1), "FAILED"),
        (SystemExit("no"), "FAILED"),
    ],
    ids=repr,
)
def test_what_leaves_it_is_its_status(
    error: BaseException, status: str, only: Callable[..., Run]
) -> None:
    def fail(_: EvaluationRun) -> None:
        track_metrics({"a": 1})
        raise error

    with pytest.raises(type(error)) as raised:
        evaluate(fail)
    assert raised.value is error
    assert only().info.status == status
    assert only().data.metrics == {"a": 1.0}
    assert current_run() is None


def test_mlflows_active_run_is_as_before(read_runs: Read, armory_home: Path) -> None:
    assert mlflow.active_run() is None
    with track_evaluation("digits") as run:
        assert mlflow.active_run().info.run_id == run.run_id
        with track_evaluation("inner") as inner:
            assert mlflow.active_run().info.run_id == inner.run_id
        assert mlflow.active_run().info.run_id == run.run_id
    assert mlflow.active_run() is None
    init_tracking_uri()
    with mlflow.start_run() as own:
        with track_evaluation("digits"):
            mlflow.log_metric("a", 1)
        assert mlflow.active_run().info.run_id == own.info.run_id
    assert [run.data.metrics for run in read_runs()] == [{}, {}, {}, {"a": 1.0}]
    assert list(armory_home.iterdir()) == [armory_home / "mlruns"]


def end_and_log_on() -> None:
    mlflow.end_run()
    mlflow.log_metric("late", 1)


@pytest.mark.parametrize(
    "inside",
    [mlflow.end_run, end_and_log_on, lambda: mlflow.start_run(nested=True)],
    ids=["ended", "ended and logged on", "left open"],
)
def test_mlflows_active_run_is_as_before_whatever_was_done_to_it(
    inside: Callable[[], object], read_runs: Read
) -> None:
    init_tracking_uri()
    with mlflow.start_run() as own:
        evaluate(lambda _: inside())
        assert mlflow.active_run().info.run_id == own.info.run_id
    assert {run.info.status for run in read_runs()} == {"FINISHED"}


def failing_store(monkeypatch: pytest.MonkeyPatch, run: EvaluationRun) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no space left at http://user:secret@host")

    assert run.destination is not None
    for method in ("log_batch", "log_metric", "set_tag"):
        monkeypatch.setattr(open_store(run.destination).client, method, refuse)


def test_a_store_that_fails_raises_in_a_script(
    monkeypatch: pytest.MonkeyPatch, only: Callable[..., Run]
) -> None:
    def body(run: EvaluationRun) -> None:
        failing_store(monkeypatch, run)
        track_metrics({"a": 1})

    with pytest.raises(TrackingError, match="no space left") as raised:
        evaluate(body)
    assert "secret" not in str(raised.value)
    assert only().info.status == "FAILED"


def test_a_store_that_fails_does_not_hide_the_evaluations_own_error(
    monkeypatch: pytest.MonkeyPatch, only: Callable[..., Run]
) -> None:
    def body(run: EvaluationRun) -> None:
        failing_store(monkeypatch, run)
        track_param("a", 1)
        raise ZeroDivisionError

    with (
        pytest.warns(TrackingWarning, match="no space left") as told,
        pytest.raises(ZeroDivisionError),
    ):
        evaluate(body)
    assert told[0].filename == __file__
    assert only().info.status == "FAILED"


# --- Nested --------------------------------------------------------------------------------------


def test_a_nested_evaluation_is_a_child_with_the_parameters_so_far(read_runs: Read) -> None:
    with track_evaluation("outer") as outer:
        track_param("a", 1)
        with track_evaluation("inner"):
            track_param("b", 2)
            track_metrics({"m": 1})
        track_metrics({"m": 2})
    parent, child = read_runs()
    assert child.data.tags["mlflow.parentRunId"] == outer.run_id == parent.info.run_id
    assert "mlflow.parentRunId" not in parent.data.tags
    assert (parent.data.params, parent.data.metrics) == ({"a": "1"}, {"m": 2.0})
    assert (child.data.params, child.data.metrics) == ({"a": "1", "b": "2"}, {"m": 1.0})


def test_a_nested_evaluation_is_stored_where_its_parent_is(database: str, read_runs: Read) -> None:
    evaluate(lambda _: evaluate(uri="sqlite:///nowhere.db"), uri=database)
    assert len(read_runs(database)) == 2
    assert not Path("nowhere.db").exists()


def test_the_run_of_an_mlflow_projects_job_is_the_parent(
    monkeypatch: pytest.MonkeyPatch, only: Callable[..., Run]
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "a" * 32)
    with track_evaluation("digits"):
        pass
    assert only().data.tags["mlflow.parentRunId"] == "a" * 32


def test_evaluations_at_once_in_a_pool_are_apart(read_runs: Read) -> None:
    barrier = threading.Barrier(2, timeout=20)

    def evaluate(i: int) -> None:
        with track_evaluation("digits", run_name=str(i)):
            barrier.wait()
            track_param("i", i)
            track_metrics({"m": i})
            mlflow.log_metric("fluent", i)
            barrier.wait()
        assert mlflow.active_run() is None

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(evaluate, range(2)))
    for run in read_runs():
        i = run.info.run_name
        assert run.data.params == {"i": i}
        assert run.data.metrics == {"m": float(i), "fluent": float(i)}
        assert "mlflow.parentRunId" not in run.data.tags


def test_evaluations_at_once_in_two_tasks_end_in_any_order(read_runs: Read) -> None:
    async def first(opened: asyncio.Event, other: asyncio.Event, ended: asyncio.Event) -> None:
        with track_evaluation("digits", run_name="first"):
            opened.set()
            await other.wait()
        ended.set()

    async def second(opened: asyncio.Event, other: asyncio.Event, ended: asyncio.Event) -> None:
        await opened.wait()
        with track_evaluation("digits", run_name="second") as run:
            other.set()
            await ended.wait()
            assert mlflow.active_run().info.run_id == run.run_id
            assert [run.info.status for run in read_runs()] == ["FINISHED", "RUNNING"]

    async def main() -> None:
        events = [asyncio.Event() for _ in range(3)]
        await asyncio.gather(first(*events), second(*events))

    asyncio.run(main())
    assert mlflow.active_run() is None
    for run in read_runs():
        assert run.info.status == "FINISHED"
        assert not {"mlflow.parentRunId", "armory.left_open_in"} & run.data.tags.keys()


# --- Which store ---------------------------------------------------------------------------------


def test_the_environment_wins_over_the_argument(
    monkeypatch: pytest.MonkeyPatch, database: str, read_runs: Read
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    with track_evaluation("digits", uri="sqlite:///nowhere.db"):
        pass
    assert len(read_runs(database)) == 1
    assert read_runs() == []


def test_the_argument_wins_over_the_home_and_holds_for_one_evaluation(
    database: str, read_runs: Read
) -> None:
    with track_evaluation("first", uri=database):
        pass
    with track_evaluation("second"):
        pass
    with track_evaluation("third", uri=database):
        pass
    assert [run.info.run_name for run in read_runs(database)] == ["first", "third"]
    assert [run.info.run_name for run in read_runs()] == ["second"]


def test_two_arguments_at_once_in_a_pool(database: str, read_runs: Read) -> None:
    barrier = threading.Barrier(2, timeout=20)

    def evaluate(uri: str | None) -> None:
        if uri is None:
            barrier.wait()
        with track_evaluation("digits", run_name=uri and "given", uri=uri):
            if uri is not None:
                barrier.wait()
            barrier.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(evaluate, [database, None]))
    assert [run.info.run_name for run in read_runs(database)] == ["given"]
    assert [run.info.run_name for run in read_runs()] == ["digits"]
    assert "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.parametrize("given", [None, "http://127.0.0.1:1"])
def test_child_processes_find_the_store_meanwhile(
    given: str | None, armory_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = sqlite_uri(armory_home / "mlruns" / "mlflow.db")
    for _ in range(2):  # MLflow itself sets it only when it changes
        with track_evaluation("digits"):
            assert os.environ["MLFLOW_TRACKING_URI"] == uri
        assert "MLFLOW_TRACKING_URI" not in os.environ
    if given:
        with track_evaluation("digits"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        assert os.environ["MLFLOW_TRACKING_URI"] == given


def test_a_relative_database_stays_where_it_was_when_the_folder_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: str, read_runs: Read
) -> None:
    monkeypatch.chdir(tmp_path)
    with track_evaluation("digits", uri="sqlite:///other.db"):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        track_metrics({"a": 1})
    assert [run.data.metrics for run in read_runs(database)] == [{"a": 1.0}]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("name", ["with space", "q?mark", "per%20cent", "ha#sh", "ünï-日本"])
def test_any_character_in_the_home(
    name: str, tmp_path: Path, database_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "homes" / name
    (home / "mlruns").mkdir(parents=True)
    path = home / "mlruns" / "mlflow.db"
    path.write_bytes(database_template.read_bytes())
    monkeypatch.setenv("ARMORY_HOME", str(home))
    with track_evaluation("digits") as run:
        run.log_dict({}, "ours.json")
        mlflow.log_dict({}, "fluent.json")
        lent = os.environ["MLFLOW_TRACKING_URI"]
    assert destination.resolve(lent).database == path  # as a child process will
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    connection.close()
    artifacts = (home / "mlruns" / "artifacts").rglob("*.json")
    assert sorted(p.name for p in artifacts) == ["fluent.json", "ours.json"]
    files = [p for p in home.parent.rglob("*") if p.is_file()]
    assert all(home in p.parents for p in files)  # MLflow itself makes folders of the quoted name


@pytest.mark.parametrize("uri", ["file:runs", "http://user:secret@", Path("runs")])
def test_an_unusable_uri_is_refused(uri: Any) -> None:
    with pytest.raises(ArmoryUsageError, match="cannot be used") as refused:
        evaluate(uri=uri)
    assert "secret" not in str(refused.value)


def test_a_deleted_experiment_is_told(client: MlflowClient) -> None:
    client.delete_experiment(client.create_experiment("digits"))
    with pytest.raises(TrackingError, match=r"'digits' .* was deleted; .* experiments restore"):
        evaluate()


def test_init_tracking_uri_points_mlflow_at_the_home(
    armory_home: Path, tmp_path: Path, database_template: Path, read_runs: Read
) -> None:
    uri = init_tracking_uri()
    assert uri == mlflow.get_tracking_uri() == sqlite_uri(armory_home / "mlruns" / "mlflow.db")
    other = tmp_path / "other" / "mlruns" / "mlflow.db"
    other.parent.mkdir(parents=True)
    other.write_bytes(database_template.read_bytes())
    assert init_tracking_uri(tmp_path / "other") == sqlite_uri(other)
    with mlflow.start_run():
        pass
    with track_evaluation("digits"):
        pass
    assert len(read_runs(sqlite_uri(other))) == 2
    assert read_runs() == []


def test_init_tracking_uri_leaves_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert init_tracking_uri(tmp_path / "other") == database
    assert not (tmp_path / "other").exists()


def test_a_script_without_pytest(tmp_path: Path, armory_home: Path, read_runs: Read) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pytest_armory import track_call, track_evaluation, track_metrics\n"
        "def load(split): return split\n"
        "with track_evaluation('script', description='By hand.'):\n"
        "    track_call(load, split='test')\n"
        "    track_metrics({'a': 1})\n"
        "print('pytest' in sys.modules)\n"
        "class Log:\n"
        "    def __init__(self): self.me, self.file = self, open('log.txt', 'w')\n"
        "log = Log()\n"
        "log.file.write('written by garbage')\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert (tmp_path / "log.txt").read_text() == "written by garbage"
    (run,) = read_runs()
    assert run.data.params == {"load._func": "__main__.load", "load.split": "test"}
    assert run.data.tags["mlflow.source.name"] == str(script)
    assert run.info.status == "FINISHED"
    assert [p.name for p in armory_home.iterdir()] == ["mlruns"]


# --- MLflow's own API inside ---------------------------------------------------------------------


def test_mlflows_own_calls_land_in_the_run(tmp_path: Path, only: Callable[..., Run]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_text("b")
    (tmp_path / "a.txt").write_text("a")
    with track_evaluation("digits"):
        mlflow.log_param("p", 1)
        mlflow.log_metric("m", 2.0, step=3)
        mlflow.set_tag("t", "x")
        mlflow.log_artifact(str(tmp_path / "a.txt"))
        mlflow.log_artifacts(str(tmp_path / "folder"), "sub")
        mlflow.log_dict({"c": 1}, "c.json")
    run = only()
    assert (run.data.params, run.data.metrics) == ({"p": "1"}, {"m": 2.0})
    assert run.data.tags["t"] == "x"
    assert list(artifacts_of(run)) == ["a.txt", "c.json", "sub/b.txt"]


@pytest.mark.filterwarnings("ignore:`y_pred` was renamed:FutureWarning")  # MLflow's use of sklearn
def test_autologging_lands_in_the_run(only: Callable[..., Run]) -> None:
    from sklearn.linear_model import LogisticRegression

    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        with track_evaluation("digits"):
            LogisticRegression(C=3.0).fit([[0.0], [1.0]], [0, 1])
    finally:
        mlflow.sklearn.autolog(disable=True)
    assert only().data.params["C"] == "3.0"
    assert "training_score" in only().data.metrics


# --- Parameters as they are stored ---------------------------------------------------------------


@pytest.mark.parametrize(
    "again",
    [lambda run: run.log_params({"p": 2}), lambda _: track_param("p", 2)],
    ids=["log_params", "track_param"],
)
def test_another_value_for_a_stored_parameter_is_kept_whole(
    again: Callable[[EvaluationRun], None], only: Callable[..., Run]
) -> None:
    track_param("p", 1)
    with track_evaluation("digits") as run, pytest.warns(ParameterWarning, match="p") as told:
        again(run)
    assert told[0].filename == __file__
    assert only().data.params == {"p": "1"}
    assert json.loads(text_of(only(), "params.json")) == {"p": "2"}
    assert only().data.tags["armory.replaced_params"] == "p"


def test_another_value_than_mlflow_was_told_is_kept_whole(only: Callable[..., Run]) -> None:
    def body(_: EvaluationRun) -> None:
        mlflow.log_param("p", 1)
        track_param("p", 2)
        track_param("q", 3)

    with pytest.warns(ParameterWarning, match=r"'p' is only in the artifact params.json"):
        evaluate(body)
    assert only().data.params == {"p": "1", "q": "3"}
    assert json.loads(text_of(only(), "params.json")) == {"p": "2", "q": "3"}
    assert only().info.status == "FINISHED"


def test_the_same_value_again_is_no_other(only: Callable[..., Run]) -> None:
    with track_evaluation("digits") as run:
        run.log_params({"p": 1})
        run.log_params({"p": "1"})
    assert only().data.params == {"p": "1"}
    assert artifacts_of(only()) == {}
    assert "armory.replaced_params" not in only().data.tags


def test_what_a_second_call_replaced_is_not_in_the_whole_parameters(
    only: Callable[..., Run],
) -> None:
    track_params(load)(a=1, b=2)
    with track_evaluation("digits"), pytest.warns(ParameterWarning):
        track_params(load)(a=3)
    whole = json.loads(text_of(only(), "params.json"))
    assert whole == {"load._func": "test_track_evaluation.load", "load.a": "3"}
    assert only().data.tags["armory.replaced_params"] == "load.a, load.b"


def test_a_long_value_is_cut_in_the_store_and_whole_beside_it(only: Callable[..., Run]) -> None:
    with track_evaluation("digits"):
        track_param("long", "x" * 10_000)
    stored = only().data.params["long"]
    assert 5_900 < len(stored) <= 6_000
    assert stored.endswith("characters more]")
    assert json.loads(text_of(only(), "params.json")) == {"long": "x" * 10_000}


def test_more_than_mlflow_takes_in_one_batch(only: Callable[..., Run]) -> None:
    params = {f"p{i}": str(i) for i in range(250)}
    metrics = {f"m{i}": float(i) for i in range(1_100)}
    with track_evaluation("digits") as run:
        run.log_params(params)
        run.log_metrics(metrics)
        run.set_tags({f"t{i}": i for i in range(150)})
    assert only().data.params == params
    assert only().data.metrics == metrics
    assert sum(key.startswith("t") for key in only().data.tags) == 150


# --- Metrics -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Score:
    mean: float
    parts: Mapping[str, float]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"a": 1, "b": 0.5, "c": True}, {"a": 1, "b": 0.5, "c": 1}),
        ({"a": np.float32(1), "b": np.array(2), "c": torch.tensor(3)}, {"a": 1, "b": 2, "c": 3}),
        ({"a": {"b": {"c": 1}}}, {"a/b/c": 1}),
        ([{"test_loss": 0.25}], {"test_loss": 0.25}),
        (pd.Series({"a": 1.0, "b": 2.0}), {"a": 1, "b": 2}),
        (Score(1.0, {"x": 2.0}), {"mean": 1, "parts/x": 2}),
        ({"macro avg": {"f1-score": 1.0}}, {"macro avg/f1-score": 1}),
        ({"p[0]": 1.0}, {"p_0_": 1}),
        (0.5, {"value": 0.5}),
    ],
    ids=["Python", "arrays", "nested", "Lightning", "Series", "dataclass", "report", "key", "bare"],
)  # fmt: skip
def test_numbers_of_every_kind(
    results: Any, expected: dict[str, float], only: Callable[..., Run]
) -> None:
    with track_evaluation("digits") as run:
        track_metrics(results)
    assert only().data.metrics == run.metrics == expected
    assert artifacts_of(only()) == {}


@pytest.fixture
def steps(client: MlflowClient) -> Steps:
    """A metric's history in a run."""

    def read(run: Run, name: str) -> list[tuple[int, float]]:
        history = client.get_metric_history(run.info.run_id, name)
        return [(metric.step, metric.value) for metric in history]

    return read


@pytest.mark.parametrize(
    "values",
    [
        [0.5, 1, 0.5],
        (0.5, 1.0, 0.5),
        [np.float32(0.5), np.float64(1), np.array(0.5)],
        [torch.tensor(0.5), torch.tensor(1), torch.tensor(0.5)],
    ],
    ids=["list", "tuple", "NumPy", "torch"],
)
def test_a_list_of_numbers_is_one_value_per_step(
    values: Any, only: Callable[..., Run], steps: Steps
) -> None:
    with track_evaluation("digits") as run:
        track_metrics({"loss": values, 3: values})
    assert steps(only(), "loss") == steps(only(), "3") == [(0, 0.5), (1, 1.0), (2, 0.5)]
    assert run.metrics == only().data.metrics == {"loss": 0.5, "3": 0.5}
    assert artifacts_of(only()) == {}


@pytest.mark.parametrize("log", [track_metrics, None], ids=["track_metrics", "log_metrics"])
def test_a_step_is_that_of_every_number(log: Any, only: Callable[..., Run], steps: Steps) -> None:
    with track_evaluation("digits") as run:
        for step, value in ((2, 0.5), (7, 0.25)):
            (log or run.log_metrics)({"loss": value}, step=step)
    assert steps(only(), "loss") == [(2, 0.5), (7, 0.25)]


def test_arrays_become_artifacts(only: Callable[..., Run]) -> None:
    arrays = {
        "confusion": np.eye(2, dtype=int),
        "per class": torch.tensor([0.5, float("nan")]),
        "deep": {"x:y": [[1, 2]]},
    }
    with track_evaluation("digits"):
        track_metrics(arrays)
    found = {name: json.loads(path.read_text()) for name, path in artifacts_of(only()).items()}
    assert found == {
        "metrics/confusion.json": [[1, 0], [0, 1]],
        "metrics/per_class.json": [0.5, "NaN"],
        "metrics/deep/x_y.json": [[1, 2]],
    }
    assert only().data.metrics == {}


@pytest.mark.parametrize("refused", ["text", None, object(), 10**400, [10**400]], ids=type)
def test_what_is_no_metric_is_left_out_with_a_warning(refused: Any) -> None:
    with track_evaluation("digits") as run:
        for log in (track_metrics, run.log_metrics):
            with pytest.warns(MetricWarning, match=r"'bad' is no metric .*armory_metrics") as told:
                log({"good": 1.0, "bad": refused})
            assert told[0].filename == __file__
        assert run.metrics == {"good": 1.0}


def test_all_metrics_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with track_evaluation("digits") as run:
        assert run.destination is not None
        client = open_store(run.destination).client
        calls: list[int] = []
        original = client.log_batch

        def counting(run_id: str, metrics: list[Any], *args: Any, **kwargs: Any) -> None:
            calls.append(len(metrics))
            original(run_id, metrics, *args, **kwargs)

        monkeypatch.setattr(client, "log_batch", counting)
        track_metrics({"loss": [1.0] * 50, "accuracy": 0.5, "deep": {"a": 1, "b": 2}})
        assert calls == [53]


def test_a_converter_is_asked_about_foreign_results(only: Callable[..., Run]) -> None:
    class Foreign:
        score = 0.5

    def convert(value: object) -> object:
        return {"score": value.score} if isinstance(value, Foreign) else None

    with track_evaluation("digits"), converting(convert):
        track_metrics({"foreign": Foreign()})
    assert only().data.metrics == {"foreign/score": 0.5}


def test_metrics_outside_of_a_run_are_nobodys(read_runs: Read) -> None:
    track_metrics({"a": 1, "bad": object()})
    assert read_runs() == []


def test_a_run_in_memory_keeps_what_it_is_told(read_runs: Read) -> None:
    with running(EvaluationRun()) as scope:
        run = current_run()
        assert run is not None
        track_metrics({"a": [1, 2], "arr": np.eye(2)})
        run.log_params({"p": {"q": 1}})
        run.set_tags({"t": 1})
        run.log_dict({}, "a.json")
    assert (run.run_id, run.experiment_id, run.url) == (None, None, None)
    assert (run.metrics, run.params) == ({"a": 2.0}, {"p.q": "1"})
    assert scope.run is run
    assert mlflow.active_run() is None
    assert read_runs() == []


# --- Artifacts of the run object -----------------------------------------------------------------


def test_files_and_folders(tmp_path: Path, only: Callable[..., Run]) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b.txt").write_text("b")
    with track_evaluation("digits") as run:
        run.log_artifact(folder)
        run.log_artifact(folder / "deep" / "b.txt", "in/here")
        run.log_artifact(str(folder), "there/")
        with pytest.raises(ArmoryUsageError, match=r"no file or folder .*missing"):
            run.log_artifact(tmp_path / "missing")
    assert list(artifacts_of(only())) == [
        "folder/deep/b.txt",
        "in/here/b.txt",
        "there/folder/deep/b.txt",
    ]


def test_figures(only: Callable[..., Run]) -> None:
    class Plotly:
        def to_html(self) -> str:
            return "<html>"

    class Matplotlib:
        def savefig(self, file: Any, format: str) -> None:
            file.write(f"a {format}".encode())

    with track_evaluation("digits") as run:
        run.log_figure(Matplotlib(), "plots/curve.PNG")
        run.log_figure(Plotly(), "plotly.html")
        with pytest.raises(ArmoryUsageError, match=r"log_figure: got Plotly for 'plotly.png'"):
            run.log_figure(Plotly(), "plotly.png")
    assert text_of(only(), "plots/curve.PNG") == "a png"
    assert text_of(only(), "plotly.html") == "<html>"


# --- System metrics ------------------------------------------------------------------------------


class Monitor:
    """Stands in for MLflow's, which needs ``psutil``."""

    last: Any = None

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.log: list[str] = []
        Monitor.last = self

    def start(self) -> None:
        self.log.append("started")

    def finish(self) -> None:
        self.log.append("finished")


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> type[Monitor]:
    module = ModuleType("mlflow.system_metrics.system_metrics_monitor")
    module.SystemMetricsMonitor = Monitor  # type: ignore[attr-defined] # as there
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Monitor


def test_system_metrics_are_of_the_run_meanwhile(monitor: type[Monitor]) -> None:
    with track_system_metrics("a-run"):
        assert (monitor.last.run_id, monitor.last.log) == ("a-run", ["started"])
    assert monitor.last.log == ["started", "finished"]
    with pytest.raises(ZeroDivisionError), track_system_metrics("b-run"):
        raise ZeroDivisionError
    assert monitor.last.log == ["started", "finished"]


@pytest.mark.parametrize("run_id", [None, ""])
def test_no_system_metrics_without_a_run(run_id: str | None, monitor: type[Monitor]) -> None:
    monitor.last = None
    with track_system_metrics(run_id):
        pass
    assert monitor.last is None


@pytest.mark.parametrize("when", ["start", "finish"])
def test_system_metrics_that_fail_are_told_and_change_nothing(
    when: str, monitor: type[Monitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise ModuleNotFoundError("No module named 'psutil'")

    monkeypatch.setattr(monitor, when, fail)
    with pytest.warns(TrackingWarning, match="psutil") as told, track_system_metrics("a-run"):
        pass
    assert told[0].filename == __file__
