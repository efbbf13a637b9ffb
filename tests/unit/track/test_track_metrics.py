"""track_metrics, log_metrics and track_system_metrics: results of every kind."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import artifacts_of
from mlflow import MlflowClient
from mlflow.entities import Run
from tracked_runs import Read, Steps

from pytest_armory.engine import Engine, Evaluation
from pytest_armory.errors import (
    ArmoryUsageError,
    MetricWarning,
    TrackingWarning,
)
from pytest_armory.store import open_store
from pytest_armory.track import (
    measure,
    track_evaluation,
    track_metrics,
    track_system_metrics,
)
from pytest_armory.track import metrics as metrics_module
from pytest_armory.track.results import converting

pytestmark = pytest.mark.usefixtures("armory_home", "tracking_elsewhere")


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
            with pytest.warns(
                MetricWarning, match=r"'bad' is no metric .*armory_metrics"
            ) as caught:
                log({"good": 1.0, "bad": refused})
            assert caught[0].filename == __file__
        assert run.metrics == {"good": 1.0}


def test_all_metrics_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with track_evaluation("digits") as run:
        assert run.destination is not None
        client = open_store(run.destination).connection.client
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


def test_metrics_outside_of_a_run_are_dropped(read_runs: Read) -> None:
    track_metrics({"a": 1, "bad": object()})
    assert read_runs() == []


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
def test_system_metrics_that_fail_warn_and_change_nothing(
    when: str, monitor: type[Monitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise ModuleNotFoundError("No module named 'psutil'")

    monkeypatch.setattr(monitor, when, fail)
    with pytest.warns(TrackingWarning, match="psutil") as caught, track_system_metrics("a-run"):
        pass
    assert caught[0].filename == __file__


def test_one_warning_for_all_that_is_no_metric() -> None:
    with track_evaluation("digits"), pytest.warns(MetricWarning) as caught:
        track_metrics({"a": "text", "b": None, "c": object(), "d": 1, "e": "x", "f": "y"})
    (warning,) = caught
    said = "the result 'a' is no metric and was left out (a string: 'text'), and so were 'b', 'c'"
    assert str(warning.message).startswith(said)
    assert "'e' and 1 more; give a number" in str(warning.message)


@pytest.mark.parametrize("column", [{}, {"id": "a"}], ids=["numbers", "texts"])
@pytest.mark.parametrize("log", ["track_metrics", "log_metrics"])
def test_rows_are_pointed_to_samples(
    log: str, column: dict[str, str], only: Callable[..., Run]
) -> None:
    rows = [{**column, "score": 1}, {**column, "score": 0}]
    with track_evaluation("digits") as run, pytest.warns(MetricWarning) as caught:
        (track_metrics if log == "track_metrics" else run.log_metrics)({"rows": rows, "b": "text"})
    (warning,) = caught
    assert "'rows/score': several rows of a list have it" in str(warning.message)
    assert "track_samples" in str(warning.message)
    assert warning.filename == __file__
    assert only().data.metrics == {"rows/score": 1.0, "rows/1/score": 0.0}


def test_one_warning_for_all_that_no_gate_judges() -> None:
    with track_evaluation("digits"), pytest.warns(MetricWarning) as caught:
        track_metrics({"right": [True, False], "rows": [{"a": 1}, {"a": 2}], "text": "x"})
    (warning,) = caught
    for name in ("'right'", "'rows/a'", "'text'"):
        assert name in str(warning.message)


@pytest.mark.parametrize("values", [[True, False], (np.True_, np.False_)], ids=["python", "numpy"])
def test_lists_of_booleans_are_reported_to_be_averaged(
    values: Any, only: Callable[..., Run]
) -> None:
    with track_evaluation("digits"), pytest.warns(MetricWarning) as caught:
        track_metrics({"right": values, "wrong": values, "loss": [1, 0]})
    (warning,) = caught
    assert str(warning.message).startswith("'right', 'wrong': a list of booleans")
    assert warning.filename == __file__
    assert only().data.metrics == {"right": 0.0, "wrong": 0.0, "loss": 0.0}


def test_durations_of_one_name_add_up_in_each_run(
    monkeypatch: pytest.MonkeyPatch, only: Callable[..., Run]
) -> None:
    clock = iter([0, 5, 10, 11, 20, 22, 30, 34, 40, 48])
    monkeypatch.setattr(metrics_module, "perf_counter", lambda: next(clock))
    with measure("outside"):
        pass
    with track_evaluation("digits") as run:
        for _ in range(2):
            with measure("warm up"):
                pass
        with pytest.raises(ZeroDivisionError), measure("warm up"):
            raise ZeroDivisionError
        measure("load/model")(lambda: None)()  # as a decorator
    assert run.metrics == {"time/warm up_seconds": 3, "time/load/model_seconds": 6}
    assert only().data.metrics == run.metrics


def test_the_durations_of_the_engine_are_its_own(only: Callable[..., Run]) -> None:
    with track_evaluation("digits"):
        Engine(
            Evaluation(
                name="d", dataset=([1], [1]), model=lambda x: x, perturbations={"p": lambda x, _: x}
            )
        ).run()
    times = [name for name in only().data.metrics if name.startswith("time/")]
    assert len(times) > 5
    for name in times:
        with pytest.raises(ArmoryUsageError, match=r"engine's own.*take another name"):
            measure(name.removeprefix("time/").removesuffix("_seconds")).__enter__()
    for wrong in ("", None, 3):
        with pytest.raises(ArmoryUsageError, match="the name must be a string"):
            measure(wrong).__enter__()  # type: ignore[arg-type]
