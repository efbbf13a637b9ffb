"""One iteration over a dataset: perturbations, model and metrics on each batch, timed by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import shorten
from time import perf_counter
from typing import Any

from pytest_armory.engine.arrays import RefusedError, copied, describe, detached, length, samples
from pytest_armory.engine.calls import perturber, predictor
from pytest_armory.engine.dataset import batch_count, batches, check_lengths, check_pair
from pytest_armory.engine.evaluation import Evaluation
from pytest_armory.engine.metrics import (
    CollectedSamples,
    FunctionMetric,
    IncrementalMetric,
    Meter,
    PerSampleMetric,
    SampleMetric,
    is_incremental,
)
from pytest_armory.engine.progress import Progress, Ticker
from pytest_armory.engine.recorder import SampleOpener, SampleRecorder
from pytest_armory.errors import ArmoryError, EvaluationError

_END = object()


class Walk:
    """What is kept from one batch to the next; `stage` is what an error is attributed to."""

    def __init__(
        self,
        evaluation: Evaluation,
        ticker: Ticker,
        limit: int | None = None,
        opener: SampleOpener | None = None,
    ) -> None:
        self.evaluation, self.ticker, self.limit = evaluation, ticker, limit
        self.total = batch_count(evaluation.dataset, evaluation.batch_size, limit)
        self.predict = predictor(evaluation.model)
        self.perturbations = [
            (f"perturbation {name!r}", perturber(perturbation))
            for name, perturbation in evaluation.perturbations.items()
        ]
        collected = CollectedSamples()
        self.measures: list[tuple[str, str, Meter]] = [
            (
                f"metric {name!r}",
                name,
                IncrementalMetric(m) if is_incremental(m) else FunctionMetric(m, collected),
            )
            for name, m in evaluation.metrics.items()
        ]
        self.distances: list[tuple[str, str, Meter]] = [
            (
                f"perturbation metric {name!r}",
                name,
                IncrementalMetric(m) if is_incremental(m) else PerSampleMetric(m),
            )
            for name, m in evaluation.perturbation_metrics.items()
        ]
        self.scores = {
            name: SampleMetric(function) for name, function in evaluation.sample_metrics.items()
        }
        each = {n: m for _, n, m in self.distances if isinstance(m, PerSampleMetric)}
        self.recorder = SampleRecorder(evaluation, {**self.scores, **each}, opener)
        self.updates = _updates(self.measures)
        if len(self.updates) < len(self.measures):
            self.updates.append(("predictions", collected.update))
        self.comparisons = _updates(self.distances)
        # A perturbation that writes into its inputs would be compared with what it wrote.
        needs_clean = any(score.wants_inputs for score in self.scores.values())
        self.copies = bool(self.perturbations and (self.comparisons or needs_clean))
        self.batches = self.samples = 0
        self.fetching = self.predicting = self.measuring = self.elapsed = 0.0
        self.perturbing = [0.0] * len(self.perturbations)
        self.stage, self.in_batch = "dataset", False

    @contextmanager
    def errors_located(self) -> Iterator[None]:
        """Whatever is raised within becomes an EvaluationError that says where it happened."""
        try:
            yield
        except ArmoryError:
            raise
        except RefusedError as refusal:
            raise EvaluationError(f"{self._where()}: {refusal}") from None
        except Exception as error:
            text = shorten(f"{type(error).__name__}: {error}", 500, placeholder=" ...")
            raise EvaluationError(f"{self._where()}: raised {text}") from error

    def _where(self) -> str:
        batch = f", batch index {self.batches}" if self.in_batch else ""
        return f"evaluation {self.evaluation.name!r}{batch}, {self.stage}"

    def over_batches(self) -> None:
        """Iterate to the end of the dataset, keeping only what the metrics keep."""
        self._reset_metrics()
        self.stage, self.in_batch = "dataset", True
        begun = perf_counter()
        source = batches(self.evaluation.dataset, self.evaluation.batch_size, self.limit)
        while (item := next(source, _END)) is not _END:
            fetched = perf_counter()
            self.fetching += fetched - begun
            self._one_batch(item, fetched)
            del item  # freed before the next one is created
            self.batches += 1
            self.stage = "dataset"
            begun = perf_counter()
            if begun >= self.ticker.due:
                self.ticker.tick(self.progress())
                begun = perf_counter()
        self.in_batch = False
        if not self.batches:
            raise RefusedError(
                "gave no batches; an iterator such as a generator can be read once only: "
                "make a new one for each run, or give a list or a DataLoader"
            )

    def _reset_metrics(self) -> None:
        for stage, _, meter in self.measures + self.distances:
            self.stage = stage
            if isinstance(meter, IncrementalMetric):
                meter.start()

    def _one_batch(self, item: Any, begun: float) -> None:
        inputs, targets = check_pair(item)
        count = check_lengths(inputs, targets)
        perturbed = copied(inputs) if self.copies else inputs
        for index, (stage, perturb) in enumerate(self.perturbations):
            self.stage = stage
            perturbed = _check_perturbed(perturb(perturbed, targets), perturbed)
            ended = perf_counter()
            self.perturbing[index] += ended - begun
            begun = ended
        self.stage = "model"
        predictions = _check_predictions(self.predict(perturbed), count)
        predicted = perf_counter()
        self.predicting += predicted - begun
        for stage, update in self.updates:
            self.stage = stage
            update(predictions, targets)
        for name, score in self.scores.items():
            self.stage = f"sample metric {name!r}"
            score.score(targets, predictions, inputs, count)
        for stage, update in self.comparisons:
            self.stage = stage
            update(inputs, perturbed)
        self.stage = "samples"
        self.recorder.add(inputs, targets, predictions, count)
        self.measuring += perf_counter() - predicted
        self.samples += count

    def finish(self) -> dict[str, object]:
        """The metrics' results, by reported name."""
        begun = perf_counter()
        self.stage = "samples"
        if self.limit is None:
            self.recorder.check_all_came()
        measured: dict[str, object] = {}
        for name, score in self.scores.items():
            measured |= score.results(name)
        for stage, name, meter in self.measures + self.distances:
            self.stage = stage
            measured |= meter.results(name)
        ended = perf_counter()
        self.measuring += ended - begun
        self.elapsed = ended - self.ticker.begun
        return measured

    def progress(self) -> Progress:
        """The progress so far."""
        seconds = perf_counter() - self.ticker.begun
        return Progress(self.evaluation.name, self.batches, self.total, self.samples, seconds)

    def engine_numbers(self) -> dict[str, float]:
        """Sizes, speed and seconds per stage, by the name each is reported under."""
        each = zip(self.evaluation.perturbations, self.perturbing, strict=True)
        return {
            "samples": float(self.samples),
            "samples_per_second": self.samples / max(self.elapsed, 1e-9),
            "time/data_seconds": self.fetching,
            "time/perturb_seconds": sum(self.perturbing),
            **{f"time/perturb/{name}_seconds": seconds for name, seconds in each},
            "time/predict_seconds": self.predicting,
            "time/metrics_seconds": self.measuring,
            "time/total_seconds": self.elapsed,
        }


def _updates(meters: list[tuple[str, str, Meter]]) -> list[tuple[str, Callable[[Any, Any], Any]]]:
    return [
        (stage, meter.update) for stage, _, meter in meters if not isinstance(meter, FunctionMetric)
    ]


def _check_perturbed(perturbed: Any, inputs: Any) -> Any:
    """What a perturbation returned, without its graph, if it has the shape of its inputs."""
    shapes = getattr(perturbed, "shape", None), getattr(inputs, "shape", None)
    differ = None not in shapes and shapes[0] != shapes[1]
    if samples(perturbed, "what it returns") != length(inputs) or differ:
        raise RefusedError(
            f"must return inputs of the shape it was given, got {describe(perturbed)} "
            f"for {describe(inputs)}; return the inputs alone, a perturbed one for each"
        )
    return detached(perturbed)


def _check_predictions(predictions: Any, count: int) -> Any:
    """Predictions without their graph; checked to be one for each sample."""
    if samples(predictions, "predictions") != count:
        raise RefusedError(
            f"predictions must be one for each of the batch's {count} samples, "
            f"got {describe(predictions)}; the first dimension counts samples"
        )
    return detached(predictions)
