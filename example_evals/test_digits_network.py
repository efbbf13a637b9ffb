"""How robust is a small convolutional network? By an attack of ART's, and by one in plain torch."""

from importlib.util import find_spec

import pytest

from pytest_armory import Engine, Evaluation, correct, l2, linf

pytestmark = [
    pytest.mark.evaluation(name="digits-network", tags={"dataset": "digits"}),
    pytest.mark.skipif(
        None in map(find_spec, ("torch", "torchmetrics")),
        reason="pip install 'pytest-armory[torch]' installs torch and torchmetrics",
    ),
]


def train_network(digits, *, width, epochs, seed):
    # torch is imported where it is used, for that takes seconds.
    import torch
    from torch import nn

    torch.set_num_threads(1)  # it is small, and the workers of pytest-xdist share the cores
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(8 * width, 10),
    )
    images, labels = torch.as_tensor(digits.x_train), torch.as_tensor(digits.y_train)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    return network  # in training mode: the engine evaluates it in evaluation mode


@pytest.fixture(scope="session")
def network(track_call, digits):
    return track_call(train_network, digits, width=8, epochs=12, seed=0)


@pytest.fixture(scope="session")
def batches(digits):
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    tensors = torch.as_tensor(digits.x_test), torch.as_tensor(digits.y_test)
    return DataLoader(TensorDataset(*tensors), batch_size=150)


def pgd_of_art(network, eps):
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier
    from torch.nn import CrossEntropyLoss

    victim = PyTorchClassifier(network, CrossEntropyLoss(), (64,), 10, clip_values=(0, 1))
    return ProjectedGradientDescentPyTorch(
        victim, eps=eps, eps_step=eps / 4, max_iter=10, verbose=False
    )


def pgd_of_torch(network, eps):
    import torch

    def perturb(images, labels):
        moved = images
        for _ in range(10):
            moved = moved.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(network(moved), labels)
            (gradient,) = torch.autograd.grad(loss, moved)
            step = moved + eps / 4 * gradient.sign() - images
            moved = (images + step.clamp(-eps, eps)).clamp(0, 1)
        return moved

    return perturb


def evaluate(network, batches, attacks):
    from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

    evaluation = Evaluation(
        name="network",
        dataset=batches,
        model=network,
        perturbations=attacks,
        metrics={
            "top3": MulticlassAccuracy(10, average="micro", top_k=3),
            "confusion": MulticlassConfusionMatrix(10),
        },
        sample_metrics={"accuracy": correct},
        perturbation_metrics={"l2": l2, "linf": linf} if attacks else {},
    )
    return Engine(evaluation).run().metrics


@pytest.mark.evaluation(description="Unperturbed images", at_least={"accuracy": 0.95, "top3": 0.99})
def test_clean(network, batches):
    evaluate(network, batches, {})


@pytest.mark.evaluation(description="White box: projected gradient descent of two libraries")
@pytest.mark.parametrize("attack", [pgd_of_art, pgd_of_torch])
def test_network_pgd(network, batches, attack):
    metrics = evaluate(network, batches, {"pgd": attack(network, eps=0.1)})

    assert metrics["linf_max"] <= 0.1 + 1e-6
    assert metrics["accuracy"] < 0.9
