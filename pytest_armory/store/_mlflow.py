"""The import of MLflow: once, without telemetry, warnings or log messages."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType

from pytest_armory import signals


@lru_cache(maxsize=1)
def import_mlflow() -> ModuleType:
    """The ``mlflow`` module, even if a test has replaced it since.

    MLflow decides about telemetry once, when it is imported, and outside a running test that means
    a thread and a file in the home. This import must not be the reason, so telemetry is off unless
    the user's environment says otherwise. Nor is a run's URL printed at each end, which would cost
    a request.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with importing():
        import mlflow

    module: ModuleType = mlflow
    return module


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For imports that take seconds: pause the garbage collector, and defer signals."""
    with garbage_collector_paused(), signals.uninterrupted():
        yield


@contextlib.contextmanager
def garbage_collector_paused() -> Iterator[None]:
    """Pause the garbage collector: it would traverse an import's objects and find no garbage.

    It takes 0.45 s of the 3 s of MLflow's import; with the pause 0.16 s, when it is enabled again.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@lru_cache(maxsize=1)
def freeze_garbage_collector() -> None:
    """Exclude the objects that exist by now from collection, half a million of MLflow's.

    The interpreter's exit would traverse them several times, which takes a quarter of the time of
    MLflow's import. For a session's process, before it creates objects that are to be collected.
    """
    gc.freeze()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress MLflow's warnings and log messages, which would look like a test's own.

    If the user's filter turns warnings into errors, no run could be opened; and alembic logs each
    opening to stderr, whatever the level of its logger was.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
