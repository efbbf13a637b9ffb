"""One process of a session: its lease, its journal, and the recovery of killed sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_armory.errors import ArmoryError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.plugin.guard import Guard
from pytest_armory.records.judging_tag import Judging
from pytest_armory.store.destination import Destination, lease_folder

if TYPE_CHECKING:
    from pytest_armory.session.leases import Lease
    from pytest_armory.session.ledger import Ledger
    from pytest_armory.session.resume import DoneBefore


class Process:
    """A process of a session, whatever its role.

    ``where`` is None if nothing is tracked, ``ledger`` in a process that does not report.
    ``resumes`` says that the session is resumed. ``problems`` and ``notes`` are its lines for the
    session's summary.
    """

    def __init__(
        self,
        guard: Guard,
        where: Destination | None = None,
        ledger: Ledger | None = None,
        wanted: Judging = Judging(),  # noqa: B008 - it is frozen
        resumes: bool = False,
    ) -> None:
        self.guard = guard
        self.where = where
        self.ledger = ledger
        self.judging = wanted
        self.is_agreed = False
        """Whether another job of the session has said what verdicts depend on."""
        self.resumes = resumes
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._has_begun = False
        self._has_looked = False
        self._lease: Lease | None = None

    def begin(self, is_cut_off: bool = False) -> None:
        """Take this process's lease; if it reports, close runs that killed sessions left open.

        Only the lease if the session is being cut off: there is no time for more.
        """
        if self.where is None or self._has_begun:
            return
        self._has_begun = True
        from pytest_armory.session import leases

        with self._step("runs of killed sessions cannot be looked after: "):
            self._lease = leases.hold(lease_folder(self.where))
        if self.ledger is not None and not is_cut_off:
            with self._step("the environment cannot be described: "):
                self.ledger.files.update(self.ledger.describe())
            own = None if self.resumes else self.ledger.identity.session
            for place in dict.fromkeys((self.ledger.local, self.where)):
                with self._step("runs of killed sessions cannot be looked after: "):
                    self._recover(place, own)

    def _recover(self, where: Destination, own: str | None) -> None:
        from pytest_armory.session import recovery

        self.notes += recovery.notes_of(recovery.recover_dead(where, own=own))

    def find_baseline(self) -> Baseline | None:
        """Look up the session's baseline, once, in the process that reports."""
        ledger, where = self.ledger, self.where
        if ledger is None or where is None or self._has_looked:
            return ledger.baseline if ledger is not None else None
        self._has_looked = True
        with self._step("what the session's first job compares with cannot be read: "):
            self._agree(where, ledger)
        if self.judging.reference:
            with self._step("the baseline cannot be looked up: "):
                self._look_up(where, ledger)
        ledger.judging = self.judging
        return ledger.baseline

    def _look_up(self, where: Destination, ledger: Ledger) -> None:
        from pytest_armory.gates import baselines
        from pytest_armory.gates.parse import parse_reference

        first = self.judging.sessions if self.is_agreed else None
        wanted = baselines.Wanted(self.judging.pooled, first)
        reference, own = parse_reference(self.judging.reference), ledger.identity.session
        found = ledger.baseline = baselines.find(where, reference, own, wanted)
        if not found.is_read:
            self.problems.append(f"the baseline cannot be looked up: {found.problem}")
        if not self.is_agreed:
            sessions = tuple(found.sessions) if found.is_read else None
            self.judging = replace(self.judging, sessions=sessions)

    def _agree(self, where: Destination, ledger: Ledger) -> None:
        from pytest_armory.session import judging

        self.judging, self.is_agreed, note = judging.agreed(where, ledger.identity, self.judging)
        self.notes += [note] if note else []
        if self.is_agreed:
            ledger.tags.update(self.judging.to_tags())

    def find_done(self) -> DoneBefore | None:
        """Look up what a resumed session has done, once, in the process that reports."""
        if not self.resumes or self.ledger is None:
            return None
        self.begin()  # what it has left open is closed first
        return self.ledger.find_done()

    def touch(self) -> None:
        """Update the lease's time stamp: this process is active. It never raises."""
        if self._lease is not None:
            with self._step():
                self._lease.touch()

    def write_journal(self, text: str) -> None:
        """Write what is known of an attempt to the lease's journal, which outlives this process."""
        if self._lease is not None:
            with self._step():
                self._lease.write_journal(text)

    def end(self, is_complete: bool) -> None:
        """Release the lease, unless a run is left open for others to close."""
        lease, self._lease = self._lease, None
        with self.guard.step():
            if lease is not None and is_complete:
                lease.release()
            elif lease is not None:
                self._leave(lease)
        if self.where is not None and self.ledger is not None and self.ledger.crashes:
            self._remove_leases_of_dead(self.where)

    def _leave(self, lease: Lease) -> None:
        """Unlock the lease, with how the session ended if this process knows it."""
        if self.ledger is not None and self.ledger.end is not None:
            with self.guard.step():
                lease.write_journal(self.ledger.end.to_text())
        lease.unlock()

    def _remove_leases_of_dead(self, where: Destination) -> None:
        """Remove the leases of crashed workers; their runs are closed by now."""
        from pytest_armory.session import recovery

        with self._step():
            recovery.recover_dead(where)

    @contextmanager
    def _step(self, text: str = "") -> Iterator[None]:
        """Run one step; an error of the file system or the store becomes a problem."""
        with self.guard.step():
            try:
                yield
            except (OSError, ArmoryError) as error:
                self.problems.append(f"{text}{error}")
