"""The connection of a session to its destination: login, time limits, environment."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from pytest_armory import environment
from pytest_armory.environment import value_of
from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.plugin.options import Settings
from pytest_armory.store.destination import (
    HTTP_LIMITS,
    LOCAL,
    Destination,
    resolve,
    without_login,
)
from pytest_armory.sync.tags import store_option, sync_command
from pytest_armory.values import conceal, redact_text

_LOGIN = ("USERNAME", "PASSWORD", "TOKEN")

_SET_MEANWHILE = ("MLFLOW_TRACKING_URI", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
"""Variables that opening the store and its runs sets, restored when the session ends."""


@dataclass(frozen=True)
class Connection:
    """Where a session tracks to, with problems and notes for its summary.

    ``local`` is the local database, where evaluations wait whose server is unreachable, and
    ``sync_command`` what uploads them. ``store_option`` is what other commands need to find it.
    """

    where: Destination
    local: Destination
    problems: list[str]
    notes: list[str]
    sync_command: str
    store_option: str


def connect(
    config: pytest.Config, settings: Settings, cleanup: ExitStack, out_of_reach: str = ""
) -> Connection:
    """Find the destination and log in; ``cleanup`` undoes it.

    ``out_of_reach`` says why no request is to be sent to the server. Raises ``pytest.UsageError``
    before anything is opened or written.
    """
    with _usage_errors():
        given = _destination(settings)
        from_environment = settings.uri == value_of("MLFLOW_TRACKING_URI")
        where, problems = _logged_in(config, given, cleanup)
        local = resolve(None)
    _limit_calls(where, settings.budget, out_of_reach, cleanup)
    named = "" if from_environment else given.display_uri
    option = store_option(named if given.uri else named and LOCAL)
    return Connection(where, local, problems, _password_note(given), sync_command(named), option)


def session_environment() -> AbstractContextManager[None]:
    """Unset the job's run in the environment and limit MLflow's retries; restored at the end.

    ``mlflow.start_run`` in a test would otherwise resume the job's run instead of opening its own.
    And if the server is down, each of a test's own calls would wait for four minutes. A test module
    may import MLflow before we do, which decides about telemetry then.
    """
    limits = {**HTTP_LIMITS, "MLFLOW_DISABLE_TELEMETRY": "true"}
    ours = {name: value_of(name, value) for name, value in limits.items()}
    others = {name: value_of(name) for name in _SET_MEANWHILE}
    return environment.changed({**others, **ours, "MLFLOW_RUN_ID": None})


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Raise usage errors as pytest's, which shows their text without a traceback."""
    try:
        yield
    except ArmoryUsageError as error:
        raise pytest.UsageError(f"armory: {error}") from None


def _destination(settings: Settings) -> Destination:
    where = resolve(settings.uri)
    if where.database is not None:
        from pytest_armory.store.database import check_usable

        check_usable(where)
    return where


def _logged_in(
    config: pytest.Config, given: Destination, cleanup: ExitStack
) -> tuple[Destination, list[str]]:
    """Log in if a platform or a hook requires it; returns where to track to, and problems.

    The controller logs in once: its workers inherit the token through their environment.
    """
    if not given.is_server:
        return given, []
    from pytest_armory.store import login

    where = _with_login_in_environment(given, cleanup)
    uri = str(where.uri)
    try:
        with _errors_of_a_login():
            by_hook = config.hook.pytest_armory_login(uri=uri)
            return resolve(cleanup.enter_context(login.logged_in(uri, by_hook))), []
    except TrackingError as error:
        from pytest_armory.store.circuit import circuit_of

        if login.needed(uri):  # what waits is to be uploaded there
            where = resolve(login.tracking_uri(uri))
        circuit_of(where.display_uri).trip(str(error), for_good=True)
        return where, [str(error)]


@contextmanager
def _errors_of_a_login() -> Iterator[None]:
    """Let whatever a hook's login raises be a login that fails, as one that is refused."""
    try:
        yield
    except (TrackingError, ArmoryUsageError, pytest.UsageError):
        raise
    except Exception as error:  # noqa: BLE001 - a user's code
        text = redact_text(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
        raise TrackingError(f"the login failed: {text}") from None


def _with_login_in_environment(given: Destination, cleanup: ExitStack) -> Destination:
    """Move a login from the URI to the environment, and remove its secrets from all output.

    MLflow's exceptions, in the tests' tracebacks, have the URI.
    """
    where, named = without_login(given)
    if named is not None:
        user, password = named
        variables = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        cleanup.enter_context(environment.changed(variables))
    user, *secrets = (value_of(f"MLFLOW_TRACKING_{name}", "") for name in _LOGIN)
    basic = b64encode(f"{user}:{secrets[0]}".encode()).decode() if secrets[0] else ""
    conceal(*secrets, basic)
    return where


def _password_note(given: Destination) -> list[str]:
    """Advice against a password in the tracking URI."""
    if not given.is_server or "@" not in str(given.uri):
        return []
    return [
        "the tracking URI holds a password, which others may read where it is written; set "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
    ]


def _limit_calls(
    where: Destination, budget: float | None, out_of_reach: str, cleanup: ExitStack
) -> None:
    """Set the budget of calls to the server; open the circuit if it is known to be unreachable."""
    from pytest_armory.store.circuit import BUDGET, Circuit, circuit_of

    Circuit.budget = budget or BUDGET
    cleanup.callback(setattr, Circuit, "budget", BUDGET)
    if out_of_reach:
        circuit_of(where.display_uri).trip(out_of_reach)
