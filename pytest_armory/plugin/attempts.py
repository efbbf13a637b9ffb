"""The attempts of a process that runs tests: each one's run from open to close.

The steps, each at most one request on the test's way: *open* before fixtures are set up, so that
``mlflow.*`` in fixtures lands in the run; *describe* when setup ends, so that a run killed in hour
three still says what it was; the engine writes its metrics itself; *finish* after teardown.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from pytest_armory.errors import TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.plugin import judging, user_hooks
from pytest_armory.plugin.attempt import Attempt, keep_error, with_run
from pytest_armory.plugin.fixture_params import FixtureParams
from pytest_armory.plugin.guard import Guard
from pytest_armory.plugin.lifecycle import outcome_of
from pytest_armory.plugin.marker import RUN_BEFORE, is_evaluation, merged_mark
from pytest_armory.plugin.opening import RunOpener
from pytest_armory.plugin.options import Settings
from pytest_armory.plugin.redacted import display_id
from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.records.tags import display_tags, gate_tags
from pytest_armory.store.destination import Destination
from pytest_armory.track.context import Scope
from pytest_armory.track.evaluation import running
from pytest_armory.track.run import EvaluationRun
from pytest_armory.track.writer import Metric, go_on_in

if TYPE_CHECKING:
    from pytest_armory.plugin.mlflow_fixtures import MlflowFixtures


class Attempts:
    """Takes each attempt of this process from phase to phase.

    ``problems`` are those of no single attempt; ``current`` is the attempt under way, at most one.
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
        self._worker = worker
        self._counts: Counter[str] = Counter()
        self._left_open: dict[str, str] = {}
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

    def prepare(self, freeze: bool = True) -> None:
        """Open the store before an evaluation, for it takes seconds that are no test's, once.

        ``freeze`` is False where tests have run: what they have made is to be collected.
        """
        if self.destination is not None and not self._is_prepared:
            from pytest_armory.store import freeze_garbage_collector, open_store

            self._is_prepared = True
            with suppress(TrackingError):  # tried again by each evaluation, which reports it
                open_store(self.destination).connection.expect_login()
            if freeze:
                freeze_garbage_collector()

    def open(self, item: pytest.Item) -> Attempt:
        """Open the run of a test that is about to be set up; in memory if the store fails."""
        is_again = self.current is not None and self.current.item is item
        if self.current is not None and is_again:
            # Run again inside of its own report, as by pytest-retry.
            self.current.conclude()
            self._unreported.append(self.finish(self.current))
        started = perf_counter()
        self._counts[item.nodeid] += 1
        record = EvaluationRecord(
            nodeid=display_id(item.nodeid),
            attempt=self._counts[item.nodeid],
            worker=self._worker,
        )
        problems: list[str] = []
        run = self._opener.open(item, record, problems)
        # From here on it is the attempt under way: an error below must not open a second run.
        attempt = self.current = Attempt(item, record, run, problems)
        if self.destination is None:
            attempt.unexpected = self._guard.problems
        try:
            self._begin(attempt)
        except Exception as error:  # noqa: BLE001 - its run is open, and is to be closed as usual
            keep_error(attempt, error)
        attempt.opened(started)
        if is_again:
            attempt.opening_seconds = 0.0  # it is in no phase that is reported
        return attempt

    def _begin(self, attempt: Attempt) -> None:
        """Let what the test logs and records from now on go to the attempt's run."""
        item = attempt.item
        run = attempt.run = _with_earlier(item, attempt.run)
        run.writer.samples.confidence = self.settings.confidence
        try:
            attempt.scope = attempt.stack.enter_context(self._running(attempt))
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            keep_error(attempt, error)
            # What the test logs, and its gates are judged by, belongs to its run all the same.
            attempt.scope = attempt.stack.enter_context(running(run, activate=False))
        if attempt.active is not None:
            attempt.active.set_wider(True)  # what is not a fixture of the test, nor its body
        run.writer.recorded = lambda: run.writer.params.to_store(
            attempt.params(self.fixtures.of(item))
        )
        if run.connection.location is not None:
            attempt.parametrized()  # a fixture that records such a value need not describe it

    def _running(self, attempt: Attempt) -> AbstractContextManager[Scope]:
        """Make an attempt's run MLflow's active run, unless that is unasked for."""
        if self._mlflow is None:
            return running(attempt.run)
        activate = merged_mark(attempt.item).activate
        return running(
            attempt.run,
            activate=self.settings.activate if activate is None else activate,
            keep_uri=self._mlflow.keep_uri(),
        )

    def end_body(self, item: pytest.Item, error: BaseException | None = None) -> None:
        """Note what a test's body raised, for who runs it again without a report."""
        attempt = self.current
        if attempt is not None and attempt.item is item:
            attempt.end_body(error)

    def begin_body(self, item: pytest.Item) -> Attempt:
        """Go on to a test's body; one that only a fixture has marked is opened now."""
        attempt = self.current
        if attempt is None or attempt.item is not item:
            attempt = self.open(item)
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
            attempt = self.open(item)
        attempt.note(report)
        try:
            if report.when == "teardown":
                return self.finish(attempt)
            if report.when == "setup":
                self.describe(attempt)
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            keep_error(attempt, error)
            if report.when == "teardown":
                return self._give_up(attempt)
        return attempt.to_record() if report.when == "setup" else None

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
        try:
            with attempt.being_judged():
                session = judging.Compared(self.baseline, self.judging, self.destination)
                return judging.judge_attempt(attempt, mark, self.settings, session)
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            keep_error(attempt, error, "its gates are not judged: ")
            return ""

    def finish(self, attempt: Attempt) -> EvaluationRecord:
        """Write what became of an attempt and close its run; the record for the session."""
        outcome = outcome_of(attempt.phases)
        run = attempt.run
        self._write_result(attempt, outcome)
        if run.connection.location is not None:
            run.writer.recorded = None
        attempt.stack.close()
        run.connection.try_again()
        self._left_open.update(run.connection.left_open)
        run.writer.close(outcome.status)
        self.current = None
        is_known = run.connection.location is not None and not run.connection.may_hold_more
        attempt.record = replace(attempt.record, confirmed=is_known)
        record = attempt.to_record(outcome)
        self._finished_well = self._finished_well and not record.problems
        self._note_finished(record, run)
        return record

    def _write_result(self, attempt: Attempt, outcome: Outcome) -> None:
        run, problems = attempt.run, attempt.problems
        sampled = run.writer.sample_results()
        duration = _duration_of(attempt)
        attempt.chief = user_hooks.chief_metrics_of(attempt.item, attempt.metrics, problems)
        if attempt.baseline is None:
            attempt.baseline = judging.baseline_of(attempt, self.baseline)
        self.describe(attempt)
        attempt.changed = judging.changed_data_of(attempt, self.baseline)
        run.writer.write(
            params=attempt.described,
            metrics=[
                *duration,
                *((name, value, 0) for name, value in sampled.metrics.items()),
            ],
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

    def _give_up(self, attempt: Attempt) -> EvaluationRecord:
        """Leave an attempt's run as it is, for whoever sums up the session to close it."""
        self._finished_well = False
        self.current = None
        attempt.run.writer.recorded = None
        with suppress(Exception):  # what went wrong is among its problems already
            attempt.stack.close()
        return attempt.to_record(outcome_of(attempt.phases))

    def interruption(self) -> tuple[EvaluationRecord | None, list[Callable[[], object]]]:
        """The record of the attempt under way as interrupted, and the requests that close it."""
        attempt = self.current
        if attempt is None:
            return None, []
        outcome, duration = Outcome.INTERRUPTED, _duration_of(attempt)
        location = attempt.run.connection.location
        if location is None or not location.store.destination.is_remote:
            return attempt.to_record(outcome), []
        store, run_id = location.store, location.run_id
        params = attempt.to_record().params
        tags = {"armory.outcome": outcome.value}
        write = partial(store.log_batch, run_id, params=params, metrics=duration, tags=tags)
        close = partial(store.close_run, run_id, outcome.status)
        return attempt.to_record(outcome), [write, close]

    def interrupt(self) -> EvaluationRecord | None:
        """Close the run that is open, from another thread, before this process dies of a signal."""
        attempt = self.current
        if attempt is None:
            return None
        outcome, duration = Outcome.INTERRUPTED, _duration_of(attempt)
        writer = attempt.run.writer
        known = writer.params.note(attempt.described)
        writer.write(params=known, metrics=duration, tags={"armory.outcome": outcome.value})
        writer.close(outcome.status)
        return attempt.to_record(outcome)

    def end(self) -> list[EvaluationRecord]:
        """End this process's part: close what Ctrl-C or ``pytest.exit`` left open, and wait.

        Returns the records that are new, or not as they were reported.
        """
        interrupted = [self.finish(self.current)] if self.current is not None else []
        if self._counts and self.destination is not None:
            from pytest_armory.store import open_store

            try:
                store = open_store(self.destination)
                self.problems += store.close_left_open(self._left_open)
                self.problems += self._mlflow.settle() if self._mlflow is not None else []
                store.flush()
                store.background.drain()
                for _, run in self._finished:
                    run.connection.try_again()
                store.background.drain()
                store.connection.expect_login(False)
            except TrackingError as error:
                self.problems.append(str(error))
        return [*interrupted, *self._unreported, *self.late]


def _mlflow_fixtures(guard: Guard) -> MlflowFixtures:
    # Imported here, for a session that is not tracked has no use for it.
    from pytest_armory.plugin.mlflow_fixtures import MlflowFixtures

    return MlflowFixtures(guard)


def _duration_of(attempt: Attempt) -> list[Metric]:
    """How long an attempt took that ends now, as a metric of its run."""
    attempt.break_off()
    attempt.run.metrics["duration_seconds"] = attempt.seconds
    return [("duration_seconds", attempt.seconds, 0)]


def _with_earlier(item: pytest.Item, run: EvaluationRun) -> EvaluationRun:
    """The run of a test; the one that a fixture has of it since before the mark goes on in it."""
    earlier: EvaluationRun | None = item.stash.get(RUN_BEFORE, None)
    if earlier is None:
        return run
    del item.stash[RUN_BEFORE]
    earlier.connection = run.connection
    go_on_in(earlier.writer, run.connection)
    return earlier
