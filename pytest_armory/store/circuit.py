"""Time budgets for calls over a network, and the circuit breaker that opens when one is spent.

If a server is down, MLflow takes four minutes for each call. Here a call has a budget of seconds,
which includes MLflow's retries (with jitter, honouring ``Retry-After``, and only of errors that may
be temporary). When it is spent, the circuit of this process opens: calls fail at once, and what
they would have stored is recorded locally. After each pause one call tries the server again.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from pytest_armory.budget import within
from pytest_armory.errors import StoreUnreachableError

T = TypeVar("T")

BUDGET = 10.0
"""Seconds a call may take over a network, retries included, unless ``armory_budget`` says more."""

PAUSE = 30.0
"""Seconds after which an unreachable server is tried again."""

PROBE = 3.0
"""Seconds that such a try may take."""

UPLOAD = 1_000_000
"""The rate, in bytes a second, that an upload needs to stay within its budget."""

WITHOUT_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""The environment for a request that MLflow must not repeat by itself."""


class Circuit:
    """One process's circuit breaker for one destination; ``reason`` says why it is open, if so."""

    budget = BUDGET
    """The budget of all circuits of a process: a session sets it."""

    def __init__(self) -> None:
        self.reason = ""
        self._again = 0.0

    def trip(self, reason: str, for_good: bool = False) -> None:
        """Open it: the next calls fail at once."""
        self.reason = reason
        self._again = float("inf") if for_good else monotonic() + PAUSE

    @property
    def time_limit(self) -> float:
        """Seconds that the next call may take."""
        return PROBE if self.reason else self.budget

    @property
    def is_open(self) -> bool:
        """Whether a call would fail at once."""
        return bool(self.reason) and monotonic() < self._again

    def call(self, work: Callable[[], T], size: int = 0) -> T:
        """Call ``work`` within the budget. Raises :class:`TimeoutError`, or what it raised.

        While it is open, :class:`StoreUnreachableError`. ``size`` is how many bytes the work
        uploads, whose time is added to the budget. Work that takes longer goes on in a daemon
        thread, and its result is dropped.
        """
        if self.is_open:
            raise StoreUnreachableError(self.reason)
        result = within(self.time_limit + size / UPLOAD, work)
        self.reason = ""
        return result

    def watch(self, work: Callable[[], T]) -> T:
        """Call ``work`` in this thread; if it fails after its budget is spent, the circuit opens.

        For a local database, where a call waits for another process's lock: SQLite's busy timeout
        is the budget.
        """
        if self.is_open:
            raise StoreUnreachableError(self.reason)
        started, limit = monotonic(), self.time_limit
        try:
            result = work()
        except Exception as error:
            waited = monotonic() - started
            if waited < 0.9 * limit:  # SQLite waits in steps
                raise
            raise TimeoutError(f"the database was locked for {waited:.0f} s") from error
        self.reason = ""
        return result


_circuits: dict[str, Circuit] = {}


def circuit_of(display_uri: str) -> Circuit:
    """The circuit of a destination, one for each process."""
    return _circuits.setdefault(display_uri, Circuit())
