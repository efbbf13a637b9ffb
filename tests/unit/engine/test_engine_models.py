"""Models of deep learning and LLMs as they come: modules, Hugging Face's classes, async calls.

What takes long to import is imported where it is used: every worker collects this file.
"""

# ruff: noqa: ARG005 - stand-ins take whatever the engine gives them.

from __future__ import annotations

import asyncio
import signal
import socketserver
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error
from torch.utils.data import DataLoader

from pytest_armory.engine import Engine, Evaluation, EvaluationResults, correct, linf
from pytest_armory.engine.modules import first_device, moved
from pytest_armory.errors import EvaluationError
from pytest_armory.track.context import running
from pytest_armory.track.run import EvaluationRun

X = torch.arange(12.0).reshape(6, 2)
Y = torch.tensor([0, 1, 0, 1, 0, 1])


def run(**described: Any) -> EvaluationResults:
    return Engine(Evaluation(**{"name": "it", **described})).run()


# Modules


class Flips(torch.nn.Module):
    """Right in evaluation mode without gradients only; a part of it stays frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.frozen = torch.nn.BatchNorm1d(2).eval()
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.training, torch.is_grad_enabled()))
        right = (inputs[:, 0] / 2 % 2).long()
        return 1 - right if self.training else right * self.weight


def test_a_module_is_evaluated_as_it_should_be_and_put_back() -> None:
    model = Flips().train()
    model.frozen.eval()

    def attack(inputs: Any, _: Any) -> Any:
        leaf = inputs.clone().requires_grad_()
        (model(leaf).sum() + leaf.sum()).backward()
        model.train()  # as an attack may leave it
        assert leaf.grad is not None
        return inputs

    results = run(
        dataset=(X, Y),
        batch_size=3,
        model=model,
        perturbations={"attack": attack},
        sample_metrics={"accuracy": correct},
    )
    assert results.metrics["accuracy"] == 1
    assert model.seen[1::2] == [(False, False)] * 2  # the predictions
    assert model.seen[::2] == [(False, True)] * 2  # the attack's
    assert (model.training, model.frozen.training) == (True, False)
    assert torch.is_grad_enabled()


def test_a_module_has_its_mode_back_after_an_error() -> None:
    model = torch.nn.Linear(3, 2).train()
    with pytest.raises(EvaluationError, match="model: raised RuntimeError"):
        run(dataset=(X, Y), model=model, sample_metrics={"accuracy": correct})
    assert model.training


def test_tensors_of_a_batch_move_together() -> None:
    batch = {"ids": X, "more": [Y, (X, "text")], "n": 3}
    there = moved(batch, "meta")
    assert {there["ids"].device.type, there["more"][0].device.type} == {"meta"}
    assert there["more"][1][1] == "text"
    assert there["n"] == 3
    assert first_device({"n": 1, "x": ["a", X]}) == X.device
    assert first_device({"n": 1}) is None
    assert moved(batch, None) is batch


def test_metrics_get_inputs_where_the_batch_came_from() -> None:
    def seen(_: Any, predictions: Any, inputs: Any) -> Any:
        assert (inputs.device.type, predictions.device.type) == ("cpu", "cpu")
        return inputs[:, 0] % 2 == 0

    found = run(
        dataset=[(X[:3], None), (X[3:], None)],
        model=torch.nn.Linear(2, 1, device="meta"),  # a device that every machine has
        output_transform=lambda output: torch.zeros(len(output)),
        sample_metrics={"same": seen},
        metrics={"all": lambda targets, predictions, inputs: float((inputs == X).all())},
    )
    assert (found.metrics["same"], found.metrics["all"]) == (1, 1)


class Doubles(torch.nn.Module):
    """A module without parameters."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs[:, 0] * 2


def test_a_module_without_parameters() -> None:
    found = run(dataset=[(X, Y)], model=Doubles(), metrics={"sum": lambda t, p: float(p.sum())})
    assert found.metrics["sum"] == 60


# Batches


def tokens(n: int = 6) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.arange(n * 4).reshape(n, 4) % 20,
        "attention_mask": torch.ones(n, 4, dtype=torch.long),
        "labels": torch.arange(n) % 2,
    }


@pytest.fixture(scope="module")
def bert() -> torch.nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_labels=2,
        intermediate_size=8, max_position_embeddings=8,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def as_table(rows: dict[str, torch.Tensor]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({k: v.tolist() for k, v in rows.items()}).with_format("torch")


def encoded() -> list[Any]:
    from transformers import BatchEncoding

    return [BatchEncoding(tokens())]


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: [{**tokens(), "idx": torch.arange(6)}], None),
        (encoded, None),
        (lambda: as_table(tokens()), 4),
        (lambda: as_table(tokens()), None),
        (lambda: as_table(tokens()).with_format(None), 4),
        (lambda: as_table(tokens()).to_iterable_dataset(), 4),
        (lambda: as_table(tokens()).with_format(None).to_iterable_dataset(), 4),
        (lambda: DataLoader(as_table(tokens()), batch_size=2), None),
    ],
    ids=[
        "mapping",
        "BatchEncoding",
        "table",
        "whole-table",
        "plain",
        "stream",
        "plain-stream",
        "DataLoader",
    ],
)
def test_batches_of_hugging_face(bert: Any, make: Any, size: int | None) -> None:
    rows = tokens()
    with torch.no_grad():
        expected = (bert.eval()(**rows).logits.argmax(1) == rows["labels"]).float().mean().item()
    bert.train()
    results = run(dataset=make(), batch_size=size, model=bert, sample_metrics={"accuracy": correct})
    assert results.metrics["accuracy"] == pytest.approx(expected)
    assert results.samples == 6
    assert bert.training


def test_a_stream_needs_a_batch_size(bert: Any) -> None:
    with pytest.raises(EvaluationError, match=r"no length; write batch_size=\.\.\."):
        run(dataset=as_table(tokens()).to_iterable_dataset(), model=bert)


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        ((X, Y, {"path": "a"}), {}),
        ([X, Y, ["a"] * 6], {}),
        ({"x": X, "label": Y}, {}),
        ({"x": X, "gold": Y}, {"prepare_batch": lambda batch: (batch["x"], batch["gold"])}),
        ([(x, y) for x, y in zip(X, Y, strict=True)][:2] * 3,
         {"prepare_batch": lambda batch: (X, Y)}),
    ],
)  # fmt: skip
def test_forms_of_a_batch(batch: Any, options: Any) -> None:
    def model(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": x[:, 0] / 2 % 2}

    found = run(dataset=[batch], model=model, sample_metrics={"accuracy": correct}, **options)
    assert found.metrics["accuracy"] == 1


@pytest.mark.parametrize(
    "dataset", [(["a", "bb"], None), [(["a", "bb"],)], [{"text": ["a", "bb"]}], [["a", "bb"]]]
)
def test_without_targets(dataset: Any) -> None:
    texts = isinstance(dataset, list) and isinstance(dataset[0], list)
    prepare = (lambda batch: (batch, None)) if texts else None

    def judged(targets: None, predictions: Any, inputs: Any) -> list[bool]:
        assert targets is None
        asked = inputs["text"] if isinstance(inputs, dict) else inputs
        return [answer.startswith(text) for text, answer in zip(asked, predictions, strict=True)]

    found = run(
        dataset=dataset,
        prepare_batch=prepare,
        model=lambda text: [one + "!" for one in text],
        sample_metrics={"judged": judged},
        metrics={"longest": lambda targets, predictions, inputs: max(map(len, predictions))},
    )
    assert (found.metrics["judged"], found.metrics["longest"]) == (1, 3)


def test_a_row_that_is_no_batch_is_refused() -> None:
    with pytest.raises(EvaluationError, match="inputs must hold one entry per sample, got dict"):
        run(dataset=[{"question": "what", "label": 1}], model=lambda question: question)


@pytest.mark.parametrize(
    ("model", "takes_names"),
    [
        (lambda a, b: [a, b], True),
        (lambda a, *, b=None: [a, b], True),
        (lambda **named: [named["a"], named["b"]], True),
        (lambda batch: [batch["a"], batch["b"]], False),
        (lambda batch, b=None: [batch["a"], batch["b"]], False),
        (lambda a, extra: 1 / 0, None),
    ],
)
def test_mappings_become_keywords_where_a_model_wants_them(model: Any, takes_names: Any) -> None:
    evaluation = {"dataset": [{"a": [1, 2], "b": [3, 4]}], "model": model}
    if takes_names is None:
        with pytest.raises(EvaluationError, match="model: raised TypeError"):
            run(**evaluation)
    else:
        seen = run(**evaluation, metrics={"sum": lambda t, p: sum(map(sum, p))})
        assert seen.metrics["sum"] == 10


def test_metrics_of_evaluate() -> None:
    import datasets
    import evaluate

    class Share(evaluate.Metric):
        def _info(self) -> Any:
            features = datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            )
            return evaluate.MetricInfo(
                description="", citation="", inputs_description="", features=features
            )

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            return {
                "share": float(np.mean(np.equal(predictions, references))),
                "n": len(references),
            }

    found = run(
        dataset=(X, Y), batch_size=4, model=lambda x: (x[:, 0] / 2 % 2).long(),
        metrics={"share": Share()},
    )  # fmt: skip
    assert (found.metrics["share"], found.metrics["share/n"]) == (1, 6)


# Async models


class Service:
    """A slow service: answers in another order than it is asked in, some questions never."""

    def __init__(self, fails: tuple[int, ...] = ()) -> None:
        self.fails = fails
        self.busy = self.most = self.calls = 0

    async def predict(self, sample: int) -> int:
        self.calls += 1
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(0.002 * (3 - sample % 3))
        finally:
            self.busy -= 1
        if sample in self.fails:
            raise ConnectionError(f"429 at {sample}")
        return sample * 2


@pytest.mark.parametrize("size", [None, 1, 3, 40])
def test_async_calls_overlap_and_keep_their_order(size: int | None) -> None:
    service, inputs = Service(), list(range(20))
    found = run(
        dataset=(inputs, [2 * i for i in inputs]),
        batch_size=size,
        model=service,
        concurrency=5,
        sample_metrics={"accuracy": correct},
        metrics={"in_order": lambda targets, predictions: list(predictions) == list(targets)},
    )
    assert (found.metrics["accuracy"], found.metrics["in_order"]) == (1, 1)
    assert service.most == 5


def test_async_calls_of_mappings_take_keywords() -> None:
    async def model(question: str, context: str) -> str:
        return question + context

    batch = {"question": ["a", "b"], "context": ["c", "d"], "labels": ["ac", "bd"]}
    assert run(
        dataset=[batch], model=model, concurrency=2, sample_metrics={"right": correct}
    ).metrics["right"] == 1  # fmt: skip


def test_in_a_running_loop() -> None:
    evaluation = Evaluation(
        name="it", dataset=([1], [2]), model=Service(), sample_metrics={"right": correct}
    )

    async def inside() -> EvaluationResults:
        with pytest.raises(
            EvaluationError, match=r"model: .*write `await Engine\(evaluation\)\.arun\(\)`"
        ):
            Engine(evaluation).run()
        return await Engine(evaluation).arun()

    assert asyncio.run(inside()).metrics["right"] == 1


class Connected:
    """A client that keeps one connection, which belongs to the loop that opened it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: Any = None

    async def predict(self, sample: int) -> int:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        if sample == 0:
            raise ConnectionError("429")
        writer.write(b"%d\n" % sample)
        answer = int(await reader.readline())
        if answer == 9:
            writer.close()
            await writer.wait_closed()
        return answer


class Echo(socketserver.StreamRequestHandler):
    """Sends each line back."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="each run has a loop of its own")
def test_a_client_keeps_its_connection_from_one_run_to_the_next() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = Connected(server.server_address[1])

        def right(*samples: int) -> Any:
            data = {"dataset": (list(samples), list(samples)), "sample_metrics": {"right": correct}}
            return run(**data, model=client).metrics["right"]

        assert right(1, 2) == 1
        with pytest.raises(EvaluationError):
            right(3, 0)
        with ThreadPoolExecutor() as threads:
            threads.submit(run, dataset=([1], [2]), model=Service()).result()
        assert right(5, 9) == 1
        server.shutdown()


def test_an_interrupt_in_a_call_leaves_none_under_way() -> None:
    under_way: list[int] = []

    async def model(sample: int) -> int:
        if sample == 3:
            raise KeyboardInterrupt
        under_way.append(sample)
        try:
            await asyncio.sleep(0.01 if sample > 3 else 60)
        finally:
            under_way.remove(sample)
        return sample

    with pytest.raises(KeyboardInterrupt):
        run(dataset=([1, 2, 3], [1, 2, 3]), model=model, concurrency=3)
    assert under_way == []
    found = run(dataset=([4], [4]), model=model, sample_metrics={"right": correct})
    assert found.metrics["right"] == 1


def test_an_interrupt_keeps_what_was_answered_behind_a_slow_call() -> None:
    async def model(sample: int) -> int:
        if sample == 0:
            await asyncio.sleep(20)
        if sample == 5:
            raise ConnectionError("429")
        if sample == 7:
            raise KeyboardInterrupt
        return sample

    record, inputs = EvaluationRun(), list(range(20))
    with running(record), pytest.raises(KeyboardInterrupt):
        run(
            dataset=(inputs, inputs), batch_size=1, concurrency=2, max_errors=0.5, model=model,
            sample_metrics={"right": correct},
        )  # fmt: skip
    (rows,) = record.writer.samples.table.parts
    assert not rows.is_complete
    assert list(rows.scores["right"])[1:5] == [1, 1, 1, 1]
    assert record.metrics == {"errors": 1}


def test_an_interrupt_is_none_less_where_a_metric_of_what_was_answered_fails() -> None:
    async def model(sample: int) -> int:
        if sample == 8:
            raise KeyboardInterrupt
        return sample

    def judged(_: Any, predictions: Any) -> Any:
        return [True] * 4 if len(predictions) == 4 else 1 / 0

    with pytest.raises(KeyboardInterrupt):
        run(
            dataset=([1, 2, 3, 4, 5, 6, 7, 8], [1] * 8), batch_size=4, concurrency=2, model=model,
            sample_metrics={"judged": judged},
        )  # fmt: skip


@pytest.mark.parametrize("model", [Service(fails=(3, 7)), "blocking"])
def test_calls_that_may_fail(model: Any) -> None:
    def blocking(inputs: list[int]) -> list[int]:
        if inputs[0] in (3, 7):
            raise ConnectionError("429")
        return [2 * i for i in inputs]

    inputs = list(range(100))
    found = run(
        dataset=(inputs, [2 * i for i in inputs]),
        batch_size=1,
        model=blocking if model == "blocking" else model,
        max_errors=0.02,
        sample_metrics={"accuracy": correct},
        metrics={"n": lambda targets, predictions: len(predictions)},
    )
    assert found.metrics["errors"] == 2
    assert (found.metrics["accuracy"], found.metrics["n"]) == (1, 98)
    assert found.metrics["samples"] == 100


@pytest.mark.parametrize("max_errors", [None, 0.02])
def test_more_failures_than_allowed_end_the_run_early(max_errors: float | None) -> None:
    service, inputs = Service(fails=(1, 2, 4, 5)), list(range(100))
    said = "raised ConnectionError: 429 at 1" if max_errors is None else (
        "model: [34] of .* calls failed, which is more than max_errors=0.02 allows of 100; the "
        "first: ConnectionError: 429 at [12]"
    )  # fmt: skip
    with pytest.raises(EvaluationError, match=said):
        run(
            dataset=(inputs, inputs), model=service, max_errors=max_errors, concurrency=3,
            sample_metrics={"accuracy": correct},
        )  # fmt: skip
    assert service.calls < 20
    assert service.busy == 0


def test_a_slow_call_hides_no_failures_of_others() -> None:
    asked: list[int] = []

    async def model(sample: int) -> int:
        asked.append(sample)
        if sample == 0:
            await asyncio.sleep(20)
        await asyncio.sleep(0)
        if sample in (3, 5):
            raise ConnectionError(f"429 at {sample}")
        return sample

    record, inputs = EvaluationRun(), list(range(100))
    said = r"model: 2 of \d+ calls failed, .* allows of 100; the first: ConnectionError: 429 at 3"
    with running(record), pytest.raises(EvaluationError, match=said):
        run(
            dataset=(inputs, inputs), batch_size=1, model=model, concurrency=2, max_errors=0.01,
            sample_metrics={"accuracy": correct},
        )  # fmt: skip
    (rows,) = record.writer.samples.table.parts
    errors = [text for text in rows.columns["error"].values if text is not None]
    assert max(asked) < 10
    assert record.metrics["errors"] == 2
    assert [text.partition(":")[0] for text in errors] == [
        "CancelledCallError", "ConnectionError", "ConnectionError",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurrency": 0}, "concurrency must be a whole number of calls, 1 or more, got 0"),
        ({"concurrency": 4}, "concurrency=4 needs a model that waits without blocking"),
        ({"max_errors": 1}, "max_errors must be a share of the samples, from 0 up to 1, got 1"),
        ({"max_errors": "2%"}, "max_errors must be a share"),
        ({"max_errors": 0, "metrics": {"errors": max}}, "the engine itself both report 'errors'"),
        ({"prepare_batch": 3}, "prepare_batch must be a function of one argument, got 3"),
    ],
)
def test_options_that_cannot_be(options: Any, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        Evaluation(name="it", dataset=(X, Y), model=lambda x: x, **options)


# What a model is, and what it answers


class Chooses(torch.nn.Module):
    """Right in evaluation mode; `generate` and an async `predict` too, as language models have."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(1.0)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return self.dropout(1 + inputs[..., 0] / 2 % 2) * self.weight - 1

    def generate(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        return self(x)


class ChoosesLater(Chooses):
    async def predict(self, sample: torch.Tensor) -> torch.Tensor:
        await asyncio.sleep(0)
        return self(sample)


@pytest.mark.parametrize(
    ("kind", "model_of"),
    [
        (Chooses, lambda module: module.forward),
        (Chooses, partial),
        (Chooses, lambda module: partial(module.generate, top_k=1)),
        (ChoosesLater, lambda module: module),
    ],
    ids=["method", "partial", "partial-method", "async"],
)
def test_the_module_behind_a_model_is_evaluated_as_one(kind: Any, model_of: Any) -> None:
    def attack(inputs: Any, _: Any) -> Any:
        assert torch.is_grad_enabled()
        return inputs

    module = kind()
    found = run(
        dataset=(X, Y), batch_size=2, model=model_of(module), perturbations={"attack": attack},
        sample_metrics={"accuracy": correct},
    )  # fmt: skip
    assert found.metrics["accuracy"] == 1
    assert module.training
    assert module.dropout.training


def test_a_part_of_a_module_that_a_perturbation_leaves_in_training_mode() -> None:
    module = Chooses()

    def attack(inputs: Any, _: Any) -> Any:
        module.dropout.train()
        return inputs

    found = run(
        dataset=(X, Y), batch_size=2, model=module, perturbations={"attack": attack},
        sample_metrics={"accuracy": correct},
    )  # fmt: skip
    assert found.metrics["accuracy"] == 1


def test_an_exported_module_keeps_the_mode_of_its_export() -> None:
    net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Dropout(0.9)).eval()
    exported = torch.export.export(net, (X,)).module()
    found = run(dataset=(X, X.argmax(1)), model=exported, sample_metrics={"accuracy": correct})
    assert found.metrics["accuracy"] == 1


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (lambda texts: [{"label": text} for text in texts], "dict of 1"),  # as a pipeline does
        (lambda texts: {"scores": texts}, "dict of 1"),
        (lambda texts: [SimpleNamespace(content=text) for text in texts], "SimpleNamespace"),
    ],
)
def test_a_prediction_that_can_be_no_target_is_not_a_wrong_one(answer: Any, what: str) -> None:
    said = rf"a prediction that is {what} equals no target; .* Evaluation\(output_transform="
    with pytest.raises(EvaluationError, match=said):
        run(dataset=(["a", "b"], ["a", "b"]), model=answer, sample_metrics={"right": correct})


@pytest.mark.parametrize("pairs", [[["q1", "a1"], ["q2", "a2"]], [[0.5, 1], [2, 0]], [("q", 1)]])
def test_pairs_that_may_be_samples_are_refused(pairs: Any) -> None:
    with pytest.raises(EvaluationError, match=r"got a list of \d pairs, which may be samples"):
        run(dataset=[pairs], model=lambda x: list(x), sample_metrics={"right": correct})


@pytest.mark.parametrize(
    "batches",
    [
        [[["a", "b"], [0, 1]]],
        [[("a", "b"), (0, 1)]],
        [[["a", "b", "c"], ["a", "b", "c"]], [["d", "e"], ["d", "e"]]],  # a last one of two
    ],
)
def test_pairs_that_cannot_be_samples_are_inputs_and_targets(batches: Any) -> None:
    found = run(
        dataset=batches,
        model=lambda texts: ["ab".find(t) for t in texts] if 0 in batches[0][1] else list(texts),
        sample_metrics={"right": correct},
    )
    assert found.metrics["right"] == 1


def test_pairs_of_a_loader_of_torch_are_inputs_and_targets() -> None:
    rows = [(text, text) for text in "abcde"]  # whose last batch is a list of two pairs
    found = run(
        dataset=DataLoader(rows, batch_size=3),
        model=lambda texts: list(texts),
        sample_metrics={"right": correct},
    )
    assert found.metrics["right"] == 1


@pytest.mark.parametrize(
    ("role", "model"),
    [
        ("predictions", lambda ids: ids),
        (r"predictions\['b'\]", lambda ids: {"a": ids[:, 0], "b": ids}),
        (r"inputs\['ids'\]", lambda ids: ids[:, 0]),
    ],
)
def test_lengths_that_differ_are_refused_where_they_first_do(role: str, model: Any) -> None:
    read: list[int] = []

    def batches() -> Any:
        for length in (3, 4, 5):
            read.append(length)
            yield {"ids": torch.ones(2, length), "labels": [0, 1]}

    with pytest.raises(EvaluationError, match=f"{role} must have one shape .*; pad them"):
        run(dataset=batches(), model=model, metrics={"m": lambda targets, predictions, inputs: 1.0})
    assert read == [3, 4]


async def answer(sample: int) -> int:
    return sample


class Lengths(torch.nn.Module):
    """Takes rows of one length."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": lambda x: (x, x, x)}, r"got tuple of 3; .* Evaluation\(output_transform="),
        ({"model": lambda x: answer(1)}, "must be `async def` itself, got a function that returns"),
        ({"dataset": [(X[0], 0)]}, r"got 0, which has no length; .* DataLoader\(rows, batch_size="),
        (
            {"dataset": (X.numpy(), Y.numpy()), "model": torch.nn.Linear(2, 2)},
            r"the module got ndarray of shape \(6, 2\), which is no tensor: .*\(prepare_batch=",
        ),
        (
            {"dataset": [{"x": X, "y": Y}], "model": torch.nn.Linear(2, 2)},
            r"got a mapping of 'x', 'y', which are not its parameters: .*\(prepare_batch=",
        ),
        (
            {"dataset": [{"x": X, "y": Y}], "model": lambda x: x.sum(1)},
            r"got a mapping of 'x', 'y', which are not its parameters: .*\(prepare_batch=",
        ),
    ],
)
def test_errors_show_what_to_write(options: Any, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        run(**{"dataset": (X, Y), "model": lambda x: x, **options})


def test_an_error_of_a_table_shows_what_to_write() -> None:
    from datasets import Dataset

    said = "the module got list of 2 under 'x', which is no tensor: say what is what with"
    with pytest.raises(EvaluationError, match=said):
        run(dataset=Dataset.from_dict({"x": [[1], [1, 2]]}), model=Lengths())


@pytest.mark.parametrize("max_errors", [None, 0.5])
def test_what_is_no_failure_of_a_call_is_raised(max_errors: float | None) -> None:
    async def model(sample: int) -> int:
        if sample == 3:
            pytest.skip("no key")
        return sample

    with pytest.raises(pytest.skip.Exception, match="no key"):
        run(dataset=([1, 2, 3, 4], [1, 2, 3, 4]), model=model, max_errors=max_errors)


@pytest.mark.parametrize("max_errors", [None, 0.5])
@pytest.mark.parametrize("kind", [torch.ones, np.ones])
def test_answers_of_one_batch_that_differ_in_shape(max_errors: float | None, kind: Any) -> None:
    async def model(sample: int) -> Any:
        return kind(sample)

    with pytest.raises(EvaluationError, match=r"batch index 0, model: .* one shape .*tolist\(\)"):
        run(dataset=([1, 2], [1, 2]), model=model, concurrency=2, max_errors=max_errors)


def test_a_cancelled_call_is_a_failure() -> None:
    async def model(sample: int) -> int:
        if sample == 3:
            raise asyncio.CancelledError
        return sample

    data = {"dataset": ([1, 2, 3, 4], [1, 2, 3, 4]), "model": model}
    with pytest.raises(EvaluationError, match="CancelledCallError: the call of the model was"):
        run(**data, sample_metrics={"right": correct})
    assert run(**data, max_errors=0.25).metrics["errors"] == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs SIGALRM")
def test_what_a_signal_breaks_off_does_not_go_on_in_the_next_run() -> None:
    asked: list[str] = []

    def slow(name: str) -> Any:
        async def model(sample: int) -> int:
            asked.append(name)
            await asyncio.sleep(0.02)
            return sample

        return model

    def fail(*_: object) -> None:
        pytest.fail("Timeout")  # as pytest-timeout does

    def broken_off() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        run(dataset=(list(range(50)), list(range(50))), model=slow("first"))

    earlier = signal.signal(signal.SIGALRM, fail)
    try:
        with pytest.raises(pytest.fail.Exception, match="Timeout"):
            broken_off()
    finally:
        signal.signal(signal.SIGALRM, earlier)
    calls = len(asked)
    run(dataset=([1, 2, 3], [1, 2, 3]), model=slow("second"))
    assert asked[calls:] == ["second"] * 3


def test_a_model_in_bfloat16() -> None:
    x = X.bfloat16()
    found = run(
        dataset=(x, X.argmax(1)), batch_size=4, model=torch.nn.Identity(),
        perturbations={"more": lambda inputs, _: inputs + 1}, perturbation_metrics={"linf": linf},
        sample_metrics={"accuracy": correct},
    )  # fmt: skip
    assert (found.metrics["accuracy"], found.metrics["linf"]) == (1, 1)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e5m2, torch.float16])
def test_functions_of_numpy_take_floats_that_numpy_has_not(kind: torch.dtype) -> None:
    x = X.to(kind)
    kinds = []

    def same(targets: Any, predictions: Any) -> Any:
        kinds.append(predictions.dtype)
        return targets.numpy()[:, 0] == predictions.numpy()[:, 0]

    found = run(
        dataset=(x, x), batch_size=4, model=torch.nn.Identity(), sample_metrics={"same": same},
        metrics={"error": mean_squared_error},
    )  # fmt: skip
    assert (found.metrics["error"], found.metrics["same"]) == (0, 1)
    assert set(kinds) == {kind if kind == torch.float16 else torch.float32}
