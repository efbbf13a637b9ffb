"""The engine on plain arrays: what it computes, returns, keeps and hands on."""

# ruff: noqa: ARG001, ARG002, ARG005 - stand-ins take whatever the engine gives them.

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
import weakref
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix

from pytest_armory.engine import Engine, Evaluation, EvaluationResults, l2, linf, walk
from pytest_armory.engine import run as run_module
from pytest_armory.engine.progress import Ticker
from pytest_armory.errors import EvaluationError, MetricWarning
from pytest_armory.tables import SampleRows


class Mean:
    """An incremental metric: the share of predictions that equal their targets."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.reset()

    def reset(self) -> None:
        self.calls.append("reset")
        self.right = self.count = 0

    def update(self, predictions: Any, targets: Any) -> None:
        self.calls.append("update")
        self.right += int((predictions == targets).sum())
        self.count += len(targets)

    def compute(self) -> float:
        self.calls.append("compute")
        return self.right / self.count


class Run:
    """Stands in for the current tracked run."""

    def __init__(self) -> None:
        self.results: list[tuple[dict[str, float], dict[str, object]]] = []
        self.steps: list[tuple[dict[str, float], int]] = []
        self.writer = self

    def log_evaluation(
        self,
        evaluation: str,
        numbers: dict[str, float],
        arrays: dict[str, object],
        names: dict[str, str],
        functions: dict[str, object],
        repeated: set[str],
    ) -> dict[str, tuple[str, str]]:
        assert evaluation == "pgd"
        assert repeated == set()
        assert functions.keys() <= names.keys()
        assert names.keys() >= {*numbers, *arrays}
        self.results.append((dict(numbers), dict(arrays)))
        return {}

    def log_step_metrics(self, numbers: dict[str, float], step: int) -> None:
        self.steps.append((numbers, step))

    def store_samples_on_the_way(self) -> None:
        pass

    def open_samples(self, *_: object) -> SampleRows:
        return SampleRows(["l2", "linf"])


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run()
    track = SimpleNamespace(current_run=lambda: run, convert_result=lambda result: None)
    monkeypatch.setattr(run_module, "_track", lambda: track)
    return run


def parity(inputs: np.ndarray) -> np.ndarray:
    return inputs.reshape(len(inputs), -1)[:, 0].astype(int) % 2


def numbers(count: int = 10) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count, dtype=float).reshape(-1, 1), np.arange(count) % 3 % 2


def run(**changes: Any) -> EvaluationResults:
    given: dict[str, Any] = {"name": "pgd", "dataset": numbers(), "model": parity}
    return Engine(Evaluation(**{**given, **changes}), progress=False).run()


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 14))
def test_any_batch_size_gives_the_metrics_of_the_whole(count: int, size: int) -> None:
    inputs, targets = numbers(count)
    results = run(
        dataset=(inputs, targets),
        batch_size=size,
        metrics={"accuracy": accuracy_score, "incremental": Mean()},
    )
    expected = accuracy_score(targets, parity(inputs))
    assert results.metrics["accuracy"] == pytest.approx(expected)
    assert results.metrics["incremental"] == pytest.approx(expected)
    assert results.samples == results.metrics["samples"] == count
    assert results.batches == -(-count // size)


@pytest.mark.parametrize(("limit", "batches"), [(1, 1), (3, 3), (np.int64(2), 2), (9, 3)])
def test_a_limit_ends_the_run_after_so_many_batches(limit: int, batches: int) -> None:
    fetched: list[int] = []

    class Batches:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            for i in range(3):
                fetched.append(i)
                yield [i, i], [0, 1]

    shown: list[Any] = []
    limited = Engine(
        Evaluation(name="pgd", dataset=Batches(), model=lambda inputs: inputs),
        limit_batches=limit,
        progress=shown.append,
    )
    for _ in range(2):
        fetched.clear()
        results = limited.run()
        assert (results.batches, results.samples, len(fetched)) == (batches, 2 * batches, batches)
        assert shown[-1].total == batches


def test_a_limit_cuts_arrays_too_and_an_endless_dataset() -> None:
    endless = iter(lambda: ([1], [1]), None)

    def zeros(inputs: Any) -> list[int]:
        return [0] * len(inputs)

    for changes in ({"batch_size": 4}, {"dataset": endless}):
        evaluation = Evaluation(**{"name": "p", "dataset": numbers(), "model": zeros, **changes})
        assert Engine(evaluation, limit_batches=2, progress=False).run().batches == 2


def test_results_are_numbers_by_name_arrays_and_times() -> None:
    results = run(
        batch_size=4,
        perturbations={"none": lambda x, y: x, "shift": lambda x, y: x + 1},
        metrics={
            "confusion": confusion_matrix,
            "report": lambda t, p: classification_report(t, p, output_dict=True, zero_division=0),
        },
        perturbation_metrics={"l2": l2},
    )
    times = {name for name in results.metrics if name.startswith("time/")}
    assert times == {
        "time/data_seconds",
        "time/perturb_seconds",
        "time/perturb/none_seconds",
        "time/perturb/shift_seconds",
        "time/predict_seconds",
        "time/metrics_seconds",
        "time/total_seconds",
    }
    assert all(type(value) is float for value in results.metrics.values())
    assert results.metrics["l2"] == results.metrics["l2_max"] == 1.0
    assert "report/macro avg/f1-score" in results.metrics
    inputs, targets = numbers()
    assert results.arrays == {"confusion": confusion_matrix(targets, parity(inputs + 1)).tolist()}
    json.dumps(results.arrays)
    assert results.name == "pgd"


def test_stage_times_hold_what_each_stage_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(walk, "perf_counter", lambda: now)
    monkeypatch.setattr(run_module, "Ticker", partial(Ticker, clock=lambda: now))

    def slowly(value: Any) -> Any:
        nonlocal now
        now += 0.25
        return value

    results = run(
        dataset=(slowly(batch) for batch in [numbers(3)] * 2),
        model=lambda x: slowly(parity(x)),
        perturbations={"a": lambda x, y: slowly(x), "b": lambda x, y: x},
        metrics={"accuracy": lambda t, p: slowly(0.5)},
    ).metrics
    assert results["time/data_seconds"] == 0.5
    assert (results["time/perturb/a_seconds"], results["time/perturb/b_seconds"]) == (0.5, 0)
    assert results["time/predict_seconds"] == 0.5
    assert results["time/metrics_seconds"] == 0.25
    stages = ("data", "perturb", "predict", "metrics")
    assert (
        sum(results[f"time/{s}_seconds"] for s in stages) == results["time/total_seconds"] == 1.75
    )
    assert results["samples_per_second"] == pytest.approx(6 / 1.75)


def test_all_names_are_legal_for_the_store() -> None:
    same = {"pgd+": lambda x, y: x, "pgd*": lambda x, y: x}
    results = run(perturbations=same, metrics={"top@1": accuracy_score})
    assert set(results.metrics) >= {
        "top_at_1",
        "time/perturb/pgd_plus_sign__seconds",
        "time/perturb/pgd_asterisk__seconds",
    }


def test_perturbations_apply_in_order_and_each_sees_targets() -> None:
    seen = []

    def double(inputs: Any, targets: Any) -> Any:
        seen.append(targets.tolist())
        return inputs * 2

    results = run(
        dataset=[(np.ones((2, 1)), np.array([0, 1]))],
        perturbations={"double": double, "add": lambda x, y: x + 3},
        model=lambda x: x[:, 0],
        metrics={"value": lambda t, p: p[0]},
    )
    assert results.metrics["value"] == 5
    assert seen == [[0, 1]]


def test_a_perturbation_with_generate_is_given_x_and_y() -> None:
    class Attack:
        def generate(self, *, x: Any, y: Any) -> Any:
            return x + y.reshape(-1, 1)

    results = run(perturbations={"attack": Attack()}, perturbation_metrics={"linf": linf})
    assert results.metrics["linf_max"] == 1


def test_predict_is_preferred_to_calling() -> None:
    class Both:
        def __call__(self, inputs: Any) -> Any:
            raise AssertionError("called")

        def predict(self, inputs: Any) -> Any:
            return parity(inputs)

    assert run(model=Both()).samples == 10


def test_a_perturbation_that_writes_into_its_inputs_is_measured_and_leaves_the_dataset() -> None:
    inputs, targets = numbers()
    before = inputs.copy()

    def in_place(x: Any, y: Any) -> Any:
        x += 2
        return x

    results = run(
        dataset=(inputs, targets),
        perturbations={"in_place": in_place},
        perturbation_metrics={"linf": linf},
    )
    assert results.metrics["linf"] == 2
    assert (inputs == before).all()


def test_an_incremental_perturbation_metric_is_given_clean_then_perturbed() -> None:
    class Sign(Mean):
        def update(self, clean: Any, perturbed: Any) -> None:
            self.right += int((clean < perturbed).sum())
            self.count += len(clean)

    metric = Sign()
    results = run(perturbations={"up": lambda x, y: x + 1}, perturbation_metrics={"rises": metric})
    assert results.metrics["rises"] == 1


def test_a_shared_metric_begins_anew() -> None:
    metric = Mean()
    first = run(metrics={"accuracy": metric}, dataset=(np.zeros((4, 1)), np.ones(4)))
    second = run(metrics={"accuracy": metric}, dataset=(np.zeros((4, 1)), np.zeros(4)))
    assert (first.metrics["accuracy"], second.metrics["accuracy"]) == (0, 1)
    assert metric.calls[-3:] == ["reset", "update", "compute"]


def test_an_engine_runs_again_unless_its_dataset_is_used_up() -> None:
    engine = Engine(Evaluation(name="twice", dataset=numbers(), model=parity))
    assert engine.run().samples == engine.run().samples == 10

    once = Engine(Evaluation(name="once", dataset=iter([numbers()]), model=parity))
    once.run()
    with pytest.raises(EvaluationError, match="'once', dataset: gave no batches; an iterator"):
        once.run()


def test_without_metrics_there_are_times() -> None:
    assert set(run().metrics) >= {"samples", "samples_per_second", "time/total_seconds"}


def test_nan_is_a_result() -> None:
    assert np.isnan(run(metrics={"m": lambda t, p: float("nan")}).metrics["m"])


@pytest.mark.parametrize(
    ("dataset", "size", "kind"),
    [
        (([[1], [2], [3]], [1, 0, 1]), 2, list),
        ([([[1], [2]], [1, 0]), ([[3]], [1])], None, list),
        ((([[1], [2]], [1, 0]), ([[3]], [1])), None, list),
        ((np.array([[1], [2], [3]]), [1, 0, 1]), 2, list),
        (([[1], [2], [3]], np.array([1, 0, 1])), 2, np.ndarray),
        (([[1], [2], [3]], np.array([1, 0, 1])), np.int64(2), np.ndarray),
    ],
)
def test_the_kinds_of_dataset(dataset: Any, size: Any, kind: type) -> None:
    got = []

    def metric(targets: Any, predictions: Any) -> float:
        got.append((type(targets), list(targets), predictions))
        return 1.0

    def model(inputs: Any) -> list[int]:
        return [int(row[0]) % 2 for row in inputs]

    results = run(dataset=dataset, batch_size=size, model=model, metrics={"m": metric})
    assert got == [(kind, [1, 0, 1], [1, 0, 1])]
    assert results.batches == 2


def test_mappings_of_arrays_are_inputs_and_predictions() -> None:
    inputs = {"ids": np.arange(5), "mask": np.ones(5)}
    results = run(
        dataset=(inputs, np.arange(5)),
        batch_size=2,
        model=lambda x: {"out": x["ids"] * x["mask"]},
        metrics={"same": lambda t, p: (p["out"] == t).mean()},
    )
    assert results.metrics["same"] == 1
    assert results.batches == 3


def test_pandas_frames_are_cut_by_position() -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [0, 1, 2]}, index=[7, 8, 9])
    series = pd.Series([0, 1, 0], index=[7, 8, 9])
    seen = []
    results = run(
        dataset=(frame, series),
        batch_size=2,
        model=lambda x: (seen.append(list(x.columns)), x["a"] % 2)[1],
        metrics={
            "accuracy": accuracy_score,
            "whole": lambda t, p: float(list(t.index) == [7, 8, 9]),
        },
    )
    assert results.metrics["accuracy"] == results.metrics["whole"] == 1
    assert seen == [["a"], ["a"]]


class Batch(np.ndarray):
    """An array that weak references can follow."""


def test_one_batch_at_a_time_is_alive_when_metrics_are_incremental() -> None:
    gc.freeze()  # else each collection looks at everything that the tests before have imported
    alive: list[weakref.ref[Batch]] = []
    most = 0

    def batches() -> Any:
        nonlocal most
        for _ in range(6):
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
            batch = np.ones((4, 1)).view(Batch)
            alive.append(weakref.ref(batch))
            yield batch, np.ones(4)
            del batch

    run(
        dataset=batches(),
        perturbations={"add": lambda x, y: x + 1},
        metrics={"accuracy": Mean()},
        perturbation_metrics={"l2": l2},
    )
    assert len(alive) == 6
    assert most == 0


def test_memory_does_not_grow_with_the_number_of_batches() -> None:
    def peak(count: int) -> int:
        batches = ((np.ones((1000, 50)), np.ones(1000)) for _ in range(count))
        tracemalloc.start()
        try:
            run(
                dataset=batches,
                perturbations={"add": lambda x, y: x + 1},
                metrics={"accuracy": Mean()},
                perturbation_metrics={"l2": l2, "linf": linf},
            )
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)
    assert peak(40) < peak(4) + 100_000  # a single batch is 400,000 bytes


def test_results_go_to_the_current_run_once(tracked: Run) -> None:
    results = run(batch_size=3, metrics={"confusion": confusion_matrix, "accuracy": accuracy_score})
    assert tracked.results == [(results.metrics, results.arrays)]
    assert tracked.steps == []


def test_nothing_goes_to_the_run_when_the_evaluation_fails(tracked: Run) -> None:
    with pytest.raises(EvaluationError):
        run(model=lambda x: x[:3])
    assert tracked.results == []


def test_a_result_that_is_no_metric_is_left_out_with_a_warning_after_the_rest_is_stored(
    tracked: Run,
) -> None:
    with pytest.warns(MetricWarning, match="evaluation 'pgd': metric 'odd' was left out") as caught:
        results = run(metrics={"odd": lambda t, p: object(), "accuracy": accuracy_score})
    assert "accuracy" in results.metrics
    assert "odd" not in results.metrics
    assert len(tracked.results) == 1
    assert caught[0].filename == __file__


def test_a_foreign_result_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreign:
        value = 0.25

    def convert(result: object) -> object:
        return {"value": result.value} if isinstance(result, Foreign) else None

    track = SimpleNamespace(current_run=lambda: None, convert_result=convert)
    monkeypatch.setattr(run_module, "_track", lambda: track)
    assert run(metrics={"foreign": lambda t, p: Foreign()}).metrics["foreign/value"] == 0.25


def test_the_engine_imports_no_array_library_pytest_or_mlflow() -> None:
    code = """
import sys
from pytest_armory.engine import Engine, Evaluation
results = Engine(Evaluation(
    name="plain", dataset=([1, 2, 3], [0, 1, 0]), batch_size=2, model=lambda x: x,
    perturbations={"same": lambda x, y: list(x)}, metrics={"n": lambda t, p: len(p)},
)).run()
assert results.metrics["n"] == 3, results
print([m for m in ("numpy", "torch", "pandas", "pytest", "mlflow") if m in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
