"""What the engine refuses, and that it says which evaluation, batch and metric."""

# ruff: noqa: ARG001, ARG002, ARG005 - stand-ins take whatever the engine gives them.

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_armory.engine import Engine, Evaluation
from pytest_armory.errors import ArmoryUsageError, EvaluationError

X, Y = np.zeros((6, 2)), np.zeros(6)


class Counter:
    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    def _maybe(self, method: str) -> float:
        if self.fails == method:
            raise ZeroDivisionError(f"in {method}")
        return 0.0

    def reset(self) -> None:
        self._maybe("reset")

    def update(self, predictions: Any, targets: Any) -> None:
        self._maybe("update")

    def compute(self) -> float:
        return self._maybe("compute")


def sound(**changes: Any) -> dict[str, Any]:
    return {"name": "pgd", "dataset": (X, Y), "model": lambda x: x[:, 0], **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 3}, "Evaluation: name must be a string that is not empty, got 3"),
        ({"name": ""}, "name must be a string"),
        ({"description": 3}, "description must be a string, got 3"),
        ({"dataset": None}, "dataset must be an iterable .* got None; write dataset="),
        ({"dataset": X}, "dataset must be .* got ndarray of shape \\(6, 2\\)"),
        (
            {"dataset": {"x": X, "y": Y}},
            r'got dict of 2; of splits .* dataset=splits\["test"\], .* dataset=\[batch\]',
        ),
        ({"dataset": lambda: None}, "dataset must be .* got function"),
        ({"dataset": "text"}, "dataset must be .* got a string of 4 ch"),
        ({"dataset": (X, Y[:5])}, "must be equally long, got inputs ndarray of shape \\(6, 2\\)"),
        (
            {"dataset": (X[:0], Y[:0])},
            "at least one sample, got inputs ndarray of shape \\(0, 2\\)",
        ),
        ({"dataset": (X, 3)}, "targets must hold one entry per sample, got 3"),
        ({"dataset": [(X, Y)], "batch_size": 2}, "batch_size=2 cuts .* dataset is list of 1"),
        ({"batch_size": 0}, "batch_size must be a whole number of samples, 1 or more, got 0"),
        ({"batch_size": -1}, "batch_size must be"),
        ({"batch_size": True}, "batch_size must be .* got True"),
        ({"batch_size": 2.0}, "batch_size must be .* got 2.0"),
        ({"batch_size": "2"}, "batch_size must be .* got a string of 1 character"),
        (
            {"model": 3},
            "model must be an object with predict\\(inputs\\) or a callable f\\(inputs\\)",
        ),
        (
            {"model": Counter},
            "model must be an object, got the class Counter itself; write Counter\\(",
        ),
        ({"metrics": [len]}, "metrics must be a mapping by name, got list of 1; write metrics={"),
        ({"metrics": {1: max}}, "names in metrics must be strings .* got 1"),
        ({"metrics": {"": max}}, "names in metrics must be strings"),
        (
            {"metrics": {"a": 3}},
            "metrics 'a' must be an object with update\\(\\), compute\\(\\) and",
        ),
        ({"metrics": {"a": Counter}}, "metrics 'a' must be an object, got the class Counter"),
        ({"metrics": {"samples": max}}, "'samples' and the engine itself both report 'samples'"),
        ({"metrics": {"time/x": max}}, "both report 'time'; take another name"),
        (
            {"metrics": {"a": max}, "perturbation_metrics": {"a": max}},
            "perturbation_metrics 'a' and metrics 'a' both report 'a'",
        ),
        (
            {"metrics": {"a_max": max}, "perturbation_metrics": {"a": max}},
            "perturbation_metrics 'a' and metrics 'a_max' both report 'a_max'",
        ),
        ({"perturbations": {"a": None}}, "perturbations 'a' must be .* generate\\(x=, y=\\)"),
        ({"perturbations": "pgd"}, "perturbations must be a mapping"),
        ({"perturbation_metrics": {"a": 0.1}}, "perturbation_metrics 'a' must be .* got 0.1"),
    ],
)
def test_refused_when_it_is_made(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EvaluationError, match=said) as caught:
        Evaluation(**sound(**changes))
    if "name" not in changes:
        assert str(caught.value).startswith("evaluation 'pgd': ")


def test_one_object_under_two_names_is_refused() -> None:
    metric = Counter()
    with pytest.raises(EvaluationError, match="metrics 'a' and metrics 'b' are one object"):
        Evaluation(**sound(metrics={"a": metric, "b": metric}))
    Evaluation(**sound(metrics={"a": max, "b": max}))


def test_half_a_metric_is_refused() -> None:
    class Half:
        def update(self) -> None: ...

        def compute(self) -> None: ...

    with pytest.raises(EvaluationError, match="metrics 'half' must be an object with update"):
        Evaluation(**sound(metrics={"half": Half()}))


def test_the_description_cannot_be_changed_after_it_was_checked() -> None:
    metrics: dict[str, Any] = {}
    evaluation = Evaluation(**sound(metrics=metrics))
    metrics["late"] = 3
    assert evaluation.metrics == {}
    with pytest.raises(AttributeError):
        evaluation.name = "other"  # type: ignore[misc]


def test_its_repr_leaves_the_data_out() -> None:
    assert "dataset" not in repr(Evaluation(**sound()))


def test_an_engine_needs_an_evaluation() -> None:
    with pytest.raises(ArmoryUsageError, match="must be an Evaluation, got dict of 3"):
        Engine(sound())  # type: ignore[arg-type]
    with pytest.raises(ArmoryUsageError, match=r"progress must be a callable .* got True"):
        Engine(Evaluation(**sound()), progress=True)  # type: ignore[arg-type]


def third_fails(value: Any) -> Any:
    calls: list[None] = []

    def call(first: Any, second: Any = None) -> Any:
        calls.append(None)
        return value if len(calls) == 3 else first

    return call


def third_raises(error: BaseException) -> Any:
    calls: list[None] = []

    def call(first: Any, second: Any = None) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise error
        return first

    return call


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (0, "limit_batches must be a whole number, 1 or more, got 0"),
        (-1, "must be a whole number"),
        (True, "got True"),
        (0.5, "got 0.5"),
        ("3", "got a string of 1 character"),
        (2, r"limits nothing, .* write Evaluation.batch_size="),
    ],
)
def test_a_limit_that_is_no_number_of_batches(limit: Any, text: str) -> None:
    with pytest.raises(EvaluationError, match=text):
        Engine(Evaluation(**sound()), limit_batches=limit)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": []}, "^evaluation 'pgd', dataset: gave no batches"),
        ({"dataset": iter(())}, "^evaluation 'pgd', dataset: gave no batches"),
        ({"dataset": [(X, Y), 3]}, "batch index 1, dataset: .* batches .*, got 3"),
        ({"dataset": [X, Y]}, "batch index 0, dataset: .* got ndarray of shape \\(6, 2\\)"),
        ({"dataset": [(X, Y, Y, Y)]}, "batch index 0, dataset: .* got tuple of 4"),
        ({"dataset": [[(X, Y), (X, Y)]]}, "batch index 0, dataset: got a list of 2 pairs, which"),
        ({"dataset": [["a", "b"]]}, "batch index 0, dataset: .* for texts without targets write"),
        ({"prepare_batch": lambda batch: batch[0]}, "prepare_batch must return .*, got ndarray"),
        ({"dataset": [(X, Y), (X, Y[:2])]}, "batch index 1, dataset: inputs and targets must be"),
        ({"dataset": [(X, 3)]}, "batch index 0, dataset: targets must hold .* got 3"),
        (
            {"dataset": zip(X, Y, strict=True)},
            "batch index 0, dataset: targets must hold one entry",
        ),
        ({"dataset": [(X[:0], Y[:0])]}, "batch index 0, dataset: there must be at least one"),
        (
            {"model": third_fails(None)},
            "batch index 2, model: predictions must be one for .* got None",
        ),
        (
            {"model": third_fails(X[:1])},
            "batch index 2, model: predictions must be one .* 2 samples",
        ),
        ({"model": third_fails(X.sum())}, "batch index 2, model: predictions must be one for"),
        ({"model": lambda x: (x, x, x)}, "batch index 0, model: .* got tuple of 3"),
        (
            {"perturbations": {"a": third_fails(None)}},
            "batch index 2, perturbation 'a': what it returns must hold .* got None",
        ),
        (
            {"perturbations": {"a": third_fails(X[:1])}},
            "perturbation 'a': must return inputs of the shape it was given, got ndarray of shape "
            "\\(1, 2\\) for ndarray of shape \\(2, 2\\)",
        ),
        ({"perturbations": {"a": third_fails(X[:2, :1])}}, "perturbation 'a': must return inputs"),
        ({"perturbations": {"a": lambda x, y: (x, y, x)}}, "got tuple of 3 for ndarray"),
        (
            {"perturbation_metrics": {"far": lambda a, b: 0.5}},
            "batch index 0, perturbation metric 'far': must return one value for each of the 2",
        ),
        ({"perturbation_metrics": {"far": lambda a, b: b}}, "'far': must return one value"),
    ],
)
def test_refused_on_the_way(changes: dict[str, Any], said: str) -> None:
    size = None if "dataset" in changes else 2
    evaluation = Evaluation(**sound(**{"batch_size": size, **changes}))
    with pytest.raises(EvaluationError, match=said) as caught:
        Engine(evaluation).run()
    assert str(caught.value).startswith("evaluation 'pgd'")
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("kind", ["metrics", "sample_metrics"])
def test_a_metric_that_fails_without_targets_is_told_where_they_are_looked_for(kind: str) -> None:
    def agreement(targets: Any, predictions: Any) -> list[bool]:
        return [t == p for t, p in zip(targets, predictions, strict=True)]

    batch = {"text": ["a", "b"], "category": [1, 0]}
    given = {"dataset": [batch], "model": lambda text, category: [1, 1]}
    evaluation = Evaluation(name="e", **given, **{kind: {"agreement": agreement}})
    with pytest.raises(EvaluationError, match=r"raised TypeError: .*; the dataset has no targets"):
        Engine(evaluation).run()
    with pytest.raises(EvaluationError, match=r"raised ZeroDivisionError: [a-z ]*$"):
        Engine(Evaluation(**sound(**{kind: {"a": lambda t, p: 1 / 0}}))).run()


def broken_batches() -> Any:
    yield X, Y
    raise ValueError("disk on fire")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": broken_batches()}, "batch index 1, dataset: raised ValueError: disk on fire"),
        ({"model": third_raises(ValueError("no"))}, "batch index 2, model: raised ValueError: no"),
        (
            {"perturbations": {"ok": lambda x, y: x, "a": third_raises(KeyError("k"))}},
            "batch index 2, perturbation 'a': raised KeyError: 'k'",
        ),
        (
            {"metrics": {"a": lambda t, p: 1 / 0}},
            "^evaluation 'pgd', metric 'a': raised ZeroDivisionError",
        ),
        ({"metrics": {"a": Counter("update")}}, "batch index 0, metric 'a': raised ZeroDiv"),
        ({"metrics": {"a": Counter("compute")}}, "^evaluation 'pgd', metric 'a': raised ZeroDiv"),
        ({"metrics": {"a": Counter("reset")}}, "^evaluation 'pgd', metric 'a': raised ZeroDiv"),
        (
            {"perturbation_metrics": {"a": third_raises(TypeError("t"))}},
            "perturbation metric 'a': ",
        ),
    ],
)
def test_what_is_raised_is_the_cause(changes: dict[str, Any], said: str) -> None:
    if "perturbation_metrics" in changes:
        changes = {"perturbation_metrics": {"a": lambda a, b: [][0]}}
    size = None if "dataset" in changes else 2
    with pytest.raises(EvaluationError, match=said) as caught:
        Engine(Evaluation(**sound(**{"batch_size": size, **changes}))).run()
    cause = caught.value.__cause__
    assert cause is not None
    assert cause.__traceback__ is not None


def test_a_long_text_is_cut() -> None:
    with pytest.raises(EvaluationError) as caught:
        Engine(Evaluation(**sound(model=third_raises(ValueError("x " * 9000)), batch_size=2))).run()
    assert len(str(caught.value)) < 700


def test_predictions_that_cannot_be_joined() -> None:
    batches = [(X[:2], Y[:2]), (X[:2, :1], Y[:2])]
    evaluation = Evaluation(**sound(dataset=batches, model=lambda x: x, metrics={"a": max}))
    said = r"batch index 1, predictions: .* shape \(2, 2\) and .* shape \(2, 1\); pad them, or"
    with pytest.raises(EvaluationError, match=said):
        Engine(evaluation).run()


@pytest.mark.parametrize(
    "outcome", [pytest.skip.Exception("s"), pytest.fail.Exception("f"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("role", ["model", "perturbation", "metric"])
def test_outcomes_of_pytest_and_interrupts_pass(outcome: BaseException, role: str) -> None:
    raises = third_raises(outcome)
    changes = {
        "model": {"model": raises},
        "perturbation": {"perturbations": {"a": raises}},
        "metric": {"perturbation_metrics": {"a": lambda a, b: raises([0.0] * len(a))}},
    }[role]
    with pytest.raises(type(outcome)) as caught:
        Engine(Evaluation(**sound(batch_size=2, **changes))).run()
    assert caught.value is outcome


def test_the_error_of_an_evaluation_within_an_evaluation_is_its_own() -> None:
    inner = Engine(Evaluation(**sound(name="inner", dataset=[])))
    outer = Evaluation(**sound(metrics={"a": lambda t, p: inner.run()}))
    with pytest.raises(EvaluationError, match=r"^evaluation 'inner', dataset"):
        Engine(outer).run()
