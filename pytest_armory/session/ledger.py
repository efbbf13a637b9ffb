"""What the reporting process knows of a session: its attempts, its session runs, its end.

It knows no pytest: a session that was killed is closed by the same means, see :mod:`recovery`.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from pytest_armory import __version__
from pytest_armory.errors import TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.records import EvaluationRecord, Outcome, Verdict
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.sentences import with_tests
from pytest_armory.report.summary import Summary, latest, outcome_counts
from pytest_armory.session import leases
from pytest_armory.store import destination
from pytest_armory.values import TAG_LIMIT, clip, metric_values, short_hash, visible

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun, StoreRun
    from pytest_armory.store.circuit import Circuit


@dataclass(frozen=True)
class Identity:
    """What every process of a session knows of it.

    ``shard`` names the process that reports, and the session in it; ``shared`` says that others may
    contribute to the session as well; ``tags`` are for each of its runs.
    """

    session: str
    shard: str = ""
    shared: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    command: str = ""
    job_run: str | None = None


CLOSINGS = 5
"""How often a session's run is closed again because another of its jobs has ended meanwhile."""


def process_tags() -> dict[str, str]:
    """The tags that say which process opened a run; its lease says whether that lives."""
    return {"armory.host": leases.host_name(), "armory.process": leases.process_name()}


class SessionRuns:
    """The session run of each experiment: opened with its first evaluation, closed at the end."""

    def __init__(
        self,
        where: destination.Destination,
        identity: Identity,
        problems: list[str],
        waits_for: str = "",
    ) -> None:
        self.where = where
        self.identity = identity
        self.problems = problems
        self._waits_for = waits_for
        self._runs: dict[str, Any] = {}

    def parent_of(self, experiment_id: str) -> str | None:
        """The id of an experiment's session run, opened if need be; None if that failed."""
        from pytest_armory.store import open_store

        if experiment_id not in self._runs:
            try:
                self._runs[experiment_id] = self._open(open_store(self.where), experiment_id)
            except TrackingError as error:
                self.problems.append(str(error))
                self._runs[experiment_id] = None
        run = self._runs[experiment_id]
        return run.run_id if run is not None else None

    def _open(self, store: Store, experiment_id: str) -> StoreRun | StoredRun:
        """The session's run: its own, or the one that another job of it has opened."""
        there = self._of_others(store, experiment_id)
        if there is not None:
            return there
        name = f"session {self.identity.session}"
        run = store.create_run(experiment_id, name, self._tags())
        there = self._of_others(store, experiment_id)
        if there is not None and there.run_id != run.run_id:  # opened at the same moment
            store.delete_run(run.run_id)
            return there
        return run

    def _of_others(self, store: Store, experiment_id: str) -> StoredRun | None:
        if not self.identity.shared:
            return None
        return _first_session_run(store.search.session_runs(self.identity.session, experiment_id))

    def merge_duplicates(self, store: Store, runs: Sequence[StoredRun]) -> None:
        """Keep one run for the session in each experiment, where two jobs opened theirs at once."""
        for experiment_id, own in list(self._runs.items()):
            here = [run for run in runs if run.experiment_id == experiment_id]
            first = _first_session_run(here)
            if own is None or first is None or first.run_id == own.run_id:
                continue
            for run in here:
                if run.tags.get("mlflow.parentRunId") == own.run_id:
                    store.log_batch(run.run_id, tags={"mlflow.parentRunId": first.run_id})
            self._runs[experiment_id] = first
            store.delete_run(own.run_id)

    def _tags(self) -> dict[str, str]:
        job = {"mlflow.parentRunId": self.identity.job_run} if self.identity.job_run else {}
        return {
            **self.identity.tags,
            **job,
            **process_tags(),
            **({"armory.destination": self._waits_for} if self._waits_for else {}),
            **({"armory.key": secrets.token_hex(16)} if self._is_remote() else {}),
            "armory.kind": "session",
            "armory.version": __version__,
            "armory.command": self.identity.command,
            "mlflow.source.name": self.identity.command,
            "mlflow.source.type": "LOCAL",
        }

    def _is_remote(self) -> bool:
        return self.where.is_remote or bool(self._waits_for)

    def close(self, summary: Summary, tags: Mapping[str, str]) -> bool:
        """Write counts and summary to every session run and close it; whether all of it went."""
        from pytest_armory.store import open_store

        told = len(self.problems)
        for run in filter(None, self._runs.values()):
            try:
                close_session_run(open_store(self.where), run, summary, tags=tags)
            except TrackingError as error:
                self.problems.append(str(error))
        return len(self.problems) == told

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
            command += f" --backend-store-uri {self.where.display_uri}"
        local = "http://127.0.0.1:5000/#/experiments"
        shown = [f"{local}/{run.experiment_id}/runs/{run.run_id}" for run in runs]
        return [f"see them with `{command}` at {shown[0]}", *(f"and {page}" for page in shown[1:])]


class Links:
    """The session runs as a worker finds them, for its runs to be opened under.

    The controller opens one when it hears of an experiment's first evaluation, and links what was
    opened before.
    """

    def __init__(self, where: destination.Destination, session: str) -> None:
        self._where = where
        self._session = session
        self._parents: dict[str, str | None] = {}

    def parent_of(self, experiment_id: str, waiting: bool) -> str | None:
        """The session run of an experiment, looked for from its second evaluation on."""
        from pytest_armory.store import open_store

        if waiting:
            return None
        is_known = experiment_id in self._parents
        parent = self._parents.setdefault(experiment_id, None)
        if not is_known or parent is not None:
            return parent
        try:
            store = open_store(self._where)
            first = _first_session_run(store.search.session_runs(self._session, experiment_id))
        except TrackingError:  # whoever opens the run meets it too, and tells it
            return None
        self._parents[experiment_id] = first.run_id if first is not None else None
        return self._parents[experiment_id]


def _first_session_run(runs: Sequence[StoredRun]) -> StoredRun | None:
    """The session run that stays where several were opened: every job comes to the same."""
    sessions = [run for run in runs if is_session(run)]
    return min(sessions, key=lambda run: (run.start, run.run_id), default=None)


class Ledger:
    """What the reporting process knows: every attempt it was told of, and the session's runs.

    ``each`` says that several workers run each test, as ``--dist=each`` has it. ``local`` is where
    evaluations wait whose server is out of reach.
    """

    def __init__(
        self,
        where: destination.Destination,
        identity: Identity,
        each: bool = False,
        local: destination.Destination | None = None,
    ) -> None:
        self.where = where
        self._local = local or where
        self.identity = identity
        self.problems: list[str] = []
        self.runs = SessionRuns(where, identity, self.problems)
        self._waiting: SessionRuns | None = None
        self.planned: set[str] = set()
        """The node ids of every evaluation that was collected, as far as it was told."""
        self.reported: set[str] = set()
        """The node ids of every test that was."""
        self.deaths: dict[str, int] = {}
        """When each worker died that did, in milliseconds since the epoch."""
        self.is_complete = True
        """Whether the store holds the session as it was told at the end."""
        self.end: JobEnd | None = None
        """How it ended, once it has."""
        self.baseline: Baseline | None = None
        self.edit: Callable[[list[object]], object] = lambda _: None
        """What others change of the summary's Markdown."""
        self._each = each
        self._never_run: set[str] = set()
        self._records: dict[tuple[str, int, str], EvaluationRecord] = {}
        self._told: dict[str, EvaluationRecord] = {}
        self._linked: set[str] = set()

    def take(self, record: EvaluationRecord) -> None:
        """Note an attempt, and put its run under the session's if it is not yet."""
        self._records[record.key] = record
        if record.run_id:
            self._told[record.run_id] = record
        if record.run_id and not record.parent_id and record.run_id not in self._linked:
            self._linked.add(record.run_id)
            self._link(self._place(record.waiting), record.run_id, str(record.experiment_id))

    @property
    def out_of_reach(self) -> str:
        """Why the server is not tried at the moment, or empty."""
        return _circuit(self.where).reason if self.where.is_remote else ""

    def parent_of(self, experiment_id: str, waiting: bool) -> str | None:
        """The session run of an experiment, of the server or of what waits for it."""
        return self._place(waiting).parent_of(experiment_id)

    def _place(self, waiting: bool) -> SessionRuns:
        """The session's runs at the destination, or those recorded locally meanwhile."""
        if not waiting:
            return self.runs
        if self._waiting is None:
            shown = self.where.display_uri
            self._waiting = SessionRuns(self._local, self.identity, self.problems, shown)
            # A worker has spent the budget on it already.
            if not _circuit(self.where).reason:
                _circuit(self.where).trip(f"{self.where.display_uri} is out of reach")
        return self._waiting

    def _link(self, place: SessionRuns, run_id: str, experiment_id: str) -> None:
        from pytest_armory.store import open_store

        parent = place.parent_of(experiment_id)
        if parent is not None:
            store = open_store(place.where)
            tag = {"mlflow.parentRunId": parent}
            store.background.submit(lambda: store.log_batch(run_id, tags=tag), self._failed)

    def _failed(self, error: TrackingError) -> None:
        self.is_complete = False
        self.problems.append(str(error))

    def finish(self, interrupted: bool, notes: Sequence[str] = ()) -> Summary | None:
        """Close what is open, sum up from what the store holds; None without an evaluation."""
        told = list(self._records.values())
        stored = self._stored(interrupted) if told or self._may_hold_more() else _Stored()
        # What began at the server and went on here is one attempt.
        ids = {record.run_id for record in stored.own} | set(stored.continued)
        lost = [r for r in told if r.run_id not in ids | stored.unread]
        unread = [r for r in told if r.run_id in stored.unread - ids]
        records = [*stored.own, *unread, *lost]
        self._never_run = self.planned - self.reported - {record.nodeid for record in records}
        not_run = len(self._never_run)
        if not records and not not_run:
            return None
        summary = Summary(
            session=self.identity.session,
            where=self.where.display_uri,
            records=[self._with_what_was_told(record) for record in records],
            records_of_all_jobs=[
                self._with_what_was_told(record)
                for record in [*stored.others, *records]
                if stored.others or stored.ends
            ],
            interrupted=interrupted,
            lost=len(lost),
            waiting=sum(record.waiting for record in records),
            not_run=not_run,
            notes=notes,
            commit=self.identity.tags.get("mlflow.source.git.commit", ""),
            branch=self.identity.tags.get("mlflow.source.git.branch", ""),
            baseline=self._baseline_told(records),
            problems=self._problems(),
        )
        summary = with_other_jobs(summary, stored.ends, interrupted)
        summary = replace(summary, text=self._text(summary))
        summary = self._close(summary, interrupted)
        summary = replace(summary, problems=self._problems(), open_with=self._open_with(summary))
        return replace(summary, text=self._text(summary))

    def _baseline_told(self, records: Sequence[EvaluationRecord]) -> str:
        if self.baseline is None:
            return ""
        return self.baseline.describe({record.experiment_id for record in records})

    def _open_with(self, summary: Summary) -> list[str]:
        """Where to look, and the command that brings what waits to its server."""
        if not summary.waiting:
            return self.runs.open_with()
        stored = self.runs.open_with() if summary.waiting < len(summary.records) else []
        return [*stored, "bring them there with `pytest-armory sync`"]

    def _text(self, summary: Summary) -> str:
        lines = to_markdown(summary).splitlines()
        edited: list[object] = [*lines]
        try:
            self.edit(edited)
            if all(isinstance(line, str) for line in edited):
                lines = [visible(str(line)) for line in edited]
            else:
                self.problems.append(
                    "the hook pytest_armory_summary must leave a list of strings, so what it "
                    f"changed is left out; got {reprlib.repr(edited)}"
                )
        except Exception as error:  # noqa: BLE001 - anybody's code; it is told in the summary
            self.problems.append(f"the hook pytest_armory_summary raised {error!r}")
        return "\n".join(lines) + "\n"

    def _with_what_was_told(self, record: EvaluationRecord) -> EvaluationRecord:
        """What only the process that ran a test knows is not all in the store."""
        told = self._told.get(record.run_id or "")
        if told is not None:
            return replace(
                record,
                outcome=record.outcome or told.outcome,
                duration=record.duration or told.duration,
                metrics={**told.metrics, **record.metrics},
                verdicts=told.verdicts,
                baseline=told.baseline,
                chief=told.chief,
            )
        if self.baseline is None or record.baseline:
            return record
        found = self.baseline.of(record.experiment_id, record.nodeid) or {}
        return replace(record, baseline={k: v for k, v in found.items() if k in record.metrics})

    def _close(self, summary: Summary, interrupted: bool) -> Summary:
        """Close the session's runs; where several jobs contribute, whoever ends last has it all.

        Another one may end between our reading and our writing, so what was read is read again.
        """
        never_run = tuple(sorted(map(short_hash, self._never_run)))
        self.end = JobEnd(interrupted, never_run, problems=tuple(self._problems()))
        tags = self.end.tags(self.identity.shard) if self.identity.shared else {}
        for _ in range(CLOSINGS):
            for place in filter(None, (self.runs, self._waiting)):
                in_reach = not (place.where.is_remote and _circuit(place.where).is_open)
                if not (in_reach and place.close(summary, tags)):
                    self.is_complete = False
            if not self.identity.shared:
                break
            others, ends = self._other_jobs()
            whole = [self._with_what_was_told(r) for r in [*others, *summary.records]]
            again = replace(summary, records_of_all_jobs=whole) if others or ends else summary
            again = with_other_jobs(again, ends, interrupted)
            if _state(again) == _state(summary):
                break
            summary = replace(again, text=self._text(again))
        return summary

    def _other_jobs(self) -> tuple[list[EvaluationRecord], list[JobEnd]]:
        """The evaluations of the session's other jobs as they are by now, and how those ended."""
        from pytest_armory.store import open_store

        try:
            store = open_store(self.where)
            runs = store.search.runs_of_session(self.identity.session, self.runs.experiment_ids)
        except TrackingError as error:
            self._failed(error)
            return [], []
        others = [run for run in runs if is_attempt(run) and not self._is_own(run)]
        return [record_of(store, run) for run in others], ends_of(runs, self.identity.shard)

    def _is_own(self, run: StoredRun) -> bool:
        """Whether this job has opened it, and no other job of the same session."""
        return run.tags.get("armory.shard") == self.identity.shard

    def _may_hold_more(self) -> bool:
        """Whether a worker died that may have left a run nobody told of, in a store that exists."""
        return bool(self.deaths) and (self.where.database is None or self.where.database.exists())

    def _problems(self) -> list[str]:
        of_tests = [(text, r.nodeid) for r in self._records.values() for text in r.problems]
        told = {text for text, _ in of_tests}
        others = [text for text in dict.fromkeys(self.problems) if text not in told]
        return [*others, *with_tests(of_tests)]

    def _stored(self, interrupted: bool) -> _Stored:
        """The session's evaluations as the store holds them, those left open closed first.

        Of a server that cannot be asked any more, what was told of is taken as ``unread``.
        """
        waiting = any(record.waiting for record in self._records.values())
        if waiting or (self.where.is_remote and _circuit(self.where).reason):
            local = self._read(self._place(waiting=True), interrupted)
        else:
            local = _Stored()
        there = self._read(self.runs, interrupted, frozenset(local.continued))
        return _Stored(
            [*there.own, *local.own],
            [*there.others, *local.others],
            (there.unread | local.unread) - set(local.continued),
            local.continued,
            [*there.ends, *local.ends],
        )

    def _read(
        self, place: SessionRuns, interrupted: bool, continued: Set[str] = frozenset()
    ) -> _Stored:
        """What one store holds. ``continued`` are runs that went on elsewhere: they stay open.

        A worker that died says nothing any more, so whatever still runs by now was its; one that
        died before its first report has told of no run, so every experiment is searched for it.
        """
        from pytest_armory.store import open_store

        waiting = place is not self.runs
        told = self._records.values()
        unread = frozenset(str(r.run_id) for r in told if r.run_id and r.waiting == waiting)
        if place.where.is_remote and _circuit(place.where).is_open:
            return _Stored(unread=unread)  # which each evaluation that it cost has told
        database = place.where.database
        if database is not None and told and not database.exists():
            self.is_complete = False
            self.problems.append(
                f"{place.where.display_uri} is gone: something has removed it meanwhile"
            )
            return _Stored()
        try:
            store = open_store(place.where)
            store.background.drain()
            everywhere = bool(self.deaths) or not place.where.is_remote
            ids = store.experiments.ids() if everywhere else place.experiment_ids
            every = store.search.runs_of_session(self.identity.session, ids)
            runs = [r for r in every if not is_session(r) and r.run_id not in continued]
            place.merge_duplicates(store, every)
            for run in runs:
                presumed = Outcome.INTERRUPTED if interrupted else Outcome.CRASHED
                self._settle(place, store, run, presumed)
            runs = [run for run in runs if is_attempt(run)]
            if not self._each:
                number_attempts(store, runs)
            store.background.drain()
        except TrackingError as error:
            self._failed(error)
            return _Stored(unread=unread)
        found = [(run, replace(record_of(store, run), waiting=waiting)) for run in runs]
        return _Stored(
            [record for run, record in found if self._is_own(run)],
            [record for run, record in found if not self._is_own(run)],
            continued=[run.tags.get("armory.remote_run_id", "") for run in runs],
            ends=ends_of(every, self.identity.shard),
        )

    def _settle(self, place: SessionRuns, store: Store, run: StoredRun, presumed: Outcome) -> None:
        if not self._is_own(run):
            return  # its job may still be at it
        told = self._told.get(run.run_id)
        if told is not None and told.outcome is not None:
            presumed = told.outcome  # it ended, and could not write that any more
        if run.status == "RUNNING":
            try:
                if told is not None and told.params:  # which its worker did not come to write
                    unknown = {k: v for k, v in told.params.items() if k not in run.params}
                    store.log_batch(run.run_id, params=unknown)
                end = self.deaths.get(run.tags.get("armory.worker", ""))
                self.problems += close_left(store, run, presumed, end)
            except TrackingError as error:
                self._failed(error)
        if "mlflow.parentRunId" not in run.tags and run.run_id not in self._linked:
            self._link(place, run.run_id, run.experiment_id)


@dataclass(frozen=True)
class _Stored:
    """A session's evaluations in the store: this job's own, and those of its other jobs."""

    own: Sequence[EvaluationRecord] = ()
    others: Sequence[EvaluationRecord] = ()
    unread: Set[str] = frozenset()
    continued: Sequence[str] = ()
    ends: Sequence[JobEnd] = ()


@dataclass(frozen=True)
class JobEnd:
    """What one job of a shared session alone knows of its end, for those that end later."""

    interrupted: bool = False
    not_run: tuple[str, ...] = ()
    """Of evaluations that it never came to, their node ids' digests, as many as a tag can hold."""
    not_run_more: int = 0
    problems: tuple[str, ...] = ()

    def tags(self, shard: str) -> dict[str, str]:
        """The tag of the session run that says it."""
        end = self
        while len(end.to_text()) > TAG_LIMIT:
            if end.problems:
                end = replace(end, problems=end.problems[:-1])
            else:
                end = replace(end, not_run=end.not_run[:-1], not_run_more=end.not_run_more + 1)
        return {_ended(shard): end.to_text()}

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> JobEnd | None:
        """What :meth:`to_text` wrote; None for anything else."""
        try:
            fields: dict[str, Any] = json.loads(text)
            fields.update({name: tuple(fields[name]) for name in ("not_run", "problems")})
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


_ENDED = "armory.ended."


def _ended(shard: str) -> str:
    return _ENDED + hashlib.sha256(shard.encode()).hexdigest()[:12]


def ends_of(runs: Sequence[StoredRun], but: str = "") -> list[JobEnd]:
    """How the jobs of a session ended that have, without one of them."""
    texts = {
        name: text
        for run in runs
        if is_session(run)
        for name, text in run.tags.items()
        if name.startswith(_ENDED) and name != _ended(but)
    }
    return [end for text in texts.values() if (end := JobEnd.from_text(text))]


def with_other_jobs(summary: Summary, ends: Sequence[JobEnd], interrupted: bool) -> Summary:
    """A summary with what only the session's other jobs knew.

    A job that was retried has run what the one before it never came to.
    """
    last = latest(summary.all_records)
    done = {short_hash(record.nodeid) for record in last}
    left = [set(end.not_run) - done for end in ends]
    cut_short = [end for end, ids in zip(ends, left, strict=True) if ids or end.not_run_more]
    told = [problem for end in ends for problem in end.problems]
    return replace(
        summary,
        interrupted=interrupted
        or any(end.interrupted for end in cut_short)
        or any(record.outcome is Outcome.INTERRUPTED for record in last),
        others_not_run=len(set().union(*left)) + sum(end.not_run_more for end in ends),
        others_problems=list(dict.fromkeys(told)),
    )


def _state(summary: Summary) -> tuple[object, ...]:
    ended = {(record.run_id, record.outcome) for record in summary.all_records}
    return ended, summary.interrupted, summary.others_not_run, tuple(summary.others_problems)


def _circuit(where: destination.Destination) -> Circuit:
    from pytest_armory.store.circuit import circuit_of

    return circuit_of(where.display_uri)


# What a session that ends and one that was killed are closed by


def close_left(
    store: Store, run: StoredRun, presumed: Outcome, end: int | None = None
) -> list[str]:
    """Close a run that its process left open; returns what is to be told of it.

    An evaluation ends with the outcome it had written, if it got so far, else with the one that is
    presumed; a run that a test's own code opened and left is closed as ``FINISHED``. ``end`` is in
    milliseconds since the epoch.
    """
    if run.tags.get("armory.kind") == "evaluation" and not is_attempt(run):  # track_evaluation's
        store.close_run(run.run_id, presumed.status, end)
        return []
    if not is_attempt(run):
        return [store.close_stray(run.run_id, run.tags.get("armory.opened_in", ""), end)]
    known = run.tags.get("armory.outcome")
    outcome = Outcome(known) if known in set(Outcome) else presumed
    run.tags["armory.outcome"] = outcome.value
    metrics = []
    if end is not None and "duration_seconds" not in run.metrics:
        run.metrics["duration_seconds"] = max(0, end - run.start) / 1000
        metrics = [("duration_seconds", run.metrics["duration_seconds"], 0)]
    store.log_batch(run.run_id, tags={"armory.outcome": outcome.value}, metrics=metrics)
    store.close_run(run.run_id, outcome.status, end)
    return []


def is_session(run: StoredRun) -> bool:
    """Whether a run is a session's own."""
    return run.tags.get("armory.kind") == "session"


def is_attempt(run: StoredRun) -> bool:
    """Whether a run is an attempt at a test, and none that its code has opened inside."""
    return run.tags.get("armory.kind") == "evaluation" and "armory.nodeid" in run.tags


def close_session_run(
    store: Store,
    run: StoreRun | StoredRun,
    summary: Summary,
    end: int | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write counts and summary to a session run and close it."""
    text = summary.text or to_markdown(summary)
    counts = [(name, value, 0) for name, value in outcome_counts(summary).items()]
    noted = {**(tags or {}), "mlflow.note.content": text}
    store.log_batch(run.run_id, metrics=counts, tags=noted)
    store.close_run(run.run_id, summary.verdict.status, end)
    store.log_files(run, {"summary.md": text})  # last, for a store may have no room for it


def number_attempts(store: Store, runs: Sequence[StoredRun]) -> None:
    """Number the attempts at each test by their start; each process has counted its own only.

    A test that crashed on one worker, say, was tried again on another.
    """
    attempts: Counter[str] = Counter()
    for run in runs:
        nodeid = run.tags.get("armory.nodeid", run.name)
        attempts[nodeid] += 1
        number = str(attempts[nodeid])
        if run.tags.get("armory.attempt") != number:
            run.tags["armory.attempt"] = number
            store.log_batch(run.run_id, tags={"armory.attempt": number})


def summary_of(store: Store, session: str, runs: Sequence[StoredRun]) -> Summary:
    """A session that has ended, as its runs in the store tell it."""
    source = next((run.tags for run in runs), {})
    return Summary(
        session=session,
        where=store.where,
        records=[record_of(store, run) for run in runs if is_attempt(run)],
        commit=source.get("mlflow.source.git.commit", ""),
        branch=source.get("mlflow.source.git.branch", ""),
    )


def record_of(store: Store, run: StoredRun) -> EvaluationRecord:
    """An attempt as the store holds it."""
    outcome = run.tags.get("armory.outcome")
    return EvaluationRecord(
        nodeid=run.tags.get("armory.nodeid", run.name),
        attempt=_attempt_number(run),
        worker=run.tags.get("armory.worker", ""),
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        parent_id=run.tags.get("mlflow.parentRunId"),
        url=store.run_url(run.experiment_id, run.run_id),
        outcome=Outcome(outcome) if outcome in set(Outcome) else None,
        duration=run.metrics.get("duration_seconds", 0.0),
        metrics=run.metrics,
        verdicts=_verdicts(run.tags),
        **_shown(run.tags),
    )


def gate_tags(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """The tags that keep what gates said: ``armory.gates``, and with a number what it lacks."""
    parts: list[list[str]] = [[]]
    for verdict in verdicts:
        text = json.dumps(asdict(replace(verdict, text=clip(verdict.text, 1000))))
        if sum(map(len, parts[-1])) + 2 * len(parts[-1]) + len(text) + 2 > TAG_LIMIT:
            parts.append([])
        parts[-1].append(text)
    names = ("armory.gates", *(f"armory.gates.{i}" for i in range(1, len(parts))))
    return {n: f"[{', '.join(part)}]" for n, part in zip(names, parts, strict=True) if part}


def display_tags(chief: Sequence[str], baseline: Mapping[str, float]) -> dict[str, str]:
    """The tags that keep what tables show of an attempt, for other jobs and later."""
    given = {"armory.chief": chief, "armory.baseline": baseline}
    texts = {name: json.dumps(value) for name, value in given.items() if value}
    return {name: text for name, text in texts.items() if len(text) <= TAG_LIMIT}


def _shown(tags: Mapping[str, str]) -> dict[str, Any]:
    try:
        chief = tuple(map(str, json.loads(tags.get("armory.chief", "[]"))))
        baseline = dict(json.loads(tags.get("armory.baseline", "{}")))
    except (ValueError, TypeError):  # anybody can set a tag
        return {}
    return {"chief": chief, "baseline": metric_values(baseline).numbers}


def _verdicts(tags: Mapping[str, str]) -> tuple[Verdict, ...]:
    names = (f"armory.gates.{i}" if i else "armory.gates" for i in count())
    texts = takewhile(bool, (tags.get(name) for name in names))
    try:
        return tuple(Verdict(**fields) for text in texts for fields in json.loads(text or "[]"))
    except (ValueError, TypeError):  # anybody can set a tag
        return ()


def _attempt_number(run: StoredRun) -> int:
    number = run.tags.get("armory.attempt", "1")
    return int(number) if number.isdigit() else 1  # anybody can set a tag
