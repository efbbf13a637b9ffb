"""The interface to MLflow: the only importer of ``mlflow``, and a lazy one.

:func:`open_store` returns the :class:`Store` of a destination, one per process and destination. All
it raises is :class:`~pytest_armory.errors.TrackingError`, without a secret in its text.

Every ``import mlflow`` on a machine imports :mod:`pytest_armory.store.login`, which is MLflow's
entry point, and with it this module: so the public names are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_armory.store._mlflow import freeze_garbage_collector
    from pytest_armory.store.client import Store, open_store
    from pytest_armory.store.runs import StoredRun, StoreRun, milliseconds

_MODULES = {
    "Store": "client",
    "StoreRun": "runs",
    "StoredRun": "runs",
    "freeze_garbage_collector": "_mlflow",
    "milliseconds": "runs",
    "open_store": "client",
}

__all__ = [
    "Store",
    "StoreRun",
    "StoredRun",
    "freeze_garbage_collector",
    "milliseconds",
    "open_store",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
