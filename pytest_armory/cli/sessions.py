"""``pytest-armory sessions``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from time import time

from pytest_armory.cli.numbers import positive
from pytest_armory.cli.stores import add_tracking_uri, exists, no_sessions
from pytest_armory.records import Outcome
from pytest_armory.records.tags import decode_counts
from pytest_armory.report.text import age, table
from pytest_armory.store import StoredRun, open_store
from pytest_armory.store.destination import Destination

HELP = "list the latest sessions"

_VERDICTS = {"FINISHED": "passed", "FAILED": "failed", "KILLED": "interrupted"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_tracking_uri(parser)
    parser.add_argument("-n", "--most", type=positive, default=20, help="how many (default: 20)")


def run(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """List the latest sessions: verdict, counts, commit, branch, and how long ago they began."""
    sessions = _latest_sessions(where, arguments.most) if exists(where) else {}
    if not sessions:
        return [no_sessions(where)]
    rows = [_row(session, runs) for session, runs in sessions.items()]
    return table([("session", "verdict", "evaluations", "commit", "branch", "began"), *rows])


def _latest_sessions(where: Destination, most: int) -> dict[str, list[StoredRun]]:
    """The session runs of each session, the newest first."""
    # A session has a run in each of its experiments, all with the same counts.
    sessions: dict[str, list[StoredRun]] = {}
    for run in open_store(where).search.latest_sessions(most * 10):
        sessions.setdefault(run.tags.get("armory.session", ""), []).append(run)
    return dict(list(sessions.items())[:most])


def _row(session: str, runs: Sequence[StoredRun]) -> tuple[str, ...]:
    run = runs[0]
    counts = decode_counts(run.metrics).numbers
    return (
        session,
        "running" if counts.get("running") else _VERDICTS.get(run.status, run.status.lower()),
        _counts(counts),
        _commit(run),
        run.tags.get("mlflow.source.git.branch", ""),
        age(time() - min(run.start for run in runs) / 1000),
    )


def _counts(counts: Mapping[str, int]) -> str:
    names = (*(outcome.value for outcome in Outcome), "not_run")
    return ", ".join(f"{counts[n]:,} {n.replace('_', ' ')}" for n in names if counts.get(n))


def _commit(run: StoredRun) -> str:
    dirty = "+" if run.tags.get("armory.git.dirty") == "true" else ""
    return run.tags.get("mlflow.source.git.commit", "")[:8] + dirty
