"""``pytest-armory sessions``."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from time import time

from pytest_armory.cli.arguments import positive
from pytest_armory.cli.stores import add_tracking_uri, no_sessions
from pytest_armory.records import Outcome
from pytest_armory.records.tags import decode_counts, decode_session_counts, has_session_counts
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
    sessions = _latest_sessions(where, arguments.most) if where.exists else {}
    if not sessions:
        return [no_sessions(where)]
    rows = [_row(session, runs) for session, runs in sessions.items()]
    return table([("session", "verdict", "evaluations", "commit", "branch", "began"), *rows])


def _latest_sessions(where: Destination, most: int) -> dict[str, list[StoredRun]]:
    """The session runs of each session, the newest first."""
    sessions: dict[str, list[StoredRun]] = {}
    for run in open_store(where).search.latest_sessions(most * 10):
        sessions.setdefault(run.tags.get("armory.session", ""), []).append(run)
    return dict(list(sessions.items())[:most])


def _row(session: str, runs: Sequence[StoredRun]) -> tuple[str, ...]:
    run, counts = runs[0], _numbers([run.metrics for run in runs if run.metrics])
    return (
        session,
        "running" if counts.get("running") else _VERDICTS.get(run.status, run.status.lower()),
        _counts(counts),
        _commit(run),
        run.tags.get("mlflow.source.git.branch", ""),
        age(time() - min(run.start for run in runs) / 1000),
    )


def _numbers(metrics: Sequence[Mapping[str, float]]) -> Mapping[str, int]:
    """The counts of a session, from those of its experiments."""
    if not all(map(has_session_counts, metrics)):  # an earlier version's, all with the same counts
        return decode_session_counts(metrics[0]).numbers
    numbers = Counter[str]()
    for one in metrics:
        numbers.update(decode_counts(one).numbers)
    never_run = (decode_session_counts(one).numbers.get("not_run", 0) for one in metrics)
    return {**numbers, "not_run": max(never_run, default=0)}


def _counts(counts: Mapping[str, int]) -> str:
    names = (*(outcome.value for outcome in Outcome), "not_run")
    return ", ".join(f"{counts[n]:,} {n.replace('_', ' ')}" for n in names if counts.get(n))


def _commit(run: StoredRun) -> str:
    dirty = "+" if run.tags.get("armory.git.dirty") == "true" else ""
    return run.tags.get("mlflow.source.git.commit", "")[:8] + dirty
