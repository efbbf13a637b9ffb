"""MLflow itself, imported once and quietly; and its exceptions, translated on one line."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

from pytest_armory import signals
from pytest_armory.errors import (
    LoginRefusedError,
    StoreRefusedError,
    StoreUnreachableError,
    TrackingError,
)
from pytest_armory.values import conceal, redact_text, without_concealed


@lru_cache(maxsize=1)
def import_mlflow() -> ModuleType:
    """The ``mlflow`` module, also where a test has put something else in its place since.

    MLflow decides about telemetry once, when it is imported, and outside a running test that means
    a thread and a file in the home. Our importing it must not be why, so it is off unless the user
    said something else; and a run's URL is not printed at every end (it costs a request each).
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with importing():
        import mlflow

    module: ModuleType = mlflow
    return module


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For the imports that take seconds: without the collector, and not broken off half-way."""
    with nothing_collected(), signals.uninterrupted():
        yield


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    """Spare the garbage collector: an import makes objects that stay, and it looks at all of them.

    It would take 0.45 s of the 3 s that MLflow takes; 0.16 s are left, when it is on again.
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
    """Have no collection look at what is there by now, MLflow's half a million objects.

    The interpreter's end would, several times, which takes a quarter of what importing it takes.
    For a process of our own, before it makes anything that shall be collected.
    """
    gc.freeze()


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
        known = as_tracking_error(error)
        raise type(known)(f"{doing} failed at {where}: {known}") from None


def as_tracking_error(error: Exception) -> TrackingError:
    """What an exception of MLflow's or of its libraries means, without a secret in its text."""
    kind, text = _kind_of(error)
    plain = redact_text(_without_credentials(" ".join(str(error).split())))[:500]
    return kind(text or f"{type(error).__name__}: {plain}")


def _without_credentials(text: str) -> str:
    """A server may put into its answer what it was sent."""
    from mlflow.utils.credentials import read_mlflow_creds

    names = ("MLFLOW_TRACKING_TOKEN", "MANTIK_PASSWORD")
    conceal(read_mlflow_creds().password or "", *(os.environ.get(name, "") for name in names))
    return without_concealed(text)


def _kind_of(error: Exception) -> tuple[type[TrackingError], str]:
    """What an exception of MLflow's means, and what to say of it where its own text says little."""
    if isinstance(error, TimeoutError):  # the budget's own
        return StoreUnreachableError, str(error)
    code = getattr(error, "error_code", None)
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"):
        return LoginRefusedError, _login_refused(code)
    page = _PAGE.match(str(error))
    if page and not hasattr(error, "json") and int(page[1] or 200) not in _TOO_LARGE:
        # A gateway's or a login's page; of what MLflow refuses it says so itself, in JSON.
        return StoreUnreachableError, f"it is no MLflow server, or not well (HTTP {page[1] or 200})"
    if code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
        changed = "Changing param values is not allowed" in str(error)  # each text names its run
        return StoreRefusedError, "another value of it is stored already" if changed else ""
    cause = error.__cause__ or error.__context__
    status = _status(error) or _status(cause)
    if 400 <= status < 500 and status not in _AGAIN:
        return TrackingError, ""
    if type(cause).__module__.startswith(("requests", "urllib3")):
        return StoreUnreachableError, _plainly(cause)
    answered = hasattr(error, "json")  # MLflow's own answer; a proxy's page has none
    if type(error).__name__ == "MlflowException" and not answered and code != "INTERNAL_ERROR":
        return StoreUnreachableError, f"it is no MLflow server, or not well ({code})"
    return TrackingError, ""


_PAGE = re.compile(r"API request to endpoint .*?(?:failed with error code (\d+)|was successful)")
"""How MLflow begins to tell of an answer that is not MLflow's."""

_TOO_LARGE = (413, 414, 431)
"""Answers of a server in front of MLflow's that mean what it was asked for."""

_AGAIN = (401, 403, 404, 408, 429)
"""Answers that mean the server, or our way to it, and not what it was asked for."""


def _status(error: BaseException | None) -> int:
    """The status of the answer that libraries of HTTP raise; 0 without one."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def is_unwell(error: Exception) -> bool:
    """Whether a server answered, and was not well every time that MLflow asked it."""
    return type(error.__cause__ or error.__context__).__name__ == "RetryError"


def may_be_passing(error: Exception) -> bool:
    """Whether a request may have been lost on its way, or its answer."""
    kind, _ = _kind_of(error)
    return kind is StoreUnreachableError


def _login_refused(code: str) -> str:
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    who = f"the login of {user!r}" if user else "the login"
    return (
        f"{who} was refused ({code}); check MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    )


def _plainly(cause: BaseException | None) -> str:
    """A failed connection in few words: its innermost reason, and no objects' addresses."""
    inner: Any = cause
    while isinstance(inner, BaseException):
        args = [arg for arg in inner.args if isinstance(arg, BaseException)]
        following = getattr(inner, "reason", None) or (args[0] if args else None)
        if not isinstance(following, BaseException):
            break
        inner = following
    text = redact_text(" ".join(str(inner).split()).rpartition(">: ")[2])[:200]
    return f"{type(cause).__name__}: {text}"


@contextlib.contextmanager
def quietly() -> Iterator[None]:
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
