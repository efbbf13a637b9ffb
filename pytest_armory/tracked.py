"""The hooks of a tracked session: in a process that runs tests, and in the one that reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any

import pytest

from pytest_armory import reports, session
from pytest_armory.attempts import Attempts
from pytest_armory.options import Settings, is_evaluation
from pytest_armory.records import from_wire, to_wire
from pytest_armory.session import tell_controller, told_by_worker, write_summary

WIRE = "armory"
"""The attribute of a report that carries the record, as one string."""


def register(config: pytest.Config, settings: Settings) -> None:
    """Register what this process needs for its role. Raises ``pytest.UsageError``."""
    where = session.checked_destination(settings)
    identity = session.identify(config)
    config.add_cleanup(_environment_restorer())
    manager = config.pluginmanager
    ledger = None if session.is_worker(config) else session.Ledger(where, identity)
    # --setup-plan and --setup-only run no test, so there is no evaluation.
    if not session.is_controller(config) and not config.option.setuponly:
        attempts = Attempts(
            settings,
            where,
            open_tags=identity.tags,
            worker=session.worker_name(config),
            parent_of=ledger.runs.parent_of if ledger else session.linked_by_controller,
            rootpath=config.rootpath,
        )
        manager.register(RunsTests(attempts, ledger), "armory-runs-tests")
    if ledger is not None:
        manager.register(Reports(config, settings, ledger), "armory-reports")


def register_in_memory(config: pytest.Config, settings: Settings) -> None:
    """Give marked tests the same of everything where nothing is tracked, but for the store."""
    attempts = Attempts(settings, None, rootpath=config.rootpath)
    config.pluginmanager.register(RunsTests(attempts, None), "armory-runs-tests")


class RunsTests:
    """A session of one process, or a worker."""

    def __init__(self, attempts: Attempts, ledger: session.Ledger | None) -> None:
        self.attempts = attempts
        self.ledger = ledger

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if not session.config.option.collectonly and not session.testsfailed:
            self.attempts.prepare(session.items)

    # Neither first nor last: after the marks that skip a test, before its fixtures are set up.
    @pytest.hookimpl
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if is_evaluation(item) and not _skipped_by_unittest(item):
            self.attempts.open(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        with self.attempts.fixtures.recording(fixturedef, request):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        record = self.attempts.reported(item, report)
        if record is not None and self.attempts.destination is not None:
            setattr(report, WIRE, to_wire(record))
            report.user_properties += reports.junit_properties(record) if record.outcome else []
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        record = self.attempts.end()
        if self.ledger is None:
            tell_controller(session.config, self.attempts.problems)
            return
        self.ledger.runs.problems += self.attempts.problems
        if record is not None:
            self.ledger.take(record)


class Reports:
    """A session of one process, or the controller of workers."""

    def __init__(self, config: pytest.Config, settings: Settings, ledger: session.Ledger) -> None:
        self.config = config
        self.settings = settings
        self.ledger = ledger
        self.summary: reports.Summary | None = None

    def pytest_report_header(self) -> str:
        shown = reports.printable(self.ledger.where.shown)
        return f"armory: tracking to {shown}, session {self.ledger.identity.session}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        session.hand_over(self.ledger.identity, node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object, error: object) -> None:
        self.ledger.crashed |= error is not None
        self.ledger.runs.problems += told_by_worker(node)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        wire = getattr(report, WIRE, None)
        if wire is not None:
            self.ledger.take(from_wire(wire))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        # With workers `-x` and `--maxfail` interrupt the session too, by their own way out.
        most = session.config.option.maxfail
        enough = bool(most) and session.testsfailed >= most
        interrupted = exitstatus == pytest.ExitCode.INTERRUPTED and not enough
        self.summary = self.ledger.finish(interrupted)
        if self.summary is not None:
            self.summary = write_summary(self.summary, self.settings)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.summary is None:
            return
        terminalreporter.write_sep("=", "evaluations")
        width = terminalreporter._tw.fullwidth
        for line in reports.terminal_lines(self.summary, width, self.config.get_verbosity()):
            for text, colour in line.parts:
                terminalreporter.write(text, **({colour: True} if colour else {}))
            terminalreporter.write_line("")


def _skipped_by_unittest(item: pytest.Item) -> bool:
    """Whether ``unittest.skip`` marks a test, which pytest sees only when it calls it."""
    places = (getattr(item, "obj", None), getattr(item, "cls", None))
    return any(getattr(place, "__unittest_skip__", False) for place in places)


def _environment_restorer() -> Callable[[], None]:
    """Take the job's run out of the environment; what comes back puts everything as it was.

    ``mlflow.start_run`` in a test would otherwise resume the job's run instead of opening its own.
    """
    names = (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_RUN_ID",
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
    )
    before = {name: os.environ.get(name) for name in names}
    os.environ.pop("MLFLOW_RUN_ID", None)

    def restore() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return restore
