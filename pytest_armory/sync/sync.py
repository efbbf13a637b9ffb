"""Uploading what was recorded in the local database: ``pytest-armory sync``.

A copy is found by its run's key before one is made, and each of its parts is written only where it
is missing. So an upload that was cut off anywhere goes on where it was when it is asked for again,
and what the recording session itself brought to the server counts as a part of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse, urlsplit, urlunparse
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from pytest_armory.budget import within
from pytest_armory.environment import changed
from pytest_armory.errors import ArmoryUsageError, StoreUnreachableError, TrackingError
from pytest_armory.store._mlflow import translated
from pytest_armory.store.circuit import WITHOUT_RETRIES
from pytest_armory.store.client import NAME_LIMIT, Store, StoredRun, open_store
from pytest_armory.store.destination import Destination, resolve
from pytest_armory.values import REDACTED, TAG_LIMIT, clip

KEY = "armory.key"
"""The tag that a run and its copies share."""

WAITS_FOR = "armory.destination"
"""The tag of a run that waits for a server: its URI without secrets."""

REMOTE_RUN = "armory.remote_run_id"
"""The tag of a run whose first half reached the server: the id it has there."""

SYNCED = "armory.synced"
"""The tag of a run that waits no more: its copy's id. With :func:`synced_tag`, for one server."""

EXPERIMENT = "armory.experiment_id"
"""The tag of a run that waits and was given an experiment by its id."""

_PARENT = "mlflow.parentRunId"
_LINKS = (_PARENT, "armory.opened_in", "armory.left_open_in")
"""Tags that hold the id of another run."""

_PER_BATCH = {"params": 100, "tags": 100, "metrics": 1000}
_ENTITIES = 1000
_CHARACTERS = 700_000
"""MLflow's limits on one batch; of JSON's characters a server takes 1,000,000 in all."""

_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # it may ask for hours
}
"""MLflow would try a dead server for four minutes, at each call. The user's own values stand."""

REACH = 40.0
"""Seconds in all that a server may take to answer a small question."""

_HASTE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""The same for a small question; to store a large artifact takes its time."""


@dataclass(frozen=True)
class UploadPlan:
    """What is to be uploaded to one place: ``runs`` with each parent before its children.

    ``unfinished`` are not uploaded yet, for they are ``RUNNING`` or belong to a run that is.
    ``parents`` are the copies' ids of those the runs belong to and that were uploaded before.
    ``refused`` says why the place cannot be used, if so.
    """

    display_uri: str
    target: Destination | None
    runs: Sequence[StoredRun]
    unfinished: Sequence[StoredRun] = ()
    parents: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""


@dataclass(frozen=True)
class Step:
    """How far an upload is: at ``run``, the ``index``-th, doing ``text``; or it is over with it.

    ``state`` is ``at``, ``done`` or ``left``, with the reason as its ``text``. ``notes`` are what
    the copy differs in.
    """

    index: int
    run: StoredRun
    text: str
    state: str = "at"
    notes: Sequence[str] = ()
    url: str | None = None


def without_user_info(shown: str) -> str:
    """A destination as it is told apart from others: without userinfo and final slashes."""
    return re.sub(r"(?<=://)[^/@]*@", "", shown).rstrip("/")


def synced_tag(shown: str) -> str:
    """The tag of a run that was uploaded to a destination: its copy's id there."""
    return f"{SYNCED}.{hashlib.sha256(without_user_info(shown).encode()).hexdigest()[:12]}"


def key_of(run_id: str, tags: Mapping[str, str]) -> str:
    """A run's key; one that was not given any has always the same, made from its id."""
    key = tags.get(KEY, "")
    if re.fullmatch(r"[\w.-]{8,250}", key):
        return key
    return hashlib.sha256(f"pytest-armory run {run_id}".encode()).hexdigest()[:32]


# What is to be uploaded


def upload_plans(
    source: Destination, to: Destination | None, environ: Mapping[str, str] = os.environ
) -> list[UploadPlan]:
    """What waits in the local database, by its destination; or all its sessions' runs for ``to``.

    Nothing is asked of a server.
    """
    if source.database is None or not source.database.exists():
        return []
    store = open_store(source)
    waiting: dict[str, list[StoredRun]] = {}
    for run in store.runs_with_tag(WAITS_FOR):
        waiting.setdefault(without_user_info(run.tags[WAITS_FOR]), []).append(run)
    if to is not None:
        _check_is_elsewhere(source, to)
        runs = [
            *store.runs_with_tag("armory.session"),
            *waiting.get(without_user_info(to.display_uri), []),
        ]
        return _without_empty([_upload_plan(store, to.display_uri, to, runs)])
    found = []
    for shown, runs in waiting.items():
        runs = [run for run in runs if SYNCED not in run.tags]
        try:
            target, refused = _named(shown, environ), ""
        except TrackingError as error:
            target, refused = None, str(error)
        found.append(_upload_plan(store, shown, target, runs, refused))
    return _without_empty(found)


def _without_empty(found: Iterable[UploadPlan]) -> list[UploadPlan]:
    return [plan for plan in found if plan.runs or plan.unfinished]


def _check_is_elsewhere(source: Destination, to: Destination) -> None:
    if to.database is not None and to.database.resolve() == Path(str(source.database)).resolve():
        raise ArmoryUsageError(
            f"--to names the local database itself, {source.display_uri}, where the runs are; "
            "give the URI of a server, as in http://127.0.0.1:5000"
        )


def _named(shown: str, environ: Mapping[str, str]) -> Destination:
    """The destination that a run's tag names; who may go there, only the environment knows."""
    given = environ.get("MLFLOW_TRACKING_URI", "")
    for uri in (given, without_user_info(shown)):
        try:
            target = resolve(uri)
        except ArmoryUsageError:
            continue
        if (
            without_user_info(target.display_uri) == without_user_info(shown)
            and REDACTED not in uri
        ):
            return target
    raise TrackingError(
        f"what the URI {shown} needs is not stored with its runs; give it with --to URI"
    )


def _upload_plan(
    store: Store,
    shown: str,
    target: Destination | None,
    runs: Iterable[StoredRun],
    refused: str = "",
) -> UploadPlan:
    """With what belongs to the runs: what ran inside them, and what they ran inside."""
    tag = synced_tag(shown)
    chosen = {run.run_id: run for run in runs if tag not in run.tags}
    elsewhere: dict[str, list[StoredRun]] = {}  # in other experiments than where they were opened
    for run in store.runs_with_tag("armory.opened_in") if chosen else ():
        elsewhere.setdefault(run.tags["armory.opened_in"], []).append(run)
    parents: dict[str, str] = {}
    left = list(chosen.values())
    while left:
        parent = left.pop()
        for child in (*store.runs_inside(parent), *elsewhere.get(parent.run_id, ())):
            if tag not in child.tags and child.run_id not in chosen:
                chosen[child.run_id] = child
                left.append(child)
    left, known = list(chosen.values()), dict(chosen)
    while left:
        for parent_id in _links(left.pop()):
            linked = known.get(parent_id) or store.find_run(parent_id)
            if linked is None or parent_id in chosen:
                continue
            known[parent_id] = linked
            if tag in linked.tags:
                parents[parent_id] = linked.tags[tag]
            else:
                chosen[parent_id] = linked
                left.append(linked)
    ready, unfinished = _in_order(chosen)
    return UploadPlan(shown, target, ready, unfinished, parents, refused)


def _links(run: StoredRun) -> list[str]:
    return list(dict.fromkeys(run.tags[name] for name in _LINKS if run.tags.get(name)))


def _in_order(runs: Mapping[str, StoredRun]) -> tuple[list[StoredRun], list[StoredRun]]:
    """Parents before children, else by their start; and those that are not ready yet."""
    ready: dict[str, StoredRun] = {}
    unfinished: dict[str, StoredRun] = {}
    entered: set[str] = set()
    by_start = sorted(runs.values(), key=lambda run: (run.start, run.run_id))
    stack = by_start[::-1]
    while stack:
        run = stack[-1]
        before = [runs[one] for one in _links(run) if one in runs]
        # Anybody can set a tag, also one that makes a circle.
        new = [one for one in before if one.run_id not in entered]
        if run.run_id not in entered:
            entered.add(run.run_id)
            stack += new
            continue
        stack.pop()
        if run.run_id in ready or run.run_id in unfinished:
            continue
        held = run.status == "RUNNING" or any(one.run_id in unfinished for one in before)
        (unfinished if held else ready)[run.run_id] = run
    return list(ready.values()), list(unfinished.values())


@contextmanager
def alone(source: Destination) -> Iterator[None]:
    """Keep other uploads of this database out; raises :class:`TrackingError` if one is at work."""
    path = source.database
    if path is None or not path.exists():
        yield
        return
    lock = FileLock(path.with_name(f"{path.name}.sync.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrackingError(
            f"another sync of {source.display_uri} is at work; it uploads the same, so wait for it"
        ) from None
    except OSError as error:
        raise TrackingError(f"{lock.lock_file} cannot be locked: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


# Uploading


def upload(source: Destination, plan: UploadPlan) -> Iterator[Step]:
    """Upload a plan, telling each step; what is done stays done, wherever it is cut off.

    Raises :class:`StoreUnreachableError`. A run that is refused is told as ``left``, and the others
    go on; but its children wait for it.
    """
    if plan.target is None:
        raise TrackingError(plan.refused)
    if not plan.runs:
        return
    patience = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    haste = {name: value for name, value in _HASTE.items() if name in patience}
    with changed(patience):
        uploader = Uploader(open_store(source), open_store(plan.target), plan, haste)
        uploader.check_reachable()
        uploader.mark_as_waiting(plan.runs)
        left: set[str] = set()
        for index, run in enumerate(plan.runs, 1):
            if left.intersection(_links(run)):
                left.add(run.run_id)  # and so do its own
                yield Step(index, run, "it belongs to a run that is not there yet", "left")
                continue
            notes: list[str] = []
            try:
                for text in uploader.upload_run(run, notes.append):
                    yield Step(index, run, text)
            except TrackingError as error:
                uploader.check_reachable()
                left.add(run.run_id)
                yield Step(index, run, str(error), "left", notes)
            else:
                yield Step(index, run, "", "done", notes, uploader.url(run))


class Uploader:
    """Carries runs from one store to another; ``ids`` are the copies' ids by the runs' own."""

    def __init__(
        self, source: Store, target: Store, plan: UploadPlan, haste: Mapping[str, str]
    ) -> None:
        self.source = source
        self.target = target
        self._haste = haste
        self.ids = dict(plan.parents)
        self._place = without_user_info(plan.display_uri)
        self._tag = synced_tag(plan.display_uri)
        self._names: dict[str, str] = {}
        self._experiments: dict[str, str] = {}
        self._given = {
            run.experiment_id: run.tags[EXPERIMENT]
            for run in plan.runs
            if EXPERIMENT in run.tags
            and without_user_info(run.tags.get(WAITS_FOR, "")) == self._place
        }
        self._pages: dict[str, str | None] = {}

    def check_reachable(self) -> None:
        """Raise unless the server answers a small question."""
        try:
            asking = translated("asking for an experiment", self.target.where)
            ask = partial(self.target.client.search_experiments, max_results=1)
            with changed(self._haste), asking:
                within(REACH, ask)
        except TrackingError as error:
            raise StoreUnreachableError(
                f"{self.target.where} cannot be reached, or not with what this process was given "
                f"to log in: {error}"
            ) from None

    def mark_as_waiting(self, runs: Sequence[StoredRun]) -> None:
        """Have what ran inside a run that waits wait by itself: that one may be there before it."""
        waiting: set[str] = set()
        for run in runs:  # each parent before its children
            if WAITS_FOR in run.tags:
                if without_user_info(run.tags[WAITS_FOR]) == self._place:
                    waiting.add(run.run_id)
            elif waiting.intersection(_links(run)):
                self.source.log_batch(run.run_id, tags={WAITS_FOR: self._place})
                waiting.add(run.run_id)

    def url(self, run: StoredRun) -> str | None:
        """The page of a run's copy."""
        return self._pages.get(run.run_id)

    def upload_run(self, stored: StoredRun, note: Callable[[str], None]) -> Iterator[str]:
        """Bring one run over, its status last; yields what it is at."""
        with translated("reading a run", self.source.where):
            run = self.source.client.get_run(stored.run_id)
        yield "looking for its copy"
        experiment_id = self._given.get(run.info.experiment_id)
        experiment_id = experiment_id or self._experiment_id(self._experiment_name(run))
        tags = self._tags(run)
        copy, is_new = self._copy(run, experiment_id, tags, note)
        copy_id = copy.info.run_id
        yield from self._upload_values(run, copy, tags, is_new, note)
        self._upload_inputs(run, copy, note)
        yield from self._upload_artifacts(stored, copy, is_new, note)
        end = run.info.end_time or run.info.start_time
        if (copy.info.status, copy.info.end_time) != (run.info.status, end):
            with translated("closing a run", self.target.where):
                self.target.client.set_terminated(copy_id, run.info.status, end)
        self._link_evaluations(run, copy_id, experiment_id)
        mark = {self._tag: copy_id}
        if self._is_its_own(run):
            mark[SYNCED] = copy_id
        self.source.log_batch(stored.run_id, tags=mark)
        self.ids[stored.run_id] = copy_id
        self._pages[stored.run_id] = self.target.run_url(experiment_id, copy_id)

    def _link_evaluations(self, run: Any, copy_id: str, experiment_id: str) -> None:
        """Put a session's evaluations under its run that reached the server when it could not."""
        session = run.data.tags.get("armory.session", "")
        if run.data.tags.get("armory.kind") != "session" or not session or "'" in session:
            return
        mine = f"tags.`armory.session` = '{session}' AND tags.`armory.kind` = 'evaluation'"
        with translated("putting evaluations under their session", self.target.where):
            token: str | None = ""
            while token is not None:
                page = self.target.client.search_runs(
                    [experiment_id], mine, page_token=token or None
                )
                for there in page:
                    if _PARENT not in there.data.tags:
                        self.target.client.set_tag(there.info.run_id, _PARENT, copy_id)
                token = page.token or None

    def _experiment_name(self, run: Any) -> str:
        experiment_id = run.info.experiment_id
        if experiment_id not in self._names:
            with translated("reading an experiment", self.source.where):
                self._names[experiment_id] = self.source.client.get_experiment(experiment_id).name
        return self._names[experiment_id]

    def _experiment_id(self, name: str) -> str:
        if name not in self._experiments:
            with translated(f"opening the experiment {name!r}", self.target.where):
                found = self._find_experiment(name) or self._make_experiment(name)
            self._experiments[name] = found
        return self._experiments[name]

    def _find_experiment(self, name: str) -> str | None:
        experiment = self.target.client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the experiment {name!r} at {self.target.where} was deleted; bring it back there "
                f"with `mlflow experiments restore --experiment-id {experiment.experiment_id}`"
            )
        return None if experiment is None else str(experiment.experiment_id)

    def _make_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        artifacts = self.target.destination.artifacts
        location = artifacts.as_uri() if artifacts else None
        try:
            return str(self.target.client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            found = self._find_experiment(name)  # made by another process meanwhile
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return found

    def _is_its_own(self, run: Any) -> bool:
        """Whether this is the destination that the run was recorded for."""
        return without_user_info(run.data.tags.get(WAITS_FOR, "")) == self._place

    def _tags(self, run: Any) -> dict[str, str]:
        """The tags of a run's copy, its links leading to copies."""
        tags = {
            name: clip(value, TAG_LIMIT)
            for name, value in run.data.tags.items()
            if name not in (WAITS_FOR, REMOTE_RUN, SYNCED, EXPERIMENT, "mlflow.runName")
            and not name.startswith(f"{SYNCED}.")
        }
        tags.update({name: self.ids.get(tags[name], tags[name]) for name in _LINKS if name in tags})
        return {**tags, KEY: key_of(run.info.run_id, tags)}

    # The copy

    def _copy(
        self, run: Any, experiment_id: str, tags: Mapping[str, str], note: Callable[[str], None]
    ) -> tuple[Any, bool]:
        """The run at the server that becomes the copy, and whether it is new, so empty."""
        found = (
            self._first_half(run)
            or self._by_key(experiment_id, tags[KEY], note)
            or self._session_run(experiment_id, tags)
        )
        if found:
            return found, False
        try:
            # Asked twice, as MLflow does where an answer is lost, a server makes two runs.
            with changed(WITHOUT_RETRIES), translated("opening a run", self.target.where):
                made = self.target.client.create_run(
                    experiment_id,
                    start_time=run.info.start_time,
                    tags=dict(tags),
                    run_name=clip(run.info.run_name or "", NAME_LIMIT) or None,
                )
            return made, True
        except TrackingError:
            made = self._by_key(experiment_id, tags[KEY], note)
            if not made:
                raise
            return made, False

    def _first_half(self, run: Any) -> Any:
        """What the recording session opened at this server before it lost it."""
        copy_id = run.data.tags.get(REMOTE_RUN)
        if not copy_id or not self._is_its_own(run):
            return None
        return self.target.find_entity(copy_id)

    def _by_key(self, experiment_id: str, key: str, note: Callable[[str], None]) -> Any:
        found = self._search(experiment_id, f"tags.`{KEY}` = '{key}'")
        found.sort(key=lambda run: (run.info.status == "RUNNING", run.info.run_id))
        for extra in found[1:]:  # by a request that arrived although its answer did not
            if extra.info.status == "RUNNING":
                with translated("removing a second copy", self.target.where):
                    self.target.client.delete_run(extra.info.run_id)
                note(f"a second copy, {extra.info.run_id}, was begun and is deleted")
        return found[0] if found else None

    def _session_run(self, experiment_id: str, tags: Mapping[str, str]) -> Any:
        """The session's own run, if the same process opened it at the server before."""
        session = tags.get("armory.session", "")
        if tags.get("armory.kind") != "session" or not session or "'" in session:
            return None
        condition = f"tags.`armory.kind` = 'session' AND tags.`armory.session` = '{session}'"
        shard = tags.get("armory.shard")
        for run in self._search(experiment_id, condition):
            # Another job of the same session has counts of its own.
            if run.data.tags.get("armory.shard") == shard:
                return run
        return None

    def _search(self, experiment_id: str, condition: str) -> list[Any]:
        with translated("searching runs", self.target.where):
            found = self.target.client.search_runs(
                [experiment_id], filter_string=condition, order_by=["attributes.start_time ASC"]
            )
            # The answer leaves out inputs at some servers, and a run that is new may lag behind.
            return [self.target.client.get_run(run.info.run_id) for run in found]

    # Its parts

    def _upload_values(
        self,
        run: Any,
        copy: Any,
        tags: Mapping[str, str],
        is_new: bool,
        note: Callable[[str], None],
    ) -> Iterator[str]:
        there = copy.data.params
        params = {key: value for key, value in run.data.params.items() if key not in there}
        for key, value in run.data.params.items():
            if there.get(key, value) != value:
                note(f"the parameter {key!r} is {there[key]!r} there and stays so, not {value!r}")
        kept = {KEY} if KEY in copy.data.tags else set()
        missing = {
            name: value
            for name, value in ({} if is_new else tags).items()
            if copy.data.tags.get(name) != value and name not in kept
        }
        metrics = self._missing_metrics(run, copy)
        yield "writing its values"
        written = 0
        total = len(params) + len(missing) + len(metrics)
        for batch in _batches(params, missing, metrics):
            self._write(copy.info.run_id, batch)
            written += sum(map(len, batch.values()))
            if written < total:
                yield f"{written:,} of {total:,} values"

    def _write(self, copy_id: str, batch: Mapping[str, Sequence[tuple[Any, ...]]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        with translated("writing to a run", self.target.where):
            self.target.client.log_batch(
                copy_id,
                metrics=[Metric(*values) for values in batch["metrics"]],
                params=[Param(*values) for values in batch["params"]],
                tags=[RunTag(*values) for values in batch["tags"]],
                synchronous=True,
            )

    def _missing_metrics(self, run: Any, copy: Any) -> list[tuple[Any, ...]]:
        """Each value of each metric that the copy lacks, with its time and step."""
        missing = []
        for key in run.data.metrics:
            known = set()
            if key in copy.data.metrics:
                known = {_identity(metric) for metric in _history(self.target, copy, key)}
            for metric in _history(self.source, run, key):
                if _identity(metric) not in known:
                    missing.append((key, metric.value, metric.timestamp, metric.step))
        return missing

    def _upload_inputs(self, run: Any, copy: Any, note: Callable[[str], None]) -> None:
        there = {(one.dataset.name, one.dataset.digest) for one in _datasets(copy)}
        missing = [
            one for one in _datasets(run) if (one.dataset.name, one.dataset.digest) not in there
        ]
        if missing:
            with translated("writing a run's datasets", self.target.where):
                self.target.client.log_inputs(copy.info.run_id, datasets=missing)
        models = len(getattr(getattr(run, "outputs", None), "model_outputs", None) or ())
        if models:
            note(f"its logged models ({models:,}) are not uploaded; only a run's artifacts are")

    def _upload_artifacts(
        self, stored: StoredRun, copy: Any, is_new: bool, note: Callable[[str], None]
    ) -> Iterator[str]:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with tempfile.TemporaryDirectory() as folder:
            files = self._files(stored, Path(folder, "download"), note)
            if not files:
                return
            uri = copy.info.artifact_uri
            with translated("storing artifacts", self.target.where):
                repository = get_artifact_repository(uri, tracking_uri=self.target.uri)
            by_http = urlsplit(uri).scheme in ("mlflow-artifacts", "http", "https")
            names = {path: http_name(path) if by_http else path for path in files}
            # What the session brought there itself may be an older file of the same size.
            known = not is_new and REMOTE_RUN not in stored.tags
            there = self._sizes(repository, names.values()) if known else {}
            for index, (path, file) in enumerate(files.items()):
                name = names[path]
                if name != path:
                    note(f"the artifact {path!r} is stored as {name!r}: HTTP cannot carry its name")
                if there.get(name) == file.stat().st_size:
                    continue
                yield f"artifact {index + 1:,} of {len(files):,}"
                with translated(f"storing the artifact {path!r}", self.target.where):
                    _store_artifact(repository, file, name)

    def _files(
        self, stored: StoredRun, folder: Path, note: Callable[[str], None]
    ) -> dict[str, Path]:
        """A run's artifacts by their path in it."""
        if urlsplit(stored.artifact_uri).scheme not in ("", "file"):
            from mlflow.artifacts import download_artifacts

            folder.mkdir()
            with translated("reading artifacts", self.source.where):
                download_artifacts(
                    artifact_uri=stored.artifact_uri,
                    dst_path=str(folder),
                    tracking_uri=self.source.uri,
                )
            return _files_below(folder)
        root = Path(url2pathname(urlsplit(stored.artifact_uri).path))
        beside = self.source.destination.artifacts
        # The Armory home may have been brought here from another machine.
        if not root.parent.parent.exists() and beside is not None:
            moved = re.sub(r"^.*/mlruns/artifacts/", "", root.as_posix())
            home = Path(root.as_posix().partition("/mlruns/artifacts/")[0])
            if not home.exists() and (not beside.exists() or moved == root.as_posix()):
                note(f"its artifacts, if it has any, are not on this machine: no folder {root}")
            root = beside / moved
        return _files_below(root)

    def _sizes(self, repository: Any, names: Iterable[str]) -> dict[str, int | None]:
        sizes: dict[str, int | None] = {}
        for folder in dict.fromkeys(name.rpartition("/")[0] for name in names):
            with translated("listing artifacts", self.target.where):
                found = repository.list_artifacts(folder or None)
            sizes.update({one.path: one.file_size for one in found if not one.is_dir})
        return sizes


def _history(store: Store, run: Any, key: str) -> list[Any]:
    with translated("reading a metric's history", store.where):
        return list(store.client.get_metric_history(run.info.run_id, key))


def _identity(metric: Any) -> tuple[Any, ...]:
    """What tells one value of a metric from another; NaN is not even equal to itself."""
    value = "nan" if math.isnan(metric.value) else metric.value
    return value, metric.timestamp, metric.step


def _datasets(run: Any) -> list[Any]:
    return list(getattr(run.inputs, "dataset_inputs", None) or ())


def _batches(
    params: Mapping[str, str], tags: Mapping[str, str], metrics: Iterable[tuple[Any, ...]]
) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
    """Everything in batches that a server takes: by number of each, of all, and by size."""
    entities: list[tuple[str, tuple[Any, ...]]] = [
        *(("params", item) for item in params.items()),
        *(("tags", item) for item in tags.items()),
        *(("metrics", item) for item in metrics),
    ]
    left = entities
    while left:
        batch: dict[str, list[tuple[Any, ...]]] = {"params": [], "tags": [], "metrics": []}
        later: list[tuple[str, tuple[Any, ...]]] = []
        count = size = 0
        for position, (kind, item) in enumerate(left):
            size += len(json.dumps(item)) + 60
            if count and (count == _ENTITIES or size > _CHARACTERS):
                later += left[position:]
                break
            if len(batch[kind]) == _PER_BATCH[kind]:
                later.append((kind, item))
                continue
            batch[kind].append(item)
            count += 1
        yield batch
        left = later


# Artifacts and their names


def _files_below(root: Path) -> dict[str, Path]:
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path for path in found}


def _store_artifact(repository: Any, file: Path, name: str) -> None:
    """Store a file under its path in the run; MLflow takes its name for the last part of that."""
    folder, _, last = name.rpartition("/")
    if file.name == last:
        repository.log_artifact(str(file), folder or None)
        return
    with tempfile.TemporaryDirectory() as place:
        renamed = Path(place, last)
        try:
            renamed.symlink_to(file.absolute())
        except OSError:  # Windows lets few users do so
            shutil.copyfile(file, renamed)
        repository.log_artifact(str(renamed), folder or None)


_LOOKALIKES = {ord(ascii_): chr(ord(ascii_) + 0xFEE0) for ascii_ in "#%?;"}
"""Characters that mean something in a URL, and their full-width forms."""


def http_name(path: str) -> str:
    """The path under which an HTTP server of MLflow keeps an artifact: its own, if it can.

    MLflow puts it into a URL without quoting it, to store and to fetch it; its server decodes it
    until nothing is left to decode, and refuses `#`. What would not come through, or could not be
    fetched, gets full-width characters, and the replacement character for control characters.
    """
    name = "".join(c if c.isprintable() else "\ufffd" for c in path)
    return name if _comes_through(name) else name.translate(_LOOKALIKES)


def _comes_through(path: str) -> bool:
    inside = f"1/run/artifacts/{path}"
    return not set("#?") & set(path) and urlunparse(urlparse(unquote(inside))) == inside
