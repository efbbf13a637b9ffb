"""`track_samples`: every kind of rows, several calls, and what is refused."""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pydantic
import pytest
import torch

from pytest_armory import track_metrics, track_samples
from pytest_armory.engine import Engine, Evaluation, correct
from pytest_armory.errors import ArmoryUsageError, MetricWarning
from pytest_armory.statistics.intervals import wilson
from pytest_armory.track.context import running
from pytest_armory.track.run import EvaluationRun


def kept(*calls: Callable[[], None]) -> EvaluationRun:
    """A run in memory in which these are called."""
    run = EvaluationRun()
    with running(run):
        for call in calls:
            call()
    return run


@dataclass
class Row:
    id: str
    right: bool
    note: str = "n"


class Model(pydantic.BaseModel):
    id: str
    right: bool
    note: str = "n"


Attrs = attrs.make_class("Attrs", ["id", "right", "note"])
Tuple = namedtuple("Tuple", ["id", "right", "note"])
COLUMNS = {"id": ["a", "b"], "right": [True, False], "note": ["n", "n"]}

ROWS: list[Any] = [
    pd.DataFrame(COLUMNS),
    pd.DataFrame(COLUMNS, index=[5, 3]),
    COLUMNS,
    [{"id": "a", "right": True, "note": "n"}, {"id": "b", "right": False, "note": "n"}],
    [Row("a", True), Row("b", False)],
    [Model(id="a", right=True), Model(id="b", right=False)],
    [Attrs("a", True, "n"), Attrs("b", False, "n")],
    [Tuple("a", True, "n"), Tuple("b", False, "n")],
    (Row(*row) for row in (("a", True), ("b", False))),
]


class Counted(pydantic.BaseModel):
    found: int
    all: int

    @pydantic.computed_field  # type: ignore[prop-decorator] # as pydantic documents it
    @property
    def share(self) -> float:
        return self.found / self.all


def test_a_computed_field_that_raises_is_no_value() -> None:
    rows = [Counted(found=1, all=2), Counted(found=0, all=0)]
    with pytest.warns(MetricWarning, match="1 of 2 values of the score 'share'"):
        run = kept(lambda: track_samples(rows, scores="share"))
    assert run.metrics["share"] == 0.5


@pytest.mark.parametrize("rows", ROWS, ids=range(len(ROWS)))
def test_rows_of_every_kind(rows: Any) -> None:
    run = kept(lambda: track_samples(rows, scores="right", ids="id", answer=["x", "y"]))
    score = run.writer.samples.table.score("right")
    assert score is not None
    assert (score.ids.tolist(), score.values.tolist()) == (["a", "b"], [1, 0])
    assert run.metrics == {"right": 0.5}
    columns = run.writer.samples.table.parts[0].columns
    assert {name: list(column.values) for name, column in columns.items()} == {
        "note": ["n", "n"], "answer": ["x", "y"],
    }  # fmt: skip


def test_scores_by_name_and_their_means() -> None:
    run = kept(
        lambda: track_samples({"a": np.array([1, 0]), "b@1": torch.tensor([0.5, 1.0])}, ids=[3, 4]),
        lambda: track_samples({"c": [1]}, groups=["g"], target=["t"]),
        lambda: track_samples({"b@1": [0.0], "a": [1]}, ids=[5]),
    )
    assert run.metrics == {"a": 2 / 3, "b_at_1": 0.5, "c": 1}
    assert run.writer.samples.table.names == ["a", "b_at_1", "c"]
    assert run.writer.was_used


def test_missing_values_are_counted_and_left_out() -> None:
    with pytest.warns(
        MetricWarning, match="1 of 3 values of the score 'a' are None or NaN"
    ) as seen:
        run = kept(lambda: track_samples({"a": [1, None, 0], "b": [1, 2, 3]}))
    assert seen[0].filename == __file__
    assert run.metrics == {"a": 0.5, "b": 2}
    with pytest.warns(MetricWarning, match="1 of 1"):
        assert kept(lambda: track_samples({"a": [None]})).metrics == {}


REFUSED: list[tuple[Callable[[], None], str]] = [
    (lambda: track_samples({}), "got no score"),
    (lambda: track_samples({"a": [1], "b": [1, 2]}), "one value for each sample, got 'a' 1, 'b' 2"),
    (lambda: track_samples({"a": [1]}, note=["x", "y"]), "column 'note' must hold one value for"),
    (lambda: track_samples({"a": [1]}, note="x"), "column 'note' must hold one value for each"),
    (lambda: track_samples({"a": [1, 2]}, ids=["x", "x"]), "ids must differ, got 'x'"),
    (lambda: track_samples({"a": [1]}, ids="id"), "ids='id' names a column, but there are no rows"),
    (lambda: track_samples({"sample": [1]}), "a score must not be named 'sample'"),
    (lambda: track_samples({"target": [1]}), "a score must not be named 'target'"),
    (lambda: track_samples({"a": [1]}, error=["x"]), "a column must not be named 'error'"),
    (lambda: track_samples({"a": [1]}, a=["x"]), "a column must not be named 'a'"),
    (lambda: track_samples({1: [1]}), "the name of a score must be a text, got 1"),
    (lambda: track_samples({"a": ["x"]}), "the score 'a' must be numbers or booleans"),
    (lambda: track_samples({"a": [10**400]}), "the score 'a' must be numbers that a float holds"),
    (lambda: track_samples({"a": [Fraction(10**400)]}), "must be numbers that a float holds"),
    (lambda: track_samples(ROWS[0]), r"the columns 'id', 'right', 'note'; .*scores=\['right'"),
    (lambda: track_samples(COLUMNS, scores="rihgt"), "no column 'rihgt'.*did you mean 'right'"),
    (lambda: track_samples([1, 2], scores=["a"]), "got list of 2; give scores by name"),
    (lambda: track_samples(np.ones(3)), r"got ndarray of shape \(3,\); give scores by name"),
    (lambda: track_samples(None), "got None; give scores by name"),
    (lambda: track_samples([], scores=["a"]), "got list of 0; give scores"),
    (lambda: track_samples({"a": [1], "a/ci_low": [1]}), "name of what is derived from 'a'"),
    (lambda: track_samples({"a/change": [1], "a": [1]}), "name of what is derived from 'a'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "text"), REFUSED, ids=range(len(REFUSED)))
@pytest.mark.parametrize("inside", [True, False], ids=["in a run", "outside"])
def test_what_cannot_be_kept_is_refused(call: Callable[[], None], text: str, inside: bool) -> None:
    with pytest.raises(ArmoryUsageError, match=f"track_samples: .*{text}"):
        kept(call) if inside else call()


def test_intervals_of_groups_that_do_not_differ_and_of_long_names() -> None:
    documents = np.arange(60) // 6
    run = kept(lambda: track_samples({"a" * 300: [1] * 60, "b": [1, 0] * 30}, groups=documents))
    found = run.writer.samples.results().metrics
    assert all(len(name) <= 250 for name in found)
    expected = sorted([*wilson(5, 10), *wilson(10, 10), 0.5, 1])
    assert sorted(found.values()) == pytest.approx(expected, abs=1e-9)


def test_rows_that_come_after_a_gate_has_asked_are_in_the_digest() -> None:
    run = kept(lambda: track_samples({"a": [1, 0]}, ids=["x", "y"]))
    early = run.writer.samples.results().datasets
    with running(run):
        track_samples({"a": [1]}, ids=["z"])
    (late,) = run.writer.samples.results().datasets
    every = kept(lambda: track_samples({"a": [1, 0, 1]}, ids=["x", "y", "z"]))
    assert [late] == list(every.writer.samples.results().datasets) != list(early)


def test_a_metric_that_is_logged_as_another_value_stays_so() -> None:
    run = kept(
        lambda: track_samples({"a": [1, 0], "b": [1, 1], "c": [float("inf"), -float("inf")]}),
        lambda: track_metrics({"a": 0.25}),
    )
    found = run.writer.samples.results().metrics
    assert found.keys() == {"b", "b/ci_low", "b/ci_high", "c"}
    assert (run.metrics["a"], found["c"] != found["c"]) == (0.25, True)


def test_one_group_has_no_interval() -> None:
    run = kept(lambda: track_samples({"a": [1, 0], "b": [1, 1], "c": [2, 3]}, groups=["x", "x"]))
    assert run.writer.samples.results().metrics.keys() == {"a", "b", "c"}


def test_outside_of_an_evaluation_nothing_is_kept() -> None:
    track_samples({"a": [1]})
    track_samples({"a": [1]}, ids=["x"])


def test_an_engine_and_track_samples_in_one_run() -> None:
    evaluation = Evaluation(
        name="it",
        dataset=(np.zeros(2), np.array([0, 1])),
        model=lambda _: np.zeros(2, int),
        sample_metrics={"a": correct},
    )
    run = kept(Engine(evaluation).run, lambda: track_samples({"b": [1]}))  # type: ignore[arg-type]
    assert run.writer.samples.table.names == ["a", "b"]
    with pytest.raises(ArmoryUsageError, match="'a' is one of the evaluation 'it'"):
        kept(Engine(evaluation).run, lambda: track_samples({"a": [1]}))  # type: ignore[arg-type]
    with pytest.warns(MetricWarning, match="both measured"):
        run = kept(lambda: track_samples({"a": [1]}), Engine(evaluation).run)  # type: ignore[arg-type]
    assert run.metrics["a"] == 1
    assert run.metrics["it/a"] == 0.5


def test_scores_of_an_engine_are_named_as_its_metrics() -> None:
    evaluation = Evaluation(
        name="it",
        dataset=(np.zeros(2), np.array([0, 1])),
        model=lambda _: np.zeros(2, int),
        sample_metrics={"a?b": correct, "a[b": lambda _targets, _predictions: [2, 3]},
    )
    run = kept(Engine(evaluation).run)  # type: ignore[arg-type]
    for name, values in (("a_question_mark_b", [1, 0]), ("a_left_square_bracket_b", [2, 3])):
        score = run.writer.samples.table.score(name)
        assert score is not None
        assert (score.values.tolist(), run.metrics[name]) == (values, score.mean)


def test_a_score_is_named_as_its_metric_whose_name_others_would_have() -> None:
    """Of other metrics of the results, too; and again in a repeat."""
    evaluation = Evaluation(
        name="it",
        dataset=(np.zeros(2), np.array([0, 1])),
        model=lambda _: np.zeros(2, int),
        metrics={"a+b": lambda _targets, _predictions: 0.25},
        sample_metrics={"a*b": correct, "c": correct},
    )
    run = kept(Engine(evaluation).run, Engine(evaluation).run)  # type: ignore[arg-type]
    assert run.writer.samples.table.names == ["a_asterisk_b", "c"]
    assert (run.metrics["a_asterisk_b"], run.metrics["a_plus_sign_b"]) == (0.5, 0.25)


def test_a_metric_of_an_engine_is_not_written_over() -> None:
    evaluation = Evaluation(
        name="it",
        dataset=(np.zeros(2), np.array([0, 1])),
        model=lambda _: np.zeros(2, int),
        metrics={"a": lambda _targets, _predictions: 0.25},
    )
    run = EvaluationRun()
    with running(run):
        Engine(evaluation).run()
        with pytest.raises(ArmoryUsageError, match="'a' is one of the evaluation 'it'"):
            track_samples({"a": [1]})
    assert run.metrics["a"] == 0.25


def test_rows_of_several_threads_stay_together() -> None:
    interval = sys.getswitchinterval()

    def add(number: int) -> None:
        for _ in range(20):
            track_samples(
                {"a": [number] * 5, "b": [number] * 5}, groups=[number] * 5, c=[number] * 5
            )

    run = EvaluationRun()
    sys.setswitchinterval(1e-6)
    try:
        with running(run), ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(40)))
    finally:
        sys.setswitchinterval(interval)
    (rows,) = run.writer.samples.table.parts
    every = [list(rows.scores["a"]), list(rows.scores["b"])]
    assert rows.groups is not None
    every += [list(rows.groups.values), list(rows.columns["c"].values)]
    assert every == [every[0]] * 4
    assert len(every[0]) == rows.count == 40 * 20 * 5


def test_an_object_that_is_no_row() -> None:
    with pytest.raises(ArmoryUsageError, match="got list of 1; give scores by name"):
        track_samples([SimpleNamespace(right=True)], scores=["right"])


@pytest.mark.parametrize(
    ("values", "ends"), [([1, 1, 0, 0], (0.0, 1.0)), ([5, 5, 0, 0], (-29.3, 34.3))]
)
def test_the_interval_of_a_proportion_is_one(values: list[int], ends: tuple[float, float]) -> None:
    run = kept(lambda: track_samples({"a": values}, groups=[1, 1, 2, 2]))
    found = run.writer.samples.results().metrics
    assert (found["a/ci_low"], found["a/ci_high"]) == pytest.approx(ends, abs=0.1)


def test_a_score_keeps_the_name_that_its_metric_has() -> None:
    """Where others would have the same, in MLflow: of one call, or of an earlier one."""
    run = kept(
        lambda: track_metrics({"a+b": 0.25, "a*b": 0.75}),
        lambda: track_samples({"a*b": [1, 0]}),
        lambda: track_samples({"c#": [1, 1], "c?": [0, 0]}),
        lambda: track_samples({"c?": [0, 0], "c#": [0, 0]}),
    )
    expected = {"a_plus_sign_b": 0.25, "a_asterisk_b": 0.5}
    assert run.metrics == {**expected, "c_number_sign_": 0.5, "c_question_mark_": 0}
    names = ["a_asterisk_b", "c_number_sign_", "c_question_mark_"]
    assert run.writer.samples.table.names == names
    with pytest.raises(ArmoryUsageError, match=r"'a\[b' would be the metric 'a_b', as 'a_b' is"):
        kept(lambda: track_samples({"a_b": [1]}), lambda: track_samples({"a[b": [1]}))
