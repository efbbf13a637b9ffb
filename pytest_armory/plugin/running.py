"""The hooks of a process that runs tests: the only one of a session, or a worker."""

from __future__ import annotations

import atexit
import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_armory.plugin import judging, time_limit, wire, xdist
from pytest_armory.plugin.attempts import Attempts
from pytest_armory.plugin.fixture_params import uses_wide_fixture
from pytest_armory.plugin.gate_count import count_gates
from pytest_armory.plugin.guard import Guard, guarded, guarded_wrapper, unless
from pytest_armory.plugin.marker import is_evaluation, merged_mark
from pytest_armory.plugin.process import Process
from pytest_armory.plugin.redacted import display_id
from pytest_armory.plugin.repeating import end_repeats, number_of_repeats, repeat_body
from pytest_armory.records import EvaluationRecord
from pytest_armory.report.junit import junit_properties
from pytest_armory.session.plan import Plan

if TYPE_CHECKING:
    from pytest_armory.plugin.resuming import Resuming
    from pytest_armory.plugin.sharding import Sharding


def _is_parametrization(_: object, fixturedef: pytest.FixtureDef[Any], *__: object) -> bool:
    """Whether a fixture only returns the value of an argument that a test is parametrized with.

    pytest makes the fixtures that call ``setup_module`` and its like in the same module.
    """
    function = fixturedef.func
    return isinstance(function, FunctionType) and (
        (function.__module__, function.__name__) == _OF_PARAMETERS
    )


_OF_PARAMETERS = ("_pytest.python", "get_direct_param_fixture_func")


class RunningHooks:
    """A session of one process, or a worker; ``resuming`` is None where nothing is tracked."""

    def __init__(
        self,
        config: pytest.Config,
        attempts: Attempts,
        process: Process,
        resuming: Resuming | None = None,
    ) -> None:
        self.config = config
        self.attempts = attempts
        self.process = process
        self.resuming = resuming
        self._plan: Plan | None = None
        """What this process is about to run, until a report has it."""
        self._has_evaluation = False
        """Whether this process may get one, or its shard."""
        self._has_run = False
        self._has_ended = False

    @pytest.hookimpl(tryfirst=True)
    @guarded
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if self.config.option.collectonly:
            return
        self._plan = self._planned(session.items)
        ledger = self.process.ledger
        if ledger is not None and self._plan is not None:
            ledger.planned.update(self._plan.evaluations)
        # A worker runs its tests whatever could not be collected.
        if self._plan is not None and not (session.testsfailed and ledger is not None):
            self._has_evaluation = True
            self._begin(session.items)

    def _planned(self, items: Sequence[pytest.Item]) -> Plan | None:
        """What this process is about to run; None if no shard of the session has an evaluation."""
        evaluations = [display_id(item.nodeid) for item in items if is_evaluation(item)]
        sharding: Sharding | None = self.config.pluginmanager.get_plugin("armory-shard")
        if sharding is None or sharding.experiment is None:
            return Plan(evaluations) if evaluations else None
        settings = self.attempts.settings
        return Plan(evaluations, sharding.note, sharding.experiment, settings.experiment_id)

    def _begin(self, items: Sequence[pytest.Item]) -> None:
        """Do before the first test what takes seconds that are no test's; each step by itself."""
        if self.process.ledger is not None:  # a worker may get tests that need no store
            with self.process.guard.step():
                self.attempts.prepare()
        with self.process.guard.step():
            self.process.begin()
        with self.process.guard.step():
            self.attempts.baseline = self.process.find_baseline() or self.attempts.baseline
        with self.process.guard.step():
            judging.prepare(self.attempts.baseline)
        with self.process.guard.step():
            self._resume(items)
        with self.process.guard.step():
            self._count_gates()
        if self.process.ledger is not None and self._plan is not None:
            with self.process.guard.step():
                self.process.ledger.take_plan(self._plan)
            self._plan = None

    def _count_gates(self) -> None:
        """Count the tolerances of the collection, unless another job of the session has."""
        process, lines = self.process, self.attempts.settings.tolerances
        counted = count_gates(self.config, lines, self.attempts.baseline)
        if not process.is_agreed and self.attempts.destination is not None:
            process.judging = replace(process.judging, gates=counted)
        if self._plan is not None:
            self._plan = replace(self._plan, gates=process.judging.gates, counted=counted)
        self.attempts.judging = process.judging

    def _resume(self, items: Sequence[pytest.Item]) -> None:
        """Note what evaluations are made of; skip those that have passed in a resumed session."""
        resuming = self.resuming
        if resuming is None or self._plan is None:
            return
        resuming.fingerprints.judging = self.process.judging
        resuming.fingerprints.read_files(items)
        resuming.done = self.process.find_done() or resuming.done
        if resuming.done is not None:
            resumed = resuming.skip_passed(items)
            self._plan = replace(self._plan, resumed=resumed.skipped, again=resumed.again)

    # Outermost: time limits of the test begin inside.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    @guarded_wrapper
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, None]:
        if self._has_evaluation:
            self._prepare_for(item)
        yield

    def _prepare_for(self, item: pytest.Item) -> None:
        """Open the store of a worker, unless its tests so far can do without.

        What a wide fixture patches is in force for later tests too, and MLflow's import needs it.
        """
        if is_evaluation(item) or uses_wide_fixture(item):
            with self.process.guard.step():
                # xdist does not unconfigure a worker that a second Ctrl-C ends. And before what
                # MLflow has registered, by which a run under way would be FINISHED.
                if self.attempts.prepare(freeze=not self._has_run):
                    atexit.register(self._end_at_exit, os.getpid())
        self._has_run = True

    # Neither first nor last: after the marks that skip a test, before its fixtures are set up.
    @pytest.hookimpl
    @guarded
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.process.touch()
        if is_evaluation(item) and not _is_skipped_by_unittest(item):
            if self.resuming is not None:
                with self.process.guard.step():
                    self.process.problems += self.resuming.close_left_open(item)
            self.attempts.start(item)

    @pytest.hookimpl(wrapper=True)
    @unless(_is_parametrization)
    @guarded_wrapper
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, None]:
        with self.attempts.setting_up(fixturedef, request):
            yield

    # First: pytest-timeout's own is the last, and returns a result.
    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    @guarded
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: object) -> None:
        if is_evaluation(item):
            time_limit.note(item, settings)

    # Innermost: what a gate raises is the test's own failure to everybody else.
    @pytest.hookimpl(wrapper=True, trylast=True)
    @guarded_wrapper
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, None]:
        self.before_call(item)
        try:
            yield
        except BaseException as error:
            self.attempts.end_body(item, error)
            raise
        finally:
            end_repeats(item)
        self.after_call(item)

    def before_call(self, item: pytest.Item) -> None:
        """Take in what fixtures have marked; the test is judged whatever fails in it."""
        if not is_evaluation(item) or _is_skipped_by_unittest(item):
            return
        with self.process.guard.step():
            self.attempts.begin_body(item)
        with self.process.guard.step():
            _repeat(item, self.attempts, self.process.guard)

    def after_call(self, item: pytest.Item) -> None:
        """Judge the gates of a test whose body has passed."""
        failure = None
        if not getattr(item, "_excinfo", None):  # a TestCase failed, which raises nothing here
            with time_limit.paused(item):
                missed = self.attempts.judge(item)
            failure = pytest.fail.Exception(missed, pytrace=False) if missed else None
        with self.process.guard.step():
            self.attempts.end_body(item, failure)
        if failure is not None:
            raise failure

    # Outermost: what others make of a report is what pytest counts.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    @guarded_wrapper
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, None]:
        report = yield
        self.process.touch()
        record = None
        with self.process.guard.step():
            record = self.attempts.reported(item, report)
        if self.attempts.destination is not None:
            self._attach(report, record)

    @guarded
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        attempt = self.attempts.current
        if attempt is None or not (report.failed and hasattr(report, "context")):
            return
        if attempt.item.nodeid == report.nodeid:
            attempt.note_subtest(report)

    def _attach(self, report: pytest.TestReport, record: EvaluationRecord | None) -> None:
        """Put on a report what the process that reports has to know."""
        if self._plan is not None:
            with self.process.guard.step():
                wire.attach_plan(report, self._plan)
            self._plan = None
        if record is not None:
            with self.process.guard.step():
                self.process.write_journal(wire.attach_record(report, record))
            report.user_properties += junit_properties(record) if record.outcome else []

    # Innermost, so that a second Ctrl-C while fixtures are torn down does not leave a run open.
    @pytest.hookimpl(wrapper=True, trylast=True)
    @guarded_wrapper
    def pytest_sessionfinish(self) -> Generator[None, object, None]:
        try:
            yield
        finally:
            self.end()

    def _end_at_exit(self, process: int) -> None:
        if os.getpid() == process:  # not a forked child
            with self.process.guard.own_code():
                self.end()

    def end(self) -> None:
        """End this process's part, once."""
        if self._has_ended:
            return
        self._has_ended = True
        atexit.unregister(self._end_at_exit)
        records: list[EvaluationRecord] = []
        with self.process.guard.step():
            records = self.attempts.end()
        self.process.problems += self.attempts.problems
        if self.process.ledger is not None:
            for record in records:
                with self.process.guard.step():
                    self.process.ledger.take(record)
            return
        with self.process.guard.step():
            last = xdist.LastOfWorker(self.process.problems, records, self._plan)
            xdist.report_to_controller(self.config, last)
        self.process.end(self.attempts.is_complete)


def _is_skipped_by_unittest(item: pytest.Item) -> bool:
    """Whether ``unittest.skip`` marks a test, which pytest sees only when it calls it."""
    places = (getattr(item, "obj", None), getattr(item, "cls", None))
    return any(getattr(place, "__unittest_skip__", False) for place in places)


def _repeat(item: pytest.Item, attempts: Attempts, guard: Guard) -> None:
    number = number_of_repeats(merged_mark(item), attempts.settings.jobs)
    if number > 1 and attempts.current is not None:
        repeat_body(item, attempts.current, number, guard.own_code)
