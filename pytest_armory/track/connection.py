"""The requests of one run, sent to the local database where its destination is unreachable."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

from pytest_armory.errors import (
    StoreRefusedError,
    StoreUnreachableError,
    TrackingError,
    TrackingWarning,
)
from pytest_armory.signals import alarm_paused
from pytest_armory.store.translation import ArtifactError, GoneError, MockedError
from pytest_armory.track.activation import Activation
from pytest_armory.track.location import LocalFallback, Location

Work: TypeAlias = Callable[[Location], None]
"""One request or several, to the store of a run."""


class RunConnection:
    """The connection of one run to its store, or to none where the run is in memory.

    A store that fails raises :class:`TrackingError`, until :meth:`collect_problems` is called.
    """

    def __init__(
        self,
        location: Location | None = None,
        fallback: LocalFallback | None = None,
        *,
        is_waiting: bool = False,
        is_put_off: bool = False,
    ) -> None:
        self.location = location
        self.is_waiting = is_waiting
        """Whether the run is recorded locally, until `pytest-armory sync` uploads it."""
        self.is_put_off = is_put_off
        """Whether that is because of what a test has done, while the server may be well."""
        self.experiment = ""
        """The experiment's name at a server and in the local database; empty if not known."""
        self.tags: dict[str, str] = {}
        """All that were written, their last values, for the local run that it may go on in."""
        self.request_seconds = 0.0
        """How long the evaluation has waited for requests."""
        self.raises = True
        self.problems: list[str] = []
        self.activation: Activation | None = None
        self.may_hold_more = False
        """Whether other code may have written to the run: it was active or its id was read."""
        self.left_open: dict[str, str] = {}
        """Runs that the evaluation's code has opened and not ended, each by this one's id."""
        self.restore: Work
        """Writes what is known of the run to another one in its place; the writer's."""
        self._fallback = fallback
        self._first: Location | None = None
        self._pending: set[object] = set()
        self.failed: list[tuple[str, Work]] = []
        """The requests that are to be tried again, each with the problem that it had."""
        self._waiting_files: set[str] = set()

    @property
    def parts(self) -> list[Location]:
        """The run, after the one that it began in before its server became unreachable."""
        return [part for part in (self._first, self.location) if part is not None]

    @property
    def is_pending(self) -> bool:
        """Whether something is still sent in the background, or is to be tried again."""
        return bool(self._pending or self.failed)

    def try_again(self) -> None:
        """Do once more what failed, but for what the store has refused: that problem may be gone.

        A test may have patched what requests need, until its fixtures were torn down.
        """
        failed, self.failed = self.failed, []
        for problem, work in failed:
            self.do(work)
            self.problems.remove(problem)  # after, for Ctrl-C may come meanwhile

    def shown_location(self) -> Location | None:
        """Where the run is, for code other than ours, which may write to it from now on."""
        self.may_hold_more = True
        return self.location

    def collect_problems(self, problems: list[str]) -> None:
        """Add failures to ``problems`` from now on instead of raising them."""
        self.problems = problems
        self.raises = False

    def do(self, work: Work) -> None:
        """Do what the evaluation has to wait for, in the local run if its server is unreachable."""
        if self.location is None:
            return
        location = self.location
        with self.waiting():
            try:
                work(location)
            except TrackingError as error:
                self._recover(error, work, location)

    def do_later(self, work: Work) -> None:
        """Do what needs no answer, in the background where that hides latency."""
        location = self.location
        if location is None or not location.store.destination.is_remote:
            self.do(work)
            return
        job = partial(work, location)
        self._pending.add(job)

        def in_background() -> None:
            job()
            self._pending.discard(job)

        def failed(error: TrackingError) -> None:
            self._recover(error, work, location)
            self._pending.discard(job)

        location.store.background.submit(in_background, failed)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For a request: it counts neither as the evaluation's time nor against its time limit."""
        started = perf_counter()
        try:
            with alarm_paused():
                yield
        finally:
            self.request_seconds += perf_counter() - started

    def settle(self) -> None:
        """Wait for what is sent in the background, unless a session does so at its end."""
        if self.location is not None and self.raises:
            self.location.store.background.drain()

    @contextmanager
    def active(self, *, keep_uri: bool = False, wider: bool = False) -> Iterator[None]:
        """Make the run MLflow's active run meanwhile; nothing happens for a run in memory.

        ``keep_uri`` leaves a tracking URI in force that is the user's own; ``wider`` says that the
        code at work is not the evaluation's own, until :meth:`ActiveRun.set_wider` says otherwise.
        """
        if self.location is None:
            yield
            return
        self.activation = Activation(self.location, self.problems, keep_uri=keep_uri)
        try:
            self.activation.run.set_wider(wider)
            yield
        finally:
            activation, self.activation = self.activation, None
            self._close_left_open(activation.close(), self.location)
            self.may_hold_more = self.may_hold_more or activation.was_used
            if self.raises:
                self._warn_of_problems()

    def _warn_of_problems(self) -> None:
        while self.problems:
            warnings.warn(self.problems.pop(0), TrackingWarning, stacklevel=6)

    def _close_left_open(self, left_open: list[str], location: Location) -> None:
        self.left_open = dict.fromkeys(left_open, location.run_id)
        if self.raises:  # a session waits, for a fixture may still need its run
            self.attempt(partial(location.store.close_left_open, self.left_open))

    def _recover(self, error: TrackingError, work: Work, location: Location) -> None:
        """Do in the local run what a server has not answered; report any other failure."""
        if isinstance(error, ArtifactError):
            self.attempt(partial(self._keep_files, error, location))
            return
        if isinstance(error, GoneError):
            goes_on = self.location is not location or self._open_again(error)
        elif isinstance(error, MockedError) or not isinstance(error, StoreUnreachableError):
            self._report(error)
            if not isinstance(error, StoreRefusedError):
                self.failed.append((str(error), work))
            return
        else:
            goes_on = self.location is not location or self._fall_back(error)
        if goes_on:
            assert self.location is not None
            self.attempt(partial(work, self.location))

    def log_files(self, location: Location, files: Mapping[str, str | bytes | Path]) -> None:
        """Store artifacts; of what waits already newer content does, too, for sync goes over it."""
        is_remote = location.store.destination.is_remote
        waiting = {k: files[k] for k in files if is_remote and k in self._waiting_files}
        if waiting and self._fallback is not None:
            self._fallback.keep_files(location, waiting)
        location.store.log_files(location.run, {k: files[k] for k in files if k not in waiting})

    def _keep_files(self, error: ArtifactError, location: Location) -> None:
        """Keep files for sync that the artifact storage has not taken; the run stays there."""
        if self._fallback is None:
            raise error
        # Imported here, for a session that is not tracked has no use for it.
        from pytest_armory.sync.tags import waiting_text

        self._fallback.keep_files(location, error.files)
        self._waiting_files.update(error.files)
        self.problems.append(waiting_text(error, location.store.destination.display_uri))

    def _open_again(self, error: GoneError) -> bool:
        """Open the run again at a server that was restarted with another database."""
        if self._fallback is None or self.location is None or self.is_waiting:
            self._report(error)
            return False
        try:
            again = self._fallback.open_again(self.location)
            self.restore(again)
        except TrackingError as second:
            self._report(error)
            self._report(second)
            return False
        self.problems.append(f"{error}: opened again, without steps and artifacts stored before")
        self.location = again
        if self.activation is not None:
            self.activation.replace(again)
        return True

    def _fall_back(self, error: TrackingError) -> bool:
        """Go on in a run of the local database, which waits for the server; False if that fails.

        It holds what is stored from now on; ``pytest-armory sync`` brings both parts together.
        """
        if self._fallback is None or self.location is None or self.is_waiting:
            self._report(error)
            return False
        try:
            local = self._fallback.open_continuation(self.location)
            local.store.log_batch(local.run_id, tags=self.tags)
        except TrackingError as second:
            self._report(error)
            self._report(second)
            return False
        self._first, self.location, self.is_waiting = self.location, local, True
        if self.activation is not None:
            self.activation.replace(local)
        return True

    def attempt(self, work: Callable[[], object]) -> None:
        """Do a request; its failure is raised or collected."""
        try:
            work()
        except TrackingError as error:
            self._report(error)

    def _report(self, error: TrackingError) -> None:
        if self.raises:
            raise error
        self.problems.append(str(error))
