"""Writing to a run, for the plugin, the engine and scripts, in as few requests as possible."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pytest_armory.errors import ParameterWarning, StoreRefusedError, TrackingError
from pytest_armory.records.sample_tag import DatasetIdentity
from pytest_armory.track.activation import own_metrics
from pytest_armory.track.connection import RunConnection
from pytest_armory.track.contents import TABLES_TAG, Tables, json_text
from pytest_armory.track.kept_samples import EngineRows, KeptSamples, SampleResults
from pytest_armory.track.location import Location
from pytest_armory.track.logged_metrics import LoggedMetrics
from pytest_armory.track.repeats import Metric, Repeats, steps_of
from pytest_armory.track.results import warn_of_refused
from pytest_armory.track.stored_params import StoredParams
from pytest_armory.values import array_files, legal_key


class RunWriter:
    """Writes to one run, and keeps what was logged; for a run in memory it only keeps it."""

    def __init__(self, connection: RunConnection) -> None:
        self.connection = connection
        connection.restore = partial(_restore, self)
        self.params = StoredParams()
        self.metrics = LoggedMetrics()
        self.samples = KeptSamples(self.metrics)
        self.measured: dict[str, float] = {}
        """The seconds of each duration that was measured in the run."""
        self.recorded: Callable[[], Mapping[str, str]] | None = None
        """The parameters that are to be stored when the run ends, as they are now, until then."""
        self.repeats: Repeats | None = None
        """The repeats of the run's body, if it has any."""
        self._last_time = 0
        self._last_step = -1
        """The highest step of what :meth:`log_step_metrics` has stored."""
        self._steps_before = 0
        self._last_files: dict[str, object] = {}
        self._sample_files: object = None
        """Which call has stored the samples last."""
        self._tables = Tables()
        self._datasets: Sequence[DatasetIdentity] = ()
        self.was_used = False
        """Whether anything was logged, be it stored or not."""

    def write(
        self,
        params: Mapping[str, str] | None = None,
        metrics: Sequence[Metric] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write everything given in one request, the parameters clipped to MLflow's limit."""
        self.was_used = True
        new = self.params.add(params or {})
        tags = {**(tags or {}), **self.metrics.new_tags(metrics), **self.params.new_tags()}
        self.connection.tags.update(tags)
        if self.connection.location is None or not (new or metrics or tags):
            return
        from pytest_armory.store import milliseconds

        # Once: what is sent again after a lost response is the same value. And later than the last:
        # MLflow shows the latest, and of several at one time the greatest.
        now = self._last_time = max(milliseconds(), self._last_time + 1)

        def send(location: Location) -> None:
            log = partial(location.store.log_batch, location.run_id, now=now)
            newest = _last_values(self.connection, tags)
            try:
                log(params=new, metrics=metrics, tags=newest)
            except StoreRefusedError:
                self._write_singly(log, new, metrics, newest)

        self.connection.do(send)

    def _write_singly(
        self,
        write: Callable[..., None],
        params: Mapping[str, str],
        metrics: Sequence[Metric],
        tags: Mapping[str, str],
    ) -> None:
        """Write each item of a refused batch: MLflow refuses a batch for one item.

        For instance for a parameter that the test has logged itself with another value.
        """
        for key, value in params.items():
            try:
                write(params={key: value})
            except StoreRefusedError as error:
                self._refused(key, error)
        for metric in metrics:
            self.connection.attempt(partial(write, metrics=[metric]))
        self.connection.attempt(partial(write, tags=tags))

    def _refused(self, key: str, error: TrackingError) -> None:
        self.params.refuse(key)
        text = f"the parameter {key!r} is only in the artifact params.json: {error}"
        if self.connection.raises:
            warnings.warn(text, ParameterWarning, stacklevel=2)
        else:
            self.connection.problems.append(text)

    def known_params(self) -> dict[str, str]:
        """The last value of each parameter, those that are stored when the run ends among them."""
        return self.params.values if self.recorded is None else self.params.known(self.recorded())

    def entity(self) -> Any:
        """MLflow's own ``Run`` as it is stored; of a run in memory one made of what is known.

        The latter too where the store cannot be read in a session, which reports that.
        """
        from pytest_armory.store.runs import run_in_memory

        found: list[Any] = []

        def read(location: Location) -> None:
            found.append(location.store.entity(location.run_id))

        self.connection.do(read)
        if found:
            return found[0]
        return run_in_memory(self.known_params(), self.metrics.values, self.connection.tags)

    def inherit(self, params: Mapping[str, object]) -> None:
        """Write a tracking context's parameters when the run opens; in memory only keep them."""
        if self.connection.location is None:
            self.params.inherit(params)
        else:
            self.record(params)

    def record(self, params: Mapping[str, object]) -> None:
        """Write a tracking context's parameters that have changed since the last call."""
        self.write(params=self.params.changed_since_recorded(params))

    def log_results(
        self,
        numbers: Mapping[str, float],
        arrays: Mapping[str, object],
        step: int = 0,
        histories: Mapping[str, Sequence[float]] | None = None,
        names: Mapping[str, str] | None = None,
        repeated: Collection[str] = (),
        *,
        is_evaluation: bool = False,
    ) -> None:
        """Store numbers as metrics and arrays as ``metrics/<name>.json``.

        ``histories`` are metrics with a value for each step, counted from 0. ``names`` are the
        names that were given, by the legal ones: a metric that would get the name of another one
        is left out, with a :class:`MetricWarning`. No gate judges what is ``repeated`` in a list.
        """
        names = names or {}
        known = {} if is_evaluation else names
        stored = {name: self.metrics.stored_name(name, given) for name, given in known.items()}
        problems = {n: self.metrics.refused(stored.get(n, n), given) for n, given in names.items()}
        by_step, left_out = self.metrics.kept_histories(histories or {})
        left_out |= {names[name]: why for name, why in problems.items() if why}
        warn_of_refused(left_out, stacklevel=3)
        kept = {n: legal_key(stored.get(n, n)) for n in [*numbers, *arrays] if not problems.get(n)}
        numbers = {kept[name]: value for name, value in numbers.items() if name in kept}
        arrays = {kept[name]: value for name, value in arrays.items() if name in kept}
        steps = steps_of(self.repeats, numbers, step)
        for name, value in numbers.items():
            self.metrics.note({name: value}, steps[name])
        for name, values in by_step.items():
            self.metrics.note_history(name, values)
            if self.repeats is not None:
                self.repeats.note_history(name, values)
        self.metrics.note_source([*numbers, *by_step], is_evaluation=is_evaluation)
        self.metrics.sequences.update(kept[name] for name in repeated if name in kept)
        self.metrics.note_arrays(arrays)
        self.write(
            metrics=[
                *((name, value, steps[name]) for name, value in numbers.items()),
                *((name, v, i) for name, values in by_step.items() for i, v in enumerate(values)),
            ]
        )
        if arrays and self.connection.location is not None:
            files = array_files(arrays)
            self.store_files({files[name]: json_text(array) for name, array in arrays.items()})

    def log_evaluation(
        self,
        evaluation: str,
        numbers: Mapping[str, float],
        arrays: Mapping[str, object],
        names: Mapping[str, str],
        functions: Mapping[str, Callable[[Any, Any], object]] | None = None,
        repeated: Collection[str] = (),
        *,
        is_partial: bool = False,
    ) -> Mapping[str, tuple[str, str]]:
        """Store what an evaluation measured; returns its metrics that another one's name has.

        Each with that evaluation, and what it is stored as instead: ``{evaluation}/{metric}``.
        ``functions`` are the metrics that are functions of all predictions, by name. The rows of an
        evaluation that is partial remain so.
        """
        taken = self.metrics.taken([*numbers, *arrays], evaluation)
        own = self.metrics.own_names(taken, evaluation)
        given = {own.get(k, k): f"{evaluation}/{v}" if k in own else v for k, v in names.items()}
        self.log_results(
            {own.get(name, name): value for name, value in numbers.items()},
            {own.get(name, name): value for name, value in arrays.items()},
            names=given,
            repeated=[own.get(name, name) for name in repeated],
            is_evaluation=True,
        )
        keys: dict[str, str] = {}
        for key, name in names.items():
            keys.setdefault(name, own.get(key, key))
        self.samples.end(evaluation, keys, is_partial=is_partial)
        if functions:
            from pytest_armory.gates.functions import functions_of

            results = {key: names.get(key, key) for key in numbers}
            for metric in functions_of(evaluation, results, functions):
                self.samples.functions[own.get(metric.key, metric.key)] = metric
        return {name: (first, own[name]) for name, first in taken.items()}

    def open_samples(
        self, evaluation: str, scores: Sequence[str], dataset: str, higher_is_worse: Sequence[str]
    ) -> EngineRows:
        """The rows to which an evaluation adds its samples."""
        return self.samples.open(evaluation, scores, dataset, higher_is_worse)

    def store_samples_on_the_way(self) -> None:
        """Store a partial copy of the samples so far, where that is due."""
        if self.connection.location is not None and self.samples.is_copy_due():
            self._store_samples(self.samples.partial_tags())

    def _store_samples(
        self, tags: Mapping[str, str] | None = None, datasets: Sequence[DatasetIdentity] = ()
    ) -> None:
        """Store the samples, in the background where that hides latency."""
        from pytest_armory.tables.files import JSON, sample_files

        changes = self.samples.changes
        with self.samples.table.lock:
            files = sample_files(self.samples.table, is_partial=bool(tags), changes=changes)
        self.connection.tags.update(tags or {})

        def describe(location: Location) -> None:
            new = _last_values(self.connection, [*(tags or {}), *self._table_tag(JSON, location)])
            if new:
                location.store.log_batch(location.run_id, tags=new)
            location.store.log_datasets(location.run, datasets)

        self.connection.do_later(describe)
        replaced = [n for n in files if self._last_files.get(n) is not self._sample_files]
        if replaced:
            self.connection.problems.append(
                f"{' and '.join(replaced)} that the evaluation logged is replaced by the file of "
                "its samples, which has this name; log it under another one"
            )
        self.store_files(files)
        self._sample_files = self._last_files[JSON]

    def _table_tag(self, name: str, location: Location | None) -> dict[str, str]:
        """The tag by which MLflow's page finds a table, unless the run has it.

        At a location it is added to what is there, which takes a request.
        """
        if name in self._tables.tagged:
            return {}
        stored = location.store.entity(location.run_id).data.tags if location is not None else {}
        known, problems = stored.get(TABLES_TAG, ""), self.connection.problems
        tag = {TABLES_TAG: self._tables.tag(known, problems, name)}
        self.connection.tags.update(tag)
        return tag

    def sample_results(self, *, is_interrupted: bool = False) -> SampleResults:
        """What is written of the samples when the run ends, in its last batch.

        ``is_interrupted`` says that the run was interrupted.
        """
        location = self.connection.location
        if location is None or not (self.samples.table or self.samples.data):
            return SampleResults()
        from pytest_armory.tables.files import JSON

        self.samples.table.is_interrupted = is_interrupted
        if self.repeats is not None:
            self.repeats.store_scores()
        with self.samples.table.lock:
            found = self.samples.results()
        self._datasets = found.datasets
        is_tagged = self._tables.tagged or not self.samples.table
        if is_tagged or location.store.may_have_tables(location.run):
            return found
        return replace(found, tags={**found.tags, **self._table_tag(JSON, None)})

    def log_step_metrics(self, numbers: Mapping[str, float], step: int) -> None:
        """Store metrics of an evaluation in progress, at a step.

        The steps of a later evaluation, or repeat, follow those before: MLflow shows the highest.
        """
        if step + self._steps_before <= self._last_step:
            self._steps_before = self._last_step + 1
        self._last_step = at = step + self._steps_before
        self.write(metrics=[(legal_key(name), value, at) for name, value in numbers.items()])

    def store_files(self, files: Mapping[str, str | bytes | Path]) -> None:
        """Store artifacts; in the background where that hides latency."""
        self.was_used = True
        # The caller may change or remove a file right after.
        on_disk = any(isinstance(content, Path) for content in files.values())
        call = object()
        self._last_files.update(dict.fromkeys(files, call))

        def store(location: Location) -> None:
            newest = {k: content for k, content in files.items() if self._last_files[k] is call}
            self.connection.log_files(location, newest)

        send = self.connection.do if on_disk else self.connection.do_later
        send(store)

    def store_table(self, data: object, name: str) -> None:
        """Store rows of a table, and name it in the tag by which MLflow's page finds it."""
        content = self._tables.add(data, name)
        is_known = self.connection.location is None or name in self._tables.tagged
        stored = "" if is_known else self.entity().data.tags.get(TABLES_TAG)
        self.store_files({name: content})
        if not is_known:
            self.write(tags={TABLES_TAG: self._tables.tag(stored, self.connection.problems)})

    def logged_metrics(self, since: float) -> Mapping[str, float]:
        """All metrics that MLflow has of the run, and those of the last run opened inside it.

        The latter are stored with this run too, as the baseline of later sessions. For a run in
        memory: those of the run that the code has opened since then, in seconds since the epoch.
        """
        connection = self.connection
        if connection.location is None:
            return own_metrics(since)
        with connection.waiting():
            parts = [part.store.metrics_of(part.run_id) for part in connection.parts]
            stored = {name: value for part in parts for name, value in part.items()}
            inner = own_metrics(since, connection.activation)
        new = {name: value for name, value in inner.items() if name not in stored}
        self.write(metrics=[(name, value, 0) for name, value in new.items()])
        return {**new, **stored}

    def close(self, status: str) -> None:
        """Set the final status and end time, in the background if that hides latency."""
        if self.connection.location is None:
            return
        from pytest_armory.store import milliseconds

        if self.params.need_file:
            self.store_files({"params.json": json_text(self.params.values)})
        if self.samples.table:
            self._store_samples(datasets=self._datasets)
        elif datasets := self._datasets:
            self.connection.do_later(
                lambda location: location.store.log_datasets(location.run, datasets)
            )
        end = milliseconds()
        self.connection.do_later(
            lambda location: location.store.close_run(location.run_id, status, end)
        )


def _last_values(connection: RunConnection, tags: Iterable[str]) -> dict[str, str]:
    """The values of tags to write: what is tried again may have another one since."""
    return {name: connection.tags[name] for name in tags}


def go_on_in(writer: RunWriter, connection: RunConnection) -> None:
    """Go on with what a run in memory was given in a run that was opened since."""
    connection.tags.update(writer.connection.tags)
    writer.connection = connection
    connection.restore = partial(_restore, writer)
    if writer.was_used:
        connection.do(connection.restore)


def _restore(writer: RunWriter, location: Location) -> None:
    """Write the last values of all that was stored to another run."""
    location.store.log_batch(
        location.run_id,
        params=writer.params.stored(),
        metrics=[(name, value, 0) for name, value in writer.metrics.values.items()],
        tags=writer.connection.tags,
    )
