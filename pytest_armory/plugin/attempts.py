"""The attempts of a process that runs tests: each one's run from open to close.

The steps, each at most one request on the test's way: *open* before fixtures are set up, so that
``mlflow.*`` in fixtures lands in the run; *describe* when setup ends, so that a run killed in hour
three still says what it was; the engine writes its metrics itself; *finish* after teardown.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from pytest_armory.errors import TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.plugin import judging, user_hooks
from pytest_armory.plugin.attempt import Attempt, begin, duration_of, keep_error, step, with_run
from pytest_armory.plugin.fixture_params import FixtureParams
from pytest_armory.plugin.guard import Guard
from pytest_armory.plugin.lifecycle import outcome_of
from pytest_armory.plugin.marker import is_evaluation, merged_mark
from pytest_armory.plugin.opening import RunOpener
from pytest_armory.plugin.options import Settings
from pytest_armory.plugin.redacted import display_id
from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.records.tags import display_tags, gate_tags
from pytest_armory.store.destination import Destination
from pytest_armory.track.kept_samples import SampleResults
from pytest_armory.track.run import EvaluationRun

if TYPE_CHECKING:
    from pytest_armory.plugin.mlflow_fixtures import MlflowFixtures
    from pytest_armory.store import Store


MOST_FAILING = 100
"""Of how many attempts failed requests, with what they write, are kept for the session's end."""


class Attempts:
    """Takes each attempt of this process from phase to phase.

    ``problems`` are those of no single attempt; ``current`` is the attempt under way, at most one.
    ``opened`` is called with the record of each run that has just opened: its process may not live
    to report it. ``finished`` is called with each record before another hook runs: a signal may
    come then.
    """

    def __init__(
        self,
        settings: Settings,
        destination: Destination | None,
        *,
        rootpath: Path,
        open_tags: Mapping[str, str] | None = None,
        reproduce: Sequence[str] = (),
        fingerprint_of: Callable[[pytest.Item], Mapping[str, str]] | None = None,
        worker: str = "main",
        local: Destination | None = None,
        parent_of: Callable[[str, bool], str | None] = lambda _, __: None,
        guard: Guard | None = None,
        opened: Callable[[EvaluationRecord], object] = lambda _: None,
        finished: Callable[[EvaluationRecord], object] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.destination = destination
        self._guard = guard = guard or Guard()
        self.fixtures = FixtureParams(at_once=destination is not None, step=guard.step)
        self.baseline = Baseline("none")
        self.judging = judging.wanted_judging(settings)
        self.current: Attempt | None = None
        self.problems: list[str] = []
        self._opener = RunOpener(
            settings,
            destination,
            rootpath=rootpath,
            tags=open_tags or {},
            local=local,
            parent_of=parent_of,
            reproduce=reproduce,
            fingerprint_of=fingerprint_of,
        )
        self._mlflow = _mlflow_fixtures(guard) if destination is not None else None
        self._place = worker, (open_tags or {}).get("armory.shard", "")
        self._note_opened = opened
        self._report = finished
        self._counts: Counter[str] = Counter()
        self._left_open: dict[str, str] = {}
        self._opened_in: dict[str, str] = {}
        """The tests of the runs that others were left open in."""
        self._unreported: list[EvaluationRecord] = []
        self._finished: list[tuple[EvaluationRecord, EvaluationRun]] = []
        """Attempts of which something may still fail in the background, or has failed."""
        self._finished_well = True
        self._is_prepared = False

    @property
    def late(self) -> list[EvaluationRecord]:
        """The attempts of which something has failed since they were reported, as they are now."""
        now = ((record, with_run(record, run)) for record, run in self._finished)
        return [current for reported, current in now if current != reported]

    @property
    def is_complete(self) -> bool:
        """Whether nothing has failed that may have left a run open."""
        return self._finished_well and not self.late

    def prepare(self, freeze: bool = True) -> bool:
        """Open the store before an evaluation, for it takes seconds that are no test's, once.

        ``freeze`` is False where tests have run: what they have made is to be collected. Returns
        whether this was the call that did it.
        """
        if self.destination is None or self._is_prepared:
            return False
        from pytest_armory.store import freeze_garbage_collector, open_store

        self._is_prepared = True
        with suppress(TrackingError):  # tried again by each evaluation, which reports it
            open_store(self.destination).connection.expect_login()
        if freeze:
            freeze_garbage_collector()
        return True

    def start(self, item: pytest.Item) -> Attempt:
        """Open the run of a test that is about to be set up; if all of that fails, it is lost."""
        try:
            attempt = self.open(item)
            if attempt.run.connection.location is not None:
                self._note_opened(attempt.to_record())
            return attempt
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            if self.current is None or self.current.item is not item:
                record = _first_record(item, self._counts[item.nodeid], *self._place)
                lost = Attempt(item, record, EvaluationRun(), [], began=perf_counter())
                lost.run.connection.collect_problems(lost.problems)
                self._go_on_with(lost)
            assert self.current is not None
            keep_error(self.current, error)
            return self.current

    def open(self, item: pytest.Item) -> Attempt:
        """Open the run of a test that is about to be set up; in memory if the store fails."""
        is_again = self.current is not None and self.current.item is item
        if self.current is not None and is_again:
            # Run again inside of its own report, as by pytest-retry.
            with step(self.current):
                self.current.conclude()
            self._unreported.append(self.finish(self.current))
        started = perf_counter()
        self._counts[item.nodeid] += 1
        record = _first_record(item, self._counts[item.nodeid], *self._place)
        problems: list[str] = []
        run = self._opener.open(item, record, problems)
        # From here on it is the attempt under way: an error below must not open a second run.
        attempt = self._go_on_with(Attempt(item, record, run, problems, began=started))
        with step(attempt):
            confidence = self.judging.confidence
            begin(attempt, self.fixtures, self.settings, self._mlflow, confidence)
        # Run again inside of its own report, it is in no phase that is reported.
        attempt.opening_seconds = 0.0 if is_again else perf_counter() - started
        return attempt

    def _go_on_with(self, attempt: Attempt) -> Attempt:
        if self.destination is None:  # a session without a summary
            attempt.unexpected = self._guard.problems
        self.current = attempt
        return attempt

    def end_body(self, item: pytest.Item, error: BaseException | None = None) -> None:
        """Note what a test's body raised, for who runs it again without a report."""
        attempt = self.current
        if attempt is not None and attempt.item is item:
            attempt.end_body(error)
            if attempt.active is not None:  # what runs until a fixture ends is a hook's
                attempt.active.set_wider(True)

    def begin_body(self, item: pytest.Item) -> Attempt:
        """Go on to a test's body; one that only a fixture has marked is opened now."""
        attempt = self.current
        if attempt is None or attempt.item is not item:
            attempt = self.start(item)
        activation = attempt.run.connection.activation
        if activation is not None:
            activation.run.set_wider(False)
            activation.monitor()  # a fixture may have switched system metrics on
        attempt.begin_body()
        return attempt

    @contextmanager
    def setting_up(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Iterator[None]:
        """While a fixture is set up: it records apart, and what it does with MLflow is its own."""
        active = self.current.active if self.current is not None else None
        mlflow = self._mlflow if "mlflow" in sys.modules else None
        in_mlflow = mlflow.setting_up(fixturedef, active) if mlflow is not None else nullcontext()
        known = self.current.run.writer.params.descriptions if self.current is not None else None
        with in_mlflow, self.fixtures.recording(fixturedef, request, known):
            yield

    def reported(self, item: pytest.Item, report: pytest.TestReport) -> EvaluationRecord | None:
        """Take in a phase's report of a test; the record to send with it, if there is one.

        The first goes with *setup*, so that a crash in the test leaves a trace, the last with
        *teardown*. A subtest's report comes during *call* and has none.
        """
        attempt = self.current
        if attempt is None or attempt.item is not item:
            # In a folder's conftest a hook runs before ours, and may fail before a run is open.
            if not (report.when == "setup" and report.failed and is_evaluation(item)):
                if self._mlflow is not None:
                    self._mlflow.restore()
                return None
            attempt = self.start(item)
        with step(attempt):
            attempt.note(report)
        if report.when == "teardown":
            return self.finish(attempt)
        if report.when != "setup":
            return None
        with step(attempt):
            self.describe(attempt)
        return attempt.to_record()

    def describe(self, attempt: Attempt) -> None:
        """Note the parameters that are known by now: fixtures', parametrization's, the test's.

        They are written when the test ends: a value that it logs itself by ``mlflow.log_param``
        would be refused if another stood there. Those of a run in memory are described when they
        are read.
        """
        sources = self.fixtures.of(attempt.item)
        if attempt.run.connection.location is None:
            attempt.keep_sources(sources)
        else:
            attempt.described = attempt.run.writer.params.note(attempt.params(sources))

    def judge(self, item: pytest.Item) -> str:
        """Judge a test whose body has passed by its gates: what it fails with, or nothing."""
        attempt = self.current
        if attempt is None or attempt.item is not item or attempt.has_failed:
            return ""
        mark = merged_mark(item)
        if not judging.has_gates(mark, self.settings):
            return ""
        if attempt.scope is None:  # what the test has logged is not its run's
            attempt.unexpected.append("its gates are not judged: recording has failed to begin")
            return ""
        with step(attempt, "its gates are not judged: "), attempt.being_judged():
            known, where, settings = self.baseline, self.destination, self.settings
            self.baseline = judging.with_history(attempt, mark, settings, known, where)
            session = judging.Compared(self.baseline, self.judging, where)
            return judging.judge_attempt(attempt, mark, settings, session)
        return ""

    def finish(self, attempt: Attempt) -> EvaluationRecord:
        """Write what became of an attempt and close its run; the record for the session.

        After an unexpected error the run is left open, for whoever sums up the session.
        """
        record = None
        try:
            with step(attempt):
                record = self._finish(attempt)
        except BaseException:  # Ctrl-C: what is active when the process exits, MLflow would finish
            attempt.stack.close()
            raise
        record = record or self._give_up(attempt)
        self._report(record)
        self.current = None
        return record

    def _finish(self, attempt: Attempt) -> EvaluationRecord:
        outcome = outcome_of(attempt.phases)
        run = attempt.run
        self._write_result(attempt, outcome)
        if run.connection.location is not None:
            run.writer.recorded = None
        attempt.stack.close()
        run.connection.try_again()
        self._left_open.update(run.connection.left_open)
        self._opened_in |= dict.fromkeys(run.connection.left_open.values(), attempt.record.nodeid)
        run.writer.close(outcome.status)
        is_known = run.connection.location is not None and not run.connection.may_hold_more
        attempt.record = replace(attempt.record, confirmed=is_known)
        record = attempt.to_record(outcome)
        self._finished_well = self._finished_well and not record.problems
        self._note_finished(record, run)
        return record

    def _write_result(self, attempt: Attempt, outcome: Outcome) -> None:
        run, problems = attempt.run, attempt.problems
        sampled = SampleResults()
        with step(attempt, "its samples are not summed up: "):
            sampled = run.writer.sample_results(is_interrupted=outcome is Outcome.INTERRUPTED)
        duration = duration_of(attempt)
        with step(attempt):
            attempt.chief = user_hooks.chief_metrics_of(attempt.item, attempt.metrics, problems)
            if attempt.baseline is None:
                attempt.baseline = judging.baseline_of(attempt, self.baseline)
            attempt.changed = judging.changed_data_of(attempt, self.baseline)
        with step(attempt):
            self.describe(attempt)
        run.writer.write(
            params=attempt.described,
            metrics=[*duration, *sampled.values],
            tags={
                "armory.outcome": outcome.value,
                **sampled.tags,
                **gate_tags(attempt.verdicts),
                **display_tags(attempt.chief, attempt.compared, attempt.changed),
            },
        )
        if not outcome.is_good:
            run.writer.store_files(attempt.failure_files)

    def _note_finished(self, record: EvaluationRecord, run: EvaluationRun) -> None:
        """Keep what may still change, and nothing else: a session may have many thousand tests."""
        finished = [*self._finished, (record, run)]
        self._finished = [
            (reported, run)
            for reported, run in finished
            if run.connection.is_pending or with_run(reported, run) != reported
        ]
        failing = [run.connection for _, run in self._finished if run.connection.failed]
        for connection in failing[:-MOST_FAILING]:
            connection.failed.clear()

    def _give_up(self, attempt: Attempt) -> EvaluationRecord:
        """Leave an attempt's run open; its record has what is to be written when it is closed."""
        self._finished_well = False
        with step(attempt):
            self.describe(attempt)
        attempt.run.writer.recorded = None
        with step(attempt):
            attempt.stack.close()
        unwritten = attempt.to_record().params
        return replace(attempt.to_record(outcome_of(attempt.phases)), params=unwritten)

    def end(self) -> list[EvaluationRecord]:
        """End this process's part: close what Ctrl-C or ``pytest.exit`` left open, and wait.

        Returns the records that are new, or not as they were reported.
        """
        interrupted = [self.finish(self.current)] if self.current is not None else []
        if self._counts and self.destination is not None:
            from pytest_armory.store import open_store

            with self._guard.step():
                self._settle(open_store(self.destination))
        return [*interrupted, *self._unreported, *self.late]

    def _settle(self, store: Store) -> None:
        """Close what tests have left open, and wait for what is sent in the background."""
        with self._guard.step():
            self.problems += store.close_left_open(self._left_open, self._opened_in)
        with self._guard.step():
            self.problems += self._mlflow.settle() if self._mlflow is not None else []
        with self._guard.step():
            store.flush()
        with self._guard.step():
            store.background.drain()
        for _, run in self._finished:
            with self._guard.step():
                run.connection.try_again()
        with self._guard.step():
            store.background.drain()
        store.connection.expect_login(False)


def _first_record(item: pytest.Item, attempt: int, worker: str, job: str) -> EvaluationRecord:
    nodeid = display_id(item.nodeid)
    return EvaluationRecord(nodeid, attempt=max(1, attempt), worker=worker, job=job)


def _mlflow_fixtures(guard: Guard) -> MlflowFixtures:
    # Imported here, for a session that is not tracked has no use for it.
    from pytest_armory.plugin.mlflow_fixtures import MlflowFixtures

    return MlflowFixtures(guard)
