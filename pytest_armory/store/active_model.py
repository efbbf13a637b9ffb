"""The model that MLflow links metrics and traces to, as ``mlflow.set_active_model`` sets it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytest_armory.store.own_requests import own
from pytest_armory.store.stack import fluent_api


@contextmanager
def linked_to_no_model() -> Iterator[None]:
    """While we write ourselves: MLflow links each metric to the model that is active."""
    active = active_model()
    if getattr(active, "model_id", None) is None:
        yield
        return
    cleared = object.__new__(type(active))
    cleared._model_id, cleared._set_by_user = None, False
    set_active_model(cleared)
    try:
        yield
    finally:
        set_active_model(active)


def active_model() -> Any:
    """This thread's active model, as MLflow keeps it."""
    with own():
        return _variable().get()


def set_active_model(context: Any) -> None:
    """Make it this thread's active model."""
    if active_model() is not context:
        with own():
            _variable().set(context)


def _variable() -> Any:
    return fluent_api()._ACTIVE_MODEL_CONTEXT
