"""One iteration over a dataset: perturbations, model and metrics on each batch, timed by stage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from textwrap import shorten
from time import perf_counter
from typing import Any

from pytest_armory.engine.answers import Answers, Batch, failure
from pytest_armory.engine.arrays import (
    RefusedError,
    copied,
    describe,
    detached,
    length,
    samples,
    taken,
    widened,
)
from pytest_armory.engine.calls import is_async, is_given_whole, perturber, predictor
from pytest_armory.engine.dataset import (
    batch_count,
    batches,
    check_lengths,
    for_module,
    is_collated,
    most_samples,
)
from pytest_armory.engine.evaluation import Evaluation
from pytest_armory.engine.meters import Meters, Position
from pytest_armory.engine.modules import device_of, first_device, module_of, moved
from pytest_armory.engine.preparing import (
    WITHOUT_TARGETS,
    check_predictions,
    no_parameters,
    no_tensor,
    output_transform,
    pair_of,
    prepare_batch,
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
        self.is_async = is_async(evaluation.model)
        self.size = evaluation.batch_size or (evaluation.concurrency if self.is_async else None)
        self.total = batch_count(evaluation.dataset, self.size, limit)
        self.predict = predictor(evaluation.model)
        self.is_module = module_of(evaluation.model) is not None
        self.dataset = for_module(evaluation.dataset) if self.is_module else evaluation.dataset
        own = evaluation.prepare_batch
        self.prepare: Callable[[Any], tuple[Any, Any]] = (
            partial(pair_of, own)
            if own is not None
            else partial(prepare_batch, is_known=is_collated(evaluation.dataset))
        )
        self.transform = evaluation.output_transform or output_transform
        self.device = device_of(evaluation.model)
        self.origin: Any = None
        self.perturbations = [
            (f"perturbation {name!r}", perturber(perturbation))
            for name, perturbation in evaluation.perturbations.items()
        ]
        self.place = Position()
        self.meters = Meters(evaluation, self.place)
        self.recorder = SampleRecorder(evaluation, self.meters.per_sample, opener)
        # A perturbation that writes into its inputs would be compared with what it wrote.
        self.copies = bool(self.perturbations and self.meters.need_clean_inputs)
        self.batches = self.samples = self.largest = 0
        self.failures: list[str] = []
        self.unfit = ""
        self.has_targets = True
        self.measured: dict[str, object] = {}
        self.fetching = self.predicting = self.measuring = self.elapsed = 0.0
        self.perturbing = [0.0] * len(self.perturbations)

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
            raise EvaluationError(f"{self._where()}: raised {text}{self._advice()}") from error

    def _advice(self) -> str:
        """What may be wrong where a module has failed, or a metric: it may need missing targets."""
        if self.place.stage == "model":
            return self.unfit
        if self.has_targets or not self.place.stage.startswith(("metric", "sample metric")):
            return ""
        return f"; {WITHOUT_TARGETS}"

    def _where(self) -> str:
        return f"evaluation {self.evaluation.name!r}{self.place}"

    def over_batches(self) -> None:
        """Iterate to the end of the dataset, keeping only what the metrics keep."""
        for item in self._fetched():
            batch = self._prepared(item)
            del item
            begun = perf_counter()
            answers = self._answered(batch)
            self.predicting += perf_counter() - begun
            self._measure(batch, answers)
            del batch, answers  # freed before the next one is created

    async def over_batches_concurrently(self) -> None:
        """The same with an async model, whose calls overlap, also those of several batches."""
        from pytest_armory.engine.concurrency import ConcurrentCalls, collected, so_far

        keep_errors = self.evaluation.max_errors is not None
        calls = ConcurrentCalls(self.predict, self.evaluation.concurrency)
        waiting: deque[tuple[Batch, list[Any]]] = deque()

        async def measure_answered(*, until_free: bool) -> None:
            begun = perf_counter()
            await (calls.until_free() if until_free else calls.all_of(waiting[0][1]))
            self.predicting += perf_counter() - begun
            while waiting and all(task.done() for task in waiting[0][1]):
                batch, tasks = waiting.popleft()
                self.place.stage, self.place.index = "model", batch.index
                try:
                    answers = collected(tasks, keep_errors=keep_errors)
                except BaseException:
                    waiting.appendleft((batch, tasks))
                    raise
                self._measure(batch, answers)
            if keep_errors and calls.failures:
                self._check_failed(self._most_samples(), calls.failures, calls.ended)

        try:
            for item in self._fetched():
                batch = self._prepared(item)
                waiting.append((batch, calls.start(batch)))
                await measure_answered(until_free=True)
            while waiting:
                await measure_answered(until_free=False)
        except BaseException:
            place = self.place.stage, self.place.index
            await calls.cancel()
            self.failures = calls.failures
            with suppress(Exception):  # of a metric: the run ends with the error that ended it
                for batch, tasks in waiting:
                    self._record(batch, so_far(tasks))
            self.place.stage, self.place.index = place
            raise

    def _fetched(self) -> Iterator[Any]:
        """The dataset's batches as they are given, timed."""
        self.meters.start()
        source = batches(self.dataset, self.size, self.limit)
        fetched, place = 0, self.place
        place.in_batch = True
        while True:
            place.stage, place.index = "dataset", fetched
            begun = perf_counter()
            item = next(source, _END)
            self.fetching += perf_counter() - begun
            if item is _END:
                break
            yield item
            del item
            fetched += 1
        place.in_batch = False
        if not fetched:
            raise RefusedError(
                "gave no batches; an iterator such as a generator can be read once only: "
                "make a new one for each run, or give a list or a DataLoader"
            )

    def _prepared(self, item: Any) -> Batch:
        """A batch as inputs and targets on the model's device, with its perturbed inputs."""
        given, targets = self.prepare(item)
        if self.evaluation.prepare_batch is None:  # batches have one form
            self.prepare = partial(prepare_batch, is_known=True)
        self.has_targets = targets is not None
        inputs = given
        count = check_lengths(given, targets)
        if count > self.largest:
            self.largest = count
        if self.device is not None:
            self.origin = first_device(given)
            inputs, targets = moved(given, self.device), moved(targets, self.device)
        perturbed = self._perturbed(inputs, targets) if self.perturbations else inputs
        self.place.stage = "model"
        return Batch(self.place.index, given, inputs, perturbed, targets, count)

    def _perturbed(self, inputs: Any, targets: Any) -> Any:
        perturbed = copied(inputs) if self.copies else inputs
        for index, (stage, perturb) in enumerate(self.perturbations):
            self.place.stage = stage
            begun = perf_counter()
            perturbed = _check_perturbed(perturb(perturbed, targets), perturbed)
            self.perturbing[index] += perf_counter() - begun
        return perturbed

    def _answered(self, batch: Batch) -> Answers:
        """The output of a model for a batch; a failure is that of all its samples."""
        try:
            return Answers(self.predict(batch.perturbed))
        except Exception as error:
            if self.evaluation.max_errors is None:
                self.unfit = self._unfit(batch.perturbed, error)
                raise
            return Answers(None, dict.fromkeys(range(batch.count), failure(error)))

    def _unfit(self, inputs: Any, error: Exception) -> str:
        """Why inputs may be unfit for a model that has failed, and what to write; or ""."""
        found = no_tensor(inputs) if self.is_module else ""
        if found or not isinstance(error, (TypeError, AttributeError)):
            return found
        return no_parameters(inputs) if is_given_whole(self.evaluation.model, inputs) else ""

    def _measure(self, batch: Batch, answers: Answers) -> None:
        """Take a batch in, and show progress."""
        begun = perf_counter()
        self._record(batch, answers)
        ended = perf_counter()
        self.measuring += ended - begun
        self.failures += answers.errors.values()
        if self.failures:
            self._check_failed(self._most_samples(), self.failures, self.samples)
        self.batches += 1
        if ended >= self.ticker.due:
            self.ticker.tick(self.progress())

    def _record(self, batch: Batch, answers: Answers) -> None:
        """Take in what was answered of a batch: in metrics, and as rows."""
        good: Sequence[int] = range(batch.count)
        if answers.errors:
            good = [i for i in good if i not in answers.errors]
        predictions = None
        if good:
            self.place.stage = "model"
            output = self.transform(answers.output)
            if self.origin is not None:
                output = moved(output, self.origin)
            predictions = check_predictions(output, len(good))
            self.meters.update(self._origins(batch, answers, good), predictions)
        self.place.stage = "samples"
        self.recorder.add(batch, predictions, good, answers.errors)
        self.samples += batch.count

    def _origins(self, batch: Batch, answers: Answers, good: Sequence[int]) -> Batch:
        """What metrics are given of a batch: the answered samples, targets where they came from.

        Targets and predictions have float types that NumPy has, too, for scikit-learn's functions.
        """
        if answers.errors:
            batch = _only(batch, good)
        targets = batch.targets
        if self.origin is not None:
            targets = moved(targets, self.origin)
        targets = widened(targets)
        return batch if targets is batch.targets else replace(batch, targets=targets)

    def _most_samples(self) -> int | None:
        return most_samples(self.evaluation.dataset, self.total, self.largest)

    def _check_failed(self, samples: int | None, failures: Sequence[str], calls: int) -> None:
        """Refuse more failed calls than are allowed among so many samples."""
        share = self.evaluation.max_errors
        if share is None or samples is None or len(failures) <= share * samples * (1 + 1e-9):
            return
        self.place.stage, self.place.in_batch = "model", False
        raise RefusedError(
            f"{len(failures):,} of {calls:,} calls failed, which is more than "
            f"max_errors={share:g} allows of {samples:,}; the first: {failures[0]}"
        )

    def finish(self) -> None:
        """Compute `measured`, the metrics' results by reported name."""
        begun = perf_counter()
        self.place.stage = "samples"
        self._check_failed(self.samples, self.failures, self.samples)
        if self.limit is None:
            self.recorder.check_all_came()
        self.measured = self.meters.results()
        ended = perf_counter()
        self.measuring += ended - begun
        self.elapsed = ended - self.ticker.begun

    def progress(self) -> Progress:
        """The progress so far."""
        seconds = perf_counter() - self.ticker.begun
        done = self.batches, self.total, self.samples
        return Progress(self.evaluation.name, *done, seconds, *self.ticker.repeat)

    def engine_numbers(self) -> dict[str, float]:
        """Sizes, speed and seconds per stage, by the name each is reported under."""
        each = zip(self.evaluation.perturbations, self.perturbing, strict=True)
        return {
            "samples": float(self.samples),
            **({} if self.evaluation.max_errors is None else {"errors": float(len(self.failures))}),
            "samples_per_second": self.samples / max(self.elapsed, 1e-9),
            "time/data_seconds": self.fetching,
            "time/perturb_seconds": sum(self.perturbing),
            **{f"time/perturb/{name}_seconds": seconds for name, seconds in each},
            "time/predict_seconds": self.predicting,
            "time/metrics_seconds": self.measuring,
            "time/total_seconds": self.elapsed,
        }


def _only(batch: Batch, positions: Sequence[int]) -> Batch:
    """The samples of a batch at these positions."""
    given, inputs, perturbed, targets = (
        taken(values, positions)
        for values in (batch.given, batch.inputs, batch.perturbed, batch.targets)
    )
    return Batch(batch.index, given, inputs, perturbed, targets, len(positions))


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
