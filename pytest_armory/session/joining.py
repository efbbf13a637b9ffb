"""What a job knows of the session that it joins: what is done already, and what it takes of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from time import time
from typing import TYPE_CHECKING

from pytest_armory.records import EvaluationRecord, JobEnd
from pytest_armory.records.job_tags import shard_note_tag
from pytest_armory.records.tags import PART
from pytest_armory.report.sentences import with_tests
from pytest_armory.session import leases
from pytest_armory.session.identity import Identity
from pytest_armory.session.judging import other_number
from pytest_armory.session.plan import Plan
from pytest_armory.session.resume import DoneBefore, find_done
from pytest_armory.store.destination import Destination
from pytest_armory.values import short_hash

if TYPE_CHECKING:
    from pytest_armory.store import StoredRun


class Joining:
    """The plans of this job's processes, and what a resumed session has done before.

    ``done`` is None unless it is resumed; ``note_tags`` are the note of this job's shard, for its
    session run.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.done: DoneBefore | None = None
        self.note_tags: dict[str, str] = {}
        self._waiting: Sequence[EvaluationRecord] = ()
        self._continued: Collection[str] = ()
        self._resumed: set[str] = set()
        self._again: dict[tuple[str, str], None] = {}
        self._differs = ""

    @property
    def has_joined(self) -> bool:
        """Whether the session is also this job's if it has run no evaluation."""
        return bool(self.note_tags or self._resumed)

    def find_done(
        self, where: Destination, local: Destination
    ) -> tuple[Sequence[StoredRun], Sequence[str]]:
        """Look up what the session has done; returns its session runs, and problems."""
        part = self._identity.tags.get(PART, "")
        found = find_done(where, local, self._identity.session, part)
        self.done, self._waiting, self._continued = found.done, found.waiting, found.continued
        return found.session_runs, found.problems

    def take(self, plan: Plan) -> bool:
        """Add a plan; returns whether it has the first note of this job's shard."""
        self._resumed.update(plan.resumed)
        self._again.update(dict.fromkeys((text, nodeid) for text, nodeid in plan.again))
        self._differs = other_number(plan)
        if plan.note is None or self.note_tags or not self._identity.shared:
            return False
        self.note_tags = shard_note_tag(plan.note, self._identity.shard)
        return True

    def count_resumed(self, reported: Collection[str]) -> int:
        """How many evaluations were skipped because they passed before."""
        return sum(nodeid in reported for nodeid in self._resumed)

    def notes(self) -> list[str]:
        """Why some that passed before ran again, and that the first job counted other gates."""
        return [*with_tests(self._again), *filter(None, [self._differs])]

    def with_waiting(self, others: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
        """The records of other jobs, with what passed before and waits to be synced."""
        others = [record for record in others if record.run_id not in self._continued]
        # What has been uploaded meanwhile has another id there, and the same key.
        known = {key for record in others for key in (record.run_id, record.copy_key) if key}
        waiting = [one for one in self._waiting if not known & {one.run_id, one.copy_key}]
        return [*waiting, *others]

    def end(
        self,
        interrupted: bool,
        planned: Collection[str],
        records: Sequence[EvaluationRecord],
        never_run: Collection[str],
    ) -> JobEnd:
        """The end of this job, which has planned these evaluations and has these records of them.

        Those that were resumed have runs of earlier jobs: in the session, or where they still wait.
        The others without a record were skipped by a mark.
        """
        own = {record.nodeid for record in records}
        skipped = {*planned} - self._resumed - {*never_run} - own
        waiting = [one for one in [*self._waiting, *records] if one.waiting and one.copy_key]
        return JobEnd(
            interrupted,
            tuple(sorted(map(short_hash, never_run))),
            skipped="".join(sorted(map(short_hash, skipped))),
            waiting="".join(short_hash(one.nodeid) + short_hash(one.copy_key) for one in waiting),
            host=leases.host_name(),
            ended=int(time() * 1000),
        )
