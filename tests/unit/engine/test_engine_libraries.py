"""The engine with the libraries of the field, as their users would put them together.

What takes long to import is imported where it is used: every worker collects this file.
"""

# ruff: noqa: ARG005 - stand-ins take whatever the engine gives them.

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pytest_armory.engine import Engine, Evaluation, EvaluationResults, l2, linf


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = load_digits(return_X_y=True)
    return (inputs[:300] / 16).astype("float32"), targets[:300]


@pytest.fixture(scope="module")
def classifier(digits: Any) -> LogisticRegression:
    return LogisticRegression(max_iter=300).fit(*digits)


@pytest.fixture(scope="module")
def net(classifier: LogisticRegression) -> torch.nn.Module:
    """The classifier's weights in torch, so that both give the same answers."""
    net = torch.nn.Linear(64, 10)
    with torch.no_grad():
        net.weight.copy_(torch.as_tensor(classifier.coef_))
        net.bias.copy_(torch.as_tensor(classifier.intercept_))
    return net.eval()


def run(**described: Any) -> EvaluationResults:
    return Engine(Evaluation(name="library", **described)).run()


def loader(digits: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*map(torch.as_tensor, digits)), batch_size=128)


def test_scikit_learn(digits: Any, classifier: LogisticRegression) -> None:
    results = run(
        dataset=digits,
        batch_size=64,
        model=classifier,
        metrics={"accuracy": accuracy_score, "confusion": confusion_matrix},
    )
    assert results.metrics["accuracy"] == classifier.score(*digits)
    assert (
        results.arrays["confusion"]
        == confusion_matrix(digits[1], classifier.predict(digits[0])).tolist()
    )


def test_torchmetrics_take_what_scikit_learn_predicts(
    digits: Any, classifier: LogisticRegression
) -> None:
    from torchmetrics.classification import MulticlassAccuracy

    frozen = digits[1].copy()
    frozen.flags.writeable = False
    results = run(
        dataset=(digits[0], frozen),
        batch_size=64,
        model=classifier,
        metrics={"accuracy": MulticlassAccuracy(10, average="micro")},
    )
    assert results.metrics["accuracy"] == pytest.approx(classifier.score(*digits))


def test_torchmetrics_take_lists_reversed_arrays_and_text() -> None:
    import torchmetrics

    mae = torchmetrics.MeanAbsoluteError()
    results = run(
        dataset=([[1.0], [2.0]], [1.0, 4.0]),
        model=lambda x: np.array([row[0] for row in x][::-1])[::-1],
        metrics={"mae": mae},
    )
    assert results.metrics["mae"] == 1

    words = torchmetrics.text.WordErrorRate()
    results = run(
        dataset=(["a", "b"], ["a b", "b"]), model=lambda x: list(x), metrics={"wer": words}
    )
    assert results.metrics["wer"] == pytest.approx(1 / 3)


def test_torchmetrics_take_nested_arrays() -> None:
    import torchmetrics

    class Boxes(torchmetrics.Metric):
        def __init__(self) -> None:
            super().__init__()
            self.add_state("count", torch.tensor(0))

        def update(self, predictions: Any, targets: Any) -> None:
            assert all(isinstance(p["boxes"], torch.Tensor) for p in [*predictions, *targets])
            self.count += len(predictions)

        def compute(self) -> torch.Tensor:
            return self.count

    boxes = [{"boxes": np.ones((1, 4))}, {"boxes": np.ones((2, 4))}]
    results = run(dataset=[([0, 1], boxes)], model=lambda x: boxes, metrics={"boxes": Boxes()})
    assert results.metrics["boxes"] == 2


def test_a_collection_of_torchmetrics(digits: Any, net: torch.nn.Module) -> None:
    import torchmetrics
    from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

    collection = torchmetrics.MetricCollection(
        {"top1": MulticlassAccuracy(10, average="micro"), "matrix": MulticlassConfusionMatrix(10)}
    )
    results = run(dataset=loader(digits), model=net, metrics={"all": collection})
    assert results.metrics["all/top1"] > 0.9
    assert np.array(results.arrays["all/matrix"]).sum() == 300
    assert results.batches == 3


def test_scikit_learn_metrics_take_tensors(digits: Any, net: torch.nn.Module) -> None:
    results = run(
        dataset=loader(digits),
        model=lambda x: net(x).argmax(1),
        metrics={"accuracy": accuracy_score, "kind": lambda t, p: isinstance(p, torch.Tensor)},
    )
    assert results.metrics["accuracy"] > 0.9
    assert results.metrics["kind"] == 1


def test_art_on_a_scikit_learn_model(digits: Any, classifier: LogisticRegression) -> None:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import SklearnClassifier

    victim = SklearnClassifier(classifier, clip_values=(0, 1))
    attack = ProjectedGradientDescent(victim, eps=0.2, eps_step=0.1, max_iter=4, verbose=False)
    results = run(
        dataset=digits,
        batch_size=100,
        model=victim,
        perturbations={"pgd": attack},
        metrics={"accuracy": lambda t, p: accuracy_score(t, p.argmax(axis=1))},
        perturbation_metrics={"linf": linf},
    )
    assert results.metrics["accuracy"] < 0.5 < classifier.score(*digits)
    assert results.metrics["linf_max"] == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("model", ["net", "art"])
def test_art_on_batches_of_tensors(digits: Any, net: torch.nn.Module, model: str) -> None:
    import torchmetrics
    from art.attacks.evasion import FastGradientMethod
    from art.estimators.classification import PyTorchClassifier
    from torchmetrics.classification import MulticlassAccuracy

    victim = PyTorchClassifier(
        net, torch.nn.CrossEntropyLoss(), (64,), 10, clip_values=(0, 1), device_type="cpu"
    )
    results = run(
        dataset=loader(digits),
        model=net if model == "net" else victim,
        perturbations={
            "fgm": FastGradientMethod(victim, eps=0.2),
            "kept": lambda x, y: x if isinstance(x, torch.Tensor) else None,
        },
        metrics={"accuracy": MulticlassAccuracy(10, average="micro")},
        perturbation_metrics={"l2": l2, "similar": torchmetrics.CosineSimilarity("mean")},
    )
    assert results.metrics["accuracy"] < 0.5
    assert 0 < results.metrics["l2"] <= 0.2 * 8 + 1e-5
    assert 0.5 < results.metrics["similar"] < 1


def test_predictions_hold_no_graph(digits: Any, net: torch.nn.Module) -> None:
    graphs: list[weakref.ref[Any]] = []
    most = 0

    def model(inputs: torch.Tensor) -> torch.Tensor:
        nonlocal most
        gc.collect()
        most = max(most, sum(ref() is not None for ref in graphs))
        out = net(inputs)
        assert out.requires_grad
        assert not inputs.requires_grad
        graphs.append(weakref.ref(out))
        return out

    def attack(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        inputs = inputs.clone().requires_grad_()
        torch.nn.functional.cross_entropy(net(inputs), targets).backward()
        assert inputs.grad is not None
        return inputs + 0.1 * inputs.grad.sign()

    def metric(targets: torch.Tensor, predictions: torch.Tensor) -> float:
        assert not predictions.requires_grad
        return accuracy_score(targets, predictions.argmax(1))

    run(
        dataset=loader(digits),
        model=model,
        perturbations={"fgsm": attack},
        metrics={"accuracy": metric},
        perturbation_metrics={"l2": l2},
    )
    assert len(graphs) == 3
    assert most == 0


def test_nested_predictions_hold_no_graph(net: torch.nn.Module) -> None:
    seen = []
    run(
        dataset=[(torch.ones(2, 64), torch.zeros(2))] * 2,
        model=lambda x: [{"logits": row} for row in net(x)],
        metrics={"m": lambda t, p: float(len(seen) or seen.extend(p) is None)},
    )
    assert len(seen) == 4
    assert not any(p["logits"].requires_grad for p in seen)


def test_a_loader_of_unknown_length(digits: Any, net: torch.nn.Module) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(list(zip(*map(torch.as_tensor, digits), strict=True)))

    calls = []
    Engine(
        Evaluation(name="stream", dataset=DataLoader(Stream(), batch_size=100), model=net),
        progress=calls.append,
    ).run()
    assert (calls[-1].batches, calls[-1].samples) == (3, 300)
    assert {call.total for call in calls} == {None}  # on a slow machine there are several
