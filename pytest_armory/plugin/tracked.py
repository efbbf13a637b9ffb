"""The hooks of a tracked session: in a process that runs tests, and in the one that reports."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import pytest

from pytest_armory import environment, signals
from pytest_armory.errors import ArmoryError
from pytest_armory.gates import baselines
from pytest_armory.gates.baselines import Baseline
from pytest_armory.gates.parse import Reference
from pytest_armory.plugin import xdist
from pytest_armory.plugin.attempts import Attempts
from pytest_armory.plugin.options import Settings, is_evaluation
from pytest_armory.plugin.redacted import display_id, unexpected_error
from pytest_armory.plugin.xdist import received_from_worker, report_to_controller, write_summary
from pytest_armory.records import from_wire, to_wire
from pytest_armory.report.junit import junit_properties
from pytest_armory.report.summary import Summary
from pytest_armory.report.terminal import terminal_lines
from pytest_armory.report.text import printable
from pytest_armory.session import leases
from pytest_armory.session.ledger import Ledger
from pytest_armory.session.session_runs import ParentRuns
from pytest_armory.session.signals import before_dying
from pytest_armory.store.destination import HTTP_LIMITS, Destination, lease_folder
from pytest_armory.values import redacting

WIRE = "armory"
"""The attribute of a report that carries the record, as one string."""

PLANNED = "armory_planned"
"""That of a process's first report, which carries the node ids of all evaluations it collected."""


_SUMMED_UP = frozenset(pytest.ExitCode) - {pytest.ExitCode.INTERNAL_ERROR}
"""The exit statuses that pytest prints summaries with."""


def register(config: pytest.Config, settings: Settings) -> None:
    """Register what this process needs for its role. Raises ``pytest.UsageError``."""
    given = xdist.checked_destination(settings)
    where, problems = xdist.logged_in(config, given)
    local = xdist.local_destination()
    xdist.prepare_circuit(config, where, settings.budget)
    identity = xdist.identify(config, settings.session)
    stack = ExitStack()
    stack.enter_context(_environment())
    stack.enter_context(redacting(settings.secret_names, settings.redaction))
    config.add_cleanup(stack.close)
    manager = config.pluginmanager
    ledger = None
    if not xdist.is_worker(config):
        each = xdist.runs_each_test_everywhere(config)
        ledger = Ledger(where, identity, each=each, local=local)
    process = Process(where, ledger, settings.baseline)
    process.problems += problems
    process.notes += xdist.password_in_uri(given)
    config.add_cleanup(before_dying(process.shut_down))
    if ledger is not None:
        manager.register(ReportingHooks(config, settings, ledger, process), "armory-reports")
    # --setup-plan and --setup-only run no test, so there is no evaluation.
    if not xdist.is_controller(config) and not getattr(config.option, "setuponly", False):
        process.attempts = Attempts(
            settings,
            where,
            open_tags=identity.tags,
            local=local,
            worker=xdist.worker_name(config),
            parent_of=ledger.parent_of if ledger else ParentRuns(where, identity.session).parent_of,
            rootpath=config.rootpath,
        )
        process.attempts.baseline = xdist.given_baseline(config) or Baseline("none")
        manager.register(RunningHooks(process.attempts, process), "armory-runs-tests")


def register_in_memory(config: pytest.Config, settings: Settings) -> None:
    """Give marked tests the same of everything where nothing is tracked, but for the store."""
    attempts = Attempts(settings, None, rootpath=config.rootpath)
    config.pluginmanager.register(RunningHooks(attempts, Process(None, None)), "armory-runs-tests")


class Process:
    """What a process of a tracked session is besides its role: alive, and mortal.

    ``busy`` is held while a hook of ours is at work, so that dying of a signal waits for it.
    """

    def __init__(
        self,
        where: Destination | None,
        ledger: Ledger | None,
        reference: Reference | None = None,
    ) -> None:
        self.where = where
        self.ledger = ledger
        self.reference = reference
        self.attempts: Attempts | None = None
        self.busy = threading.RLock()
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.print_summary: Callable[[], None] = lambda: None
        self._begun = False
        self._lease: leases.Lease | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """For a hook of ours: no signal cuts it in half, but for a second Ctrl-C."""
        with signals.interrupt_deferred(), signals.alarm_paused(), self.busy:
            try:
                if self._lease is not None:
                    self._lease.touch()
                yield
            except pytest.UsageError:
                raise
            except Exception as error:  # noqa: BLE001 - see `unexpected_error`
                self.problems.append(unexpected_error(error))

    def write_journal(self, wire: str) -> None:
        """Keep what is known of an attempt where it outlives this process."""
        if self._lease is not None:
            self._lease.write_journal(wire)

    def begin(self) -> None:
        """Take this process's lease; and where it reports, close what killed sessions left."""
        if self.where is None or self._begun:
            return
        self._begun = True
        from pytest_armory.session import recovery

        try:
            self._lease = leases.hold(lease_folder(self.where))
            if self.ledger is not None:
                own = self.ledger.identity.session
                self.notes += recovery.notes_of(recovery.recover_dead(self.where, own=own))
        except (OSError, ArmoryError) as error:
            self.problems.append(f"runs of killed sessions cannot be looked after: {error}")

    def find_baseline(self) -> Baseline | None:
        """Look up what the session is compared with, once, in the process that reports."""
        if self.ledger is None or self.where is None or self.reference is None:
            return None
        if self.ledger.baseline is None:
            own = self.ledger.identity.session
            self.ledger.baseline = baselines.find(self.where, self.reference, own)
        return self.ledger.baseline

    def end(self) -> None:
        """Give the lease back, unless something is left open that others shall close."""
        if self._lease is not None:
            told = self.ledger or self.attempts
            if told is None or told.is_complete:
                self._lease.release()
            else:
                if self.ledger is not None and self.ledger.end is not None:
                    self._lease.write_journal(self.ledger.end.to_text())
                self._lease.unlock()
            self._lease = None
        if self.where is not None and self.ledger is not None and self.ledger.deaths:
            self._remove_leases_of_dead(self.where)

    def _remove_leases_of_dead(self, where: Destination) -> None:
        """Remove the leases of workers that died; their runs are closed by now."""
        from pytest_armory.session import recovery

        try:
            recovery.recover_dead(where)
        except (OSError, ArmoryError) as error:
            self.problems.append(str(error))

    def shut_down(self) -> None:
        """Close what is open. The main thread may go on, but not into a hook of ours."""
        self.busy.acquire()
        record = self.attempts.interrupt() if self.attempts is not None else None
        if self.ledger is not None:
            if record is not None:
                self.ledger.take(record)
            self.print_summary()
        self.end()


class RunningHooks:
    """A session of one process, or a worker."""

    def __init__(self, attempts: Attempts, process: Process) -> None:
        self.attempts = attempts
        self.process = process
        self._planned: list[str] | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            return
        self._planned = [display_id(item.nodeid) for item in session.items if is_evaluation(item)]
        if self.process.ledger is not None:
            self.process.ledger.planned.update(self._planned)
        # A worker runs its tests whatever could not be collected.
        if self._planned and not (session.testsfailed and self.process.ledger is not None):
            with self.process.at_work():
                self.attempts.prepare()
                self.process.begin()
                self.attempts.baseline = self.process.find_baseline() or self.attempts.baseline

    # Neither first nor last: after the marks that skip a test, before its fixtures are set up.
    @pytest.hookimpl
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if is_evaluation(item) and not _skipped_by_unittest(item):
            with self.process.at_work():
                self.attempts.open(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        with self.attempts.fixtures.recording(fixturedef, request):
            return (yield)

    # Innermost: what a gate raises is the test's own failure to everybody else.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        result = yield
        if getattr(item, "_excinfo", None):  # a TestCase failed, which raises nothing here
            return result
        missed = ""
        with self.process.at_work():
            missed = self.attempts.judge(item)
        if missed:
            pytest.fail(missed, pytrace=False)
        return result

    # Outermost: what others make of a report is what pytest counts.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        record = None
        with self.process.at_work():
            record = self.attempts.reported(item, report)
        if self.attempts.destination is None:
            return report
        if self._planned:
            setattr(report, PLANNED, json.dumps(self._planned))
            self._planned = None
        if record is not None:
            wire = to_wire(record)
            setattr(report, WIRE, wire)
            self.process.write_journal(wire)
            report.user_properties += junit_properties(record) if record.outcome else []
        return report

    # Innermost, so that a second Ctrl-C while fixtures are torn down does not leave a run open.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            with self.process.at_work():
                self._end(session.config)

    def _end(self, config: pytest.Config) -> None:
        records = self.attempts.end()
        self.process.problems += self.attempts.problems
        if self.process.ledger is None:
            report_to_controller(config, self.process.problems, list(map(to_wire, records)))
            self.process.end()
        else:
            for record in records:
                self.process.ledger.take(record)


class ReportingHooks:
    """A session of one process, or the controller of workers."""

    def __init__(
        self, config: pytest.Config, settings: Settings, ledger: Ledger, process: Process
    ) -> None:
        self.config = config
        self.settings = settings
        self.ledger = ledger
        self.process = process
        self.summary: Summary | None = None
        self._printed = False
        self._interrupted = False
        self._collected = 0
        process.print_summary = self._print_interrupted
        ledger.edit = self._edit

    def _edit(self, lines: list[object]) -> None:
        try:
            self.config.hook.pytest_armory_summary(lines=lines)
        except (pytest.fail.Exception, pytest.skip.Exception) as error:
            raise RuntimeError(str(error)) from None

    def pytest_report_header(self) -> str:
        shown = printable(self.ledger.where.display_uri)
        return f"armory: tracking to {shown}, session {self.ledger.identity.session}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        baseline = self.process.find_baseline()
        xdist.configure_worker(self.ledger.identity, baseline, self.ledger.out_of_reach, node)

    # `pytest.exit` chooses the exit status itself, and a second Ctrl-C loses it.
    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        self._interrupted = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self) -> None:
        self._interrupted = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._collected = len(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if error is not None:
            self.ledger.deaths.setdefault(*xdist.died_at(node))
        problems, wires = received_from_worker(node)
        self.ledger.problems += problems
        with self.process.at_work():
            for wire in wires:
                self.ledger.take(from_wire(wire))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Taken off, for pytest keeps every report until the end.
        planned, wire = (vars(report).pop(name, None) for name in (PLANNED, WIRE))
        self.ledger.reported.add(display_id(report.nodeid))
        if planned is not None:
            self.ledger.planned.update(json.loads(planned))
        if wire is not None:
            with self.process.at_work():
                self.process.begin()
                self.ledger.take(from_wire(wire))

    # Inside the terminal's own, which prints the summary; outside of what runs tests.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, object, object]:
        try:
            result = yield
        except BaseException:  # then pytest prints no summary
            with self.process.at_work():
                self._finish(interrupted=True)
            self._print()
            raise
        with self.process.at_work():
            self._finish(self._was_interrupted(session, exitstatus))
        if session.exitstatus not in _SUMMED_UP and not session.config.option.no_summary:
            self._print()
        if self._failed_strictly and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    def _was_interrupted(self, session: pytest.Session, exitstatus: int) -> bool:
        # With workers `-x` and `--maxfail` interrupt the session too, by their own way out.
        most = session.config.option.maxfail
        if most and session.testsfailed >= most:
            return False
        return self._interrupted or exitstatus == pytest.ExitCode.INTERRUPTED

    @property
    def _failed_strictly(self) -> bool:
        summary = self.summary
        return (
            self.settings.strict
            and summary is not None
            and bool(summary.problems or summary.lost or summary.waiting)
        )

    def _finish(self, interrupted: bool) -> None:
        self.ledger.problems += self.process.problems
        if self.ledger.deaths and not self.ledger.planned:
            self.process.notes.append(
                f"no worker lived to say which of the {self._collected} collected tests are "
                "evaluations: those that never ran are not counted"
            )
        self.summary = self.ledger.finish(interrupted, self.process.notes)
        if self.summary is not None:
            self.summary = write_summary(self.summary, self.settings)
        self.process.end()

    def pytest_terminal_summary(self) -> None:
        self._print()

    def _print_interrupted(self) -> None:
        if self.summary is None:
            self._finish(interrupted=True)
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        # A test is running, so what is written goes to its captured output.
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            self._print()

    def _print(self) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if self.summary is None or terminal is None or self._printed:
            return
        self._printed = True
        terminal.write_sep("=", "evaluations")
        width = terminal._tw.fullwidth
        for line in terminal_lines(self.summary, width, self.config.get_verbosity()):
            for text, colour in line.parts:
                terminal.write(text, **({colour: True} if colour else {}))
            terminal.write_line("")
        if self._failed_strictly:
            terminal.write_line("armory: --armory-strict: not all was tracked, see above", red=True)
        terminal.flush()  # this process may be about to die


def _skipped_by_unittest(item: pytest.Item) -> bool:
    """Whether ``unittest.skip`` marks a test, which pytest sees only when it calls it."""
    places = (getattr(item, "obj", None), getattr(item, "cls", None))
    return any(getattr(place, "__unittest_skip__", False) for place in places)


def _environment() -> AbstractContextManager[None]:
    """Take the job's run out of the environment; in the end everything is as it was.

    ``mlflow.start_run`` in a test would otherwise resume the job's run instead of opening its own.
    And where the server is dead, a test's own calls would wait for four minutes each.
    """
    ours = {name: os.environ.get(name, value) for name, value in HTTP_LIMITS.items()}
    others = {name: os.environ.get(name) for name in _SET_MEANWHILE}
    return environment.changed({**others, **ours, "MLFLOW_RUN_ID": None})


_SET_MEANWHILE = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
)
"""What opening the store and its runs sets, and a session's end puts back."""
