"""Reading back what a run has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.records.sample_tag import SAMPLES
from pytest_armory.store import destination
from pytest_armory.store.destination import Destination
from pytest_armory.store.in_force import in_force
from pytest_armory.track.run import EvaluationRun

if TYPE_CHECKING:
    from pytest_armory.store import StoredRun
    from pytest_armory.tables import SampleTable


def samples(run: str | EvaluationRun, /) -> Any:
    """The samples of a run as a ``pandas.DataFrame``, a row for each.

    ``run`` is MLflow's id of a run at the tracking URI in force, or an ``EvaluationRun``. Columns
    are ``sample``, the scores, ``target``, ``prediction`` and the user's own; ``group`` and
    ``repeat`` where there are any. ``frame.attrs`` has the names of the ``scores``, and whether the
    rows are ``partial``: the evaluation was killed, or has not ended.
    Raises :class:`ArmoryUsageError` without such a run or samples, :class:`TrackingError` where
    they cannot be read.
    """
    from pytest_armory.tables.arrow import to_frame

    if isinstance(run, EvaluationRun):
        with run.writer.samples.table.lock:
            return to_frame(run.writer.samples.table)
    if not isinstance(run, str):
        raise ArmoryUsageError(
            f"samples: got {type(run).__name__}; give the id of a run, or an EvaluationRun"
        )
    where = destination.resolve(in_force.given())
    return to_frame(read_samples(where, find_run(where, run)))


def find_run(where: Destination, run_id: str) -> StoredRun:
    """The run of that id; raises :class:`ArmoryUsageError` without one."""
    from pytest_armory.store import open_store

    found = open_store(where).search.find(run_id)
    if found is None:
        raise ArmoryUsageError(
            f"no run {run_id!r} is at {where.display_uri}; the page of a run shows its ID"
        )
    return found


def read_samples(where: Destination, run: StoredRun) -> SampleTable:
    """The samples of a stored run."""
    from pytest_armory.gates.known import samples_at

    if SAMPLES not in run.tags:
        raise ArmoryUsageError(
            f"the run {run.run_id} has no samples; give an evaluation sample_metrics, or call "
            "track_samples in it"
        )
    return samples_at(where, run.run_id, run.artifact_uri)
