"""The hooks of the process that reports: the only one of a session, or the controller."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest

from pytest_armory.plugin import wire, xdist
from pytest_armory.plugin.ending import SessionEnd
from pytest_armory.plugin.guard import guarded, guarded_wrapper
from pytest_armory.plugin.options import Settings
from pytest_armory.plugin.process import Process
from pytest_armory.plugin.redacted import display_id
from pytest_armory.plugin.remarks import no_evaluation, remark
from pytest_armory.records import EvaluationRecord
from pytest_armory.report.text import printable
from pytest_armory.session import signals
from pytest_armory.session.crashed import under_way_in
from pytest_armory.session.ledger import Ledger, begin_test
from pytest_armory.session.plan import Plan
from pytest_armory.store.destination import lease_folder

_SUMMED_UP = frozenset(pytest.ExitCode) - {pytest.ExitCode.INTERNAL_ERROR}
"""The exit statuses that pytest prints summaries with."""

_RAN = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class ReportingHooks:
    """A session of one process, or the controller of workers."""

    def __init__(
        self, config: pytest.Config, settings: Settings, ledger: Ledger, process: Process
    ) -> None:
        self.config = config
        self.settings = settings
        self.ledger = ledger
        self.process = process
        self.ending = SessionEnd(config, settings, ledger, process)
        self._is_interrupted = False
        self._runs_tests = False
        ledger.edit = self._edit

    def _edit(self, lines: list[object]) -> None:
        try:
            self.config.hook.pytest_armory_summary(lines=lines)
        except (pytest.fail.Exception, pytest.skip.Exception) as error:
            raise RuntimeError(str(error)) from None

    @guarded
    def pytest_report_header(self) -> str:
        uri = printable(self.ledger.where.display_uri)
        return f"armory: tracking to {uri}, session {self.ledger.identity.session}"

    @pytest.hookimpl(optionalhook=True)
    @guarded
    def pytest_configure_node(self, node: Any) -> None:
        baseline, done = None, None
        with self.process.guard.step():
            baseline = self.process.find_baseline()
        with self.process.guard.step():
            done = self.process.find_done()
        ledger, process = self.ledger, self.process
        found = (done, process.judging, process.is_agreed)
        given = wire.WorkerInput(ledger.identity, baseline, ledger.out_of_reach, *found)
        xdist.configure_worker(node, given)

    # `--fixtures` and `--cache-show` are sessions too.
    @pytest.hookimpl(tryfirst=True)
    @guarded
    def pytest_runtestloop(self) -> None:
        option = self.config.option
        self._runs_tests = not (option.collectonly or getattr(option, "setuponly", False))

    # `pytest.exit` chooses the exit status itself, and a second Ctrl-C loses it.
    @pytest.hookimpl(tryfirst=True)
    @guarded
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._is_interrupted = True
        signals.send_again(excinfo.value)

    @pytest.hookimpl(tryfirst=True)
    @guarded
    def pytest_internalerror(self) -> None:
        self._is_interrupted = True

    @pytest.hookimpl(optionalhook=True)
    @guarded
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self.ending.collected = len(ids)

    @pytest.hookimpl(optionalhook=True)
    @guarded
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if error is not None:
            self.ledger.crashes.setdefault(*xdist.crash_of(node))
        last = xdist.received_from_worker(node)
        self.ledger.problems += last.problems
        if last.plan is not None:
            self._take_plan(last.plan)
        for record in last.records if error is None else _unreported(self.ledger, node):
            self._begin()
            self._take_record(record)

    @pytest.hookimpl(tryfirst=True)
    @guarded
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        plan, record = wire.detach(report)
        self.ledger.reported.add(nodeid := display_id(report.nodeid))
        self.ledger.attempts.died |= {(nodeid, one) for one in xdist.crashed_worker(report)}
        if record is not None:  # before what takes time: a signal may come meanwhile
            self.ledger.attempts.add(record)
        if plan is not None:
            self._take_plan(plan)
        if record is not None:
            self._begin()
            self._take_record(record)

    # Of a local test the attempt is known; a worker's first report comes after its setup.
    @guarded
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if xdist.is_controller(self.config):
            begin_test(self.ledger, display_id(nodeid))

    @guarded
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.ledger.under_way.discard(display_id(nodeid))

    def _take_plan(self, plan: Plan) -> None:
        with self.process.guard.step():
            if plan.note is not None:
                self.process.begin()
            self.ledger.take_plan(plan)

    def _begin(self) -> None:
        with self.process.guard.step():
            self.process.begin()
        self.process.touch()

    def _take_record(self, record: EvaluationRecord) -> None:
        with self.process.guard.step():
            self.ledger.take(record)

    # Inside the terminal reporter's, which prints the summary; outside that of RunningHooks.
    @pytest.hookimpl(wrapper=True, trylast=True)
    @guarded_wrapper
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, object, None]:
        try:
            yield
        except BaseException:  # then pytest prints no summary
            self.ending.finish(interrupted=True)
            self.ending.print()
            raise
        self._finish(session, exitstatus)

    @property
    def _has_no_evaluation(self) -> bool:
        """Whether tests were run, and none of them was an evaluation, as far as is known."""
        is_doubtful = self.ledger.crashes or self.process.guard.problems
        return self._runs_tests and not (self.ending.summary or self.ledger.planned or is_doubtful)

    def _finish(self, session: pytest.Session, exitstatus: int) -> None:
        """Sum up; fail a strict session; print the summary if pytest prints none."""
        is_interrupted = self._is_interrupted or exitstatus == pytest.ExitCode.INTERRUPTED
        self.ending.finish(is_interrupted and not _has_failed_enough(session))
        # With workers, errors of the collection fail the session as tests do.
        is_refused = exitstatus == pytest.ExitCode.TESTS_FAILED and not self.ledger.reported
        if exitstatus in _RAN and not (is_interrupted or is_refused) and self._has_no_evaluation:
            ran = exitstatus != pytest.ExitCode.NO_TESTS_COLLECTED
            remark(self.config, [(no_evaluation(self.settings.marker, ran), "")])
        if self.ending.failed_strictly and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif session.exitstatus not in _SUMMED_UP and not session.config.option.no_summary:
            self.ending.print()

    def interrupt(self, record: EvaluationRecord | None) -> None:
        """Close and print the session while a test runs; ``record`` is that test's, if any."""
        if record is not None:
            self._take_record(record)
        self.ending.interrupt()

    @guarded
    def pytest_terminal_summary(self) -> None:
        self.ending.print()


def _has_failed_enough(session: pytest.Session) -> bool:
    """Whether `-x` or `--maxfail` has ended a session: with workers they interrupt it too."""
    most = session.config.option.maxfail
    return bool(most and session.testsfailed >= most)


def _unreported(ledger: Ledger, node: Any) -> list[EvaluationRecord]:
    """What a crashed worker was at, if it has not reported that."""
    worker, _ = xdist.crash_of(node)
    record = under_way_in(lease_folder(ledger.where), ledger.identity.shard, worker)
    return [record] if record and ledger.attempts.of_run(record.run_id) is None else []
