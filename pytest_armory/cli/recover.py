"""``pytest-armory recover``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence

from pytest_armory.cli.stores import add_tracking_uri, given_store
from pytest_armory.report.text import plural
from pytest_armory.session import recovery
from pytest_armory.store import StoredRun
from pytest_armory.store.destination import Destination, resolve

HELP = "close the runs that a killed process left RUNNING"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_tracking_uri(parser)
    parser.add_argument(
        "--session",
        metavar="ID",
        help="also close every run of this session that was opened elsewhere, on another "
        "machine say: you know that it is over",
    )


def run(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """Close the runs that a killed process of this machine left RUNNING.

    A run whose process is alive is never touched. Safe to run at any time, and again.
    """
    waiting = recovery.Recovery()
    if where.is_remote:  # what waits for it; its leases are needed for that, too
        waiting = recovery.recover(resolve(None), arguments.session)
        yield from _closed_lines(waiting)
    found = recovery.recover(where, arguments.session)
    yield from _closed_lines(found)
    if not (found.closed or waiting.closed):
        of_session = f" of session {arguments.session}" if arguments.session else ""
        yield f"nothing to close{of_session} at {where.display_uri}; see `pytest-armory sessions`"
    if found.alive:
        yield f"left alone: {_open_runs(found.alive)}, at work on this machine"
    if found.unknown:
        session = found.unknown[0].tags["armory.session"]
        yield (
            f"left alone: {_open_runs(found.unknown)}, opened on another machine, under another "
            "Armory home or by a process whose lease was deleted; recover them there, or if you "
            "know that a session is over: "
            f"pytest-armory recover{given_store(where, arguments)} --session {session}"
        )


def _closed_lines(found: recovery.Recovery) -> Iterator[str]:
    yield from map(_closed, found.closed)
    yield from (f"note: {problem}" for problem in found.problems)


def _closed(run: StoredRun) -> str:
    outcome = run.tags.get("armory.outcome", "")
    return f"closed {run.run_id} ({run.name}{f', {outcome}' if outcome else ''})"


def _open_runs(runs: Sequence[StoredRun]) -> str:
    sessions = ", ".join(dict.fromkeys(run.tags["armory.session"] for run in runs))
    return f"{plural(len(runs), 'open run')} of {sessions}"
