"""One session over all its processes: its identity, its session runs, its end.

Three roles. *Local* runs the tests and reports. A *worker* of pytest-xdist runs tests, and puts
each record on its reports as one JSON string. The *controller* runs none: it opens the session
run when the first record arrives, links runs to it, and reports. This is the only file that says
``workerinput``.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_armory import __version__, destination, provenance
from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.options import Settings
from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.reports import Summary, markdown, outcome_counts

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun

_WIRE = "armory"
_REFUSED = "armory_refused"
_PROBLEMS = "armory_problems"


@dataclass(frozen=True)
class Identity:
    """What every process of a session knows of it. ``tags`` are for each of its runs."""

    session: str
    tags: dict[str, str] = field(default_factory=dict)
    command: str = ""
    job_run: str | None = None


# Roles


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Whether this process hands its tests to workers of pytest-xdist."""
    # `--dist` alone, as in an ini file, distributes nothing: xdist asks for both as well.
    option = config.option
    return not is_worker(config) and getattr(option, "dist", "no") != "no" and bool(option.tx)


def worker_name(config: pytest.Config) -> str:
    """``gw0`` and so on; ``main`` in the one process of a session without workers."""
    return str(config.workerinput["workerid"]) if hasattr(config, "workerinput") else "main"


def identify(config: pytest.Config) -> Identity:
    """A fresh identity, or in a worker that of its session."""
    if hasattr(config, "workerinput"):
        return Identity(**json.loads(config.workerinput[_WIRE]))
    session = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    source = provenance.source_tags(name="", folder=config.rootpath)
    return Identity(
        session=session,
        tags={**{k: v for k, v in source.items() if v}, "armory.session": session},
        command=provenance.command_line(["pytest", *config.invocation_params.args]),
        job_run=os.environ.get("MLFLOW_RUN_ID") or None,
    )


def hand_over(identity: Identity, node: Any) -> None:
    """Give a worker what it needs, as one string of JSON."""
    node.workerinput[_WIRE] = json.dumps(asdict(identity))


def refuse(config: pytest.Config, items: list[pytest.Item], errors: Sequence[str]) -> None:
    """Refuse a collection before its first test.

    A usage error that a worker raised would be an internal error of the controller's; so a worker
    runs nothing and hands the text over, and the controller raises it.
    """
    text = "\n".join(f"armory: {error}" for error in errors)
    if not is_worker(config):
        raise pytest.UsageError(text)
    config.workeroutput[_REFUSED] = text  # type: ignore[attr-defined] # xdist's
    items.clear()


def raise_refused(node: Any) -> None:
    """Raise what a worker refused, in the controller."""
    text = getattr(node, "workeroutput", {}).get(_REFUSED)
    if text:
        raise pytest.UsageError(text)


def tell_controller(config: pytest.Config, problems: list[str]) -> None:
    """Hand what a worker has to say at its end over; nothing in a session without workers."""
    if is_worker(config):
        config.workeroutput[_PROBLEMS] = problems  # type: ignore[attr-defined] # xdist's


def told_by_worker(node: Any) -> list[str]:
    """What a worker said at its end."""
    return list(getattr(node, "workeroutput", {}).get(_PROBLEMS, []))


def checked_destination(settings: Settings) -> destination.Destination:
    """The session's destination, or a usage error before anything is opened or written."""
    try:
        where = destination.resolve(settings.uri)
        destination.check_writable(where)
    except ArmoryUsageError as error:
        raise pytest.UsageError(str(error)) from None
    return where


def linked_by_controller(experiment_id: str) -> None:
    """The parent of a worker's run: the controller, which alone knows it, sets it."""


# The session's own runs and its end


class SessionRuns:
    """The session run of each experiment: opened with its first evaluation, closed at the end."""

    def __init__(self, where: destination.Destination, identity: Identity) -> None:
        self.where = where
        self.identity = identity
        self.problems: list[str] = []
        self._runs: dict[str, Any] = {}

    def parent_of(self, experiment_id: str) -> str | None:
        """The id of an experiment's session run, opened if need be; None if that failed."""
        from pytest_armory.store import open_store

        if experiment_id not in self._runs:
            try:
                self._runs[experiment_id] = open_store(self.where).create_run(
                    experiment_id, f"session {self.identity.session}", self._tags()
                )
            except TrackingError as error:
                self.problems.append(str(error))
                self._runs[experiment_id] = None
        run = self._runs[experiment_id]
        return run.run_id if run is not None else None

    def _tags(self) -> dict[str, str]:
        job = {"mlflow.parentRunId": self.identity.job_run} if self.identity.job_run else {}
        return {
            **self.identity.tags,
            **job,
            "armory.kind": "session",
            "armory.version": __version__,
            "armory.command": self.identity.command,
            "mlflow.source.name": self.identity.command,
            "mlflow.source.type": "LOCAL",
        }

    def close(self, summary: Summary, status: str) -> None:
        """Write counts and summary to every session run and close it."""
        from pytest_armory.store import open_store

        text = markdown(summary)
        counts = [(name, value, 0) for name, value in outcome_counts(summary.records).items()]
        for run in filter(None, self._runs.values()):
            try:
                store = open_store(self.where)
                store.log_batch(run.run_id, metrics=counts, tags={"mlflow.note.content": text})
                store.log_files(run, {"summary.md": text})
                store.close_run(run.run_id, status)
            except TrackingError as error:
                self.problems.append(str(error))

    @property
    def experiment_ids(self) -> list[str]:
        """The experiments this session has runs in."""
        return list(self._runs)

    def open_with(self) -> list[str]:
        """How to look at the session: its pages on the server, or the command that serves them."""
        from pytest_armory.store import open_store

        runs = [run for run in self._runs.values() if run is not None]
        if not runs:
            return []
        store = open_store(self.where)
        pages = [store.run_url(run.experiment_id, run.run_id) for run in runs]
        if all(pages):
            return [f"see {page}" for page in pages]
        command = "armory-mlflow-server"
        if self.where.uri is not None:
            command += f" --backend-store-uri {self.where.shown}"
        local = "http://127.0.0.1:5000/#/experiments"
        shown = [f"{local}/{run.experiment_id}/runs/{run.run_id}" for run in runs]
        return [f"see them with `{command}` at {shown[0]}", *(f"and {page}" for page in shown[1:])]


class Ledger:
    """What the reporting process knows: every attempt it was told of, and the session's runs."""

    def __init__(self, where: destination.Destination, identity: Identity) -> None:
        self.where = where
        self.identity = identity
        self.runs = SessionRuns(where, identity)
        self._records: dict[tuple[str, int, str], EvaluationRecord] = {}
        self._linked: set[str] = set()
        self.crashed = False
        """Whether a worker died."""

    def take(self, record: EvaluationRecord) -> None:
        """Note an attempt, and put its run under the session's if it is not yet."""
        self._records[record.key] = record
        if record.run_id and not record.parent_id and record.run_id not in self._linked:
            self._linked.add(record.run_id)
            self._link(record.run_id, str(record.experiment_id))

    def _link(self, run_id: str, experiment_id: str) -> None:
        from pytest_armory.store import open_store

        parent = self.runs.parent_of(experiment_id)
        if parent is not None:
            store = open_store(self.where)
            tag = {"mlflow.parentRunId": parent}
            store.later(lambda: store.log_batch(run_id, tags=tag), self._failed)

    def _failed(self, error: TrackingError) -> None:
        self.runs.problems.append(str(error))

    def finish(self, interrupted: bool) -> Summary | None:
        """Close what is open, sum up from what the store holds; None without an evaluation."""
        if not self._records and not self._any_crashed():
            return None
        told = list(self._records.values())
        stored = self._stored(interrupted)
        if stored is None:  # it cannot be read: then what was told is the best there is
            records, lost = told, [record for record in told if record.run_id is None]
        else:
            ids = {record.run_id for record in stored}
            lost = [record for record in told if record.run_id not in ids]
            records = [*stored, *lost]
        summary = Summary(
            session=self.identity.session,
            where=self.where.shown,
            records=records,
            lost=len(lost),
            commit=self.identity.tags.get("mlflow.source.git.commit", ""),
            branch=self.identity.tags.get("mlflow.source.git.branch", ""),
        )
        if not records:
            return None
        status = "KILLED" if interrupted else ("FINISHED" if summary.is_good else "FAILED")
        self.runs.close(summary, status)
        return replace(summary, problems=self._problems(), open_with=self.runs.open_with())

    def _any_crashed(self) -> bool:
        """Whether a worker died that may have left a run nobody told of, in a store that exists."""
        return self.crashed and (self.where.database is None or self.where.database.exists())

    def _problems(self) -> list[str]:
        every = [text for record in self._records.values() for text in record.problems]
        return list(dict.fromkeys([*self.runs.problems, *every]))

    def _stored(self, interrupted: bool) -> list[EvaluationRecord] | None:
        """The session's evaluations as the store holds them, those left open closed first.

        A worker that died says nothing any more, so whatever still runs by now was its; one that
        died before its first report has told of no run, so every experiment is searched for it.
        """
        from pytest_armory.store import open_store

        try:
            store = open_store(self.where)
            store.drain()
            ids = store.experiment_ids() if self.crashed else self.runs.experiment_ids
            runs = store.session_runs(self.identity.session, ids)
        except TrackingError as error:
            self._failed(error)
            return None
        runs = [run for run in runs if run.tags.get("armory.kind") == "evaluation"]
        for run in runs:
            if run.status == "RUNNING":
                self._close_left(store, run, interrupted)
            if "mlflow.parentRunId" not in run.tags and run.run_id not in self._linked:
                self._link(run.run_id, run.experiment_id)
        store.drain()
        return [_record_of(run, store.run_url(run.experiment_id, run.run_id)) for run in runs]

    def _close_left(self, store: Store, run: StoredRun, interrupted: bool) -> None:
        """Close a run whose process is gone, by the outcome it had written, if it got so far."""
        presumed = Outcome.INTERRUPTED if interrupted else Outcome.CRASHED
        known = run.tags.get("armory.outcome")
        outcome = Outcome(known) if known in set(Outcome) else presumed
        run.tags["armory.outcome"] = outcome.value
        try:
            store.log_batch(run.run_id, tags={"armory.outcome": outcome.value})
            store.close_run(run.run_id, outcome.status)
        except TrackingError as error:
            self._failed(error)


def _record_of(run: StoredRun, url: str | None) -> EvaluationRecord:
    outcome = run.tags.get("armory.outcome")
    return EvaluationRecord(
        nodeid=run.tags.get("armory.nodeid", run.name),
        attempt=_attempt_number(run),
        worker=run.tags.get("armory.worker", ""),
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        parent_id=run.tags.get("mlflow.parentRunId"),
        url=url,
        outcome=Outcome(outcome) if outcome in set(Outcome) else None,
        duration=run.metrics.get("duration_seconds", 0.0),
        metrics=run.metrics,
    )


def _attempt_number(run: StoredRun) -> int:
    number = run.tags.get("armory.attempt", "1")
    return int(number) if number.isdigit() else 1  # anybody can set a tag


def write_summary(summary: Summary, settings: Settings) -> Summary:
    """Write the Markdown where it was asked for; the summary, with what could not be written."""
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    problems = list(summary.problems)
    for path, mode in ((settings.summary, "w"), (Path(step) if step else None, "a")):
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open(mode, encoding="utf-8") as file:
                file.write(markdown(summary))
        except OSError as error:
            problems.append(f"the summary could not be written to {path}: {error.strerror}")
    return replace(summary, problems=problems)
