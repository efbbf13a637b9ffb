"""Artifacts that wait in the local database for the storage of a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_armory.store.client import Store
from pytest_armory.store.runs import StoredRun, StoreRun

WAITING_FILES = "artifacts"
"""The tag ``armory.kind`` of a local run that only holds another's artifacts for their upload."""


def keep_for_upload(
    store: Store, where: str, run: StoreRun | StoredRun, files: Mapping[str, str | bytes | Path]
) -> None:
    """Keep artifacts of a run at a server in the local database, until they are uploaded there."""
    experiment_id = store.experiments.id_of("artifacts that wait")
    origin = ("armory.session", "armory.shard", "armory.process", "armory.host")
    tags = {name: run.tags[name] for name in origin if name in run.tags}
    tags |= {
        "armory.kind": WAITING_FILES,
        "armory.destination": where,
        "armory.remote_run_id": run.run_id,
    }
    kept = store.create_run(experiment_id, f"artifacts of {run.run_id}", tags)
    store.log_files(kept, files)
    store.close_run(kept.run_id, "FINISHED")
