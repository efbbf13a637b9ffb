"""What crashed workers were at, and have left open at a server that was out of reach at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_armory.errors import TrackingError
from pytest_armory.records import EvaluationRecord, Outcome, local_name
from pytest_armory.records.tags import KEY, OUTCOME, REMOTE_RUN, decode_journal
from pytest_armory.session import leases
from pytest_armory.session.session_runs import SessionRuns
from pytest_armory.sync.tags import EXPERIMENT


def under_way_in(folder: Path, job: str, worker: str) -> EvaluationRecord | None:
    """The attempt that a crashed worker of a job was at, by the journal of its lease in a folder.

    It may have been cut off before its first report, as in the setup of its fixtures.
    """
    for text in leases.journals(folder):
        record = decode_journal(text).record
        if record is not None and (record.job, record.worker) == (job, worker) and record.run_id:
            return record
    return None


def kept_of_crashed(
    waiting: SessionRuns,
    records: Sequence[EvaluationRecord],
    crashes: Mapping[str, int],
    numbers: Mapping[str, int],
) -> list[EvaluationRecord]:
    """Evaluations whose runs could not be read; those that crashed are recorded locally as such.

    Else their session would be one that passed, for no other process knows how they have ended. So
    are the last ones before them, whose runs may not have been closed yet in the background.
    ``crashes`` says when workers crashed, in milliseconds since the epoch; ``numbers`` are those of
    attempts over all workers, by run; ``waiting`` are the session runs in the local database.
    """
    here = [one for one in records if one.worker in crashes and not one.waiting and one.run_id]
    last = {one.worker: one.run_id for one in here if one.outcome}
    kept = {
        one.run_id: _kept(waiting, _numbered(one, numbers), crashes[one.worker])
        for one in here
        if not one.confirmed or one.run_id == last.get(one.worker)
    }
    return [kept.get(record.run_id, record) for record in records]


def _numbered(record: EvaluationRecord, numbers: Mapping[str, int]) -> EvaluationRecord:
    return replace(record, attempt=numbers.get(str(record.run_id), record.attempt))


def _kept(waiting: SessionRuns, record: EvaluationRecord, crashed: int) -> EvaluationRecord:
    from pytest_armory.store import open_store

    outcome = record.outcome or Outcome.CRASHED
    record = replace(record, outcome=outcome)
    try:
        store = open_store(waiting.where)
        experiment_id = store.experiments.id_of(record.experiment)
        tags = _tags_of(waiting, record, waiting.parent_of(experiment_id), outcome)
        run = store.create_run(experiment_id, record.nodeid.rpartition("::")[2], tags)
        store.log_batch(run.run_id, params=record.params)
        store.close_run(run.run_id, outcome.status, crashed)
    except TrackingError as error:
        waiting.note_failure(error)
        return record
    return replace(record, run_id=run.run_id, experiment_id=experiment_id, waiting=True)


def _tags_of(
    waiting: SessionRuns, record: EvaluationRecord, parent: str | None, outcome: Outcome
) -> dict[str, str]:
    """Those of the part of a run that was recorded locally; its first part has all others."""
    is_by_id = record.experiment == local_name("", record.experiment_id)
    return {
        **waiting.identity.tags,
        **({"mlflow.parentRunId": parent} if parent else {}),
        **({KEY: record.copy_key} if record.copy_key else {}),
        **({EXPERIMENT: str(record.experiment_id)} if is_by_id else {}),
        "armory.kind": "evaluation",
        "armory.nodeid": record.nodeid,
        "armory.attempt": str(record.attempt),
        "armory.worker": record.worker,
        "armory.destination": waiting.waits_for,
        REMOTE_RUN: str(record.run_id),
        OUTCOME: outcome.value,
    }
