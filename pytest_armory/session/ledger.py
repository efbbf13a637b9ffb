"""A session in the process that reports: its attempts, its session runs, its end."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence, Set
from dataclasses import replace

from pytest_armory.errors import TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.records import EvaluationRecord, JobEnd, Outcome, local_name
from pytest_armory.records.job_tags import job_end_tag
from pytest_armory.records.judging_tag import Judging
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.sentences import still_running, with_tests
from pytest_armory.report.summary import Summary
from pytest_armory.session import leases
from pytest_armory.session.confirmed import read_unconfirmed
from pytest_armory.session.crashed import kept_of_crashed
from pytest_armory.session.identity import Identity
from pytest_armory.session.jobs import has_changed, with_other_jobs
from pytest_armory.session.joining import Joining
from pytest_armory.session.judging import note_of_differing
from pytest_armory.session.order import in_order_of_attempts
from pytest_armory.session.plan import Plan
from pytest_armory.session.reported import ReportedAttempts
from pytest_armory.session.reproduce import Files
from pytest_armory.session.resume import DoneBefore
from pytest_armory.session.session_runs import SessionRuns, circuit_at, keep_end, unclosed_at_server
from pytest_armory.session.stored_records import unreadable
from pytest_armory.session.stored_session import (
    Ending,
    StoredSession,
    awaits_shards,
    close_and_read,
    drop_recovered,
    read_other_jobs,
    session_runs_of,
)
from pytest_armory.store.destination import Destination, lease_folder
from pytest_armory.values import visible

CLOSINGS = 5
"""How often a session run is closed again because another job has ended meanwhile."""

Edit = Callable[[list[object]], object]
"""Changes the lines of a summary's Markdown in place."""


class Ledger:
    """A session in the process that reports: every reported attempt, and the session runs.

    ``each`` is whether every worker runs every test, as with ``--dist=each``. ``local`` is where
    evaluations wait whose server is unreachable, and ``sync_command`` what uploads them;
    ``store_option`` is what other commands need to find the store. ``describe`` makes the session
    runs' files.
    """

    def __init__(
        self,
        where: Destination,
        identity: Identity,
        each: bool = False,
        local: Destination | None = None,
        sync_command: str = "pytest-armory sync",
        store_option: str = "",
        describe: Callable[[], Files] = dict,
    ) -> None:
        self.where = where
        self.sync_command = sync_command
        self.store_option = store_option
        self.local = local or where
        self.identity = identity
        self.problems: list[str] = []
        self.describe = describe
        self.files: dict[str, str | bytes] = {}
        """The session runs' files, made before the first of these is opened."""
        self.tags: dict[str, str] = {}
        """The session runs' tags on what verdicts depend on, known as the files are."""
        self.runs = SessionRuns(
            where, identity, self.problems, files=self.files, local=local, tags=self.tags
        )
        self._waiting: SessionRuns | None = None
        self.planned: set[str] = set()
        """The node ids of the collected evaluations, as reported by the workers."""
        self.reported: set[str] = set()
        """The node ids of every test with a report."""
        self.under_way: set[str] = set()
        """The node ids of the tests that a worker has begun and not ended, but for other tests."""
        self.crashes: dict[str, int] = {}
        """When workers crashed, in milliseconds since the epoch."""
        self.is_behind = False
        """Whether Ctrl-C has kept this process from taking what was stored, or reported to it."""
        self.end: JobEnd | None = None
        """How this job ended, once it has."""
        self.baseline: Baseline | None = None
        self.judging = Judging()
        self.edit: Edit = lambda _: None
        """Calls the hook that edits the summary's Markdown."""
        self._experiment: dict[str, str | None] = {}
        """The name of an experiment of this session with its id at the server, once known."""
        self._joining = Joining(identity)
        self._each = each
        self.attempts = ReportedAttempts()
        self._unreadable: list[tuple[str, str]] = []
        """What could not be read of the evaluations of all jobs, with their node ids."""
        self._unreadable_ends: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether the store holds the session as it was reported at the end."""
        return all(runs.is_complete for runs in self.everywhere())

    @property
    def out_of_reach(self) -> str:
        """Why no request is sent to the server at the moment, or empty."""
        return circuit_at(self.where).reason if self.where.is_remote else ""

    def take(self, record: EvaluationRecord) -> None:
        """Add an attempt, and make its run a child of the session run if it is none."""
        self.attempts.add(record)
        if record.unreachable and not self.out_of_reach:  # a worker has spent its budget on it
            circuit_at(self.where).trip(f"{self.where.display_uri} is out of reach")
        if record.experiment and not self._experiment:
            self._experiment = {record.experiment: None if record.waiting else record.experiment_id}
        if record.run_id and not record.parent_id:
            self._runs_for(record.waiting).link(record.run_id, str(record.experiment_id))

    def take_plan(self, plan: Plan) -> None:
        """Add what is about to run; the first note of this job's shard goes to the session run."""
        self.planned.update(plan.evaluations)
        if plan.experiment or plan.experiment_id is not None:
            name = local_name(plan.experiment, plan.experiment_id)
            self._experiment = {name: plan.experiment_id}
        if not self.tags:
            self.judging = replace(self.judging, gates=plan.gates)
            self.tags.update(self.judging.to_tags())
        if not self._joining.take(plan):
            return
        runs = self._runs_for(waiting=bool(self.out_of_reach))
        try:
            runs.tag(plan.experiment, plan.experiment_id, self._joining.note_tags)
        except TrackingError as error:
            self.problems.append(str(error))

    def find_done(self) -> DoneBefore:
        """Look up once what the session has done; its session runs become this job's to close."""
        if self._joining.done is None:
            session_runs, problems = self._joining.find_done(self.where, self.local)
            self.runs.take_over(session_runs)
            self.problems += problems
        return self._joining.done or DoneBefore(self.identity.session)

    def parent_of(self, experiment_id: str, waiting: bool) -> str | None:
        """The session run of an experiment, at the server or in the local database."""
        return self._runs_for(waiting).parent_of(experiment_id)

    def _runs_for(self, waiting: bool) -> SessionRuns:
        """The session runs at the destination, or those in the local database."""
        if not waiting:
            return self.runs
        if self._waiting is None:
            uri = self.where.display_uri
            self._waiting = SessionRuns(
                self.local, self.identity, self.problems, uri, self.files, tags=self.tags
            )
        return self._waiting

    def everywhere(self) -> list[SessionRuns]:
        """The session runs at the destination, and those in the local database."""
        return [runs for runs in (self.runs, self._waiting) if runs is not None]

    def finish(self, interrupted: bool, notes: Sequence[str] = ()) -> Summary | None:
        """Close what is open and summarize what the store holds; None without an evaluation."""
        stored = self._close_and_read(interrupted)
        # A run that was opened at the server and continued locally is one attempt.
        ids = {record.run_id for record in stored.own} | stored.continued
        missing = [r for r in self.attempts.records if r.run_id not in ids]
        died = self.attempts.without_run(self.planned, stored.own, self._each)
        lost = [*(r for r in missing if r.run_id not in stored.unread), *died]
        unread = [record for record in missing if record.run_id in stored.unread]
        if self.crashes and self.out_of_reach:
            numbers = {} if self._each else self.attempts.numbers
            unread = kept_of_crashed(self._runs_for(waiting=True), unread, self.crashes, numbers)
        records = in_order_of_attempts([*stored.own, *unread, *lost])
        never_run = self.planned - self.reported - {record.nodeid for record in records}
        if not (records or never_run or self._joining.has_joined):
            return None
        self._note_unreadable(stored)
        summary = replace(
            self._summary(stored, records, interrupted),
            lost=len(lost),
            not_run=len(never_run),
            resumed=self._joining.count_resumed(self.reported),
            notes=[
                *notes,
                *still_running(stored.own, f"pytest-armory recover{self.store_option}"),
                *note_of_differing(self.runs.of_another, self.judging),
                *self._joining.notes(),
            ],
        )
        never_run |= {record.nodeid for record in died}  # as far as other jobs are concerned
        end = self._joining.end(interrupted, self.planned, records, never_run)
        summary = with_other_jobs(summary, stored.ends, end)
        summary = replace(summary, text=self._text(summary))
        self.end = replace(end, problems=tuple(self._own_problems()))
        return self._close(summary, self.end)

    def known(
        self,
        interrupted: bool,
        notes: Sequence[str] = (),
        current: EvaluationRecord | None = None,
    ) -> Summary | None:
        """The summary of what was reported, without a request to the store; None for nothing.

        Of a session whose store cannot be read, or may not answer in time. ``current`` is the
        attempt under way.
        """
        if current is not None:
            self.attempts.add(current)
        reported = self.attempts.records
        default = Outcome.INTERRUPTED if interrupted else None
        records = [r if r.outcome else replace(r, outcome=default, duration=0.0) for r in reported]
        never_run = self.planned - self.reported - {record.nodeid for record in records}
        begun = sorted(never_run & self.under_way)  # of a worker, in setup: no report says its run
        died = self.attempts.without_run(self.planned, records, self._each)
        records += [*(EvaluationRecord(nodeid, outcome=default) for nodeid in begun), *died]
        never_run -= {*begun}
        if not records and not never_run:
            return None
        summary = replace(
            self._summary(StoredSession(), records, interrupted),
            lost=sum(record.run_id is None for record in (*reported, *died)),
            not_run=len(never_run),
            resumed=self._joining.count_resumed(self.reported),
            notes=notes,
        )
        never_run |= {record.nodeid for record in died}  # as in `finish`
        end = self._joining.end(interrupted, self.planned, records, never_run)
        self.end = self.end or replace(end, problems=tuple(self._own_problems()))
        summary = replace(summary, open_with=self._open_with(summary))
        return replace(summary, text=self._text(summary))

    def _close_and_read(self, interrupted: bool) -> StoredSession:
        """Close the runs that were left open, and read the session from the store."""
        under_way = evaluations_under_way(self)
        is_cut_off = interrupted and bool(under_way or self.is_behind)
        # After an unexpected error evaluations may be stored that were not reported.
        is_doubtful = bool(self.crashes or is_cut_off or (self.planned and self.problems))
        may_hold_more = (is_doubtful or self._joining.has_joined) and self.where.exists
        if not self.attempts.records and not may_hold_more:
            return StoredSession()
        ending = Ending(interrupted, self.crashes, self._each, is_doubtful, under_way)
        local = StoredSession()
        if self.attempts.any_waits or self.out_of_reach or (is_cut_off and _may_wait(self)):
            local = close_and_read(self._runs_for(waiting=True), self.attempts, ending)
        elif not (is_doubtful or self.identity.shared):
            rest = read_unconfirmed(self.runs, self.attempts, ending)
            if rest is not None:
                return rest
        stored = close_and_read(self.runs, self.attempts, ending, local.continued)
        return stored.and_local(local)

    def _summary(
        self, stored: StoredSession, records: Sequence[EvaluationRecord], interrupted: bool
    ) -> Summary:
        completed = self.attempts.completed(records, self.baseline)
        others = self.attempts.completed(self._joining.with_waiting(stored.others), self.baseline)
        return Summary(
            session=self.identity.session,
            where=self.where.display_uri,
            store_option=self.store_option,
            records=completed,
            records_of_all_jobs=[*others, *completed] if others or stored.ends else [],
            interrupted=interrupted,
            waiting=sum(record.waiting for record in records),
            commit=self.identity.tags.get("mlflow.source.git.commit", ""),
            branch=self.identity.tags.get("mlflow.source.git.branch", ""),
            baseline=self.baseline.describe(completed) if self.baseline else "",
            judging=self.judging,
            problems=self._problems(),
        )

    def _close(self, summary: Summary, end: JobEnd) -> Summary:
        """Close the session runs; the last job that ends writes the summary of all jobs.

        Another one may end between reading and writing, so the store is read again; not while a
        shard is still to end, which does so itself: of many shards each would read all of them.
        """
        tags = job_end_tag(end, self.identity.shard) if self.identity.shared else {}
        # The note again, since another job's session run may have replaced ours.
        tags = {**tags, **self._joining.note_tags}
        for _ in range(CLOSINGS):
            for runs in self.everywhere():
                runs.close(summary, tags)
            of_session = session_runs_of(self.runs) if self._joining.note_tags else ()
            if awaits_shards(of_session):
                break
            again = self._read_again(summary, end)
            if not has_changed(summary, again):
                break
            summary = replace(again, text=self._text(again))
        if self._joining.done is not None:
            drop_recovered(self.runs, summary, of_session)
        experiments = unclosed_at_server(self.runs, self.attempts.records)
        is_kept = experiments or (self._waiting is not None and self._waiting.experiment_ids)
        if tags and not is_kept and not self.runs.is_in_reach:
            experiments = self._experiment
        is_new = bool(experiments) and keep_end(
            self._runs_for(waiting=True), experiments, summary, tags
        )
        waits = self._waiting is not None and bool(self._waiting.experiment_ids)
        if is_new or (waits and not summary.waiting):  # else an evaluation's waiting says it
            self.problems.append(
                f"{self.where.display_uri} is out of reach: the end of this job is recorded "
                f"locally, `{self.sync_command}` uploads it"
            )
        before, now = summary.problems, self._problems()
        summary = replace(summary, problems=now, open_with=self._open_with(summary))
        return summary if now == before else replace(summary, text=self._text(summary))

    def _read_again(self, summary: Summary, end: JobEnd) -> Summary:
        """A summary with what the session's other jobs have written by now, if any."""
        if not self.identity.shared:
            return summary
        stored = read_other_jobs(self.runs)
        self._note_unreadable(stored)
        if stored.others or stored.ends:
            others = self._joining.with_waiting(stored.others)
            every = self.attempts.completed([*others, *summary.records], self.baseline)
            summary = replace(summary, records_of_all_jobs=every)
        return with_other_jobs(summary, stored.ends, end)

    def _open_with(self, summary: Summary) -> list[str]:
        """How to view the session, and the command that uploads what waits."""
        if not summary.waiting:
            return self.runs.open_with()
        stored = self.runs.open_with() if summary.waiting < len(summary.records) else []
        return [*stored, f"bring them there with `{self.sync_command}`"]

    def _text(self, summary: Summary) -> str:
        text, problem = edited_markdown(summary, self.edit)
        self.problems += [problem] if problem else []
        return text

    def _note_unreadable(self, stored: StoredSession) -> None:
        self._unreadable += unreadable([*stored.own, *stored.others])
        self._unreadable_ends += stored.problems
        self.problems += [text for text in stored.shards if text not in self.problems]

    def _own_problems(self) -> list[str]:
        """The problems of this job alone, without those that other jobs read from the store too."""
        of_tests = self.attempts.problems()
        texts = {text for text, _ in of_tests}
        others = [text for text in dict.fromkeys(self.problems) if text not in texts]
        return [*others, *with_tests(of_tests)]

    def _problems(self) -> list[str]:
        ends = list(dict.fromkeys(self._unreadable_ends))
        return [*self._own_problems(), *ends, *with_tests(self._unreadable)]


def evaluations_under_way(ledger: Ledger) -> Set[str]:
    """Those that workers have begun: of one in setup a run may be open, and nothing reported."""
    return ledger.under_way & (ledger.planned or ledger.under_way)


def begin_test(ledger: Ledger, nodeid: str) -> None:
    """Note that a worker has begun a test which may be an evaluation.

    Which ones are is known with the first report; until then, whether any process tracks here.
    """
    if ledger.planned or (not ledger.reported and leases.in_use(lease_folder(ledger.where))):
        ledger.under_way.add(nodeid)


def _may_wait(ledger: Ledger) -> bool:
    """Whether a worker may have found the server out of reach, and recorded locally."""
    database = ledger.local.database
    return ledger.where.is_remote and database is not None and database.exists()


def edited_markdown(summary: Summary, edit: Edit) -> tuple[str, str]:
    """A summary's Markdown, edited by the hook, and the problem with the result, if any."""
    lines = to_markdown(summary).splitlines()
    edited: list[object] = [*lines]
    problem = ""
    try:
        edit(edited)
        if all(isinstance(line, str) for line in edited):
            lines = [visible(str(line)) for line in edited]
        else:
            problem = (
                "the hook pytest_armory_summary must leave a list of strings, so what it changed "
                f"is left out; got {reprlib.repr(edited)}"
            )
    except Exception as error:  # noqa: BLE001 - a user's code; the summary says what it raised
        problem = f"the hook pytest_armory_summary raised {error!r}"
    return "\n".join(lines) + "\n", problem
