"""One attempt at an evaluation, in the process that runs the test: its run from open to close.

The steps, each at most one request on the test's way: *open* before fixtures are set up, so that
``mlflow.*`` in fixtures lands in the run; *describe* when setup ends, so that a run killed in hour
three still says what it was; the engine writes its metrics itself; *finish* after teardown.
"""

from __future__ import annotations

import reprlib
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_armory import __version__
from pytest_armory.errors import StoreUnreachableError, TrackingError
from pytest_armory.gates import judge as gates
from pytest_armory.gates.baselines import Baseline
from pytest_armory.plugin.fixture_params import FixtureParams, Source, merged
from pytest_armory.plugin.guard import unexpected_error
from pytest_armory.plugin.lifecycle import Phase, outcome_of
from pytest_armory.plugin.marker import Mark, is_evaluation, merged_mark
from pytest_armory.plugin.options import Settings
from pytest_armory.records import EvaluationRecord, Outcome, Verdict
from pytest_armory.session.ledger import display_tags, gate_tags, process_tags
from pytest_armory.store.destination import Destination
from pytest_armory.track.context import Scope
from pytest_armory.track.evaluation import open_run, running
from pytest_armory.track.run import EvaluationRun, restore_environment, tag_strings
from pytest_armory.values import (
    PARAM_LIMIT,
    TAG_LIMIT,
    clip,
    clip_name,
    legal_key,
    metric_values,
    param_strings,
    redact_text,
    short_hash,
    without_concealed,
)

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoreRun


T = TypeVar("T")

FOREIGN = (Exception, pytest.fail.Exception, pytest.skip.Exception)
"""What anybody's hook may raise; it is told in the summary."""


class Attempt:
    """One attempt under way."""

    def __init__(self, item: pytest.Item, record: EvaluationRecord, run: EvaluationRun) -> None:
        self.item = item
        self.record = record
        self.run = run
        self.scope: Scope | None = None
        self.phases: list[Phase] = []
        self.phase_seconds: dict[str, float] = {}
        self.opening = 0.0
        self.asking = 0.0
        self.sources: list[Source] = []
        self.described: dict[str, str] = {}
        self.failures: list[str] = []
        self.captured: dict[str, str] = {}
        self.verdicts: list[Verdict] = []
        self.baseline: Mapping[str, float] | None = None
        self.own: Mapping[str, float] = {}
        self.unread = False
        self.chief: tuple[str, ...] = ()
        self.started = time()  # by now its run is open
        self.stack = ExitStack()

    @property
    def seconds(self) -> float:
        """The test's own time, over all phases: without the requests to the store meanwhile."""
        return max(0.0, sum(self.phase_seconds.values()) - self.opening - self.asking)

    @property
    def metrics(self) -> dict[str, float]:
        """What is known to be logged; the test's own ``mlflow.log_*`` only where a gate asked."""
        return {**self.own, **self.run.metrics}

    @property
    def compared(self) -> dict[str, float]:
        """The baseline's values of these, and of those that gates asked for."""
        names = {*self.metrics, *(verdict.metric for verdict in self.verdicts)}
        return {name: v for name, v in (self.baseline or {}).items() if name in names}

    def note(self, report: pytest.TestReport) -> None:
        """Take in one phase's report, or a subtest's."""
        self.phases.append(Phase(report.when or "?", report.outcome, hasattr(report, "wasxfail")))
        # A test's own call comes after its subtests, and its time includes theirs.
        self.phase_seconds[report.when or "?"] = report.duration
        self.asking = self.run.asking
        if report.failed:
            self.failures.append(f"{report.when}:\n{report.longreprtext}")
        self.captured.update(report.sections)


class Attempts:
    """Opens and closes the runs of this process; ``problems`` are told to the session."""

    def __init__(
        self,
        settings: Settings,
        where: Destination | None,
        *,
        rootpath: Path,
        open_tags: Mapping[str, str] | None = None,
        worker: str = "main",
        local: Destination | None = None,
        parent_of: Callable[[str, bool], str | None] = lambda _, __: None,
    ) -> None:
        self.destination = where
        self.settings = settings
        self.fixtures = FixtureParams()
        self.current: Attempt | None = None
        self._open_tags = dict(open_tags or {})
        self._worker = worker
        self._local = local
        self._parent_of = parent_of
        self._rootpath = rootpath
        self._counts: Counter[str] = Counter()
        self._left_open: dict[str, str] = {}
        self.baseline = Baseline("none")
        self._told: dict[str, None] = {}
        self.problems: list[str] = []
        """What is not one attempt's."""
        self.is_complete = True
        """Whether nothing has failed that may have left a run open."""
        self.late: dict[tuple[str, int, str], EvaluationRecord] = {}
        """What has failed in the background since its attempt was reported."""

    def reported(self, item: pytest.Item, report: pytest.TestReport) -> EvaluationRecord | None:
        """Take in a phase's report of a test; the record to send with it, if there is one.

        The first goes with *setup*, so that a crash in the test leaves a trace, the last with
        *teardown*. A subtest's report comes during *call* and has none.
        """
        attempt = self.current
        if attempt is None or attempt.item is not item:
            # In a folder's conftest a hook runs before ours, and may fail before a run is open.
            if not (report.when == "setup" and report.failed and is_evaluation(item)):
                restore_environment()  # a wide fixture may end with any test
                return None
            attempt = self.open(item)
        attempt.note(report)
        try:
            if report.when == "teardown":
                return self.finish(attempt)
            if report.when == "setup":
                self.describe(attempt)
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            attempt.run.problems.append(unexpected_error(error))
            if report.when == "teardown":
                return self._give_up(attempt)
        return self.record_of(attempt) if report.when == "setup" else None

    def _give_up(self, attempt: Attempt) -> EvaluationRecord:
        """Leave an attempt's run as it is, for whoever sums up the session to close it."""
        self.is_complete = False
        self.current = None
        with suppress(Exception):  # whatever has been told of already
            attempt.stack.close()
        return self.record_of(attempt, outcome_of(attempt.phases))

    def interrupt(self) -> EvaluationRecord | None:
        """Close the run that is open, from another thread, before this process dies of a signal."""
        attempt = self.current
        if attempt is None:
            return None
        outcome = Outcome.INTERRUPTED
        known = attempt.run.describe(attempt.described)
        attempt.run.write(params=known, tags={"armory.outcome": outcome.value})
        attempt.run.close(outcome.status)
        return self.record_of(attempt, outcome)

    def end(self) -> list[EvaluationRecord]:
        """End this process's part: close what Ctrl-C or ``pytest.exit`` left open, and wait.

        Returns the records that are new, or not as they were told.
        """
        cut_off = [self.finish(self.current)] if self.current is not None else []
        if self._counts and self.destination is not None:
            from pytest_armory.store import open_store

            try:
                store = open_store(self.destination)
                self.problems += store.close_left_open(self._left_open)
                store.flush()
                store.drain()
            except TrackingError as error:
                self.problems.append(str(error))
        return [*cut_off, *self.late.values()]

    def prepare(self) -> None:
        """Open the store before the first test, for it takes seconds that are no test's."""
        if self.destination is not None:
            from pytest_armory.store import freeze_garbage_collector, open_store

            with suppress(TrackingError):  # tried again by each evaluation, which tells it
                open_store(self.destination)
            freeze_garbage_collector()

    def open(self, item: pytest.Item) -> Attempt:
        """Open the run of a test that is about to be set up; in memory if the store fails."""
        started = perf_counter()
        self._counts[item.nodeid] += 1
        record = EvaluationRecord(
            nodeid=display_id(item.nodeid),
            attempt=self._counts[item.nodeid],
            worker=self._worker,
        )
        problems: list[str] = []
        try:
            run = self._open_run(item, record, problems)
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            run = EvaluationRun()
            problems.append(unexpected_error(error))
        run.collect_problems(problems)
        attempt = Attempt(item, record, run)
        attempt.scope = attempt.stack.enter_context(running(run))
        attempt.opening = perf_counter() - started
        self.current = attempt
        return attempt

    def _open_run(
        self, item: pytest.Item, record: EvaluationRecord, problems: list[str]
    ) -> EvaluationRun:
        if self.destination is None:
            return EvaluationRun()
        mark = merged_mark(item)
        tags = {**_extra_tags(item, mark, problems), **self._tags(item, mark, record)}
        name = tags.pop("mlflow.runName", item.name)
        experiment = mark.name or self.settings.experiment
        if not self.destination.is_remote:
            return self._open_at(self.destination, name, tags, experiment, None)
        tags["armory.key"] = secrets.token_hex(16)

        def fallback(run: StoreRun) -> tuple[Store, StoreRun]:
            begun = {**tags, **run.tags, "armory.remote_run_id": run.run_id}
            return self._open_locally(name, begun, experiment)

        try:
            return self._open_at(self.destination, name, tags, experiment, fallback)
        except StoreUnreachableError as error:
            self._told.setdefault(str(error))
            problems.extend(self._told)
            run = EvaluationRun(*self._open_locally(name, tags, experiment))
            run.is_waiting = True
            return run

    def _open_at(
        self,
        where: Destination,
        name: str,
        tags: dict[str, str],
        experiment: str,
        fallback: Callable[[StoreRun], tuple[Store, StoreRun]] | None,
    ) -> EvaluationRun:
        from pytest_armory.store import open_store

        experiment_id = self.settings.experiment_id if not experiment else None
        if experiment_id is None:
            experiment_id = open_store(where).experiment_id(experiment)
        parent = self._parent_of(experiment_id, False)
        linked = {**tags, **({"mlflow.parentRunId": parent} if parent else {})}
        return open_run(
            where, name=name, tags=linked, experiment_id=experiment_id, fallback=fallback
        )

    def _open_locally(
        self, name: str, tags: Mapping[str, str], experiment: str
    ) -> tuple[Store, StoreRun]:
        """Open a run in the local database that waits for the server."""
        from pytest_armory.store import open_store

        assert self.destination is not None
        # As it was before the first test: fixtures may have put another home in its place.
        store = open_store(self._local or self.destination)
        experiment_id = store.experiment_id(
            experiment or f"experiment {self.settings.experiment_id}"
        )
        waiting = {**tags, "armory.destination": self.destination.display_uri}
        if not experiment:
            waiting["armory.experiment_id"] = str(self.settings.experiment_id)
        if "armory.remote_run_id" not in tags:
            parent = self._parent_of(experiment_id, True)
            waiting.update({"mlflow.parentRunId": parent} if parent else {})
        return store, store.create_run(experiment_id, name, waiting)

    def _tags(self, item: pytest.Item, mark: Mark, record: EvaluationRecord) -> dict[str, str]:
        tags = {
            **self._open_tags,
            **process_tags(),
            "armory.kind": "evaluation",
            "armory.version": __version__,
            "armory.nodeid": clip_name(record.nodeid, TAG_LIMIT),
            "armory.attempt": str(record.attempt),
            "armory.worker": record.worker,
            "mlflow.source.name": _relative(item.path, self._rootpath),
            "mlflow.source.type": "LOCAL",
        }
        if mark.description:
            tags["mlflow.note.content"] = redact_text(mark.description)
        return tags

    def judge(self, item: pytest.Item) -> str:
        """Judge a test whose body has passed by its gates: what it fails with, or nothing."""
        attempt = self.current
        if attempt is None or attempt.item is not item:
            return ""
        if any(phase.outcome == "failed" for phase in attempt.phases):  # one of its subtests
            return ""
        mark = merged_mark(item)
        if not (mark.at_least or mark.at_most or mark.baseline or self.settings.tolerances):
            return ""
        try:
            return self._judge(attempt, mark)
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            attempt.run.problems.append(f"its gates are not judged: {unexpected_error(error)}")
            return ""

    def _judge(self, attempt: Attempt, mark: Mark) -> str:
        attempt.baseline = self._baseline_of(attempt)
        own = attempt.own = self._own(attempt)
        elapsed = max(0.0, time() - attempt.started - attempt.run.asking)
        metrics = {"duration_seconds": elapsed, **attempt.run.metrics, **own}
        verdicts = gates.judge(
            _as_stored(metrics),
            at_least=_as_stored(mark.at_least),
            at_most=_as_stored(mark.at_most),
            tolerances={k: gates.parse_tolerance(t) for k, t in _as_stored(mark.baseline).items()},
            session_tolerances=_as_stored(self.settings.tolerances),
            baseline=attempt.baseline,
        )
        attempt.verdicts = [gates.unread(v) for v in verdicts] if attempt.unread else verdicts
        return gates.failure_text(attempt.verdicts)

    def _own(self, attempt: Attempt) -> Mapping[str, float]:
        """What the test has logged by ``mlflow.*`` itself; only MLflow knows."""
        if "mlflow" not in sys.modules:  # then nobody has logged anything by it
            return {}
        try:
            return attempt.run.logged_metrics(attempt.started)
        except TrackingError as error:
            attempt.unread = True
            attempt.run.problems.append(str(error))
            return {}

    def _baseline_of(self, attempt: Attempt) -> Mapping[str, float] | None:
        given = _answer(attempt, "pytest_armory_baseline")
        if given is not None:
            values = metric_values(given) if isinstance(given, Mapping) else None
            if values is None or values.refused or values.arrays:
                attempt.run.problems.append(
                    "the hook pytest_armory_baseline must give a mapping of metric names to "
                    f"numbers, got {reprlib.repr(given)}"
                )
            return values.numbers if values else None
        return self.baseline.of(attempt.run.experiment_id, attempt.record.nodeid)

    def describe(self, attempt: Attempt) -> None:
        """Note the parameters that are known by now: fixtures', parametrization's, the test's.

        They are written when the test ends: a value that it logs itself by ``mlflow.log_param``
        would be refused if another stood there.
        """
        attempt.described = attempt.run.describe(self._params(attempt))

    def _params(self, attempt: Attempt) -> dict[str, str]:
        callspec = getattr(attempt.item, "callspec", None)
        own = param_strings(attempt.scope.params) if attempt.scope is not None else {}
        # Those that are torn down by now are known from when setup ended.
        known = attempt.sources
        known += [source for source in self.fixtures.of(attempt.item) if source not in known]
        recorded = merged([*known, ("test", own)])
        return {**(param_strings(callspec.params) if callspec is not None else {}), **recorded}

    def finish(self, attempt: Attempt) -> EvaluationRecord:
        """Write what became of it and close the run; the record for the session."""
        outcome = outcome_of(attempt.phases)
        run = attempt.run
        run.metrics["duration_seconds"] = attempt.seconds
        attempt.chief = self._chief_of(attempt)
        if attempt.baseline is None:
            attempt.baseline = self._baseline_of(attempt)
        run.write(
            params=run.describe(self._params(attempt)),
            metrics=[("duration_seconds", attempt.seconds, 0)],
            tags={
                "armory.outcome": outcome.value,
                **gate_tags(attempt.verdicts),
                **display_tags(attempt.chief, attempt.compared),
            },
        )
        if not outcome.is_good:
            run.store_files(_failure_files(attempt))
        attempt.stack.close()
        self._left_open.update(run.left_open)
        run.close(outcome.status)
        self.current = None
        record = self.record_of(attempt, outcome)
        self.is_complete = self.is_complete and not record.problems
        run.when_late = lambda: self._note_late(run, record)
        return record

    def _note_late(self, run: EvaluationRun, record: EvaluationRecord) -> None:
        self.is_complete = False
        problems = tuple(run.problems)
        self.late[record.key] = replace(
            record,
            run_id=run.run_id,
            experiment_id=run.experiment_id,
            parent_id=run.parent_id,
            url=run.url,
            waiting=run.is_waiting,
            problems=problems,
        )

    def _chief_of(self, attempt: Attempt) -> tuple[str, ...]:
        metrics = attempt.metrics
        chief = _answer(attempt, "pytest_armory_chief_metrics", metrics=metrics)
        if chief is None:
            return ()
        if isinstance(chief, list | tuple) and all(name in metrics for name in chief):
            return tuple(chief)
        attempt.run.problems.append(
            "the hook pytest_armory_chief_metrics must give a list of names of metrics that were "
            f"logged, got {reprlib.repr(chief)}"
        )
        return ()

    def record_of(self, attempt: Attempt, outcome: Outcome | None = None) -> EvaluationRecord:
        """What is known of an attempt by now."""
        run, described = attempt.run, attempt.described.items()
        return replace(
            attempt.record,
            run_id=run.run_id,
            experiment_id=run.experiment_id,
            parent_id=run.parent_id,
            url=run.url,
            waiting=run.is_waiting,
            outcome=outcome,
            duration=attempt.seconds,
            metrics=attempt.metrics if outcome else {},
            params={} if outcome else {k: clip(v, PARAM_LIMIT) for k, v in described},
            problems=tuple(run.problems),
            chief=attempt.chief,
            baseline=attempt.compared if outcome else {},
            verdicts=tuple(attempt.verdicts),
        )


def _as_stored(named: Mapping[str, T] | None) -> dict[str, T]:
    """By the names that metrics have in MLflow: ``accuracy@1`` is ``accuracy_1`` there."""
    return {legal_key(name): value for name, value in (named or {}).items()}


@lru_cache(maxsize=4096)  # each report of a test asks
def display_id(nodeid: str) -> str:
    """A node id without what looks like a secret in it; still another one than its neighbours'."""
    plain = redact_text(nodeid)
    if plain == nodeid:
        return nodeid
    return f"{plain} {short_hash(nodeid)}"


def _extra_tags(item: pytest.Item, mark: Mark, problems: list[str]) -> dict[str, str]:
    """The marker's tags and those of hooks; a hook that raises must not fail the test."""
    tags = tag_strings(mark.tags)
    try:
        for given in item.ihook.pytest_armory_tags(item=item):
            tags.update(tag_strings(given or {}))
    except FOREIGN as error:
        problems.append(f"the hook pytest_armory_tags raised {error!r}; its tags are left out")
    return tags


def _answer(attempt: Attempt, hook: str, **arguments: object) -> object:
    """The answer of somebody's hook; one that raises must not fail the test."""
    try:
        return getattr(attempt.item.ihook, hook)(item=attempt.item, **arguments)
    except FOREIGN as error:
        attempt.run.problems.append(f"the hook {hook} raised {error!r}")
        return None


def _failure_files(attempt: Attempt) -> dict[str, str | bytes | Path]:
    files: dict[str, str | bytes | Path] = {}
    if attempt.failures:
        files["failure.txt"] = without_concealed("\n\n".join(attempt.failures))
    if attempt.captured:
        parts = [f"--- {title} ---\n{text}" for title, text in attempt.captured.items()]
        files["captured.txt"] = without_concealed("\n\n".join(parts))
    return files


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)
