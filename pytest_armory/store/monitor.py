"""MLflow's system metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from pytest_armory.store._mlflow import import_mlflow
from pytest_armory.store.translation import translated


def is_switched_on() -> bool:
    """Whether ``mlflow.enable_system_metrics_logging()`` or its variable ask for them."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    return bool(MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get())


def system_metrics(run_id: str, uri: str | None = None) -> Callable[[], None]:
    """Start monitoring this machine for a run, of the store in force or at ``uri``.

    Returns what stops it.
    """
    import_mlflow()
    with translated("monitoring the system", "this machine"):
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # Before MLflow 3.5 it takes no URI: it asks for the one in force when it starts.
        takes_uri = "tracking_uri" in inspect.signature(SystemMetricsMonitor).parameters
        monitor = SystemMetricsMonitor(
            run_id, **({"tracking_uri": uri} if uri and takes_uri else {})
        )
        monitor.start()

    def stop() -> None:
        with translated("monitoring the system", "this machine"):
            monitor.finish()

    return stop
