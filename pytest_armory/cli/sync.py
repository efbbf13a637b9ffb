"""``pytest-armory sync``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from time import time

from pytest_armory.cli.progress import ProgressLine
from pytest_armory.cli.stores import logged_in
from pytest_armory.errors import TrackingError
from pytest_armory.report.text import age, plural, table
from pytest_armory.session.recovery import sum_up_again
from pytest_armory.store import StoredRun, credentials, destination
from pytest_armory.store.destination import Destination
from pytest_armory.sync.lock import upload_lock
from pytest_armory.sync.plan import UploadPlan, upload_plans
from pytest_armory.sync.tags import is_only_files
from pytest_armory.sync.upload import Step, upload

HELP = "upload what was recorded locally"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command; its exit status is 1 where something is left to upload."""
    parser.add_argument(
        "--to",
        metavar="URI",
        help="upload every session's runs that are not there yet to this MLflow tracking URI, "
        "not only what was meant for a server and waits for it",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="list what would be uploaded; no server is asked"
    )
    parser.add_argument(
        "--armory-tracking-uri",
        metavar="URI",
        dest="in_force",
        help="the tracking URI that the credentials of this process are for (environment: "
        "MLFLOW_TRACKING_URI); uploads to another server are sent none. What is uploaded does not "
        "depend on it",
    )
    parser.set_defaults(
        armory_tracking_uri=destination.LOCAL, failure_status=1, broken_pipe_status=1
    )


def run(source: Destination, arguments: argparse.Namespace) -> Iterator[str]:
    """Upload the runs of the local database that wait for a server, or with --to all it has.

    What is there already is not uploaded again. Safe to stop at any time, and to run again.
    """
    to = None if arguments.to is None else destination.resolve(arguments.to)
    given = arguments.in_force or os.environ.get("MLFLOW_TRACKING_URI")
    in_force = destination.resolve(given) if given else None
    plans = yield from (_preview if arguments.dry_run else _upload_all)(source, to, in_force)
    if not plans:
        where = (
            f"waits in {source.display_uri}"
            if to is None
            else f"in {source.display_uri} is not there yet"
        )
        yield f"nothing {where}"


_PlanLines = Generator[str, None, list[UploadPlan]]
"""Yields lines to print; returns the plans to upload."""

# What would be uploaded


def _preview(
    source: Destination, to: Destination | None, in_force: Destination | None
) -> _PlanLines:
    plans = upload_plans(source, to, in_force)
    for plan in plans:
        yield from _plan_lines(plan)
    return plans


def _plan_lines(plan: UploadPlan) -> Iterator[str]:
    yield f"{_counted(plan.runs)} would be uploaded to {plan.display_uri}"
    if plan.refused:
        yield f"but {plan.refused}"
    if plan.runs:
        rows = [
            (
                run.name,
                run.tags.get("armory.session", ""),
                run.status.lower(),
                age(time() - run.start / 1000),
            )
            for run in plan.runs
        ]
        yield from table([("run", "session", "status", "began"), *rows])
    if plan.unfinished:
        yield _not_ended(plan)


# The upload


def _upload_all(
    source: Destination, to: Destination | None, in_force: Destination | None
) -> _PlanLines:
    """Raises :class:`TrackingError` with what is not uploaded, once the rest is."""
    problems = []
    with upload_lock(source), nullcontext() if to is None else logged_in(to) as target:
        plans = upload_plans(source, target, in_force)
        for plan in plans:
            problems += yield from _upload(source, plan)
    if problems:
        raise TrackingError(*problems)
    return plans


def _upload(source: Destination, plan: UploadPlan) -> Generator[str, None, list[str]]:
    """Upload to one destination; returns sentences about what is not uploaded."""
    uploaded: dict[str, StoredRun] = {}
    reason = ""
    progress = ProgressLine()
    try:
        for step in _steps(source, plan):
            position = f"[{step.index:,}/{len(plan.runs):,}] {step.run.name}"
            if step.state == "at":
                progress.show(f"{position}: {step.text}")
                continue
            progress.clear()
            if step.state == "done":
                uploaded[step.run.run_id] = step.run
            yield from _step_lines(step, position, progress.rewrites)
    except TrackingError as error:
        reason = f": {error}"
    finally:
        progress.clear()
    left = [run for run in plan.runs if run.run_id not in uploaded]
    if uploaded:
        yield f"uploaded {_counted(uploaded.values())} to {plan.display_uri}"
    if reason and not left:
        return [f"all is uploaded, but its session could not be summed up{reason}"]
    return list(_left(plan, left, reason))


def _counted(runs: Collection[StoredRun]) -> str:
    """How many runs these are; files that stored runs lack are no runs."""
    files = sum(map(is_only_files, runs))
    of_files = [f"artifacts of {plural(files, 'run')}"] if files else []
    whole = [plural(len(runs) - files, "run")] if len(runs) > files else []
    return " and ".join(whole + of_files) or plural(0, "run")


def _steps(source: Destination, plan: UploadPlan) -> Iterator[Step]:
    """The steps of an upload, logged in to its target if this process's credentials are for it."""
    if plan.target is None:
        yield from upload(source, plan)  # which yields the reason
        return
    if not plan.with_credentials:
        with credentials.withheld():
            yield from _summed_up(source, plan, plan.target)
        return
    with logged_in(plan.target) as target:
        yield from _summed_up(source, replace(plan, target=target), target)


def _summed_up(source: Destination, plan: UploadPlan, target: Destination) -> Iterator[Step]:
    """The steps of an upload; then sessions of several jobs are summed up, as they are there."""
    sessions: dict[str, Step] = {}
    for step in upload(source, plan):
        yield step
        if step.jobs_of:
            sessions[step.jobs_of] = step
    for session, step in sessions.items():
        yield replace(step, state="at", text=f"summing up session {session}")
        sum_up_again(target, session)


def _step_lines(step: Step, position: str, rewrites: bool) -> Iterator[str]:
    """The lines for a run that is done; with a progress line, only those that need attention."""
    if step.state == "left":
        yield f"{position}: left: {step.text}"
    elif step.notes or not rewrites or step.run.tags.get("armory.kind") == "session":
        yield f"{position}: uploaded{f', see {step.url}' if step.url else ''}"
    for note in step.notes:
        yield f"  note: {note}"


def _left(plan: UploadPlan, left: Sequence[StoredRun], reason: str) -> Iterator[str]:
    if left:
        yield f"{_counted(left)} left for {plan.display_uri}, run this again{reason}"
    if plan.unfinished:
        yield _not_ended(plan)


def _not_ended(plan: UploadPlan) -> str:
    return (
        f"{plural(len(plan.unfinished), 'run')} not ended yet, or inside one that has not; if a "
        "process was killed, `pytest-armory recover --armory-tracking-uri local` and sync again"
    )
