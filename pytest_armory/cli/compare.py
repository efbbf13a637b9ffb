"""``pytest-armory compare``."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pytest_armory.cli.stores import add_tracking_uri, exists, newest_session, no_sessions
from pytest_armory.errors import ArmoryUsageError
from pytest_armory.gates import baselines
from pytest_armory.gates.parse import Reference, parse_reference
from pytest_armory.report.files import write_text_file
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.sentences import missed_lines
from pytest_armory.report.summary import Summary
from pytest_armory.report.terminal import terminal_lines
from pytest_armory.session.comparison import compare_session
from pytest_armory.session.stored_records import is_attempt
from pytest_armory.store import open_store
from pytest_armory.store.destination import Destination

HELP = "compare two sessions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("A", help="the baseline: latest, branch:NAME, commit:SHA or a session")
    parser.add_argument("B", help="the session that is compared with it: latest, or its ID")
    parser.add_argument("--summary", metavar="PATH", type=Path, help="write it as Markdown, too")
    add_tracking_uri(parser)


def run(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """Print the table of session B, with its changes against A."""
    a, b = parse_reference(arguments.A), parse_reference(arguments.B)
    if b.kind not in ("session", "latest"):
        raise ArmoryUsageError(f"B must be a session's ID or latest, got {arguments.B!r}")
    if not exists(where):
        raise ArmoryUsageError(no_sessions(where))
    summary = _compare(where, a, b)
    if arguments.summary is not None:
        _write(arguments.summary, to_markdown(summary))
    width = shutil.get_terminal_size((100, 24)).columns
    lines = [line.text.rstrip() for line in terminal_lines(summary, width, verbosity=1)]
    return [*lines, *missed_lines(summary.records)]


def _compare(where: Destination, a: Reference, b: Reference) -> Summary:
    store = open_store(where)
    session = b.value or newest_session(store)
    runs = store.search.runs_of_session(session, store.experiments.ids())
    if not any(map(is_attempt, runs)):
        raise ArmoryUsageError(
            f"no evaluation of the session {session!r} is at {where.display_uri}; "
            "`pytest-armory sessions` lists them"
        )
    if a.kind == "session" and a.value == session:
        raise ArmoryUsageError(
            f"A and B are the same session, {session}; `pytest-armory sessions` has more"
        )
    return compare_session(store, session, runs, baselines.find(where, a, own=session))


def _write(path: Path, text: str) -> None:
    try:
        # GitHub's file may have the summaries of other steps.
        write_text_file(path, text, append=str(path) == os.environ.get("GITHUB_STEP_SUMMARY"))
    except OSError as error:
        raise ArmoryUsageError(f"{path} cannot be written: {error.strerror}") from None
