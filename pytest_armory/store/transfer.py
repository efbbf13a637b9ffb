"""The source or target of an upload: runs as they are, in calls without a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pytest_armory.budget import within
from pytest_armory.environment import changed
from pytest_armory.store.artifacts import RunArtifacts, download_artifacts
from pytest_armory.store.circuit import WITHOUT_RETRIES
from pytest_armory.store.client import Store
from pytest_armory.store.experiments import find_or_create_experiment
from pytest_armory.store.runs import NAME_LIMIT, StoredRun, stored_run
from pytest_armory.store.search import find_entity
from pytest_armory.values import clip


class MetricPoint(NamedTuple):
    """One value of a metric; ``time`` is in milliseconds since the epoch."""

    name: str
    value: float
    time: int
    step: int


@dataclass(frozen=True)
class RunWithInputs(StoredRun):
    """A run with its datasets, MLflow's own ``DatasetInput``, and how many models it logged."""

    datasets: tuple[Any, ...]
    models: int

    @classmethod
    def from_entity(cls, run: Any) -> RunWithInputs:
        """From an ``mlflow.entities.Run``."""
        outputs = getattr(run, "outputs", None)
        return cls(
            **vars(stored_run(run)),
            datasets=tuple(getattr(run.inputs, "dataset_inputs", None) or ()),
            models=len(getattr(outputs, "model_outputs", None) or ()),
        )


class TransferEnd:
    """The store that an upload reads from, or writes to. All its methods raise TrackingError."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.where = store.where
        self._connection = store.connection
        self._call = store.connection.call_without_budget
        self._experiment_ids: dict[str, str] = {}
        self._experiment_names: dict[str, str] = {}

    def ping(self, seconds: float) -> None:
        """Do a small request, with a limit in seconds."""
        search = partial(self._connection.client.search_experiments, max_results=1)
        self._call("asking for an experiment", partial(within, seconds, search))

    # Experiments

    def experiment_name(self, experiment_id: str) -> str:
        """An experiment's name."""
        if experiment_id not in self._experiment_names:
            read = partial(self._connection.client.get_experiment, experiment_id)
            self._experiment_names[experiment_id] = self._call("reading an experiment", read).name
        return self._experiment_names[experiment_id]

    def experiment_id(self, name: str) -> str:
        """The id of the experiment of that name, created if need be."""
        if name not in self._experiment_ids:
            self._experiment_ids[name] = self._call(
                f"opening the experiment {name!r}",
                partial(find_or_create_experiment, self._connection, name),
            )
        return self._experiment_ids[name]

    # Reading

    def read_run(self, run_id: str) -> RunWithInputs:
        """A run that exists."""
        read = partial(self._connection.client.get_run, run_id)
        return RunWithInputs.from_entity(self._call("reading a run", read))

    def find_run(self, run_id: str) -> RunWithInputs | None:
        """The run of that id, or None; a deleted one is none."""
        run = find_entity(self._connection, run_id)
        return None if run is None else RunWithInputs.from_entity(run)

    def search(self, experiment_id: str, condition: str) -> list[RunWithInputs]:
        """The first page of the runs by MLflow's filter string, by start; a request for each."""
        return self._call("searching runs", partial(self._search, experiment_id, condition))

    def _search(self, experiment_id: str, condition: str) -> list[RunWithInputs]:
        client = self._connection.client
        found = client.search_runs(
            [experiment_id], filter_string=condition, order_by=["attributes.start_time ASC"]
        )
        # Some servers leave out inputs, and may not have indexed a new run yet.
        return [RunWithInputs.from_entity(client.get_run(run.info.run_id)) for run in found]

    def metric_history(self, run_id: str, name: str) -> list[MetricPoint]:
        """Every value of one metric."""
        read = partial(self._connection.client.get_metric_history, run_id, name)
        metrics = self._call("reading a metric's history", read)
        return [MetricPoint(name, one.value, one.timestamp, one.step) for one in metrics]

    def download_artifacts(self, run: StoredRun, folder: Path) -> None:
        """Download a run's artifacts into a folder, which exists."""
        download_artifacts(self._connection, run.artifact_uri, folder)

    # Writing

    def create_run(
        self, experiment_id: str, name: str, start: int, tags: Mapping[str, str]
    ) -> RunWithInputs:
        """Create a run in one request, which MLflow must not repeat: that would create two."""
        create = partial(
            self._connection.client.create_run,
            experiment_id,
            start_time=start,
            tags=dict(tags),
            run_name=clip(name, NAME_LIMIT) or None,
        )
        with changed(WITHOUT_RETRIES):
            return RunWithInputs.from_entity(self._call("opening a run", create))

    def write(
        self,
        run_id: str,
        params: Sequence[tuple[str, str]],
        tags: Sequence[tuple[str, str]],
        metrics: Sequence[MetricPoint],
    ) -> None:
        """Write one batch, as it is."""
        from mlflow.entities import Metric, Param, RunTag

        write = partial(
            self._connection.client.log_batch,
            run_id,
            metrics=[Metric(*point) for point in metrics],
            params=[Param(*param) for param in params],
            tags=[RunTag(*tag) for tag in tags],
            synchronous=True,
        )
        self._call("writing to a run", write)

    def log_datasets(self, run_id: str, datasets: Sequence[Any]) -> None:
        """Add datasets, MLflow's own ``DatasetInput``, to a run."""
        log = partial(self._connection.client.log_inputs, run_id, datasets=list(datasets))
        self._call("writing a run's datasets", log)

    def artifacts_of(self, run: StoredRun) -> RunArtifacts:
        """A run's artifacts, to be listed and stored."""
        return RunArtifacts(self._connection, run.artifact_uri)

    def close_run(self, run_id: str, status: str, end: int) -> None:
        """Set a run's final status and its end in milliseconds since the epoch."""
        close = partial(self._connection.client.set_terminated, run_id, status, end)
        self._call("closing a run", close)

    def delete_tag(self, run_id: str, name: str) -> None:
        """Delete a tag of a run."""
        delete = partial(self._connection.client.delete_tag, run_id, name)
        self._call("deleting a tag", delete)

    def delete_duplicate(self, run_id: str) -> None:
        """Mark a run as deleted that was created twice because of a lost response."""
        delete = partial(self._connection.client.delete_run, run_id)
        self._call("removing a second copy", delete)

    def set_missing_parent(self, experiment_id: str, condition: str, parent_id: str) -> None:
        """Make the runs of MLflow's filter string children of a run, if they have no parent."""
        doing = "putting evaluations under their session"
        self._call(doing, partial(self._set_missing_parent, experiment_id, condition, parent_id))

    def _set_missing_parent(self, experiment_id: str, condition: str, parent_id: str) -> None:
        client = self._connection.client
        token: str | None = ""
        while token is not None:
            page = client.search_runs([experiment_id], condition, page_token=token or None)
            for run in page:
                if "mlflow.parentRunId" not in run.data.tags:
                    client.set_tag(run.info.run_id, "mlflow.parentRunId", parent_id)
            token = page.token or None
