"""The run that an evaluation fills: parameters, metrics, tags and artifacts."""

from __future__ import annotations

import io
import json
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pytest_armory import environment
from pytest_armory.errors import (
    ArmoryUsageError,
    ParameterWarning,
    StoreRefusedError,
    StoreUnreachableError,
    TrackingError,
)
from pytest_armory.signals import alarm_paused
from pytest_armory.values import PARAM_LIMIT, clip, legal_key, metric_values, param_strings

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoreRun
    from pytest_armory.store.destination import Destination
    from pytest_armory.store.fluent import FluentState

    _Work = Callable[[Store, StoreRun], None]

_URI = "MLFLOW_TRACKING_URI"
_RUN_CONTEXT = "MLFLOW_RUN_CONTEXT"
_CONTEXT = ("armory.session", "armory.shard", "armory.process")


class EvaluationRun:
    """One evaluation's MLflow run, or the same in memory when nothing is tracked.

    ``run_id``, ``experiment_id`` and ``url`` are None when not tracking; ``url`` is None too for a
    database without a server. ``params`` and ``metrics`` hold what was recorded so far.
    What is logged is stored at once. A store that fails raises :class:`TrackingError`, but inside
    a pytest session: there it becomes a sentence in ``problems``, told in the session's summary.
    """

    def __init__(
        self,
        store: Store | None = None,
        run: StoreRun | None = None,
        fallback: Callable[[StoreRun], tuple[Store, StoreRun]] | None = None,
    ) -> None:
        self._store = store
        self._run = run
        self._fallback = fallback
        self._first: tuple[Store, StoreRun] | None = None
        self._place: FluentState | None = None
        self._lent: dict[str, str | None] = {}
        self._tags: dict[str, str] = {}
        self.is_waiting = False
        """Whether it is recorded locally, until `pytest-armory sync` brings it to its server."""
        self._stored: dict[str, str] = {}
        self._replaced: set[str] = set()
        self._told_replaced: set[str] = set()
        self._recorded: dict[str, str] = {}
        self._infinite: set[str] = set()
        self._raises = True
        self.params: dict[str, str] = {}
        self.metrics: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self.problems: list[str] = []
        self.left_open: dict[str, str] = {}
        self.asking = 0.0
        """Seconds that its requests have taken on the evaluation's way."""
        self.when_late: Callable[[], None] = lambda: None
        """Called when something has failed, or went elsewhere: of interest once it is closed."""

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, or None when nothing is tracked."""
        return self._run.run_id if self._run else None

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment, or None when nothing is tracked."""
        return self._run.experiment_id if self._run else None

    @property
    def url(self) -> str | None:
        """The run's page on the tracking server, or None without a server."""
        if self._run is None or self._store is None:
            return None
        return self._store.run_url(self._run.experiment_id, self._run.run_id)

    @property
    def destination(self) -> Destination | None:
        """Where the run is stored, or None when nothing is tracked."""
        return self._store.destination if self._store else None

    # What users call

    def log_params(self, params: Mapping[str, object]) -> None:
        """Store parameters: any values, nested mappings joined by dots.

        MLflow never changes a parameter that is stored: another value for it is kept in
        ``params.json``, with a :class:`~pytest_armory.errors.ParameterWarning`.
        """
        strings = param_strings(params)
        changed = [k for k, v in strings.items() if self._stored.get(k, v) != v]
        self.write(params=strings)
        if changed:
            warnings.warn(
                f"MLflow keeps the first value of {', '.join(changed)}: it was stored already, and "
                "the new one is only in the artifact params.json; log it under another name",
                ParameterWarning,
                stacklevel=2,
            )

    def log_metrics(self, metrics: object, step: int | None = None) -> None:
        """Store metrics: numbers, nested mappings joined by slashes; arrays become artifacts.

        ``step`` is the step of every number in it, 0 unless given. What is neither raises nothing:
        it warns with a :class:`~pytest_armory.errors.MetricWarning`.
        """
        from pytest_armory.track.evaluation import convert_result, warn_of_refused

        values = metric_values(metrics, convert=convert_result)
        warn_of_refused(values.refused)
        self.log_results(values.numbers, values.arrays, step=step or 0)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags on the run; values are stored as strings."""
        self.write(tags=tag_strings(tags))

    def log_artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Store a file, or all files under a folder, in the run's folder ``artifact_path``."""
        path = Path(path)
        if not path.exists():
            raise ArmoryUsageError(f"log_artifact: there is no file or folder {str(path)!r}")
        folder = f"{artifact_path.strip('/')}/" if artifact_path else ""
        if path.is_file():
            self.store_files({f"{folder}{path.name}": path})
            return
        files = {
            f"{folder}{file.relative_to(path.parent).as_posix()}": file
            for file in sorted(path.rglob("*"))
            if file.is_file()
        }
        self.store_files(files)

    def log_dict(self, dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> None:
        """Store a dictionary or list as a JSON file."""
        from pytest_armory.store import json_text

        self.store_files({artifact_file: json_text(dictionary)})

    def log_figure(self, figure: Any, artifact_file: str, **save_options: Any) -> None:
        """Store a Matplotlib figure (or a Plotly one, as ``.html``) under the name's own format."""
        suffix = artifact_file.rpartition(".")[2].lower()
        if hasattr(figure, "savefig"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, **save_options)
            self.store_files({artifact_file: buffer.getvalue()})
        elif hasattr(figure, "to_html") and suffix == "html":
            self.store_files({artifact_file: figure.to_html(**save_options)})
        else:
            raise ArmoryUsageError(
                f"log_figure: got {type(figure).__name__} for {artifact_file!r}; give a Matplotlib "
                "figure with a name such as 'curve.png', or a Plotly figure with 'curve.html'"
            )

    # What the engine and the sessions call

    def log_results(
        self,
        numbers: Mapping[str, float],
        arrays: Mapping[str, object],
        step: int = 0,
        histories: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Store numbers as metrics and arrays as ``metrics/<name>.json``, with what else waits.

        ``histories`` are metrics with a value for each step, counted from 0.
        """
        from pytest_armory.store import json_text

        by_step = {legal_key(str(name)): values for name, values in (histories or {}).items()}
        self._note(numbers, step)
        for name, values in by_step.items():
            self._note({name: values[-1]}, len(values) - 1)
        self.write(
            metrics=[
                *((legal_key(name), value, step) for name, value in numbers.items()),
                *((name, v, i) for name, values in by_step.items() for i, v in enumerate(values)),
            ]
        )
        if arrays:
            self.store_files({f"metrics/{_file(k)}.json": json_text(v) for k, v in arrays.items()})

    def _note(self, numbers: Mapping[str, float], step: int) -> None:
        """Keep the value that MLflow shows of each: the last at the highest step."""
        for name, value in numbers.items():
            if step >= self._steps.get(name, step):
                self._steps[name], self.metrics[name] = step, value

    def log_step_metrics(self, numbers: Mapping[str, float], step: int) -> None:
        """Store numbers of a run that is still going, at a step."""
        self.write(metrics=[(legal_key(name), value, step) for name, value in numbers.items()])

    def record(self, params: Mapping[str, object]) -> None:
        """Write a tracking context's parameters as they are by now, each when it has changed."""
        strings, before = param_strings(params), self._recorded
        for key in before.keys() - strings.keys():
            self.params.pop(key, None)
            self._replaced.add(key)
        self._recorded = strings
        self.write(params={k: v for k, v in strings.items() if before.get(k) != v})

    def describe(self, params: Mapping[str, str]) -> dict[str, str]:
        """Take in what is known of the evaluation, to be written when it ends; returns that.

        What it has logged itself under the same name stands.
        """
        unwritten = {key: value for key, value in params.items() if key not in self._stored}
        self.params.update(unwritten)
        return unwritten

    def _fresh(self, params: Mapping[str, str]) -> dict[str, str]:
        """Those that are not stored yet, cut to what a store takes."""
        fresh: dict[str, str] = {}
        for key, value in params.items():
            self.params[key] = value
            if key not in self._stored:
                fresh[key] = value
            elif self._stored[key] != value:
                self._replaced.add(key)
            else:
                self._replaced.discard(key)
        self._stored.update(fresh)
        return {key: clip(value, PARAM_LIMIT) for key, value in fresh.items()}

    def write(
        self,
        params: Mapping[str, str] | None = None,
        metrics: Iterable[tuple[str, float, int]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write everything given in one request, the parameters cut to what a store takes.

        A database holds the largest float for an infinity, so a tag says which metrics are one.
        MLflow never changes a parameter that is stored, and refuses the whole batch that tries;
        so only new ones are sent, and one with another value is kept whole in ``params.json``.
        """
        cut = self._fresh(params or {})
        metrics = list(metrics)
        infinite = {f"{name}={value}" for name, value, _ in metrics if math.isinf(value)}
        if not infinite <= self._infinite:
            self._infinite |= infinite
            told = ", ".join(sorted(self._infinite))
            tags = {**(tags or {}), "armory.infinite_metrics": told}
        if self._replaced != self._told_replaced:
            self._told_replaced = set(self._replaced)
            tags = {**(tags or {}), "armory.replaced_params": ", ".join(self.replaced_params)}
        self._tags.update(tags or {})
        if self._run is None or self._store is None or not (cut or metrics or tags):
            return
        from pytest_armory.store import milliseconds

        now = milliseconds()  # once: what a lost answer stored is not another value

        def batch(store: Store, run: StoreRun) -> None:
            try:
                store.log_batch(run.run_id, params=cut, metrics=metrics, tags=tags, now=now)
            except StoreRefusedError:
                self._write_singly(store, run, cut, metrics, tags)

        self._do(batch)

    def _write_singly(
        self,
        store: Store,
        run: StoreRun,
        params: Mapping[str, str],
        metrics: Iterable[tuple[str, float, int]],
        tags: Mapping[str, str] | None,
    ) -> None:
        """Write what was refused together: one refused item costs MLflow's whole batch.

        A parameter, say, that the test has logged itself with another value.
        """
        for key, value in params.items():
            try:
                store.log_batch(run.run_id, params={key: value})
            except StoreRefusedError as error:
                self._refused(key, error)
        for metric in metrics:
            self._attempt(partial(store.log_batch, run.run_id, metrics=[metric]))
        self._attempt(partial(store.log_batch, run.run_id, tags=tags))

    def _do(self, work: _Work) -> None:
        """Do what is on the evaluation's way, at the local run if its server does not take it."""
        assert self._store is not None and self._run is not None  # noqa: PT018 - for mypy
        store, run = self._store, self._run
        with self._on_the_way():
            try:
                work(store, run)
            except TrackingError as error:
                self._not_taken(error, work, store)

    @contextmanager
    def _on_the_way(self) -> Iterator[None]:
        """For a request: it counts neither as the evaluation's time nor against its time limit."""
        started = perf_counter()
        try:
            with alarm_paused():
                yield
        finally:
            self.asking += perf_counter() - started

    def _not_taken(self, error: TrackingError, work: _Work, store: Store) -> None:
        """What a server did not take is done in the local run instead, or it is told."""
        if not isinstance(error, StoreUnreachableError):
            self._failed(error)
        elif self._store is not store or self._fall_back(error):
            assert self._store is not None and self._run is not None  # noqa: PT018 - for mypy
            self._attempt(partial(work, self._store, self._run))

    def _fall_back(self, error: TrackingError) -> bool:
        """Go on in a run of the local database, which waits for the server; False if that fails.

        It holds what is stored from now on; ``pytest-armory sync`` brings both halves together.
        """
        if self._fallback is None or self._run is None or self._store is None or self.is_waiting:
            self._failed(error)
            return False
        before_store, before = self._store, self._run
        try:
            store, run = self._fallback(before)
            store.log_batch(run.run_id, tags=self._tags)
        except TrackingError as second:
            self._failed(error)
            self._failed(second)
            return False
        self._first = before_store, before
        self._store, self._run, self.is_waiting = store, run, True
        # Where the test has a run of its own at the server, its calls go on there.
        if self._place is not None and before_store.is_innermost(before, self._place):
            self._place = before_store.replace_active(before, self._store, self._run, self._place)
            self._standing = store, run
            lendable = _lendable(self._store.uri, self._run)
            self._lent.update({name: lendable[name] for name in self._lent})
            environment.put(self._lent)
            _active.discard(before.run_id)
            _active.add(self._run.run_id)
        self.when_late()
        return True

    def store_files(self, files: Mapping[str, str | bytes | Path]) -> None:
        """Store artifacts; in the background where that hides latency."""
        if self._run is not None and self._store is not None:
            # A file on disk may be changed or removed by the caller right after.
            now = any(isinstance(content, Path) for content in files.values())
            self._now_or_later(lambda store, run: store.log_files(run, files), now)

    def logged_metrics(self, since: float) -> Mapping[str, float]:
        """Its metrics as MLflow holds them, whoever logged them, and those of a run inside it.

        The latter become its own as well: the baseline of later sessions.

        Of a run in memory: those of the run that the code has opened by itself in MLflow's fluent
        API since then, in seconds since the epoch.
        """
        from pytest_armory.store import fluent

        if self._run is None or self._store is None:
            return fluent.own_metrics(since)
        with self._on_the_way():
            halves = filter(None, (self._first, (self._store, self._run)))
            read = [store.metrics_of(run.run_id) for store, run in halves]
            stored = {name: value for half in read for name, value in half.items()}
            inner = fluent.own_metrics(since, self._place)
        new = {name: value for name, value in inner.items() if name not in stored}
        self.write(metrics=[(name, value, 0) for name, value in new.items()])
        return {**new, **stored}

    def settle(self) -> None:
        """Wait for what is written in the background, if no session does that at its end."""
        if self._store is not None and self._raises:
            self._store.background.drain()

    def close(self, status: str) -> None:
        """Set the final status and end time, behind the next test where that hides latency."""
        from pytest_armory.store import json_text, milliseconds

        if self._run is None or self._store is None:
            return
        if self._replaced or any(len(value) > PARAM_LIMIT for value in self.params.values()):
            self.store_files({"params.json": json_text(self.params)})
        end = milliseconds()
        self._now_or_later(lambda store, run: store.close_run(run.run_id, status, end))

    def _now_or_later(self, work: _Work, now: bool = False) -> None:
        """Do what needs no answer, in the background where that hides latency."""
        if self._store is None or self._run is None:
            return
        store, run = self._store, self._run
        if now or not store.destination.is_remote:
            self._do(work)
        else:
            failed = partial(self._not_taken, work=work, store=store)
            store.background.submit(partial(work, store, run), failed)

    @property
    def context(self) -> dict[str, str]:
        """The tags of runs that are opened inside this one."""
        return _context(self._run) if self._run is not None else {}

    @property
    def replaced_params(self) -> list[str]:
        """Names of parameters whose stored value is not their last one, which params.json has."""
        return sorted(self._replaced)

    @property
    def parent_id(self) -> str | None:
        """The id of the run this one was opened under, if any."""
        return self._run.parent_id if self._run else None

    @property
    def raises(self) -> bool:
        """Whether a store that fails raises into the evaluation: in a script, not in a session."""
        return self._raises

    def collect_problems(self, problems: list[str]) -> None:
        """Add tracking failures to ``problems`` from now on instead of raising them."""
        self.problems = problems
        self._raises = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it MLflow's active run, so that ``mlflow.log_*`` of this thread lands in it."""
        if self._run is None or self._store is None:
            yield
            return
        self._lent = _lendable(self._store.uri, self._run)
        with _lend(self._lent):
            self._standing = self._store, self._run
            self._place = self._store.activate(self._run)
            _active.add(self._run.run_id)
            try:
                yield
            finally:
                _active.difference_update({self._run.run_id, self._standing[1].run_id})
                store, run = self._standing
                left = store.deactivate(run, self._place)
                self._place = None
                # Not those of a task beside this one, which opened later and is not at its end.
                left = [run_id for run_id in left if run_id not in _active]
                self.left_open = dict.fromkeys(left, self._run.run_id)
                if self._raises:  # a session waits, for a fixture may still need its run
                    self._attempt(partial(self._store.close_left_open, self.left_open))

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except TrackingError as error:
            self._failed(error)

    def _refused(self, key: str, error: TrackingError) -> None:
        self._replaced.add(key)  # what it should have been is kept in params.json
        text = f"the parameter {key!r} is only in the artifact params.json: {error}"
        if self._raises:
            warnings.warn(text, ParameterWarning, stacklevel=2)
        else:
            self.problems.append(text)

    def _failed(self, error: TrackingError) -> None:
        if self._raises:
            raise error
        self.problems.append(str(error))
        self.when_late()


_active: set[str] = set()
_lent: list[dict[str, str | None]] = []
_given: dict[str, str | None] = {}
_changed: dict[str, tuple[str | None, str | None]] = {}
"""Variables that code has changed while they were lent: what that was, and what was given."""
_lending = threading.Lock()


def _lendable(uri: str, run: StoreRun) -> dict[str, str | None]:
    """What lets runs that the code opens itself find their place, in child processes too.

    They go to the same store and experiment, and MLflow tags each of them with its run context: so
    one that a thread or a forked process leaves open is found again.
    """
    try:
        own = dict(json.loads(os.environ.get(_RUN_CONTEXT) or "{}"))
    except (ValueError, TypeError):
        own = {}  # the user's own is none; MLflow says so where it reads it
    return {
        _URI: uri,
        "MLFLOW_EXPERIMENT_ID": run.experiment_id,
        "MLFLOW_EXPERIMENT_NAME": None,  # beside another ID, MLflow raises
        _RUN_CONTEXT: json.dumps({**own, **_context(run)}),
    }


def _context(run: StoreRun) -> dict[str, str]:
    """The tags of runs that are opened inside another, so that they are found again."""
    inherited = {name: run.tags[name] for name in _CONTEXT if name in run.tags}
    return {**inherited, "armory.opened_in": run.run_id}


@contextmanager
def _lend(variables: dict[str, str | None]) -> Iterator[None]:
    """Set environment variables meanwhile; one that the code inside changes stays as it is.

    It is not lent again until the code puts it back, as a fixture of a module does in the end.
    """
    restore_environment()
    with _lending:
        for name in _changed:
            variables.pop(name, None)
        if not _lent:
            _given.update({name: os.environ.get(name) for name in variables})
        _lent.append(variables)
        environment.put(variables)
    try:
        yield
    finally:
        with _lending:
            _lent[:] = [other for other in _lent if other is not variables]
            back = _lent[-1] if _lent else _given
            unchanged = [name for name in variables if os.environ.get(name) == variables[name]]
            environment.put({name: back.get(name, _given[name]) for name in unchanged})
            if not _lent:
                now = {name: (lent, _given[name]) for name, lent in variables.items()}
                _changed.update({k: v for k, v in now.items() if k not in unchanged})
        restore_environment()


def restore_environment() -> None:
    """Put back what was given where code has put back what was lent, which it found there."""
    with _lending:
        for name, (lent, given) in list(_changed.items()):
            if os.environ.get(name) == lent:
                del _changed[name]
                _given[name] = given
                environment.put({name: given})


def given_uri() -> str | None:
    """``MLFLOW_TRACKING_URI`` as it was given, not as open runs lend it to child processes."""
    uri = os.environ.get(_URI) or None
    return _given[_URI] if uri in [variables.get(_URI, "") for variables in _lent] else uri


def tag_strings(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags as MLflow takes them: legal keys, string values, secrets redacted."""
    return param_strings({str(key): value for key, value in tags.items()})


def _file(name: str) -> str:
    """A metric's name as a file's: artifact names are not quoted over HTTP."""
    return legal_key(name).replace(":", "_").replace(" ", "_")
