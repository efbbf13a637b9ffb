"""Evaluations in a script or a test: one context, one run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from pytest_armory import destination
from pytest_armory.errors import ArmoryUsageError, MetricWarning, TrackingError, TrackingWarning
from pytest_armory.track.context import Scope, current_run, current_scope, entered
from pytest_armory.track.run import EvaluationRun, tag_strings
from pytest_armory.values import metric_values, param_strings

_converters: list[Callable[[object], object]] = []


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
    exception leaves it, ``KILLED`` on Ctrl-C. In a run (a test's, or that of an MLflow Projects
    job, ``MLFLOW_RUN_ID``), it is that run's child.

    Raises :class:`TrackingError` if the store cannot be opened or written.
    """
    if not isinstance(name, str) or not name:
        raise ArmoryUsageError(
            f"track_evaluation: the name must be the experiment's name, got {name!r}"
        )
    outer = current_scope()
    problems = outer.run.problems if outer.run is not None and not outer.run.raises else None
    try:
        run = open_run(
            destination.resolve(_choose_uri(uri)),
            experiment=name,
            name=run_name or name,
            tags=_script_tags(description, tags, outer.run),
        )
    except TrackingError as error:
        if problems is None:
            raise
        problems.append(str(error))
        run = EvaluationRun()
    if problems is not None:
        run.collect_problems(problems)
    with running(run, outer) as scope:
        run.write(params=param_strings(scope.params))
        status = "FINISHED"
        try:
            yield run
        except Exception:
            status = "FAILED"
            raise
        except BaseException:
            status = "KILLED"
            raise
        finally:
            run.write(params=param_strings(scope.params))
            run.close(status)


def open_run(
    where: destination.Destination,
    *,
    name: str,
    tags: Mapping[str, str],
    experiment: str | None = None,
    experiment_id: str | None = None,
) -> EvaluationRun:
    """Open a run at a destination: one request, and one more for a new experiment's name."""
    from pytest_armory.store import open_store

    store = open_store(where)
    if experiment_id is None:
        experiment_id = store.experiment_id(experiment or "Default")
    return EvaluationRun(store, store.create_run(experiment_id, name, tags))


@contextmanager
def running(run: EvaluationRun, outer: Scope | None = None) -> Iterator[Scope]:
    """Make ``run`` the current run, and MLflow's active run, with a scope of its own."""
    outer = outer or current_scope()
    with run.active(), entered(Scope(dict(outer.params), outer=outer, run=run)) as scope:
        yield scope


def track_metrics(metrics: Any, step: int | None = None) -> None:
    """Store results as metrics of the current run; outside every evaluation nothing happens.

    Takes numbers of Python, NumPy and torch, nested mappings (joined by slashes), a list of one
    mapping, torchmetrics' and scikit-learn's results, pandas Series, dataclasses. A list or tuple
    of numbers is a metric with one value per step; an array becomes ``metrics/<name>.json``.
    What is none of these is left out with a :class:`MetricWarning`.
    """
    run = current_run()
    if run is None:
        return
    histories = _histories(metrics) if step is None else {}
    rest = {k: v for k, v in metrics.items() if k not in histories} if histories else metrics
    values = metric_values(rest, convert=convert_result)
    warn_of_refused(values.refused, stacklevel=3)
    for name, history in histories.items():
        for index, number in enumerate(history):
            run.log_step_metrics({name: float(number)}, step=index)
            run.metrics[name] = float(number)
    run.log_results(values.numbers, values.arrays, step=step or 0)


def _histories(metrics: object) -> dict[str, Iterable[Any]]:
    """Armory's form of a metric with several values: a list or tuple of plain numbers."""
    if not isinstance(metrics, Mapping):
        return {}
    return {
        str(name): values
        for name, values in metrics.items()
        if isinstance(values, list | tuple) and values and all(isinstance(v, Real) for v in values)
    }


@contextmanager
def track_system_metrics(run_id: str | None) -> Iterator[None]:
    """Store CPU, memory, disk and network use (and GPU use with ``pynvml``) with a run meanwhile.

    Nothing happens without a run id. What cannot be monitored is a :class:`TrackingWarning`.
    """
    from pytest_armory.store.monitor import system_metrics

    if not run_id:
        yield
        return
    try:
        stop = system_metrics(run_id)
    except TrackingError as error:
        warnings.warn(str(error), TrackingWarning, stacklevel=3)
        stop = lambda: None  # noqa: E731 - nothing to stop
    try:
        yield
    finally:
        stop()


def init_tracking_uri(armory_home: str | Path | None = None) -> str:
    """Point MLflow at the database under the Armory home, unless ``MLFLOW_TRACKING_URI`` is set.

    Returns the tracking URI in force.
    """
    from pytest_armory.store import fluent, open_store

    environ = dict(os.environ)
    if armory_home is not None:
        environ["ARMORY_HOME"] = str(armory_home)
    uri = open_store(destination.resolve(_choose_uri(None), environ)).uri
    fluent.use_tracking_uri(uri)
    return uri


def convert_result(value: object) -> object:
    """What a ``pytest_armory_metrics`` hook makes of a foreign result, or None."""
    for converter in _converters:
        converted = converter(value)
        if converted is not None:
            return converted
    return None


def register_converter(converter: Callable[[object], object]) -> Callable[[], None]:
    """Ask ``converter`` about results nobody knows; returns what takes it back."""
    _converters.append(converter)
    return lambda: _converters.remove(converter)


def warn_of_refused(refused: Mapping[str, str], stacklevel: int = 2) -> None:
    """One warning for every result that is no metric."""
    for name, reason in refused.items():
        warnings.warn(
            f"the result {name!r} is no metric and was left out: {reason}; give a number, a "
            "mapping or an array, or turn it into one with the hook pytest_armory_metrics",
            MetricWarning,
            stacklevel=stacklevel + 1,
        )


def _choose_uri(uri: str | Path | None) -> str | None:
    """Armory's precedence: the environment, then the argument, then the local database."""
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    if environment:
        return environment
    return None if uri is None else str(uri)


def _script_tags(
    description: str | None, tags: Mapping[str, object] | None, outer: EvaluationRun | None
) -> dict[str, str]:
    from pytest_armory import __version__, provenance

    parent = outer.run_id if outer is not None else os.environ.get("MLFLOW_RUN_ID")
    given = {
        "armory.kind": "evaluation",
        "armory.version": __version__,
        **provenance.source_tags(),
        **({"mlflow.parentRunId": parent} if parent else {}),
        **({"mlflow.note.content": description} if description else {}),
    }
    return {**given, **tag_strings(tags or {})}
