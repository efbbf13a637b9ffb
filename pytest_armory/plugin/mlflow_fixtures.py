"""What fixtures wider than a test do with MLflow: it is theirs, and not the test's they began in.

A run that a session's fixture opens lives until that fixture ends, and a tracking URI that it sets
is in force for as long. So while such a fixture is set up or ends, the code at work is not the
test's own; and it ends with the tracking URI in force that it was set up with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import pytest

from pytest_armory.plugin.guard import Guard
from pytest_armory.store import active_run, tracing
from pytest_armory.store.active_run import ActiveRun, innermost
from pytest_armory.store.in_force import in_force


class MlflowFixtures:
    """The fixtures of one process that are wider than a test, and the tracking URIs they set."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._uris: dict[pytest.FixtureDef[Any], str] = {}

    def keep_uri(self) -> bool:
        """Whether a fixture that has not ended yet has set the tracking URI in force."""
        return in_force.uri() in self._uris.values()

    def restore(self) -> None:
        """Put the user's own MLflow settings back: a wide fixture may end with any test."""
        active_run.restore()

    def settle(self) -> list[str]:
        """Wait for traces of evaluations; what was lost of those that are over."""
        tracing.settle()
        return tracing.take_late()

    @contextmanager
    def setting_up(
        self, fixturedef: pytest.FixtureDef[Any], active: ActiveRun | None
    ) -> Iterator[None]:
        """While a fixture is set up, in the setup or the body of a test whose run is ``active``."""
        if fixturedef.scope == "function":
            with self._setting_up_own(fixturedef, active):
                yield
            return
        used: AbstractContextManager[None] = active.used_by(wider=True) if active else nullcontext()
        before, ending = in_force.uri(), ExitStack()
        fixturedef.addfinalizer(self._guarded(lambda: self._ended(fixturedef, ending)))
        with used:
            yield
        after = in_force.uri()
        if after and after != before and not (active and after == active.uri):
            self._uris[fixturedef] = after
        # The finalizer that was added last is called first.
        fixturedef.addfinalizer(
            self._guarded(lambda: ending.enter_context(used_by_ending_fixture(after)))
        )

    @contextmanager
    def _setting_up_own(
        self, fixturedef: pytest.FixtureDef[Any], active: ActiveRun | None
    ) -> Iterator[None]:
        """While a fixture of the test's own is set up."""
        if active is None:
            yield
            return
        ending = ExitStack()
        fixturedef.addfinalizer(self._guarded(ending.close))
        with active.used_by(wider=False):
            yield
        fixturedef.addfinalizer(
            self._guarded(lambda: ending.enter_context(active.used_by(wider=False)))
        )

    def _ended(self, fixturedef: pytest.FixtureDef[Any], ending: ExitStack) -> None:
        ending.close()
        self._uris.pop(fixturedef, None)
        self.restore()

    def _guarded(self, work: Callable[[], object]) -> Callable[[], None]:
        def finalizer() -> None:
            with self._guard.own_code():
                work()

        return finalizer


@contextmanager
def used_by_ending_fixture(uri: str | None) -> Iterator[None]:
    """While a wide fixture ends: the URI that was in force when it began, and its runs on top."""
    active = innermost()
    if active is not None and uri == active.uri == in_force.uri():
        with active.used_by(wider=True):
            yield
    elif uri == in_force.uri():
        yield
    else:
        with in_force.exchanged(uri):
            yield
        active_run.restore()
