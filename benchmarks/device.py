"""Check on this machine's accelerator what the engine promises of devices; prints a line for each.

    python benchmarks/device.py            # cuda, else mps, else the CPU
    python benchmarks/device.py cuda:1

A module stays where it is and batches move to it; what metrics get is where the batch came from;
modes and gradients are put back; `--armory-devices` gives each worker its GPU, and its runs the tag
that names it. Exits with 1 if one of them is not so. On the CPU it only shows that the script runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from pytest_armory import Engine, Evaluation, correct, linf


def best_device() -> torch.device:
    """The first accelerator, or the CPU."""
    if len(sys.argv) > 1:
        return torch.device(sys.argv[1])
    if torch.cuda.is_available():
        return torch.device("cuda:0")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def batches(count: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches on the CPU whose class is the largest of ten inputs."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(count):
        inputs = torch.rand(size, 10, generator=draw)
        yield inputs, inputs.argmax(1)


class Net(nn.Module):
    """The inputs as scores, through a parameter; notes where it was called, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(0.9)
        self.seen: set[tuple[str, bool, bool]] = set()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen.add((inputs.device.type, self.training, torch.is_grad_enabled()))
        scores: torch.Tensor = self.dropout(inputs * self.scale)
        return scores


def fgsm(net: Net) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A perturbation that needs gradients, on the module's device."""

    def perturb(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        moved = inputs.clone().requires_grad_()
        nn.functional.cross_entropy(net(moved), targets).backward()
        assert moved.grad is not None
        return inputs + 1e-3 * moved.grad.sign()

    return perturb


def check_engine(device: torch.device) -> dict[str, bool]:
    """What the engine promises of a module on a device."""
    net = Net().to(device).train()
    places: set[str] = set()

    def where(targets: torch.Tensor, predictions: torch.Tensor, inputs: torch.Tensor) -> float:
        places.update((targets.device.type, predictions.device.type, inputs.device.type))
        return float((predictions.argmax(1) == targets).float().mean())

    results = Engine(
        Evaluation(
            name="device",
            dataset=list(batches(20, 256)),
            model=net,
            perturbations={"fgsm": fgsm(net)},
            metrics={"top1": MulticlassAccuracy(10, average="micro").to(device), "where": where},
            sample_metrics={"accuracy": correct},
            perturbation_metrics={"linf": linf},
        )
    ).run()
    return {
        "the model's batches are on its device": {seen[0] for seen in net.seen} == {device.type},
        "predictions are made in eval() without gradients": (device.type, False, False) in net.seen,
        "perturbations have gradients": any(seen[2] for seen in net.seen),
        "metrics get targets, predictions and inputs where the batch came from": places == {"cpu"},
        "a torchmetrics metric on the device agrees with samples": (
            abs(results.metrics["top1"] - results.metrics["accuracy"]) < 1e-6
        ),
        "the mode is put back": net.training and net.dropout.training,
        "the module has not moved": net.scale.device.type == device.type,
        "a perturbation keeps its size": results.metrics["linf_max"] < 1.1e-3,
    }


def own_home(folder: str) -> dict[str, str]:
    """The environment of a session that tracks into a folder, whatever server is set."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    return {**kept, "ARMORY_HOME": folder}


WORKERS = """
import os, pytest, torch
from pytest_armory import Engine, Evaluation, correct

@pytest.mark.evaluation(name="devices")
@pytest.mark.parametrize("number", range(4))
def test_device(number, tmp_path_factory):
    assert torch.cuda.device_count() == 1, os.environ.get("CUDA_VISIBLE_DEVICES")
    inputs = torch.rand(64, 10)
    model = torch.nn.Linear(10, 10).cuda()
    score = {"accuracy": correct}
    data = (inputs, inputs.argmax(1))
    Engine(Evaluation(name="it", dataset=data, model=model, sample_metrics=score)).run()
    folder = tmp_path_factory.getbasetemp().parent
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    (folder / f"{worker}.seen").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
"""


def check_workers() -> dict[str, bool]:
    """Whether each of two workers has one GPU, and its runs say which."""
    from mlflow import MlflowClient

    from pytest_armory.store.database import sqlite_uri

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_workers.py").write_text(WORKERS, encoding="utf-8")
        options = ["--armory-track", "--armory-devices", "auto", "--basetemp=base"]
        command = [sys.executable, "-m", "pytest", "-q", "-n2", *options]
        done = subprocess.run(command, cwd=folder, env=own_home(folder), check=False)
        seen = {path.stem: path.read_text() for path in Path(folder, "base").glob("*.seen")}
        client = MlflowClient(sqlite_uri(Path(folder, "mlruns", "mlflow.db")))
        experiment = client.get_experiment_by_name("devices")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        tags = [run.data.tags for run in runs if run.data.tags["armory.kind"] == "evaluation"]
    return {
        "evaluations of two workers on GPUs pass": done.returncode == 0 and len(tags) == 4,
        "each worker has a GPU of its own, or shares the only one": (
            len(set(seen.values())) == min(torch.cuda.device_count(), len(seen)) > 0
        ),
        "the tag armory.device says which": all(
            tag.get("armory.device") == seen[tag["armory.worker"]] for tag in tags
        ),
    }


TRAINERS = """
import lightning, pytest, torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from pytest_armory import track_metrics

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 2)
    def test_step(self, batch, index, dataloader_idx=0):
        inputs, targets = batch
        self.log("acc", (self.net(inputs).argmax(1) == targets).float().mean())

def loader(seed):
    draw = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(torch.rand(64, 4, generator=draw), torch.zeros(64).long()), 16)

@pytest.mark.evaluation(name="trainers", at_least={"acc": 0})
@pytest.mark.parametrize("loaders", [1, 2])
def test_lightning(loaders, evaluation_run):
    trainer = lightning.Trainer(logger=False, enable_progress_bar=False, devices=1)
    data = [loader(seed) for seed in range(loaders)]
    results = trainer.test(Module(), data, verbose=False)
    track_metrics(results)
    names = {"acc", "acc/dataloader_idx_1"} if loaders == 2 else {"acc"}
    assert names == evaluation_run.metrics.keys(), (results, evaluation_run.metrics)

@pytest.mark.evaluation(name="trainers", at_least={"test_accuracy": 0})
def test_hugging_face(evaluation_run, tmp_path):
    config = BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16)
    draw = torch.Generator().manual_seed(0)
    rows = [{"input_ids": torch.randint(0, 32, (8,), generator=draw), "labels": i % 2}
            for i in range(20)]
    accuracy = lambda found: {"accuracy": float((found[0].argmax(-1) == found[1]).mean())}
    trainer = Trainer(BertForSequenceClassification(config), compute_metrics=accuracy,
                      args=TrainingArguments(str(tmp_path), report_to=[]), eval_dataset=rows)
    track_metrics(trainer.evaluate())
    output = trainer.predict(rows)
    track_metrics(output)
    assert evaluation_run.metrics["eval_accuracy"] == evaluation_run.metrics["test_accuracy"]
    assert evaluation_run.writer.samples.table.count == 20
"""


def check_trainers() -> dict[str, bool]:
    """Whether the results of real trainers are taken; nothing where they are not installed."""
    if not all(map(find_spec, ("lightning", "transformers", "accelerate"))):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_trainers.py").write_text(TRAINERS, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "--armory-track"]
        done = subprocess.run(command, cwd=folder, env=own_home(folder), check=False)
    return {"results of Lightning's and Hugging Face's trainers are taken": done.returncode == 0}


def speed(device: torch.device) -> float:
    """Samples per second of a larger module on the device, batches coming from the CPU."""
    layers: list[Any] = [nn.Linear(10, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(2048, 10)).to(device)
    evaluation = Evaluation(
        name="speed", dataset=list(batches(20, 2048)), model=net, sample_metrics={"right": correct}
    )
    Engine(evaluation, limit_batches=2).run()  # the first calls load kernels
    began = time.perf_counter()
    samples = Engine(evaluation).run().samples
    return samples / (time.perf_counter() - began)


def main() -> int:
    """Print each check with its result; returns how many failed, at most 1."""
    device = best_device()
    try:
        torch.empty(1, device=device)
    except (AssertionError, RuntimeError) as error:
        sys.exit(f"this machine cannot compute on {device}: {error}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"torch {torch.__version__} on {device} ({name})")
    checks = check_engine(device)
    if device.type == "cuda":
        checks |= {**check_workers(), **check_trainers()}
    for text, holds in checks.items():
        print(f"{'yes' if holds else 'NO ':3}  {text}")
    if device.type != "cpu":
        print(f"{speed(device):,.0f} samples/s")
    return int(not all(checks.values()))


if __name__ == "__main__":
    sys.exit(main())
