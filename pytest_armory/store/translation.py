"""MLflow's exceptions, and those of its libraries, translated into :class:`TrackingError`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_armory.environment import value_of
from pytest_armory.errors import (
    LoginRefusedError,
    StoreRefusedError,
    StoreUnreachableError,
    TrackingError,
)
from pytest_armory.store.login import PROVIDER, token_refused
from pytest_armory.store.own_requests import own
from pytest_armory.values import conceal, redact_text, without_concealed


class GoneError(TrackingError):
    """The store has no run, or no experiment, of that ID: it may have been replaced by another."""


class MockedError(StoreUnreachableError):
    """A request was put off, for a test has replaced what it would go through, or the login."""


class ArtifactError(TrackingError):
    """The artifact storage cannot be reached, or is full; ``files`` are what it has not stored.

    The tracking server may be well: artifacts are often stored by another service.
    """

    def __init__(self, text: str, files: Mapping[str, str | bytes | Path]) -> None:
        super().__init__(text)
        self.files = files


@contextlib.contextmanager
def translated(doing: str, where: str) -> Iterator[None]:
    """Translate what MLflow or its libraries raise while ``doing`` into :class:`TrackingError`.

    It has no cause: MLflow's texts and tracebacks may have the password of the URI.
    """
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:  # noqa: BLE001 - drivers and plugins raise what they like
        known = as_tracking_error(error)
        raise type(known)(f"{doing} failed at {where}: {known}") from None


def as_tracking_error(error: Exception) -> TrackingError:
    """The translation of an exception of MLflow's or its libraries, without secrets in its text."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return TrackingError(_not_installed(error.name))
    try:
        kind, text = _kind_of(error)
        message = text or f"{type(error).__name__}: {' '.join(str(error).split())}"
        return kind(redact_text(_without_credentials(message))[:500])
    except Exception:  # noqa: BLE001 - what a test has patched fails here too
        # Without the text, which could not be searched for secrets.
        return TrackingError(type(error).__name__)


def _without_credentials(text: str) -> str:
    """The text without the process's credentials, which a server's response may repeat."""
    from mlflow.utils.credentials import read_mlflow_creds

    names = ("MLFLOW_TRACKING_TOKEN", "MANTIK_PASSWORD")
    with own():
        password = read_mlflow_creds().password or ""
    conceal(password, *(value_of(name, "") for name in names))
    return without_concealed(text)


def _kind_of(error: Exception) -> tuple[type[TrackingError], str]:
    """The class that an exception is translated to, and a text if its own says little."""
    if isinstance(error, TimeoutError):  # of our own limits
        return StoreUnreachableError, str(error)
    code = getattr(error, "error_code", None)
    cause = error.__cause__ or error.__context__
    driver = getattr(cause, "orig", None)  # SQLAlchemy's exceptions have that of the driver
    if driver is not None and code == "TEMPORARILY_UNAVAILABLE":
        return StoreUnreachableError, f"{type(driver).__name__}: {' '.join(str(driver).split())}"
    if _LACKS_A_RIGHT in (getattr(driver, "pgcode", ""), getattr(driver, "sqlstate", "")):
        return LoginRefusedError, " ".join(str(driver).split())
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"):
        return LoginRefusedError, _login_refused(code)
    page = _PAGE.match(str(error))
    if page and not hasattr(error, "json") and int(page[1] or 200) not in _TOO_LARGE_STATUSES:
        # The page of a gateway or a login: MLflow's own errors are JSON.
        return StoreUnreachableError, f"it is no MLflow server, or not well (HTTP {page[1] or 200})"
    if code == "RESOURCE_DOES_NOT_EXIST":
        return GoneError, ""
    if foreign := _foreign_code(error):
        return StoreUnreachableError, f"it is no MLflow tracking server, or not well ({foreign})"
    if code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
        changed = "Changing param values is not allowed" in str(error)  # each text names its run
        return StoreRefusedError, "another value of it is stored already" if changed else ""
    is_unsent = re.match(r"API request to \S+ failed with exception ", str(error)) is not None
    if is_unsent and isinstance(cause, TrackingError):  # there is no login to send it with
        is_refusal = isinstance(cause, LoginRefusedError)
        return LoginRefusedError if is_refusal else StoreUnreachableError, str(cause)
    status = _status(error) or _status(cause)
    if 400 <= status < 500 and status not in _SERVER_STATUSES:
        return TrackingError, ""
    if _status(error) >= 500:  # of an artifact storage; its address is that of one of many files
        return StoreUnreachableError, _response_of(error)
    if _status(error) in (401, 403):
        return LoginRefusedError, ""
    if type(cause).__module__.startswith(("requests", "urllib3")):
        return StoreUnreachableError, _innermost_reason(cause)
    answer = getattr(error, "json", None)
    if answer is not None and "error_code" not in answer:  # a gateway's, whose status is lost
        is_refusal = _REFUSAL.search(str(answer)) is not None
        kind = LoginRefusedError if is_refusal else StoreUnreachableError
        return kind, f"it is no MLflow server, or not well (it responded {answer})"
    if is_unsent:
        return MockedError, ""
    if type(error).__name__ == "MlflowException" and answer is None and code != "INTERNAL_ERROR":
        return StoreUnreachableError, f"it is no MLflow server, or not well ({code})"
    return TrackingError, ""


def _not_installed(module: str) -> str:
    package = _PACKAGES.get(module)
    advice = f"`pip install {package}` does that" if package else "install the package that has it"
    return f"the module {module!r} is not installed; {advice}"


_PACKAGES = {
    "MySQLdb": "mysqlclient",
    "psycopg2": "psycopg2-binary",
    "pyodbc": "pyodbc",
    "boto3": "boto3",
}
"""The packages of SQLAlchemy's default drivers, and of the most common artifact storage."""

_LACKS_A_RIGHT = "42501"
"""The SQLSTATE of a role that may not do what was asked for, as to write."""

_PAGE = re.compile(r"API request to endpoint .*?(?:failed with error code (\d+)|was successful)")
"""The start of MLflow's text about a response that is not MLflow's."""

_REFUSAL = re.compile("unauthori|forbidden|denied|authenticat", re.IGNORECASE)
"""What the JSON of a gateway says that refuses a login: MLflow's exception has no status then."""

_TOO_LARGE_STATUSES = (413, 414, 431)
"""Status codes of a proxy that are about the request itself."""

_SERVER_STATUSES = (401, 403, 404, 408, 429)
"""Client error codes that are about the server or the login, not about the request itself."""


def _foreign_code(error: Exception) -> str:
    """The code of a response in JSON that no tracking server of MLflow's gives; else empty."""
    answer = getattr(error, "json", None)
    given = str(answer.get("error_code") or "") if isinstance(answer, dict) else ""
    code = getattr(error, "error_code", "")
    is_known = code != "INTERNAL_ERROR" or given == code  # to MLflow, which has read it
    return "" if is_known and code not in _NO_SUCH_ENDPOINT else given


_NO_SUCH_ENDPOINT = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")
"""What MLflow makes of the status codes 404 and 501."""


def _status(error: BaseException | None) -> int:
    """The status code of the response in an exception of an HTTP library; 0 without one."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _response_of(error: Any) -> str:
    """What a server responded in the exception of an HTTP library, in a few words."""
    response = error.response
    is_read = isinstance(getattr(response, "_content", None), bytes)  # of requests, and whole
    body = " ".join(response.text.split())[:200] if is_read else ""
    reason = getattr(response, "reason", "") or getattr(response, "reason_phrase", "")
    return f"HTTP {response.status_code} {reason}".strip() + (f": {body}" if body else "")


def retries_exhausted(error: Exception) -> bool:
    """Whether the server responded to each of MLflow's retries with a server error."""
    return type(error.__cause__ or error.__context__).__name__ == "RetryError"


def is_transient(error: Exception) -> bool:
    """Whether a request or its response may have been lost."""
    return type(as_tracking_error(error)) is StoreUnreachableError


def _login_refused(code: str) -> str:
    if value_of("MLFLOW_TRACKING_AUTH") == PROVIDER:  # which replaces MLflow's own credentials
        return token_refused(code)
    user = value_of("MLFLOW_TRACKING_USERNAME", "")
    who = f"the login of {user!r}" if user else "the login"
    return (
        f"{who} was refused ({code}); check MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    )


def _innermost_reason(cause: BaseException | None) -> str:
    """A failed connection in a few words: its innermost reason, without addresses of objects."""
    inner: Any = cause
    while isinstance(inner, BaseException):
        args = [arg for arg in inner.args if isinstance(arg, BaseException)]
        reason = getattr(inner, "reason", None) or (args[0] if args else None)
        if not isinstance(reason, BaseException):
            break
        inner = reason
    text = redact_text(" ".join(str(inner).split()).rpartition(">: ")[2])[:200]
    return f"{type(cause).__name__}: {text}"
