"""One attempt at an evaluation: its data, and what is derived from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING

import pytest

from pytest_armory.plugin.fixture_params import FixtureParams, Source, merged
from pytest_armory.plugin.guard import unexpected_error
from pytest_armory.plugin.lifecycle import Phase
from pytest_armory.plugin.marker import RUN_BEFORE, merged_mark
from pytest_armory.plugin.options import Settings
from pytest_armory.records import EvaluationRecord, Outcome, Verdict
from pytest_armory.records.tags import KEY
from pytest_armory.track.context import Scope, running
from pytest_armory.track.repeats import Metric
from pytest_armory.track.run import EvaluationRun
from pytest_armory.track.writer import go_on_in
from pytest_armory.values import PARAM_LIMIT, clip, head_and_tail, redact_text, without_concealed

if TYPE_CHECKING:
    from pytest_armory.plugin.mlflow_fixtures import MlflowFixtures
    from pytest_armory.store.active_run import ActiveRun


class Attempt:
    """One attempt under way; ``problems`` are the sentences on what of it was not stored.

    ``began`` is when opening its run began, a time of ``perf_counter``.
    """

    def __init__(
        self,
        item: pytest.Item,
        record: EvaluationRecord,
        run: EvaluationRun,
        problems: list[str],
        *,
        began: float,
    ) -> None:
        self.item = item
        self.record = record
        self.run = run
        self.problems = problems
        self.unexpected = problems
        """Unexpected errors; those of a run in memory are the session's, as no summary has it."""
        self.scope: Scope | None = None
        self.phases: list[Phase] = []
        self.phase_seconds: dict[str, float] = {}
        self.opening_seconds = 0.0
        self.request_seconds = 0.0
        self.judging_seconds = 0.0
        self.sources: list[Source] = []
        self.described: dict[str, str] = {}
        """Parameters that are known since setup, and are written when the test ends."""
        self.failures: list[str] = []
        self.captured: dict[str, str] = {}
        self.verdicts: list[Verdict] = []
        self.baseline: Mapping[str, float] | None = None
        self.has_stored_baseline = False
        """Whether that is an earlier session's, and not a hook's."""
        self.own_metrics: Mapping[str, float] = {}
        """What the test has logged by ``mlflow.*`` itself, if a gate needed it."""
        self.chief: tuple[str, ...] = ()
        self.changed: tuple[str, ...] = ()
        self._opening_began = began
        self._body_began: float | None = None
        self._body_ended: float | None = None
        self._body_error: BaseException | None = None
        self._is_broken_off = False
        self._parametrized: dict[str, str] | None = None
        self.started = time()  # by now its run is open
        self.stack = ExitStack()
        """The contexts that are entered while the run is open."""

    @property
    def seconds(self) -> float:
        """The test's own time, over all phases: without the requests to the store meanwhile."""
        total = sum(self.phase_seconds.values())
        return max(0.0, total - self.opening_seconds - self.judging_seconds - self.request_seconds)

    @contextmanager
    def being_judged(self) -> Iterator[None]:
        """Count the time of judging apart: it is not the test's own."""
        connection = self.run.connection
        started, requests = perf_counter(), connection.request_seconds
        try:
            yield
        finally:
            spent = perf_counter() - started - (connection.request_seconds - requests)
            self.judging_seconds += max(0.0, spent)

    @property
    def elapsed(self) -> float:
        """The test's own time up to now, while it runs."""
        return max(0.0, time() - self.started - self.run.connection.request_seconds)

    def begin_body(self) -> None:
        """Note when the test's body begins."""
        self._body_began, self._body_ended = perf_counter(), None

    def end_body(self, error: BaseException | None) -> None:
        """Note what the body raised, and when it ended."""
        self._body_error, self._body_ended = error, perf_counter()

    def conclude(self) -> None:
        """Take in by what the body raised how an attempt ended of which nothing is reported."""
        outcome, error = "passed", self._body_error
        if isinstance(error, pytest.skip.Exception):
            outcome = "skipped"
        elif error is not None:
            outcome = "failed"
            text = self.item.repr_failure(pytest.ExceptionInfo.from_exception(error))
            self.failures.append(f"call:\n{text}")
        self._take_times()
        self.phases += [Phase("call", outcome), Phase("teardown", "passed")]

    def break_off(self) -> None:
        """Take in how long setup and body took up to now, as of a test that Ctrl-C ends."""
        is_over = any(phase.when == "teardown" for phase in self.phases)
        if not (is_over or self._is_broken_off):
            self._take_times()
            self._is_broken_off = True

    def _take_times(self) -> None:
        """Take in how long setup and body took, of which no report comes."""
        now = perf_counter()
        if self._body_began is None:
            self.phase_seconds.setdefault("setup", now - self._opening_began)
        else:
            if "setup" not in self.phase_seconds:
                self.opening_seconds = 0.0  # which is no part of what is known
            self.phase_seconds["call"] = (self._body_ended or now) - self._body_began
        self.request_seconds = self.run.connection.request_seconds

    @property
    def active(self) -> ActiveRun | None:
        """Its run as MLflow's active run, if it is that."""
        activation = self.run.connection.activation
        return activation.run if activation is not None else None

    @property
    def has_failed(self) -> bool:
        """Whether a phase, or a subtest, has failed so far."""
        return any(phase.outcome == "failed" for phase in self.phases)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics known so far; the test's own ``mlflow.log_*`` only if a gate needed them."""
        return {**self.own_metrics, **self.run.metrics}

    @property
    def compared(self) -> dict[str, float]:
        """The baseline's values of these metrics and of those with a gate."""
        names = {*self.metrics, *(verdict.metric for verdict in self.verdicts)}
        return {name: v for name, v in (self.baseline or {}).items() if name in names}

    @property
    def failure_files(self) -> dict[str, str | bytes | Path]:
        """The artifacts of an attempt that failed: pytest's report, and captured output."""
        files: dict[str, str | bytes | Path] = {}
        if self.failures:
            files["failure.txt"] = _file_of(map(_for_file, self.failures))
        if self.captured:
            parts = [f"--- {title} ---\n{_for_file(text)}" for title, text in self.captured.items()]
            files["captured.txt"] = _file_of(parts)
        return files

    def note(self, report: pytest.TestReport) -> None:
        """Add one phase's report, or a subtest's."""
        self.phases.append(Phase(report.when or "?", report.outcome, hasattr(report, "wasxfail")))
        # A test's own call comes after its subtests, and its time includes theirs.
        self.phase_seconds[report.when or "?"] = report.duration
        self.request_seconds = self.run.connection.request_seconds
        if report.failed:
            self.failures.append(f"{report.when}:\n{report.longreprtext}")
        self.captured.update(report.sections)

    def note_subtest(self, report: pytest.TestReport) -> None:
        """Add what only the report that pytest makes of a failed subtest's phase has.

        That is its name, and captured output under the titles of the test's own.
        """
        subtest = _subtest_of(report)
        if self.failures:
            self.failures[-1] = f"{report.when}{subtest}:\n{report.longreprtext}"
        for title, text in report.sections:
            own_title = f"{title}{subtest}"
            self.captured[own_title] = self.captured.get(own_title, "") + text

    def params(self, fixtures: Sequence[Source]) -> dict[str, str]:
        """The parameters of parametrization, of the fixtures in use and of the test.

        Those of fixtures that are torn down by now were added when setup ended.
        """
        self.keep_sources(fixtures)
        parametrized = self.parametrized()
        scope = self.scope.params if self.scope is not None else {}
        own = self.run.writer.params.describe(scope)
        recorded = [(name, source.strings) for name, source in self.sources]
        return {**parametrized, **merged([*recorded, ("test", own)])}

    def parametrized(self) -> dict[str, str]:
        """The parameters of parametrization, as they were when first asked for."""
        if self._parametrized is None:
            callspec = getattr(self.item, "callspec", None)
            given = {} if callspec is None else callspec.params
            self._parametrized = self.run.writer.params.describe(given)
        return self._parametrized

    def keep_sources(self, fixtures: Sequence[Source]) -> None:
        """Keep what fixtures have recorded, which may be torn down when it is read."""
        self.sources += [source for source in fixtures if source not in self.sources]

    def to_record(self, outcome: Outcome | None = None) -> EvaluationRecord:
        """The record of the attempt so far."""
        described = {key: clip(value, PARAM_LIMIT) for key, value in self.described.items()}
        return replace(
            with_run(self.record, self.run),
            outcome=outcome,
            duration=self.seconds,
            metrics=self.metrics if outcome else {},
            params={} if outcome else described,
            chief=self.chief,
            baseline=self.compared if outcome else {},
            verdicts=tuple(self.verdicts),
            digests=dict(self.run.writer.samples.digests),
            changed=self.changed,
        )


def begin(
    attempt: Attempt,
    fixtures: FixtureParams,
    settings: Settings,
    mlflow: MlflowFixtures | None,
    confidence: float,
) -> None:
    """Let what the test logs and records from now on go to the attempt's run.

    Setup begins: what runs is a fixture wider than the test, or a hook, until its own fixtures do.
    ``confidence`` is that of its intervals: the session's, which another job may have recorded.
    """
    item = attempt.item
    with step(attempt):
        attempt.run = _with_earlier(item, attempt.run)
    run = attempt.run
    run.writer.samples.confidence = confidence
    run.writer.recorded = lambda: run.writer.params.to_store(attempt.params(fixtures.of(item)))
    if run.connection.location is not None:
        with step(attempt):
            attempt.parametrized()  # a fixture that records such a value need not describe it
    with step(attempt):
        activate = merged_mark(item).activate
        attempt.scope = attempt.stack.enter_context(
            running(
                run,
                activate=settings.activate if activate is None else activate,
                keep_uri=mlflow is not None and mlflow.keep_uri(),
                wider=True,
            )
        )
    if attempt.scope is None:
        # What the test logs, and its gates are judged by, belongs to its run all the same.
        attempt.scope = attempt.stack.enter_context(running(run, activate=False))


def _with_earlier(item: pytest.Item, run: EvaluationRun) -> EvaluationRun:
    """The run of a test; the one that a fixture has of it since before the mark goes on in it."""
    earlier: EvaluationRun | None = item.stash.get(RUN_BEFORE, None)
    if earlier is None:
        return run
    del item.stash[RUN_BEFORE]
    earlier.connection = run.connection
    go_on_in(earlier.writer, run.connection)
    return earlier


NAME_LIMIT = 200
"""The most characters of a subtest's name."""

OUTPUT_LIMIT = 1_000_000
"""The most characters of one report or one section of captured output that are stored."""


FILE_LIMIT = 10 * OUTPUT_LIMIT
"""The most characters of all of them in one file: a test may have any number of subtests."""


def _subtest_of(report: pytest.TestReport) -> str:
    """Which subtest a report is of, as a title ends."""
    name = str(getattr(report, "head_line", "")).removeprefix(report.location[2]).strip()
    return f", {clip(without_concealed(redact_text(name or 'subtest')), NAME_LIMIT)}"


def _file_of(parts: Iterable[str]) -> str:
    return head_and_tail("\n\n".join(parts), FILE_LIMIT)


def _for_file(text: str) -> str:
    # In this order, for a cut could leave a part of a secret.
    return head_and_tail(without_concealed(text), OUTPUT_LIMIT)


@contextmanager
def step(attempt: Attempt, effect: str = "") -> Iterator[None]:
    """Do one thing of several for an attempt; what follows is done even if this fails."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see `unexpected_error`
        keep_error(attempt, error, effect)


def duration_of(attempt: Attempt) -> list[Metric]:
    """How long an attempt took that ends now, as a metric of its run."""
    attempt.break_off()
    attempt.run.metrics["duration_seconds"] = attempt.seconds
    return [("duration_seconds", attempt.seconds, 0)]


def keep_error(attempt: Attempt, error: Exception, effect: str = "") -> None:
    """Note an unexpected error of an attempt, once; ``effect`` is what it has led to."""
    problem = f"{effect}{unexpected_error(error)}"
    if problem not in attempt.unexpected:
        attempt.unexpected.append(problem)


def with_run(record: EvaluationRecord, run: EvaluationRun) -> EvaluationRecord:
    """A record with its run's current location and problems."""
    location = run.connection.location
    connection = run.connection
    return replace(
        record,
        run_id=location.run_id if location is not None else None,
        experiment_id=run.experiment_id,
        parent_id=location.run.parent_id if location is not None else None,
        url=location.url if location is not None else None,
        copy_key=location.run.tags.get(KEY, "") if location is not None else "",
        waiting=connection.is_waiting,
        unreachable=connection.is_waiting and not connection.is_put_off,
        experiment=connection.experiment,
        problems=tuple(connection.problems),
        confirmed=record.confirmed and not (connection.is_waiting or connection.problems),
    )
