"""EvaluationRun: parameters as they are stored, and artifacts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import artifacts_of, text_of
from mlflow.entities import Run
from PIL import Image
from tracked_runs import Read, evaluate

from pytest_armory.errors import (
    ArmoryUsageError,
    MetricWarning,
    ParameterWarning,
)
from pytest_armory.track import (
    EvaluationRun,
    current_run,
    track_evaluation,
    track_metrics,
    track_param,
    track_params,
)
from pytest_armory.track.context import running

pytestmark = pytest.mark.usefixtures("armory_home", "tracking_elsewhere")


def load(**kwargs: Any) -> None:
    """A loader."""


# --- Parameters as they are stored ---------------------------------------------------------------


@pytest.mark.parametrize(
    "again",
    [lambda run: run.log_params({"p": 2}), lambda _: track_param("p", 2)],
    ids=["log_params", "track_param"],
)
def test_another_value_for_a_stored_parameter_is_kept_in_full(
    again: Callable[[EvaluationRun], None], only: Callable[..., Run]
) -> None:
    track_param("p", 1)
    with track_evaluation("digits") as run, pytest.warns(ParameterWarning, match="p") as caught:
        again(run)
    assert caught[0].filename == __file__
    assert only().data.params == {"p": "1"}
    assert json.loads(text_of(only(), "params.json")) == {"p": "2"}
    assert only().data.tags["armory.replaced_params"] == "p"


def test_another_value_than_mlflow_has_is_kept_in_full(only: Callable[..., Run]) -> None:
    def body(_: EvaluationRun) -> None:
        mlflow.log_param("p", 1)
        track_param("p", 2)
        track_param("q", 3)

    with pytest.warns(ParameterWarning, match=r"'p' is only in the artifact params.json"):
        evaluate(body)
    assert only().data.params == {"p": "1", "q": "3"}
    assert json.loads(text_of(only(), "params.json")) == {"p": "2", "q": "3"}
    assert only().info.status == "FINISHED"


@pytest.mark.parametrize("seconds", [0, -60], ids=["stopped", "set back"])
def test_the_last_value_stands_whatever_the_clock_says(
    seconds: int, only: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(10**18, 0, seconds * 10**9 or -1))
    monkeypatch.setattr("pytest_armory.store.runs.time_ns", lambda: next(now))
    monkeypatch.setattr("pytest_armory.store.milliseconds", lambda: next(now) // 10**6)
    with track_evaluation("digits") as run:
        run.log_metrics({"loss": 2}, step=1)
        run.log_metrics({"loss": 1}, step=1)
    assert only().data.metrics["loss"] == 1


def test_the_same_value_again_is_no_other(only: Callable[..., Run]) -> None:
    with track_evaluation("digits") as run:
        run.log_params({"p": 1})
        run.log_params({"p": "1"})
    assert only().data.params == {"p": "1"}
    assert artifacts_of(only()) == {}
    assert "armory.replaced_params" not in only().data.tags


def test_what_a_second_call_replaced_is_not_in_the_full_parameters(
    only: Callable[..., Run],
) -> None:
    track_params(load)(a=1, b=2)
    with track_evaluation("digits"), pytest.warns(ParameterWarning):
        track_params(load)(a=3)
    stored = json.loads(text_of(only(), "params.json"))
    assert stored == {"load._func": "test_track_run.load", "load.a": "3"}
    assert only().data.tags["armory.replaced_params"] == "load.a, load.b"


def test_a_long_value_is_cut_in_the_store_and_in_full_beside_it(only: Callable[..., Run]) -> None:
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


def test_a_run_in_memory_keeps_what_is_logged(read_runs: Read) -> None:
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


# --- Artifacts -----------------------------------------------------------------------------------


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


# --- The names of MLflow's users -----------------------------------------------------------------


def test_one_value_at_a_time(only: Callable[..., Run]) -> None:
    with track_evaluation("digits") as run:
        run.log_param("lr", 0.1)
        run.log_metric("loss", np.float32(0.5))
        run.log_metric("loss", 0.25, step=1)
        run.log_metric("loss", 0.125, 2)
        run.set_tag("team", "vision")
        run.log_text("hello", "notes/a.txt")
        with pytest.warns(MetricWarning, match="'name'") as caught:
            run.log_metric("name", "x")
        with pytest.warns(ParameterWarning, match="lr") as changed:
            run.log_param("lr", 0.2)
    assert {caught[0].filename, changed[0].filename} == {__file__}
    assert only().data.params["lr"] == "0.1"
    assert only().data.metrics == {"loss": 0.125}
    assert only().data.tags["team"] == "vision"
    assert text_of(only(), "notes/a.txt") == "hello"


def test_the_entities_of_mlflow(only: Callable[..., Run]) -> None:
    with track_evaluation("digits") as run:
        run.log_metric("loss", 0.5)
        mlflow.log_param("by_mlflow", 1)
        assert run.info.run_id == run.run_id
        assert run.info.status == "RUNNING"
        assert run.data.metrics == {"loss": 0.5}
        assert run.data.params == {"by_mlflow": "1"}
    assert run.info.status == "FINISHED" == only().info.status
    assert run.data.params == only().data.params


def test_the_entities_of_a_run_in_memory() -> None:
    with running(EvaluationRun()):
        run = current_run()
        assert run is not None
        run.log_metric("loss", 0.5)
        run.log_param("lr", 0.1)
        run.set_tag("team", "vision")
        assert (run.info.run_id, run.info.status) == (None, "RUNNING")
        assert run.data.metrics == {"loss": 0.5}
        assert run.data.params == {"lr": "0.1"}
        assert run.data.tags == {"team": "vision"}


def test_parameters_are_there_while_the_run_is_open(only: Callable[..., Run]) -> None:
    track_param("before", 1)
    with track_evaluation("digits") as run:
        track_params(load)(a=1, b=2)
        track_param("inside", 2)
        run.log_params({"logged": {"deep": 3}})
        first = {"before": "1", "load._func": "test_track_run.load", "inside": "2"}
        assert run.params == {**first, "load.a": "1", "load.b": "2", "logged.deep": "3"}
        assert run.data.params == run.params  # as of a run in memory
        with pytest.warns(ParameterWarning):
            track_params(load)(a=3)
        now = run.params
        assert now == {**first, "load.a": "3", "logged.deep": "3"}
    assert run.params == now == only().data.params


PIXELS = np.arange(12, dtype="uint8").reshape(2, 2, 3)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS[..., 0],
        PIXELS[..., :1],
        np.zeros((2, 2, 4), "int64"),
        np.full((2, 2), 0.5),
        np.ones((2, 2), bool),
        Image.fromarray(PIXELS),
        mlflow.Image(PIXELS),
    ],
    ids=["rgb", "gray", "one-channel", "rgba", "floats", "booleans", "pillow", "mlflow"],
)
def test_images(image: Any, only: Callable[..., Run]) -> None:
    with track_evaluation("digits") as run:
        run.log_image(image, "pictures/a.png")
    with Image.open(artifacts_of(only())["pictures/a.png"]) as stored:
        assert stored.size == (2, 2)
        if isinstance(image, np.ndarray) and image.dtype == float:
            assert {*np.asarray(stored).ravel()} == {128}


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (np.zeros((2, 2, 5)), "a.png", r"shape \(2, 2, 5\)"),
        (np.full((2, 2), 3.0), "a.png", "floats from 0 to 1"),
        (np.full((2, 2), 256), "a.png", "from 0 to 255"),
        (np.zeros((2, 0)), "a.png", r"shape \(2, 0\)"),
        ("a.png", "a.png", "got str for 'a.png'"),
        (PIXELS, "a.nothing", "cannot be written as 'a.nothing'"),
        (np.zeros((2, 2, 4)), "a.jpg", "cannot be written as 'a.jpg'"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, name: str, expected: str) -> None:
    with track_evaluation("digits") as run, pytest.raises(ArmoryUsageError, match=expected):
        run.log_image(image, name)


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "data",
    [
        {"question": ["a", "b"], "score": np.array([0.5, 1.0])},
        pd.DataFrame({"question": ["a", "b"], "score": [0.5, 1.0]}, index=[7, 8]),
        [{"question": "a", "score": np.float32(0.5)}, {"question": "b", "score": 1}],
    ],
    ids=["columns", "frame", "rows"],
)
def test_tables_are_those_of_mlflow(data: Any, only: Callable[..., Run]) -> None:
    with track_evaluation("digits") as run:
        mlflow.log_table({"x": [1]}, "theirs.json")
        run.log_table(data, "ours.json")
        run.log_table({"question": "c", "note": Unreadable()}, "ours.json")
        run.log_table({"x": [1]}, "deep/other.json")
        table = mlflow.load_table("ours.json", run_ids=[str(run.run_id)])
    assert list(table.columns) == ["question", "score", "note"]
    assert list(table["question"]) == ["a", "b", "c"]
    assert list(table["score"])[:2] == [0.5, 1.0]
    assert table["note"][2] == "<test_track_run.Unreadable>"
    shown = json.loads(only().data.tags["mlflow.loggedArtifacts"])
    assert [entry["path"] for entry in shown] == ["theirs.json", "ours.json", "deep/other.json"]


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        ({"a": [1], "b": [1, 2]}, "t.json", r"different lengths, {'a': 1, 'b': 2}"),
        (3, "t.json", "got int for 't.json'"),
        ("text", "t.json", "got str for 't.json'"),
        ({"a": [1]}, "t.parquet", "got 't.parquet'.*JSON"),
    ],
)
def test_what_is_no_table_is_refused(data: Any, name: str, expected: str) -> None:
    with track_evaluation("digits") as run, pytest.raises(ArmoryUsageError, match=expected):
        run.log_table(data, name)
