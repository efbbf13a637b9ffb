"""The data that a run was of, as MLflow's dataset inputs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from pytest_armory.records.fields import dumps
from pytest_armory.records.sample_tag import DatasetIdentity
from pytest_armory.store.connection import Connection
from pytest_armory.store.runs import StoreRun
from pytest_armory.values import clip, redact_text, visible

NAME_LIMIT = 500
"""MLflow's limit on the name of a dataset, in characters."""


def log_datasets(
    connection: Connection, run: StoreRun, datasets: Iterable[DatasetIdentity]
) -> None:
    """Add datasets to a run in one request; MLflow has no way to do so in a batch."""
    found = [_dataset_input(one, run) for one in datasets]
    if found:
        log = partial(connection.client.log_inputs, run.run_id, datasets=found)
        connection.call("writing a run's datasets", log)


def _dataset_input(identity: DatasetIdentity, run: StoreRun) -> Any:
    """The test file is the source; a dataset without a name has that of its run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name = identity.name or run.entity.info.run_name or "samples"
    source = {"mlflow.source.name": run.tags.get("mlflow.source.name", "")}
    dataset = Dataset(
        name=clip(visible(redact_text(name)), NAME_LIMIT),
        digest=identity.digest,
        source_type="code",
        source=dumps({"tags": source}),
        profile=dumps({"num_rows": identity.samples}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])
