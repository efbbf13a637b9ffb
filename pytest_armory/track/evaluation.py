"""Evaluations in a script or a test: one context, one run."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_armory.errors import ArmoryUsageError, MetricWarning, TrackingError, TrackingWarning
from pytest_armory.store import destination
from pytest_armory.track.context import Scope, current_run, enclosing_scope, entered
from pytest_armory.track.run import EvaluationRun, given_uri, tag_strings
from pytest_armory.values import metric_values

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoreRun

_converters: list[Callable[[object], object]] = []
_chosen: set[str] = set()  # by init_tracking_uri, not by the user's environment


@contextmanager
def track_evaluation(
    name: str,
    description: str | None = None,
    uri: str | Path | None = None,
    *,
    run_name: str | None = None,
    tags: Mapping[str, object] | None = None,
) -> Iterator[EvaluationRun]:
    """Track the body of a ``with`` statement as one MLflow run.

    ``name`` is the experiment, the same between runs; ``description`` the run's note; ``uri`` where
    to track if ``MLFLOW_TRACKING_URI`` does not say (default: the database under the Armory home).
    Parameters recorded before it in the same tracking context, and all recorded inside it, are the
    run's. Inside, ``mlflow.log_*`` lands in the run. It ends ``FINISHED``, ``FAILED`` if an
    exception leaves it, ``KILLED`` on Ctrl-C or when its task is cancelled. In an evaluation or a
    tracked test, it is that run's child, in the same store; in a job of MLflow Projects
    (``MLFLOW_RUN_ID``), the job's.

    Raises :class:`TrackingError` if the store cannot be opened or written.
    """
    if not isinstance(name, str) or not name:
        raise ArmoryUsageError(
            f"track_evaluation: the name must be the experiment's name, got {name!r}"
        )
    outer = enclosing_scope()
    problems = outer.run.problems if outer.run is not None and not outer.run.raises else None
    in_memory = outer.run is not None and outer.run.run_id is None
    try:
        run = (
            EvaluationRun()
            if in_memory
            else open_run(
                _destination(uri, outer.run),
                experiment=name,
                name=run_name or name,
                tags=_script_tags(description, tags, outer.run),
            )
        )
    except TrackingError as error:
        if problems is None:
            raise
        problems.append(str(error))
        run = EvaluationRun()
    if problems is not None:
        run.collect_problems(problems)
    with running(run, outer) as scope:
        try:
            run.record(scope.params)
            yield run
        except BaseException as error:
            with _warning_of_failures():  # which must not hide the error itself
                _end(run, scope, _status_of(error))
            raise
        _end(run, scope, "FINISHED")


def _end(run: EvaluationRun, scope: Scope, status: str) -> None:
    try:
        run.record(scope.params)
    finally:
        run.close(status)
        run.settle()


def _status_of(error: BaseException) -> str:
    from asyncio import CancelledError

    if isinstance(error, SystemExit):
        return "FAILED" if error.code else "FINISHED"
    interrupted = isinstance(error, KeyboardInterrupt | CancelledError | GeneratorExit)
    return "KILLED" if interrupted else "FAILED"


@contextmanager
def _warning_of_failures() -> Iterator[None]:
    try:
        yield
    except TrackingError as error:
        warnings.warn(str(error), TrackingWarning, stacklevel=5)


def open_run(
    where: destination.Destination,
    *,
    name: str,
    tags: Mapping[str, str],
    experiment: str | None = None,
    experiment_id: str | None = None,
    fallback: Callable[[StoreRun], tuple[Store, StoreRun]] | None = None,
) -> EvaluationRun:
    """Open a run at a destination: one request, and one more for a new experiment's name.

    ``fallback`` opens the local run that it goes on in when the destination is out of reach.
    """
    from pytest_armory.store import open_store

    store = open_store(where)
    if experiment_id is None:
        experiment_id = store.experiments.id_of(experiment or "Default")
    return EvaluationRun(store, store.create_run(experiment_id, name, tags), fallback)


@contextmanager
def running(run: EvaluationRun, outer: Scope | None = None) -> Iterator[Scope]:
    """Make ``run`` the current run, and MLflow's active run, with a scope of its own."""
    outer = outer or enclosing_scope()
    with run.active(), entered(Scope(dict(outer.params), outer=outer, run=run)) as scope:
        yield scope


def track_metrics(metrics: Any, step: int | None = None) -> None:
    """Store results as metrics of the current run; outside every evaluation nothing happens.

    Takes numbers of Python, NumPy and torch, nested mappings (joined by slashes), a list of one
    mapping, torchmetrics' and scikit-learn's results, pandas Series, dataclasses. ``{name: list or
    tuple of numbers}`` is a metric with one value per step, unless ``step`` is given; an array
    becomes ``metrics/<name>.json``.
    What is none of these is left out with a :class:`MetricWarning`.
    """
    run = current_run()
    if run is None:
        return
    histories = _histories(metrics) if step is None else {}
    rest = {k: v for k, v in metrics.items() if k not in histories} if histories else metrics
    values = metric_values(rest, convert=convert_result)
    warn_of_refused(values.refused)
    run.log_results(values.numbers, values.arrays, step=step or 0, histories=histories)


def _histories(metrics: object) -> dict[Any, list[float]]:
    """Armory's form of a metric with several values: a list or tuple of plain numbers."""
    if not isinstance(metrics, Mapping):
        return {}
    found = {
        name: [_number(value) for value in values]
        for name, values in metrics.items()
        if isinstance(values, list | tuple)
    }
    return {
        name: [number for number in numbers if number is not None]
        for name, numbers in found.items()
        if numbers and None not in numbers
    }


def _number(value: Any) -> float | None:
    if getattr(value, "shape", None) == ():  # a scalar of NumPy or torch
        value = value.item()
    try:
        return float(value) if isinstance(value, Real) else None
    except OverflowError:
        return None


@contextmanager
def track_system_metrics(run_id: str | None) -> Iterator[None]:
    """Store CPU, memory, disk and network use (and GPU use with ``pynvml``) with a run meanwhile.

    Nothing happens without a run id. What cannot be monitored is a :class:`TrackingWarning`.
    """
    from pytest_armory.store.monitor import system_metrics

    if not run_id:
        yield
        return
    stop = None
    try:
        stop = system_metrics(run_id)
    except TrackingError as error:
        warnings.warn(str(error), TrackingWarning, stacklevel=3)
    try:
        yield
    finally:
        try:
            if stop is not None:
                stop()
        except TrackingError as error:
            warnings.warn(str(error), TrackingWarning, stacklevel=3)


def init_tracking_uri(armory_home: str | Path | None = None) -> str:
    """Point MLflow at the database under the Armory home, unless ``MLFLOW_TRACKING_URI`` is set.

    Returns the tracking URI in force.
    """
    from pytest_armory.store import fluent, open_store

    environ = dict(os.environ)
    if armory_home is not None:
        environ["ARMORY_HOME"] = str(armory_home)
    given = given_uri()
    if given in _chosen:  # by an earlier call of this, which is no reason to stay there
        given = None
    uri = open_store(destination.resolve(given, environ)).uri
    fluent.use_tracking_uri(uri)
    if given is None:
        _chosen.add(uri)
    return uri


def init_tracking(uri: str | None = None) -> str:
    """Log in to the tracking server where a platform asks for it, and point MLflow at it.

    ``uri`` is the server's, else ``MLFLOW_TRACKING_URI``; without either it is
    :func:`init_tracking_uri`. With ``MANTIK_USERNAME`` and ``MANTIK_PASSWORD``, and no
    ``MLFLOW_TRACKING_TOKEN``, they are exchanged for a token that is kept fresh. Inside a job of
    the platform, which gets its token from it, nothing needs to be called. Returns the tracking URI
    in force. Raises :class:`ArmoryUsageError` and :class:`TrackingError`.
    """
    from pytest_armory.store import fluent, login

    given = uri or given_uri()
    resolved = destination.resolve(given).uri if given else None
    if resolved is None:
        return init_tracking_uri()
    in_force = login.init_tracking(resolved)
    fluent.use_tracking_uri(in_force)
    return in_force


def convert_result(value: object) -> object:
    """What a ``pytest_armory_metrics`` hook makes of a foreign result, or None."""
    for converter in _converters:
        converted = converter(value)
        if converted is not None:
            return converted
    return None


@contextmanager
def converting(converter: Callable[[object], object]) -> Iterator[None]:
    """Ask ``converter`` meanwhile about results nobody knows."""
    _converters.append(converter)
    try:
        yield
    finally:
        _converters.remove(converter)


def warn_of_refused(refused: Mapping[str, str], stacklevel: int = 2) -> None:
    """One warning for every result that is no metric."""
    for name, reason in refused.items():
        warnings.warn(
            f"the result {name!r} is no metric and was left out: {reason}; give a number, a "
            "mapping or an array, or turn it into one with the hook pytest_armory_metrics",
            MetricWarning,
            stacklevel=stacklevel + 1,
        )


def _destination(uri: str | Path | None, outer: EvaluationRun | None) -> destination.Destination:
    """Armory's precedence: the environment, then the argument, then the local database."""
    if outer is not None and outer.destination is not None:
        return outer.destination  # where its parent is
    return destination.resolve(given_uri() or (None if uri is None else str(uri)))


def _test_file() -> str:
    """The file of the test that runs in this process, where the program is pytest; else empty."""
    current = os.environ.get("PYTEST_CURRENT_TEST", "") if "pytest" in sys.modules else ""
    return current.partition("::")[0]


def _script_tags(
    description: str | None, tags: Mapping[str, object] | None, outer: EvaluationRun | None
) -> dict[str, str]:
    from pytest_armory import __version__, provenance

    parent = outer.run_id if outer is not None else os.environ.get("MLFLOW_RUN_ID")
    given = {
        "armory.kind": "evaluation",
        "armory.version": __version__,
        **provenance.source_tags(_test_file()),
        **(outer.context if outer is not None else {}),
        **({"mlflow.parentRunId": parent} if parent else {}),
        **({"mlflow.note.content": description} if description else {}),
    }
    return {**given, **tag_strings(tags or {})}
