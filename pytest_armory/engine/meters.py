"""All metrics of an evaluation, fed batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_armory.engine.answers import Batch
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


@dataclass(slots=True)
class Position:
    """Where a run is at: what an error is attributed to, and the batch, counted from 0."""

    stage: str = "dataset"
    in_batch: bool = False
    index: int = 0

    def __str__(self) -> str:
        batch = f", batch index {self.index}" if self.in_batch else ""
        return f"{batch}, {self.stage}"


class Meters:
    """The metrics of an evaluation; `place` notes which one is at work."""

    def __init__(self, evaluation: Evaluation, place: Position) -> None:
        self._place = place
        collected = CollectedSamples()
        self._measures: list[tuple[str, str, Meter]] = [
            (
                f"metric {name!r}",
                name,
                IncrementalMetric(m) if is_incremental(m) else FunctionMetric(m, collected),
            )
            for name, m in evaluation.metrics.items()
        ]
        self._distances: list[tuple[str, str, Meter]] = [
            (
                f"perturbation metric {name!r}",
                name,
                IncrementalMetric(m) if is_incremental(m) else PerSampleMetric(m),
            )
            for name, m in evaluation.perturbation_metrics.items()
        ]
        self._scores = {
            name: SampleMetric(function) for name, function in evaluation.sample_metrics.items()
        }
        self._scorers = [
            (f"sample metric {name!r}", meter.score) for name, meter in self._scores.items()
        ]
        self._updates = _updates(self._measures)
        if len(self._updates) < len(self._measures):
            self._updates.append(("predictions", collected.update))
        self._comparisons = _updates(self._distances)

    @property
    def per_sample(self) -> dict[str, PerSampleMetric]:
        """Those that give one value for each sample, by name."""
        each = {n: m for _, n, m in self._distances if isinstance(m, PerSampleMetric)}
        return {**self._scores, **each}

    @property
    def functions(self) -> dict[str, Callable[[Any, Any], object]]:
        """The metrics that are functions of all targets and predictions, by name."""
        measures = [(n, m) for _, n, m in self._measures if isinstance(m, FunctionMetric)]
        return {n: m.function for n, m in measures if m.is_of_pairs}

    @property
    def need_clean_inputs(self) -> bool:
        """Whether one of them is given the inputs as they were before perturbations."""
        wanting = [*self._scores.values(), *(meter for _, _, meter in self._measures)]
        return bool(self._comparisons) or any(meter.wants_inputs for meter in wanting)

    def start(self) -> None:
        """Reset those that keep a state."""
        for stage, _, meter in self._measures + self._distances:
            self._place.stage = stage
            if isinstance(meter, IncrementalMetric):
                meter.start()

    def update(self, batch: Batch, predictions: Any) -> None:
        """Take in a batch with its predictions."""
        for stage, update in self._updates:
            self._place.stage = stage
            update(predictions, batch.targets, batch.given)
        for stage, score in self._scorers:
            self._place.stage = stage
            score(batch.targets, predictions, batch.given, batch.count)
        for stage, update in self._comparisons:
            self._place.stage = stage
            update(batch.inputs, batch.perturbed)

    def results(self) -> dict[str, object]:
        """What they measured, by reported name."""
        measured: dict[str, object] = {}
        for name, score in self._scores.items():
            measured |= score.results(name)
        for stage, name, meter in self._measures + self._distances:
            self._place.stage = stage
            measured |= meter.results(name)
        return measured


def _updates(meters: list[tuple[str, str, Meter]]) -> list[tuple[str, Callable[..., Any]]]:
    return [
        (stage, meter.update) for stage, _, meter in meters if not isinstance(meter, FunctionMetric)
    ]
