"""What code has logged by MLflow's fluent API, and where that API goes."""

from __future__ import annotations

from pytest_armory.store._mlflow import import_mlflow
from pytest_armory.store.active_run import ActiveRun, is_ours
from pytest_armory.store.runs import finite_or_not, last_values
from pytest_armory.store.stack import current_stack, last_ended
from pytest_armory.store.translation import translated


def flush(uri: str) -> None:
    """Wait for what code has logged to ``uri`` in threads of MLflow's (``synchronous=False``)."""
    import_mlflow()
    from mlflow.tracking._tracking_service import utils

    utils._get_store(uri).flush_async_logging()


def own_metrics(since: float, active: ActiveRun | None = None) -> dict[str, float]:
    """What this thread's own code has logged since then, to the run that it has opened last.

    In seconds since the epoch; ``active`` is our own run, if there is one. Raises
    :class:`TrackingError`.
    """
    top = current_stack()[-1:]
    run_id = top[0].info.run_id if top and not is_ours(top[0]) else last_ended()
    if run_id is None or (active is not None and run_id == active.last_ended):
        return {}
    mlflow = import_mlflow()
    with translated("reading a run", "MLflow's tracking URI"):
        mlflow.flush_async_logging()
        try:
            run = mlflow.get_run(run_id)
        except mlflow.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # it is at another URI
                return {}
            raise
    began = since * 1000 - 1
    if run.info.start_time >= began:
        return {m.key: finite_or_not(m.value) for m in last_values(run)}
    # A run that MLflow opens unasked, for the first value, stays open for the next test's.
    ask = mlflow.MlflowClient().get_metric_history
    new = {key: [m for m in ask(run_id, key) if m.timestamp >= began] for key in run.data.metrics}
    last = {key: max(v, key=lambda m: (m.step, m.timestamp)) for key, v in new.items() if v}
    return {key: finite_or_not(m.value) for key, m in last.items()}


def use_tracking_uri(uri: str) -> None:
    """Let ``mlflow.*`` calls of this process, and of its children, go to ``uri`` from now on."""
    import_mlflow().set_tracking_uri(uri)
