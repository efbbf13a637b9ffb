"""Evaluations in a script or a test: one context, one run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pytest_armory.environment import value_of
from pytest_armory.errors import ArmoryUsageError, TrackingError, TrackingWarning
from pytest_armory.store import destination
from pytest_armory.store.in_force import in_force
from pytest_armory.track.connection import RunConnection
from pytest_armory.track.context import Scope, enclosing_scope, running
from pytest_armory.track.location import LocalFallback, Location
from pytest_armory.track.run import EvaluationRun, tag_strings
from pytest_armory.values import Descriptions


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

    ``name`` is the experiment, the same between runs; ``description`` the run's note; ``uri`` the
    tracking URI if ``MLFLOW_TRACKING_URI`` is not set (default: the database under the Armory
    home). Parameters recorded before it in the same tracking context, and all recorded inside it,
    are the run's. Inside, ``mlflow.log_*`` log to the run. It ends ``FINISHED``, ``FAILED`` if an
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
    note = {"mlflow.note.content": description} if description else {}
    run = _open_inside(outer.run, uri, name, run_name or name, {**note, **tag_strings(tags or {})})
    if outer.run is not None:
        run.writer.params.descriptions = Descriptions(outer.run.writer.params.descriptions)
    try:
        with running(run, outer) as scope:
            run.writer.recorded = lambda: run.writer.params.describe(scope.params)
            try:
                run.writer.inherit(scope.params)
                yield run
            except BaseException as error:
                with _warning_of_failures():  # which must not replace the error itself
                    _end(run, scope, _status_of(error))
                raise
            _end(run, scope, "FINISHED")
    finally:
        if outer.run is None:  # else its run is active, and found
            _note_ended(run.connection.location)


def _open_inside(
    outer: EvaluationRun | None,
    uri: str | Path | None,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
) -> EvaluationRun:
    """Open the run of an evaluation; in memory if the outer run is, or if it cannot be opened.

    If the failures of the outer evaluation are collected, so are those of this one.
    """
    if outer is not None and outer.connection.location is None:
        run = EvaluationRun()
    else:
        try:
            run = open_run(
                _destination(uri, outer),
                experiment=experiment,
                name=name,
                tags={**_script_tags(outer), **tags},
            )
        except TrackingError as error:
            if outer is None or outer.connection.raises:
                raise
            outer.connection.problems.append(str(error))
            run = EvaluationRun()
    if outer is not None:
        run.writer.samples.confidence = outer.writer.samples.confidence
    if outer is not None and not outer.connection.raises:
        run.connection.collect_problems(outer.connection.problems)
    return run


def _end(run: EvaluationRun, scope: Scope, status: str) -> None:
    try:
        if run.connection.location is not None:
            sampled = run.writer.sample_results(is_interrupted=status == "KILLED")
            params = run.writer.params.changed_since_recorded(scope.params)
            run.writer.write(params, sampled.values, sampled.tags)
            run.writer.recorded = None
    finally:
        run.writer.close(status)
        run.connection.settle()


def _note_ended(location: Location | None) -> None:
    """Have ``mlflow.last_active_run()`` find a run, where MLflow looks in its store now.

    Where another tracking URI is in force again, MLflow would look for it there, and raise.
    """
    from pytest_armory.store import stack

    if location is not None and in_force.uri() == location.store.uri:
        stack.note_ended(location.run_id)


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
    fallback: LocalFallback | None = None,
) -> EvaluationRun:
    """Open a run at a destination: one request, and one more for a new experiment's name.

    It continues in the ``fallback`` if the destination becomes unreachable.
    """
    from pytest_armory.store import open_store

    store = open_store(where)
    if experiment_id is None:
        experiment_id = store.experiments.id_of(experiment or "Default")
    location = Location(store, store.create_run(experiment_id, name, tags))
    return EvaluationRun(RunConnection(location, fallback))


def _destination(uri: str | Path | None, outer: EvaluationRun | None) -> destination.Destination:
    """Armory's precedence: the environment, then the argument, then the local database."""
    if outer is not None and outer.destination is not None:
        return outer.destination  # that of its parent
    return destination.resolve(in_force.given() or (None if uri is None else str(uri)))


def _test_file() -> str:
    """The file of the test that runs in this process, where the program is pytest; else empty."""
    current = value_of("PYTEST_CURRENT_TEST", "") if "pytest" in sys.modules else ""
    return current.partition("::")[0]


def _script_tags(outer: EvaluationRun | None) -> dict[str, str]:
    from pytest_armory import __version__, provenance

    location = outer.connection.location if outer is not None else None
    parent = location.run_id if location is not None else value_of("MLFLOW_RUN_ID")
    return {
        "armory.kind": "evaluation",
        "armory.version": __version__,
        **provenance.source_tags(_test_file()),
        **(location.context_tags if location is not None else {}),
        **({"mlflow.parentRunId": parent} if parent else {}),
    }
