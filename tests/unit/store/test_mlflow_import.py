"""Whichever part needs MLflow first, it is imported without telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "first",
    [
        "from pytest_armory.store.in_force import in_force; in_force.uri()",
        "from pytest_armory.store.stack import current_stack; current_stack()",
        "from pytest_armory.store.fluent import flush; flush('sqlite:///flushed.db')",
    ],
    ids=["in-force", "stack", "flush"],
)
def test_the_first_import_is_without_telemetry(first: str, tmp_path: Path) -> None:
    """It would be a thread, requests, and a file in the home."""
    pytest.importorskip("mlflow.telemetry")
    names = ("MLFLOW_", "CI", "PYTEST_", "ARMORY_", "GITHUB_")  # by which MLflow knows tests and CI
    environment = {name: v for name, v in os.environ.items() if not name.startswith(names)}
    code = f"{first}; from mlflow.telemetry import get_telemetry_client as get; print(get())"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert result.stdout.strip() == "None", result.stderr
    assert not (tmp_path / "mlflow").exists()
