"""Uploading what was recorded in the local database: ``pytest-armory sync``.

A copy is searched by its run's key before one is created, and only missing values are written. So
an upload that was interrupted anywhere continues when it is started again, and what the recording
session itself has stored at the server is a part of it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pytest_armory.environment import changed
from pytest_armory.errors import LoginRefusedError, StoreUnreachableError, TrackingError
from pytest_armory.records.job_end import file_of_job
from pytest_armory.records.job_tags import job_tags
from pytest_armory.records.tags import REMOTE_RUN
from pytest_armory.store import StoredRun, open_store
from pytest_armory.store.destination import Destination
from pytest_armory.store.transfer import RunWithInputs, TransferEnd
from pytest_armory.sync.artifacts import check_folder, upload_artifacts
from pytest_armory.sync.copies import find_or_create_copy, is_of_another_job, session_of
from pytest_armory.sync.plan import UploadPlan
from pytest_armory.sync.tags import (
    EXPERIMENT,
    RECOVERED,
    SHARD,
    SYNCED,
    WAITS_FOR,
    copied_tags,
    is_only_files,
    links_of,
    sync_command,
    synced_tag,
    waits_for,
    without_user_info,
)
from pytest_armory.sync.values import (
    batches,
    conflicting_params,
    missing_metrics,
    missing_params,
    missing_tags,
)
from pytest_armory.values import TAG_LIMIT, clip

_HTTP_LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # which may be hours
}
"""MLflow would retry for four minutes, at each call. The user's own values are kept."""

_PING_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""The same for a small request; others need time for a large artifact."""

PING_SECONDS = 40.0
"""Seconds that a server may take to respond to a small request, retries included."""


@dataclass(frozen=True)
class Step:
    """The progress of an upload: at ``run``, the ``index``-th, doing ``text``; or done with it.

    ``state`` is ``at``, ``done`` or ``left``, with the reason as its ``text``. ``notes`` are what
    the copy differs in. ``jobs_of`` is the session of whose several jobs a session run is: what it
    counts is to be summed up again.
    """

    index: int
    run: StoredRun
    text: str
    state: str = "at"
    notes: Sequence[str] = ()
    url: str | None = None
    jobs_of: str = ""


def upload(source: Destination, plan: UploadPlan) -> Iterator[Step]:
    """Upload a plan, yielding each step; after an interruption, what is done is not repeated.

    Raises :class:`StoreUnreachableError`. A run that is refused is yielded as ``left``, and the
    others go on; but its children are left, too.
    """
    if plan.target is None:
        raise TrackingError(plan.refused)
    if not plan.runs:
        return
    limits = {name: value for name, value in _HTTP_LIMITS.items() if name not in os.environ}
    with changed(limits):
        source_end = TransferEnd(open_store(source))
        target_end = _opened(plan.target, plan.with_credentials)
        ping = {name: value for name, value in _PING_LIMITS.items() if name in limits}
        uploader = Uploader(source_end, target_end, plan, ping)
        uploader.check_reachable()
        uploader.mark_as_waiting(plan.runs)
        yield from _upload_runs(uploader, plan.runs)


def _opened(target: Destination, with_credentials: bool) -> TransferEnd:
    try:  # a database is asked for its schema
        return TransferEnd(open_store(target))
    except TrackingError as error:
        if with_credentials:
            raise
        raise StoreUnreachableError(_without_credentials(target.display_uri, error)) from None


def _without_credentials(where: str, error: TrackingError) -> str:
    """Why an upload without credentials failed: a page, as of a login, may be a refusal too."""
    failed = "refused the upload without credentials"
    if not isinstance(error, LoginRefusedError):
        failed = f"cannot be reached: {error}"
    return (
        f"{where} {failed}; it was sent no credentials, for those of this process are for "
        f"another tracking URI or none; if they are for this one: `{sync_command(where)}`"
    )


def _upload_runs(uploader: Uploader, runs: Sequence[StoredRun]) -> Iterator[Step]:
    left: set[str] = set()
    for index, run in enumerate(runs, 1):
        if left.intersection(links_of(run)):
            left.add(run.run_id)  # so that its own children are left, too
            yield Step(index, run, "it belongs to a run that is not there yet", "left")
            continue
        notes: list[str] = []
        try:
            for text in uploader.upload_run(run, notes):
                yield Step(index, run, text)
        except TrackingError as error:
            uploader.check_reachable()
            left.add(run.run_id)
            yield Step(index, run, str(error), "left", notes)
        else:
            session = uploader.jobs_of(run)
            yield Step(index, run, "", "done", notes, uploader.url_of(run), session)


class Uploader:
    """Uploads runs from one store to another, each parent before its children."""

    def __init__(
        self,
        source: TransferEnd,
        target: TransferEnd,
        plan: UploadPlan,
        ping_limits: Mapping[str, str],
    ) -> None:
        self.source = source
        self.target = target
        self._ping_limits = ping_limits
        self._with_credentials = plan.with_credentials
        self._destination = without_user_info(plan.display_uri)
        self._synced_tag = synced_tag(plan.display_uri)
        self._copy_ids = dict(plan.parents)
        self._experiment_ids = {
            run.experiment_id: run.tags[EXPERIMENT]
            for run in plan.runs
            if EXPERIMENT in run.tags and waits_for(run, self._destination)
        }
        self._urls: dict[str, str | None] = {}
        self._joined: set[str] = set()
        """Session runs whose copies are of several jobs."""

    def check_reachable(self) -> None:
        """Raise :class:`StoreUnreachableError` unless the server responds to a small request."""
        try:
            with changed(self._ping_limits):
                self.target.ping(PING_SECONDS)
        except TrackingError as error:
            if not self._with_credentials:
                text = _without_credentials(self.target.where, error)
                raise StoreUnreachableError(text) from None
            raise StoreUnreachableError(
                f"{self.target.where} cannot be reached, or not with what this process was given "
                f"to log in: {error}"
            ) from None

    def mark_as_waiting(self, runs: Sequence[StoredRun]) -> None:
        """Tag the runs inside a run that waits, in case it is uploaded and they are not."""
        waiting: set[str] = set()
        for run in runs:  # each parent before its children
            if WAITS_FOR in run.tags:
                if waits_for(run, self._destination):
                    waiting.add(run.run_id)
            elif waiting.intersection(links_of(run)):
                self.source.store.log_batch(run.run_id, tags={WAITS_FOR: self._destination})
                waiting.add(run.run_id)

    def url_of(self, run: StoredRun) -> str | None:
        """The page of a run's copy."""
        return self._urls.get(run.run_id)

    def jobs_of(self, run: StoredRun) -> str:
        """The session that a session run is of, if several jobs contribute to that."""
        is_shared = run.run_id in self._joined or job_tags(run.tags)
        return session_of(run.tags) if is_shared else ""

    def upload_run(self, stored: StoredRun, notes: list[str]) -> Iterator[str]:
        """Upload one run, its status last; yields the progress, and adds to the notes."""
        run = self.source.read_run(stored.run_id)
        self._check_folder(run)
        yield "looking for its copy"
        if is_only_files(run):
            yield from self._upload_files_of(run, notes)
            return
        experiment_id = self._experiment_id(run)
        tags = {k: clip(v, TAG_LIMIT) for k, v in copied_tags(run, self._copy_ids).items()}
        copy, is_new = find_or_create_copy(
            self.target, self._destination, run, experiment_id, tags, notes
        )
        if is_of_another_job(run, copy):
            yield from self._join(run, copy, notes)
            return
        if session_of(run.tags) and job_tags(copy.tags):  # others have joined it since
            self._joined.add(run.run_id)
        notes += conflicting_params(run, copy)
        yield from self._upload_values(run, copy, {} if is_new else tags)
        self._upload_datasets(run, copy, notes)
        is_all = is_new or _supersedes(run, copy)
        yield from upload_artifacts(self.source, run, self.target, copy, is_all, notes)
        end = run.end or run.start
        if (copy.status, copy.end) != (run.status, end):
            self.target.close_run(copy.run_id, run.status, end)
        if _supersedes(run, copy):
            self.target.delete_tag(copy.run_id, RECOVERED)
        self._link_evaluations(run, copy, experiment_id)
        self._mark_as_uploaded(run, copy)

    def _check_folder(self, run: StoredRun) -> None:
        """Raise :class:`TrackingError` for files that are for a server which the user names."""
        if self._with_credentials:
            return
        try:
            check_folder(self.source, run)
        except TrackingError as error:
            advice = f"to send them there all the same: `{sync_command(self.target.where)}`"
            raise TrackingError(f"{error}; {advice}") from None

    def _join(self, run: RunWithInputs, copy: RunWithInputs, notes: list[str]) -> Iterator[str]:
        """Add what a job has noted to the session run that another one has opened.

        The counts and the summary there are of all jobs: see :attr:`Step.jobs_of`.
        """
        yield "adding to the session run of another job"
        self._joined.add(run.run_id)
        self.target.write(copy.run_id, [], missing_tags(job_tags(run.tags), copy), [])
        rename = partial(_file_of_job, run.tags.get(SHARD, ""))
        yield from upload_artifacts(self.source, run, self.target, copy, False, notes, rename)
        self._link_evaluations(run, copy, copy.experiment_id)
        self._mark_as_uploaded(run, copy)

    def _upload_files_of(self, run: StoredRun, notes: list[str]) -> Iterator[str]:
        """Upload artifacts to the run at the server that they belong to."""
        owner = self.target.find_run(run.tags.get(REMOTE_RUN, ""))
        if owner is None:
            raise TrackingError(
                f"the run {run.tags.get(REMOTE_RUN)} that they belong to is gone; they are in "
                f"{run.artifact_uri}"
            )
        yield from upload_artifacts(self.source, run, self.target, owner, False, notes)
        self._mark_as_uploaded(run, owner)

    def _experiment_id(self, run: StoredRun) -> str:
        """The experiment of a run's copy: the one it was given by id, or that of the same name."""
        given = self._experiment_ids.get(run.experiment_id)
        return given or self.target.experiment_id(self.source.experiment_name(run.experiment_id))

    def _upload_values(
        self, run: StoredRun, copy: StoredRun, tags: Mapping[str, str]
    ) -> Iterator[str]:
        params = missing_params(run, copy)
        changed_tags = missing_tags(tags, copy)
        final = _written_by_recover(run) if _supersedes(run, copy) else ()
        metrics = missing_metrics(self.source, run, self.target, copy, final)
        total = len(params) + len(changed_tags) + len(metrics)
        yield "writing its values"
        written = 0
        for batch in batches(params, changed_tags, metrics):
            self.target.write(copy.run_id, batch.params, batch.tags, batch.metrics)
            written += len(batch)
            if written < total:
                yield f"{written:,} of {total:,} values"

    def _upload_datasets(self, run: RunWithInputs, copy: RunWithInputs, notes: list[str]) -> None:
        known = {(one.dataset.name, one.dataset.digest) for one in copy.datasets}
        missing = [
            one for one in run.datasets if (one.dataset.name, one.dataset.digest) not in known
        ]
        if missing:
            self.target.log_datasets(copy.run_id, missing)
        if run.models:
            notes.append(
                f"its logged models ({run.models:,}) are not uploaded; only a run's artifacts are"
            )

    def _link_evaluations(self, run: StoredRun, copy: StoredRun, experiment_id: str) -> None:
        """Make a session's evaluations children of its session run, if that was stored later."""
        session = session_of(run.tags)
        if session:
            mine = f"tags.`armory.session` = '{session}' AND tags.`armory.kind` = 'evaluation'"
            self.target.set_missing_parent(experiment_id, mine, copy.run_id)

    def _mark_as_uploaded(self, run: StoredRun, copy: StoredRun) -> None:
        tags = {self._synced_tag: copy.run_id}
        if waits_for(run, self._destination):
            tags[SYNCED] = copy.run_id
        self.source.store.log_batch(run.run_id, tags=tags)
        self._copy_ids[run.run_id] = copy.run_id
        self._urls[run.run_id] = self.target.store.run_url(copy.experiment_id, copy.run_id)


def _supersedes(run: StoredRun, copy: StoredRun) -> bool:
    """Whether a run that has ended by itself replaces what `recover` has made of its copy."""
    return RECOVERED in copy.tags and RECOVERED not in run.tags


def _written_by_recover(run: StoredRun) -> Collection[str]:
    """The metrics that `recover` writes when it closes a run."""
    return run.metrics if session_of(run.tags) else ("duration_seconds",)


def _file_of_job(shard: str, path: str) -> str:
    """The path of a job's file at the session run of another job; "" for what is of all jobs."""
    return "" if path in ("summary.md", "report.html") else file_of_job(path, shard)
