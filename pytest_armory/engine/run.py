"""Running an evaluation, and logging its results to the current run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pytest_armory.engine.arrays import RefusedError, describe, whole_number
from pytest_armory.engine.dataset import is_arrays
from pytest_armory.engine.evaluation import Evaluation
from pytest_armory.engine.modules import evaluating
from pytest_armory.engine.progress import Progress, StepLog, Ticker, terminal_line
from pytest_armory.engine.recorder import SampleOpener
from pytest_armory.engine.walk import Walk
from pytest_armory.errors import EvaluationError, MetricWarning
from pytest_armory.values import metric_values


@dataclass(frozen=True)
class EvaluationResults:
    """What one run measured.

    - `name`: the evaluation's.
    - `metrics`: numbers by slash-joined name: the evaluation's own; `samples`; `samples_per_second`
      of the run as a whole; `time/data_seconds`, `time/perturb_seconds`,
      `time/perturb/<name>_seconds`, `time/predict_seconds`, `time/metrics_seconds` and
      `time/total_seconds`, in seconds of wall clock.
    - `arrays`: array-valued results by name, as lists that can be written as JSON.
    - `batches`, `samples`: their numbers.
    """

    name: str
    metrics: dict[str, float]
    arrays: dict[str, Any] = field(repr=False)
    batches: int
    samples: int


class ResultLog(StepLog, SampleOpener, Protocol):
    """What writes to a tracked run."""

    def log_evaluation(
        self,
        evaluation: str,
        numbers: Mapping[str, float],
        arrays: Mapping[str, object],
        names: Mapping[str, str],
        functions: Mapping[str, Callable[[Any, Any], object]],
        repeated: Collection[str],
    ) -> Mapping[str, tuple[str, str]]:
        """Write what an evaluation measured; returns which metrics another one had, and which.

        ``functions`` are the metrics that are functions of all predictions, ``repeated`` those that
        several rows of a list have.
        """

    def log_results(self, numbers: Mapping[str, float], arrays: Mapping[str, object]) -> None:
        """Write metrics and arrays."""


class CurrentRun(Protocol):
    """The tracked run that an engine is run in."""

    @property
    def writer(self) -> ResultLog:
        """What writes to it."""


class Track(Protocol):
    """What the engine needs of `pytest_armory.track`."""

    def current_run(self) -> CurrentRun | None:
        """The run to log results to, or None."""

    def convert_result(self, result: object, /) -> object:
        """A result of a type that a hook of the plugin knows, as numbers or a mapping."""


def _track() -> Track:
    from pytest_armory import track  # here, so that an Evaluation can be described without it

    return track


class Engine:
    """Runs an evaluation and logs its results to the current tracked run, if there is one.

    `progress` is called with a `Progress` at most five times a second and once at the end. Without
    it, a line on standard error shows progress if that is a terminal; False shows nothing.
    `limit_batches` ends the run after so many batches, as a quick check does.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        progress: Callable[[Progress], object] | Literal[False] | None = None,
        limit_batches: int | None = None,
    ) -> None:
        if not isinstance(evaluation, Evaluation):
            raise EvaluationError(
                f"Engine: evaluation must be an Evaluation, got {describe(evaluation)}; "
                "write Engine(Evaluation(name=..., dataset=..., model=...))"
            )
        if progress is not None and progress is not False and not callable(progress):
            raise EvaluationError(
                f"Engine: progress must be a callable f(progress), got {describe(progress)}; "
                "leave it out for the terminal's line, or write progress=False for none"
            )
        self.evaluation = evaluation
        self.progress = progress
        self.limit_batches = _checked_limit(limit_batches, evaluation)

    def run(self) -> EvaluationResults:
        """Iterate over the dataset once and return the results.

        It may be called again if the dataset can be iterated over again; metrics are reset first.
        An error in the evaluation's parts is raised as EvaluationError, from its cause, naming
        evaluation, batch and metric. A result that is no metric is left out with a MetricWarning.
        An `async def` model runs in an event loop that all engines of the main thread share.
        """
        with self._walking() as walk:
            if walk.is_async:
                _run_in_loop(walk)
            else:
                walk.over_batches()
        return self._results(walk)

    async def arun(self) -> EvaluationResults:
        """The same as `run`, in the event loop that runs already: `await Engine(e).arun()`.

        A model that is not `async def` blocks the loop meanwhile.
        """
        with self._walking() as walk:
            if walk.is_async:
                await walk.over_batches_concurrently()
            else:
                walk.over_batches()
        return self._results(walk)

    @contextmanager
    def _walking(self) -> Iterator[Walk]:
        """While the dataset is iterated over: shows progress, and locates errors."""
        line = terminal_line() if self.progress is None else None
        log = _current_log()
        walk = Walk(self.evaluation, Ticker(self.progress or line, log), self.limit_batches, log)
        try:
            with walk.errors_located(), evaluating(self.evaluation.model):
                yield walk
                walk.finish()
        except BaseException:
            if log is not None and self.evaluation.max_errors is not None:
                log.log_results({"errors": float(len(walk.failures))}, {})
            raise
        finally:
            if line is not None:
                line.wipe()
        if self.progress:
            self.progress(walk.progress())

    def _results(self, walk: Walk) -> EvaluationResults:
        """Log the results of a run to the current tracked run, if there is one."""
        name, own, log = self.evaluation.name, walk.engine_numbers(), _current_log()
        values = metric_values({**walk.measured, **own}, convert=_track().convert_result)
        shared: Mapping[str, tuple[str, str]] = {}
        if log is not None:
            taken = log.log_evaluation(
                name,
                values.numbers,
                values.arrays,
                values.names,
                walk.meters.functions,
                values.repeated,
            )
            shared = {k: v for k, v in taken.items() if values.names.get(k) not in own}
        if shared:
            metric, (first, key) = next(iter(shared.items()))
            warnings.warn(
                f"the evaluations {first!r} and {name!r} of one run both measured "
                f"{', '.join(map(repr, shared))}: {metric!r} is that of {first!r}, and that of "
                f"{name!r} is stored as {key!r}; put the name of "
                "Evaluation(name=…) into the metric's name, or give each a test of its own",
                MetricWarning,
                stacklevel=3,
            )
        for metric, reason in values.refused.items():
            warnings.warn(
                f"evaluation {name!r}: metric {metric!r} was left out: {reason}",
                MetricWarning,
                stacklevel=3,
            )
        return EvaluationResults(name, values.numbers, values.arrays, walk.batches, walk.samples)


def _current_log() -> ResultLog | None:
    current = _track().current_run()
    return current.writer if current is not None else None


def _run_in_loop(walk: Walk) -> None:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        from pytest_armory.engine.concurrency import run_in_loop

        run_in_loop(walk.over_batches_concurrently())
    else:
        walk.place.stage = "model"
        raise RefusedError(
            "is `async def`, and an event loop is running here already; write "
            "`await Engine(evaluation).arun()`"
        )


def _checked_limit(limit: object, evaluation: Evaluation) -> int | None:
    if limit is None:
        return None
    batches = whole_number(limit)
    if batches < 1:
        raise EvaluationError(
            f"Engine: limit_batches must be a whole number, 1 or more, got {describe(limit)}; "
            "leave it out for all batches"
        )
    if evaluation.batch_size is None and is_arrays(evaluation.dataset):
        raise EvaluationError(
            f"Engine: limit_batches={batches} limits nothing, for all samples of the evaluation "
            f"{evaluation.name!r} are one batch; write Evaluation(batch_size=..., ...)"
        )
    return batches
