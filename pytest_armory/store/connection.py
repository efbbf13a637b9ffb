"""MLflow's client for one destination, with budgets for its calls, and translated errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from os import getpid
from time import monotonic
from typing import Any, TypeVar

from pytest_armory.errors import (
    LoginRefusedError,
    StoreUnreachableError,
    TrackingError,
)
from pytest_armory.signals import uninterrupted
from pytest_armory.store._mlflow import import_mlflow, quietly
from pytest_armory.store.circuit import Circuit, circuit_of
from pytest_armory.store.database import (
    check_database,
    ensure_database,
    explain_faults,
    import_database_store,
    sqlite_uri,
    tune,
)
from pytest_armory.store.destination import Destination
from pytest_armory.store.own_requests import as_own, keep_apart, own
from pytest_armory.store.own_sessions import use_own_sessions
from pytest_armory.store.retrying import retried
from pytest_armory.store.translation import MockedError, retries_exhausted, translated

T = TypeVar("T")

LOGIN = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
"""The variables that MLflow's client reads for each request."""

PROVIDED = "MLFLOW_TRACKING_AUTH"
"""The variable that names what logs in instead, of which those are not."""

RESTART = 2.0
"""Seconds that a server needs at least to be restarted."""


class Connection:
    """MLflow's client for one destination, in the process that opened it."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.where = destination.display_uri
        self.circuit = circuit_of(destination.display_uri)
        self.artifact_circuit = circuit_of(f"{destination.display_uri} artifacts")
        self._warned_pids: set[int] = set()
        self._answered = monotonic()
        self._login: dict[str, int] = {}
        self.was_silent = False
        """Whether the server may have been restarted before it gave the last response."""
        try:
            with translated("opening the store", self.where), quietly(), own():
                self.uri, self._client = _open_client(destination, self.circuit)
        except TrackingError as error:
            if not destination.is_remote:
                raise
            if not self.circuit.is_open:
                self.circuit.trip(str(error))
            raise StoreUnreachableError(str(error)) from None
        self._pid = getpid()

    @property
    def client(self) -> Any:
        """MLflow's client. Raises :class:`TrackingError` in a process forked from this one."""
        self._check_process()
        return self._client

    def _check_process(self) -> None:
        if getpid() == self._pid:
            return
        text = (
            f"process {getpid()} was forked from the one that tracks to {self.where}, and does "
            "not write there; return what it measured, and log it in the parent process"
        )
        if getpid() not in self._warned_pids:  # the parent's summary does not show its errors
            self._warned_pids.add(getpid())
            sys.stderr.write(f"armory: {text}\n")
        raise TrackingError(text)

    def expect_login(self, is_expected: bool = True) -> None:
        """Put requests off, or no longer, while a test has changed the variables of a login."""
        self._login = _login() if is_expected else {}

    def _check_login(self, doing: str) -> None:
        """Raise :class:`MockedError` while a request would have no login, as a test unset it."""
        if not self.destination.is_server:
            return
        for name, value in self._login.items():
            if value and name not in os.environ:
                raise MockedError(f"{doing} was put off at {self.where}: {name} is unset meanwhile")

    @property
    def _has_other_login(self) -> bool:
        """Whether a test has set another login; what is provided by a plugin is renewed."""
        if not (self.destination.is_remote and self._login):  # a local database has none
            return False
        return self._login != _login() and PROVIDED not in os.environ

    def call(
        self, doing: str, work: Callable[[], T], size: int = 0, circuit: Circuit | None = None
    ) -> T:
        """Do one call, within its budget if it crosses a network; ``size`` bytes are uploaded.

        ``circuit`` is that of the service which is called, by default the tracking server's.
        Raises :class:`TrackingError`; what ``doing`` says is in its text.
        """
        self._check_process()
        self._check_login(doing)
        circuit = circuit or self.circuit
        work = as_own(work)
        is_other = self._has_other_login
        try:
            with translated(doing, self.where):
                if not self.destination.is_remote:
                    # A transaction that Ctrl-C breaks off keeps the database locked.
                    with uninterrupted() if circuit is self.circuit else nullcontext():
                        return circuit.watch(work)
                again = partial(retried, work, retries_exhausted, circuit.budget, (0.2, 0.6))
                result = circuit.call(again, size)
                self.was_silent, self._answered = self.may_be_replaced, monotonic()
                return result
        except MockedError:
            raise
        except StoreUnreachableError as error:
            is_other = is_other or self._has_other_login
            if isinstance(error, LoginRefusedError) and is_other:
                raise MockedError(f"{error} (which a test has set)") from None
            if not circuit.is_open:
                circuit.trip(str(error), for_good=isinstance(error, LoginRefusedError))
            raise

    @property
    def may_be_replaced(self) -> bool:
        """Whether the server may have been restarted, with another database, since it responded."""
        return self.destination.is_remote and monotonic() - self._answered > RESTART

    def pages(self, doing: str, search: Callable[..., Any]) -> Iterator[Any]:
        """The members of all pages; one is requested when a member of it is asked for."""
        token: str | None = None
        while True:
            page = self.call(doing, partial(search, page_token=token))
            yield from page
            token = page.token
            if not token:
                return

    def call_without_budget(self, doing: str, work: Callable[[], T]) -> T:
        """Do one call without a budget; the circuit breaker is not involved."""
        with translated(doing, self.where):
            return as_own(work)()

    def not_mlflow(self, doing: str, answer: str) -> StoreUnreachableError:
        """The error for a response that MLflow's client accepts, but no MLflow server sends."""
        reason = (
            f"{doing} failed at {self.where}: it is no MLflow server, it answered with {answer}"
        )
        self.circuit.trip(reason)
        return StoreUnreachableError(reason)


def _login() -> dict[str, int]:
    """The login in the environment, without its secrets; 0 for what is not set."""
    return {name: hash(os.environ[name]) if name in os.environ else 0 for name in LOGIN}


def _open_client(destination: Destination, circuit: Circuit) -> tuple[str, Any]:
    """The tracking URI of a destination, and MLflow's client for it."""
    database = destination.database
    if database and destination.artifacts:
        # First, for importing MLflow takes seconds, and the database may be refused.
        ensure_database(database, destination.artifacts)
    import_mlflow()
    from mlflow import MlflowClient

    if database is None:
        uri = str(destination.uri)
        if destination.is_database:
            import_database_store()
            circuit.call(as_own(partial(check_database, uri)))
        client = MlflowClient(uri)
        keep_apart()
        use_own_sessions()
        return uri, client
    uri = destination.uri or sqlite_uri(database)
    import_database_store()
    explain_faults(database)
    tune(database, circuit)
    client = MlflowClient(uri)
    keep_apart()
    client.get_experiment("0")  # MLflow opens a database at its first query
    return uri, client
