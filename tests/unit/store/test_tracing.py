"""Where MLflow's traces go."""

from __future__ import annotations

from types import SimpleNamespace

import mlflow
import pytest

from pytest_armory.store.tracing import _client_of, _given_experiment


@pytest.mark.parametrize("in_force", ["http://127.0.0.1:2", "sqlite:///elsewhere.db"])
def test_the_files_of_a_trace_go_to_the_server_it_began_at(
    in_force: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = "mlflow-artifacts:/1/traces/tr-1/artifacts"
    trace = SimpleNamespace(tags={"mlflow.artifactLocation": location})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", in_force)
    assert mlflow.get_tracking_uri() == in_force
    files = _client_of("http://127.0.0.1:1")._get_artifact_repo_for_trace(trace)
    assert files.artifact_uri.startswith("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("given", "is_read", "experiment"),
    [("7", True, "7"), ("7", False, None), ("catalog.schema", True, None), ("", True, None)],
)
def test_an_experiment_that_the_environment_names_counts_where_mlflow_reads_it(
    given: str, is_read: bool, experiment: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older MLflow does not read the variable; a catalog's schema is no experiment."""
    monkeypatch.setenv("MLFLOW_TRACING_DESTINATION", given)
    registry = SimpleNamespace(**({"_get_trace_location_from_env": None} if is_read else {}))
    assert _given_experiment(registry) == experiment
