"""MLflow's system metrics."""

from __future__ import annotations

from collections.abc import Callable

from pytest_armory.store._mlflow import import_mlflow
from pytest_armory.store.translation import translated


def system_metrics(run_id: str) -> Callable[[], None]:
    """Start monitoring this machine for a run; returns what stops it."""
    import_mlflow()
    with translated("monitoring the system", "this machine"):
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run_id)
        monitor.start()

    def stop() -> None:
        with translated("monitoring the system", "this machine"):
            monitor.finish()

    return stop
