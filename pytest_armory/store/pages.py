"""The addresses of MLflow's pages.

A fresh browser shows the pages of MLflow 3.17 in the "GenAI" view, whose lists are of traces. The
query selects the view with runs; versions without views ignore it.
"""

from __future__ import annotations

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where ``armory-mlflow-server`` serves a database by default."""

_VIEW = "?workflowType=machine_learning"


def home_page(server: str) -> str:
    """The first page of a server."""
    return f"{server.rstrip('/')}/#/{_VIEW}"


def run_page(server: str, experiment_id: str, run_id: str) -> str:
    """The page of a run."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}{_VIEW}"
