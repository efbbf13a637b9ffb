"""MLflow itself, imported once and quietly; and its exceptions, translated on one line."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from types import ModuleType

from pytest_armory.errors import StoreRefusedError, TrackingError
from pytest_armory.values import redact_text


def import_mlflow() -> ModuleType:
    """The ``mlflow`` module.

    MLflow decides about telemetry once, when it is imported, and outside a running test that means
    a thread and a file in the home. Our importing it must not be why, so it is off unless the user
    said something else; and a run's URL is not printed at every end (it costs a request each).
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow

    module: ModuleType = mlflow
    return module


@contextlib.contextmanager
def translated(doing: str, where: str) -> Iterator[None]:
    """Whatever MLflow or its libraries raise while ``doing``, as a :class:`TrackingError`.

    The cause is cut off: MLflow's texts and tracebacks hold the password of the URI.
    """
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:  # noqa: BLE001 - drivers and plugins raise what they like
        text = redact_text(" ".join(str(error).split()))[:500]
        refused = getattr(error, "error_code", None) in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
        raise (StoreRefusedError if refused else TrackingError)(
            f"{doing} failed at {where}: {type(error).__name__}: {text}"
        ) from None


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """What MLflow says of itself while it is imported and opened is nobody's, least a test's.

    A warning would cost every run where the user's filter makes it an error; and alembic reports
    each opening on stderr, whatever level its logger had before.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
