"""What is to be uploaded, and where to, from the local database alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.store import Store, StoredRun, credentials, open_store
from pytest_armory.store.destination import Destination, resolve
from pytest_armory.sync.tags import (
    SYNCED,
    WAITS_FOR,
    is_only_files,
    links_of,
    sync_command,
    synced_tag,
    waits_for,
    without_user_info,
)
from pytest_armory.values import REDACTED


@dataclass(frozen=True)
class UploadPlan:
    """What is to be uploaded to one destination: ``runs`` with each parent before its children.

    ``unfinished`` are not uploaded yet, for they are ``RUNNING`` or belong to a run that is.
    ``parents`` are the copies' ids of those the runs belong to and that were uploaded before.
    ``refused`` says why the destination cannot be used, if so. ``with_credentials`` says whether
    this process's are for it.
    """

    display_uri: str
    target: Destination | None
    runs: Sequence[StoredRun]
    unfinished: Sequence[StoredRun] = ()
    parents: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    with_credentials: bool = True


def upload_plans(
    source: Destination, to: Destination | None, in_force: Destination | None = None
) -> list[UploadPlan]:
    """The runs that wait in the local database, by destination; or all runs, for ``to``.

    Credentials are for ``to``, which the user named, else for the destination ``in_force``.
    """
    if source.is_remote or not source.exists:
        return []
    store = open_store(source)
    waiting: dict[str, list[StoredRun]] = {}
    for run in store.search.runs_with_tag(WAITS_FOR):
        waiting.setdefault(without_user_info(run.tags[WAITS_FOR]), []).append(run)
    if to is None:
        plans = [_waiting_plan(store, uri, runs, in_force) for uri, runs in waiting.items()]
    else:
        _check_is_elsewhere(source, to)
        runs = store.search.runs_with_tag("armory.session")
        runs += waiting.get(without_user_info(to.display_uri), [])
        plans = [_upload_plan(store, to.display_uri, to, runs)]
    return [plan for plan in plans if plan.runs or plan.unfinished]


def _waiting_plan(
    store: Store, uri: str, runs: Sequence[StoredRun], in_force: Destination | None
) -> UploadPlan:
    """The plan for runs that wait for a destination."""
    tagged = max((run.tags[WAITS_FOR] for run in runs), key=len)  # with a user, if one has it
    try:
        target, refused = destination_of(tagged, in_force), ""
    except TrackingError as error:
        target, refused = None, str(error)
    waiting = [run for run in runs if SYNCED not in run.tags]
    plan = _upload_plan(store, uri, target, waiting, refused)
    allowed = target is None or credentials.are_for(target, in_force)
    return replace(plan, with_credentials=allowed)


def _check_is_elsewhere(source: Destination, to: Destination) -> None:
    if to.database is not None and to.database.resolve() == Path(str(source.database)).resolve():
        raise ArmoryUsageError(
            f"--to names the local database itself, {source.display_uri}, where the runs are; "
            "give the URI of a server, as in http://127.0.0.1:5000"
        )


def destination_of(display_uri: str, in_force: Destination | None) -> Destination:
    """The destination of a run's tag, with the user and password of the URI in force if that is it.

    Raises :class:`TrackingError` if the tag lacks what is needed: secrets are not stored.
    """
    asked = without_user_info(display_uri)
    if in_force and without_user_info(in_force.display_uri) == asked:
        return in_force
    target = _resolved(asked)
    had_user = asked != display_uri.rstrip("/")
    if target is None or (had_user and not target.is_server):
        raise TrackingError(
            f"what the URI {display_uri} needs is not stored with its runs; give it whole, as in "
            f"`{sync_command('URI')}`"
        )
    if in_force and target.is_server and credentials.are_for(target, in_force):
        ours, theirs = urlsplit(str(target.uri)), urlsplit(str(in_force.uri))
        return resolve(urlunsplit(ours._replace(netloc=theirs.netloc)))
    return target


def _resolved(uri: str) -> Destination | None:
    try:
        return None if REDACTED in uri else resolve(uri)
    except ArmoryUsageError:
        return None


def _upload_plan(
    store: Store,
    display_uri: str,
    target: Destination | None,
    runs: Iterable[StoredRun],
    refused: str = "",
) -> UploadPlan:
    tag = synced_tag(display_uri)
    destination = without_user_info(display_uri)
    chosen = {
        run.run_id: run
        for run in runs
        if tag not in run.tags and (not is_only_files(run) or waits_for(run, destination))
    }
    if chosen:
        _add_children(store, chosen, tag)
    parents = _add_parents(store, chosen, tag)
    ready, unfinished = _in_order(chosen)
    return UploadPlan(display_uri, target, ready, unfinished, parents, refused)


def _add_children(store: Store, chosen: dict[str, StoredRun], tag: str) -> None:
    """Add to the selected runs those opened inside them that do not have the tag."""
    elsewhere: dict[str, list[StoredRun]] = {}  # in another experiment than their parents
    for run in store.search.runs_with_tag("armory.opened_in"):
        elsewhere.setdefault(run.tags["armory.opened_in"], []).append(run)
    left = list(chosen.values())
    while left:
        parent = left.pop()
        for child in (*store.search.children(parent), *elsewhere.get(parent.run_id, ())):
            if tag not in child.tags and child.run_id not in chosen:
                chosen[child.run_id] = child
                left.append(child)


def _add_parents(store: Store, chosen: dict[str, StoredRun], tag: str) -> dict[str, str]:
    """Add to the selected runs their parents; returns the copies' ids, by the tag."""
    copies: dict[str, str] = {}
    left, known = list(chosen.values()), dict(chosen)
    while left:
        for parent_id in links_of(left.pop()):
            parent = known.get(parent_id) or store.search.find(parent_id)
            if parent is None or parent_id in chosen:
                continue
            known[parent_id] = parent
            if tag in parent.tags:
                copies[parent_id] = parent.tags[tag]
            else:
                chosen[parent_id] = parent
                left.append(parent)
    return copies


def _in_order(runs: Mapping[str, StoredRun]) -> tuple[list[StoredRun], list[StoredRun]]:
    """The runs to upload, parents before children, else by start; and the unfinished ones."""
    ready: dict[str, StoredRun] = {}
    unfinished: dict[str, StoredRun] = {}
    entered: set[str] = set()
    by_start = sorted(runs.values(), key=lambda run: (run.start, run.run_id))
    stack = by_start[::-1]
    while stack:
        run = stack[-1]
        parents = [runs[one] for one in links_of(run) if one in runs]
        if run.run_id not in entered:
            entered.add(run.run_id)
            # Tags are not trusted: they may form a cycle.
            stack += [parent for parent in parents if parent.run_id not in entered]
            continue
        stack.pop()
        if run.run_id in ready or run.run_id in unfinished:
            continue
        is_held = run.status == "RUNNING" or any(one.run_id in unfinished for one in parents)
        (unfinished if is_held else ready)[run.run_id] = run
    return list(ready.values()), list(unfinished.values())
