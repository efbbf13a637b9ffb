"""The metrics of a body that runs several times in one run: by repeat, and their means.

A metric without steps of its own has the value of each repeat at the steps 0, 1, …, and their mean
one step later, which is what MLflow shows and what gates judge. One with steps of its own keeps
them: its repeat's value is its last, and the mean stands one step past the highest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter, time
from typing import Any, Protocol

from pytest_armory.gates.past_runs import LARGEST
from pytest_armory.records.tags import REPEATS
from pytest_armory.tables import Score
from pytest_armory.track.activation import own_metrics
from pytest_armory.track.connection import RunConnection
from pytest_armory.track.kept_samples import KeptSamples
from pytest_armory.track.logged_metrics import LoggedMetrics
from pytest_armory.track.stored_params import StoredParams
from pytest_armory.values import legal_key
from pytest_armory.values.totals import total

ALL_REPEATS = "all_repeats/"
"""What begins the name of a metric that is of all repeats so far."""

LOG_SECONDS = 5.0
"""How often it is logged at most which repeat it is."""

_NO_MEAN = ("progress/", "system/", ALL_REPEATS)
_NO_INTERVAL = ("time/", "samples", "errors", "duration_seconds")


Metric = tuple[str, float, int]
"""A metric's name, value and step."""


class Writer(Protocol):
    """What writes to the run whose body is repeated."""

    connection: RunConnection
    metrics: LoggedMetrics
    params: StoredParams
    samples: KeptSamples
    measured: dict[str, float]

    def write(self, *, metrics: Sequence[Metric], tags: Mapping[str, str]) -> None:
        """Write to the run."""

    def log_results(self, numbers: Mapping[str, float], arrays: Mapping[str, object]) -> None:
        """Write metrics and arrays."""

    def log_step_metrics(self, numbers: Mapping[str, float], step: int) -> None:
        """Write what tells the progress, after what did so before."""

    def entity(self) -> Any:
        """The run as it is stored."""


class Repeats:
    """The repeats of one run's body, of which there are ``number``; ``current`` counts from 0."""

    def __init__(self, writer: Writer, number: int) -> None:
        self.number = number
        self.current = 0
        self._writer = writer
        self._values: list[dict[str, float]] = [{} for _ in range(number)]
        self._highest: dict[str, int] = {}
        self._with_steps: set[str] = set()
        self._unknown: list[dict[str, str]] = [{} for _ in range(number)]
        """The metrics whose values are not known in a repeat, and why."""
        self._inner: set[str] = set()
        """The metrics of runs that the body opens inside its own."""
        self.began = time()
        """When the current repeat began, in seconds since the epoch."""
        self._logged = perf_counter()
        """When it was last logged which repeat it is."""

    # While a body runs

    def step_of(self, name: str, step: int) -> int:
        """The step at which a metric is stored; the position of this repeat unless it has one."""
        is_plain = step == 0 and name not in self._with_steps
        if is_plain:
            return self.current
        self._with_steps.add(name)
        return step

    def note_history(self, name: str, values: Sequence[float]) -> None:
        """Take in a metric that is logged with one value for each step, counted from 0."""
        self._with_steps.add(name)
        for step, value in enumerate(values):
            self.note(name, value, step)

    def note_unknown(self, reasons: Mapping[str, str]) -> None:
        """Take in why metrics are not known in this repeat; those that it has are none of them."""
        values = self._values[self.current]
        unknown = {n: why for n, why in reasons.items() if math.isnan(values.get(n, math.nan))}
        self._unknown[self.current].update(unknown)

    def note(self, name: str, value: float, step: int) -> None:
        """Take in a value that is stored at a step."""
        self._unknown[self.current].pop(name, None)
        if not name.startswith(_NO_MEAN):
            known = self._highest.get(name, -1)
            is_last = name not in self._values[self.current] or step >= known
            self._highest[name] = max(step, known)
            if is_last:
                self._values[self.current][name] = value

    # Between bodies

    def end_body(self) -> None:
        """Take in what the body has logged by ``mlflow.*`` itself."""
        writer, connection = self._writer, self._writer.connection
        if connection.location is None or "mlflow" not in sys.modules:
            return
        from pytest_armory.store.runs import last_values

        inner = own_metrics(self.began, connection.activation)
        ours = writer.metrics.values.keys() - self._inner
        new = {name: value for name, value in inner.items() if name not in ours}
        self._inner |= new.keys()
        writer.log_results(new, {})
        for metric in last_values(writer.entity()):
            if metric.key not in writer.metrics.values:
                self._with_steps.add(metric.key)
                self.note(metric.key, metric.value, metric.step)

    def begin_body(self) -> None:
        """Begin the next repeat, as if nothing had been logged."""
        self.current += 1
        self.began = time()
        self._writer.measured.clear()
        self._writer.params.begin_repeat()
        self._writer.samples.begin_repeat()
        if perf_counter() - self._logged >= LOG_SECONDS:
            self._writer.log_step_metrics({"progress/repeat": self.current + 1.0}, 0)
            self._logged = perf_counter()

    def finish(self) -> None:
        """Store the means, the intervals and what repeated answers are worth, in one request."""
        writer = self._writer
        scores = {name: part.score(name) for part, name in writer.samples.table.each_score()}
        unknown = {name: why for reasons in self._unknown for name, why in reasons.items()}
        metrics: list[Metric] = []
        for name, score in scores.items():
            metrics += self._by_repeat(name, score)
            metrics += _passes(score, self.number)
        for name, step in self._highest.items():
            values = [known[name] for known in self._values if name in known]
            values += [math.nan] if name in unknown else []
            mean = total(values) / len(values) if all(map(math.isfinite, values)) else math.nan
            metrics.append((name, mean, step + 1 if name in self._with_steps else self.number))
            given = writer.metrics.without_evaluation(name)
            if name not in scores and not given.startswith(_NO_INTERVAL):
                metrics += self._interval(name, values)
        self._note(metrics)
        writer.metrics.unknown.update(unknown)
        writer.write(metrics=metrics, tags={REPEATS: str(self.number)})

    def store_scores(self) -> None:
        """Store the means of ``track_samples`` by repeat, where a failed body kept them from it."""
        table = self._writer.samples.table
        parts = [(part, name) for part, name in table.each_score() if not part.source]
        metrics = [one for part, name in parts for one in self._by_repeat(name, part.score(name))]
        if metrics:
            self._note(metrics)
            self._writer.write(metrics=metrics, tags={})

    def _by_repeat(self, name: str, score: Score) -> Iterable[Metric]:
        """The means of a score that no engine has measured, which are not stored yet."""
        if name in self._highest or score.repeats is None:
            return
        for repeat in range(self.number):
            mean = score.selected(score.repeats == repeat).mean
            if mean is not None:
                self._values[repeat][name] = mean
                self._highest[name] = repeat
                yield (name, mean, repeat)

    def _interval(self, name: str, values: list[float]) -> Iterable[Metric]:
        """The confidence interval of the mean of all repeats: Student's t."""
        from pytest_armory.statistics.intervals import mean_interval

        if len(values) > 1 and all(abs(value) <= LARGEST for value in values):
            low, high = mean_interval(values, self._writer.samples.confidence)
            yield (legal_key(f"{name}/ci_low"), float(low), 0)
            yield (legal_key(f"{name}/ci_high"), float(high), 0)

    def _note(self, metrics: Iterable[Metric]) -> None:
        logged = self._writer.metrics
        sequences = set(logged.sequences)  # no gate judges these, nor their means
        for name, value, step in metrics:
            logged.note({name: value}, step)
        logged.sequences |= sequences


def _passes(score: Score, number: int) -> Iterable[Metric]:
    """Of right and wrong answers: all of them right, and one at least, over the samples.

    Samples without an answer in some repeat are left out.
    """
    from pytest_armory.statistics.passes import pass_at, pass_hat

    if score.repeats is None or not score.is_binary:
        return
    answers: dict[object, list[float]] = {}
    for one, value in zip(score.valid.ids.tolist(), score.valid.values.tolist(), strict=True):
        answers.setdefault(one, []).append(value)
    right = [int(sum(values)) for values in answers.values() if len(values) == number]
    if right:
        for kind, function in (("hat", pass_hat), ("at", pass_at)):
            mean = sum(function(count, number, number) for count in right) / len(right)
            yield (legal_key(f"{score.name}/pass_{kind}_{number}"), mean, 0)


def steps_of(repeats: Repeats | None, numbers: Mapping[str, float], step: int) -> dict[str, int]:
    """The step of each of several metrics that are logged at one."""
    if repeats is None:
        return dict.fromkeys(numbers, step)
    steps = {name: repeats.step_of(name, step) for name in numbers}
    for name, value in numbers.items():
        repeats.note(name, value, steps[name])
    return steps
