"""The port to MLflow: the only importer of ``mlflow``, and that lazily.

:func:`open_store` gives the :class:`Store` of a destination, one per process and destination. All
it raises is :class:`~pytest_armory.errors.TrackingError`, without a secret in its text.
"""

from __future__ import annotations

from pytest_armory.store._mlflow import spare_the_collector
from pytest_armory.store.client import Store, StoredRun, StoreRun, open_store

__all__ = ["Store", "StoreRun", "StoredRun", "open_store", "spare_the_collector"]
