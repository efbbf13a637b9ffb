"""Where MLflow's traces go."""

from __future__ import annotations

from types import SimpleNamespace

import mlflow
import pytest

from pytest_armory.store.tracing import _client_of


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
