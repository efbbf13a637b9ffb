"""Scores of single samples in the engine: what is measured, kept and refused."""

# ruff: noqa: ARG001, ARG005 - stand-ins take whatever the engine gives them.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pytest_armory.engine import (
    Engine,
    Evaluation,
    absolute_error,
    correct,
    l2,
    linf,
    squared_error,
)
from pytest_armory.errors import EvaluationError, MetricWarning
from pytest_armory.tables import SampleTable
from pytest_armory.track.context import running
from pytest_armory.track.run import EvaluationRun

NAN = float("nan")
INPUTS = np.arange(10.0).reshape(5, 2)
TARGETS = np.array([0, 1, 0, 1, 1])


def model(inputs: Any) -> Any:
    return (inputs[:, 0] > 3) * 1


def sampled(*evaluations: Evaluation) -> tuple[SampleTable, dict[str, float]]:
    """The samples and metrics of a run in memory in which evaluations are run."""
    run = EvaluationRun()
    with running(run):
        for evaluation in evaluations:
            Engine(evaluation).run()
    return run.writer.samples.table, run.metrics


def evaluation(**changes: Any) -> Evaluation:
    given = {"name": "it", "dataset": (INPUTS, TARGETS), "model": model, "batch_size": 2}
    return Evaluation(**{**given, "sample_metrics": {"accuracy": correct}, **changes})


def values_of(table: SampleTable, name: str) -> list[float]:
    score = table.score(name)
    assert score is not None
    return list(score.values.tolist())


def test_the_mean_is_the_metric_and_each_sample_a_row() -> None:
    table, metrics = sampled(
        evaluation(
            perturbations={"up": lambda x, y: x + y.reshape(-1, 1)},
            perturbation_metrics={"l2": l2, "far": linf},
            sample_metrics={
                "accuracy": correct,
                "sum": lambda targets, predictions, inputs: inputs.sum(axis=1).tolist(),
            },
        )
    )
    assert {n: metrics[n] for n in ("accuracy", "sum", "far", "far_max")} == {
        "accuracy": 0.6, "sum": 9.0, "far": 0.6, "far_max": 1.0,
    }  # fmt: skip
    assert table.names == ["accuracy", "sum", "l2", "far"]
    assert values_of(table, "accuracy") == [1, 0, 0, 1, 1]
    assert values_of(table, "sum") == [1, 5, 9, 13, 17]
    assert values_of(table, "far") == TARGETS.tolist()
    score = table.score("accuracy")
    assert score is not None
    assert score.ids.tolist() == [0, 1, 2, 3, 4]
    assert (score.targets.tolist(), score.predictions.tolist()) == (
        [0, 1, 0, 1, 1],
        [0, 0, 1, 1, 1],
    )
    assert not table.is_partial


PROVIDED: list[tuple[Callable[..., Any], Any, Any, list[float]]] = [
    (correct, [1, 2], [1, 3], [1, 0]),
    (correct, ["a", "b"], ["a", "c"], [1, 0]),
    (correct, [4, 5, 6], [4, "no answer", 6], [1, 0, 1]),
    (correct, ["4", "5", "nan"], [4, "5", NAN], [0, 1, 0]),
    (correct, [4, 5], [4, None], [1, 0]),
    (correct, np.array([[1], [2]]), np.array([1, 3]), [1, 0]),
    (correct, torch.tensor([1, 0]), torch.tensor([[0.1, 0.9], [0.2, 0.8]]), [1, 0]),
    (correct, np.eye(3)[[2, 1]], np.array([[0, 0, 1], [1, 0, 0]]), [1, 0]),
    (correct, pd.Series([1, 2]), pd.Series([1, 3], index=[5, 6]), [1, 0]),
    (absolute_error, [1, 2], [1.5, 0], [0.5, 2]),
    (absolute_error, np.array([200], "uint8"), np.array([201], "uint8"), [1]),
    (squared_error, torch.tensor([1.0, 2.0]), torch.tensor([[1.5], [0.0]]), [0.25, 4]),
]


@pytest.mark.parametrize(("function", "targets", "predictions", "expected"), PROVIDED)
def test_the_scores_that_are_provided(
    function: Callable[..., Any], targets: Any, predictions: Any, expected: list[float]
) -> None:
    assert [float(value) for value in function(targets, predictions)] == expected


def test_errors_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"targets \(2,\), predictions \(2, 2\)"):
        absolute_error([1, 2], [[1, 2], [3, 4]])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sample_metrics": {"a": lambda t, p: [1]}}, "batch index 0, sample metric 'a': must return "
     "one value for each of the 2 samples, got list of 1"),
    ({"sample_metrics": {"a": lambda t, p: 0.5}}, "sample metric 'a': must return one value"),
    ({"sample_metrics": {"a": lambda t, p: np.ones((2, 2))}}, r"'a': .* ndarray of shape \(2, 2\)"),
    ({"sample_metrics": {"a": lambda t, p: ["x"] * len(t)}}, "'a': must return numbers or bool"),
    ({"sample_metrics": {"a": lambda t, p: 1 / 0}}, "sample metric 'a': raised ZeroDivisionError"),
    ({"sample_metrics": {"sample": correct}}, "'sample' has the name of a column"),
    ({"perturbation_metrics": {"error": linf}}, "'error' has the name of a column"),
    ({"sample_metrics": {"a": correct, "a/change": correct}}, "is derived from .a.; take another"),
    ({"sample_metrics": {"a": 1}}, "sample_metrics 'a' must be"),
    ({"sample_metrics": [correct]}, "sample_metrics must be a mapping by name"),
    ({"sample_metrics": {"a": correct}, "metrics": {"a": max}}, "sample_metrics 'a' and metrics"),
    ({"metrics": {"accuracy/ci_low": max}}, "both report 'accuracy/ci_low'"),
    ({"ids": [1, 2]}, "ids must be one for each of the 5 samples, got 2: list of 2"),
    ({"ids": 5}, "ids must hold one entry per sample"),
    ({"ids": {1, 2, 3, 4, 5}}, r"ids must be a sequence .* got set; write ids=list"),
    ({"ids": {"a": "id"}}, "ids must be a sequence in the dataset's order.* got dict of 1"),
    ({"ids": [1, 1, 2, 3, 4]}, "batch index 0, samples: ids must differ, got 1 more than once"),
    ({"ids": "id"}, "batch index 0, samples: ids='id' names a key of the inputs, got ndarray"),
    ({"ids": [1, 2], "dataset": [(INPUTS, TARGETS)], "batch_size": None}, "ids must be one"),
    ({"ids": [*range(6)], "dataset": [(INPUTS, TARGETS)], "batch_size": None},
     "ids must be one for each of the 5 samples, got 6: list of 6"),
    ({"dataset_name": 5}, "dataset_name must be a string"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(EvaluationError, match=f"evaluation 'it'.*{text}"):
        sampled(evaluation(**changes))


@pytest.mark.parametrize(
    ("ids", "dataset"),
    [
        (["a", "b", "c", "d"], [(INPUTS[:2], TARGETS[:2]), (INPUTS[2:4], TARGETS[2:4])]),
        ("id", [({"x": INPUTS[:2], "id": ["a", "b"]}, TARGETS[:2]),
                ({"x": INPUTS[2:4], "id": ["c", "d"]}, TARGETS[2:4])]),
    ],
    ids=["sequence", "key"],
)  # fmt: skip
def test_ids_of_batches(ids: Any, dataset: Any) -> None:
    def predict(inputs: Any) -> Any:
        return model(inputs["x"] if isinstance(inputs, dict) else inputs)

    table, _ = sampled(evaluation(ids=ids, dataset=dataset, batch_size=None, model=predict))
    score = table.score("accuracy")
    assert score is not None
    assert score.ids.tolist() == ["a", "b", "c", "d"]


KEPT: list[tuple[Any, Any, Any, Any]] = [
    (TARGETS, np.eye(2)[[0, 1, 1, 1, 0]], [0, 1, 0, 1, 1], [0, 1, 1, 1, 0]),
    (list("abcde"), list("abcdf"), list("abcde"), list("abcdf")),
    (TARGETS / 2, np.ones((5, 1)), (TARGETS / 2).tolist(), [1.0] * 5),
    (TARGETS / 2, np.ones((5, 3)), (TARGETS / 2).tolist(), None),
    (np.ones((5, 2, 2)), np.ones((5, 2, 2)), None, None),
    ([{"box": 1}] * 5, [{"box": 1}] * 5, None, None),
]


@pytest.mark.parametrize(("targets", "predictions", "kept", "answers"), KEPT, ids=range(len(KEPT)))
def test_targets_and_predictions_are_kept_if_they_are_scalars(
    targets: Any, predictions: Any, kept: Any, answers: Any
) -> None:
    table, _ = sampled(
        evaluation(
            dataset=(INPUTS, targets),
            batch_size=None,
            model=lambda inputs: predictions,
            sample_metrics={"one": lambda targets, predictions: [1] * len(targets)},
        )
    )
    score = table.score("one")
    assert score is not None
    found = [None if v is None else v.tolist() for v in (score.targets, score.predictions)]
    assert found == [kept, answers]


def test_two_evaluations_of_one_run_that_share_a_score() -> None:
    first = evaluation(name="clean")
    second = evaluation(name="attacked", model=lambda inputs: np.zeros(len(inputs), int))
    with pytest.warns(MetricWarning, match="'clean' and 'attacked' of one run both measured"):
        table, metrics = sampled(first, second, first)
    assert table.names == ["accuracy", "attacked/accuracy"]
    assert (metrics["accuracy"], metrics["attacked/accuracy"]) == (0.6, 0.4)
    assert values_of(table, "accuracy") == [1, 0, 0, 1, 1]


def test_an_evaluation_that_is_run_again_with_another_score() -> None:
    clean = evaluation()
    attacked = evaluation(
        perturbations={"far": lambda x, y: x * 0}, perturbation_metrics={"linf": linf}
    )
    table, metrics = sampled(clean, attacked)
    assert table.names == ["accuracy", "linf"]
    assert values_of(table, "accuracy") == [1, 0, 1, 0, 0]
    assert metrics["accuracy"] == 0.4
    table, metrics = sampled(attacked, clean)
    assert table.names == ["accuracy"]
    assert values_of(table, "accuracy") == [1, 0, 0, 1, 1]
    assert metrics["accuracy"] == 0.6


def test_an_evaluation_that_each_repeat_runs_with_and_without_perturbation() -> None:
    clean = evaluation()
    attacked = evaluation(
        perturbations={"far": lambda x, y: x * 0}, perturbation_metrics={"linf": linf}
    )
    run = EvaluationRun()
    with running(run):
        for repeat in range(2):
            for one in (clean, attacked, clean, attacked):
                Engine(one).run()
            if repeat == 0:
                run.writer.samples.table.begin_repeat()
    table = run.writer.samples.table
    assert table.names == ["accuracy", "linf"]
    assert values_of(table, "accuracy") == [1, 0, 1, 0, 0] * 2
    assert values_of(table, "linf") == [1, 3, 5, 7, 9] * 2


def test_a_score_that_a_metric_of_another_evaluation_has() -> None:
    first = evaluation(name="clean", sample_metrics={}, metrics={"accuracy": lambda t, p: 1})
    with pytest.warns(MetricWarning, match="both measured"):
        table, _ = sampled(first, evaluation(name="attacked"))
    assert table.names == ["attacked/accuracy"]


def test_an_evaluation_that_fails_leaves_its_rows_as_partial() -> None:
    def raises_late(targets: Any, predictions: Any) -> Any:
        return [1, 1] if 0 in targets[:1] else 1 / 0

    run = EvaluationRun()
    with running(run), pytest.raises(EvaluationError, match="batch index 2"):
        Engine(evaluation(sample_metrics={"late": raises_late})).run()
    table = run.writer.samples.table
    assert (table.count, table.is_partial, run.metrics) == (4, True, {})


def test_the_rows_of_an_evaluation_that_failed_and_of_one_of_other_scores_are_apart() -> None:
    failing = evaluation(name="first", metrics={"late": lambda targets, predictions: 1 / 0})
    more = evaluation(sample_metrics={"accuracy": correct, "again": correct})
    run = EvaluationRun()
    with running(run):
        for _ in range(2):
            with pytest.raises(EvaluationError, match="division by zero"):
                Engine(failing).run()
        Engine(evaluation()).run()
        Engine(more).run()
    table = run.writer.samples.table
    assert table.names == ["first/accuracy", "accuracy", "again"]
    assert [part.is_complete for part in table.parts] == [False, True]
    assert run.metrics["accuracy"] == 0.6


def test_a_sample_that_is_nan_makes_the_mean_nan() -> None:
    table, metrics = sampled(evaluation(sample_metrics={"a": lambda t, p: t * np.nan}))
    assert metrics["a"] != metrics["a"]
    assert table.count == 5
