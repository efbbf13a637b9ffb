"""The attempts that the processes which run tests have reported."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace

from pytest_armory.gates.baselines import Baseline
from pytest_armory.records import EvaluationRecord, Outcome


class ReportedAttempts:
    """Every reported attempt, in its last state."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, int, str], EvaluationRecord] = {}
        self._by_run: dict[str, EvaluationRecord] = {}
        self.died: set[tuple[str, str]] = set()
        """The node ids of tests whose workers have died, with these."""

    def add(self, record: EvaluationRecord) -> None:
        """Add an attempt, or replace its earlier state; all of them are of one job."""
        record = replace(record, job="") if record.job else record
        self._by_key[record.key] = record
        if record.run_id:
            self._by_run[record.run_id] = record

    @property
    def records(self) -> list[EvaluationRecord]:
        """All of them, in the order in which they were first reported."""
        return list(self._by_key.values())

    def without_run(
        self, planned: Set[str], stored: Iterable[EvaluationRecord], each: bool
    ) -> list[EvaluationRecord]:
        """The evaluations whose workers died before they had opened runs.

        Another worker's run is a later attempt, unless ``each`` of them runs every test.
        """
        records = (*stored, *self._by_key.values())
        begun = {(record.nodeid, record.worker if each else "") for record in records}
        died = {(nodeid, name if each else "") for nodeid, name in self.died if nodeid in planned}
        return [
            EvaluationRecord(nodeid, worker=worker, outcome=Outcome.CRASHED)
            for nodeid, worker in sorted(died - begun)
        ]

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each run among the reported attempts at its test, from 1."""
        tests: dict[str, dict[str, list[EvaluationRecord]]] = {}
        for record in self._by_key.values():
            tests.setdefault(record.nodeid, {}).setdefault(record.worker, []).append(record)
        numbers: dict[str, int] = {}
        for workers in tests.values():
            counted = [sorted(its_own, key=lambda r: r.attempt) for its_own in workers.values()]
            attempts = [record for its_own in counted for record in its_own]
            numbers |= {str(r.run_id): i for i, r in enumerate(attempts, 1) if r.run_id}
        return numbers

    @property
    def any_waits(self) -> bool:
        """Whether one of them waits to be synced."""
        return any(record.waiting for record in self._by_key.values())

    @property
    def run_by_several_workers(self) -> bool:
        """Whether a test was run by more than one of them."""
        pairs = {(nodeid, worker) for nodeid, _, worker in self._by_key}
        return len({nodeid for nodeid, _ in pairs}) < len(pairs)

    def of_run(self, run_id: str | None) -> EvaluationRecord | None:
        """The attempt whose run that is, if it was reported."""
        return self._by_run.get(run_id or "")

    def run_ids(self, waiting: bool) -> Set[str]:
        """The runs of those at the server, or of those that wait."""
        records = self._by_key.values()
        return frozenset(str(r.run_id) for r in records if r.run_id and r.waiting == waiting)

    def problems(self) -> list[tuple[str, str]]:
        """The problems of all, each with its node id."""
        return [(text, r.nodeid) for r in self._by_key.values() for text in r.problems]

    def completed(
        self, records: Iterable[EvaluationRecord], baseline: Baseline | None
    ) -> list[EvaluationRecord]:
        """Records from the store, completed with verdicts, chief metrics and baseline."""
        return [self._completed(record, baseline) for record in records]

    def _completed(self, record: EvaluationRecord, baseline: Baseline | None) -> EvaluationRecord:
        reported = self.of_run(record.run_id)
        if reported is record:
            return record
        if reported is None:
            if baseline is None or record.baseline:
                return record
            found = baseline.of(baseline.experiment_of(record), record.nodeid).metrics() or {}
            return replace(record, baseline={k: v for k, v in found.items() if k in record.metrics})
        return replace(
            record,
            outcome=record.outcome or reported.outcome,
            # Of one that has not ended, only its own process knows how long it took.
            duration=record.duration or (reported.duration if reported.outcome else 0.0),
            metrics={**reported.metrics, **record.metrics},
            verdicts=reported.verdicts,
            baseline=reported.baseline,
            chief=reported.chief,
            experiment=reported.experiment,
        )
