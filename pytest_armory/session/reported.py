"""The attempts that the processes which run tests have reported."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from pytest_armory.records import EvaluationRecord


class ReportedAttempts:
    """Every attempt that was reported, each as it was last."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, int, str], EvaluationRecord] = {}
        self._by_run: dict[str, EvaluationRecord] = {}

    def add(self, record: EvaluationRecord) -> None:
        """Note an attempt as it is by now."""
        self._by_key[record.key] = record
        if record.run_id:
            self._by_run[record.run_id] = record

    @property
    def records(self) -> list[EvaluationRecord]:
        """All of them, in the order in which they were first reported."""
        return list(self._by_key.values())

    @property
    def any_waits(self) -> bool:
        """Whether one of them is recorded locally until it is synced."""
        return any(record.waiting for record in self._by_key.values())

    def of_run(self, run_id: str | None) -> EvaluationRecord | None:
        """The attempt whose run that is, if it was reported."""
        return self._by_run.get(run_id or "")

    def run_ids(self, waiting: bool) -> Set[str]:
        """The runs of those at the server, or of those recorded locally meanwhile."""
        records = self._by_key.values()
        return frozenset(str(r.run_id) for r in records if r.run_id and r.waiting == waiting)

    def problems(self) -> list[tuple[str, str]]:
        """What of them was not stored: each sentence, with the node id it is of."""
        return [(text, r.nodeid) for r in self._by_key.values() for text in r.problems]

    def completed(self, record: EvaluationRecord) -> EvaluationRecord:
        """A record from the store, with what only the process that ran the test knows."""
        reported = self.of_run(record.run_id)
        if reported is None:
            return record
        return replace(
            record,
            outcome=record.outcome or reported.outcome,
            duration=record.duration or reported.duration,
            metrics={**reported.metrics, **record.metrics},
            verdicts=reported.verdicts,
            baseline=reported.baseline,
            chief=reported.chief,
        )
