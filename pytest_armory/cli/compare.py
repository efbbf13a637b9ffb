"""``pytest-armory compare``."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pytest_armory.cli.arguments import writing
from pytest_armory.cli.stores import add_tracking_uri, check_exists, newest_session, no_such_session
from pytest_armory.errors import ArmoryUsageError
from pytest_armory.gates import baselines
from pytest_armory.gates.parse import Reference, parse_reference
from pytest_armory.gates.past_runs import has_noise_gate
from pytest_armory.records.judging_tag import Judging
from pytest_armory.report.files import write_text_file
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.sentences import missed_lines
from pytest_armory.report.summary import Summary, latest, missed_gates
from pytest_armory.report.terminal import terminal_lines
from pytest_armory.session.comparison import Comparison, compare_session
from pytest_armory.session.stored_records import is_attempt, recorded_judging
from pytest_armory.store import open_store
from pytest_armory.store.destination import Destination

HELP = "compare two sessions; the exit status is 1 if a gate is missed"

FLIPS = 20
"""How many samples that were answered differently are listed of one score."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("A", help="the baseline: latest, branch:NAME, commit:SHA or a session")
    parser.add_argument("B", help="the session that is compared with it: latest, or its ID")
    parser.add_argument("--summary", metavar="PATH", type=Path, help="write it as Markdown, too")
    parser.add_argument(
        "--samples", action="store_true", help="list the samples that A and B answered differently"
    )
    parser.add_argument(
        "--exit-zero", action="store_true", help="exit with 0 where a gate is missed, too"
    )
    add_tracking_uri(parser)


def run(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """Print the table of session B, with its changes against A.

    The exit status is 1 if a gate of B is missed against A, unless --exit-zero is given.
    """
    a, b = parse_reference(arguments.A), parse_reference(arguments.B)
    if b.kind not in ("session", "latest"):
        raise ArmoryUsageError(f"B must be a session's ID or latest, got {arguments.B!r}")
    check_exists(where)
    summary, comparison = _compare(where, a, b)
    if missed_gates(latest(summary.records)) and not arguments.exit_zero:
        arguments.status = 1
    if arguments.summary is not None:
        _write(arguments.summary, to_markdown(summary))
    width = shutil.get_terminal_size((100, 24)).columns
    lines = [line.text.rstrip() for line in terminal_lines(summary, width, verbosity=1)]
    flips = _flips(summary, comparison) if arguments.samples else []
    return [*lines, *missed_lines(summary.records), *flips]


def _flips(summary: Summary, comparison: Comparison) -> list[str]:
    records = latest(summary.records)
    lines = [line for record in records for line in comparison.flip_lines(record, FLIPS)]
    return lines or ["no sample that both have was answered differently"]


def _compare(where: Destination, a: Reference, b: Reference) -> tuple[Summary, Comparison]:
    store = open_store(where)
    session = b.value or newest_session(store)
    runs = store.search.runs_of_session(session, store.experiments.ids())
    if not any(map(is_attempt, runs)):
        raise ArmoryUsageError(no_such_session(session, where))
    if a.kind == "session" and a.value == session:
        raise ArmoryUsageError(
            f"A and B are the same session, {session}; `pytest-armory sessions` has more"
        )
    judging = recorded_judging(runs, []) or Judging()
    baseline = baselines.find(where, a, session, baselines.Wanted(judging.pooled))
    if any(map(has_noise_gate, runs)) and baseline.runs:
        baseline = baselines.with_history(where, baseline, session)
    return compare_session(where, store, session, runs, baseline)


def _write(path: Path, text: str) -> None:
    with writing(path):
        # GitHub's file may have the summaries of other steps.
        write_text_file(path, text, append=str(path) == os.environ.get("GITHUB_STEP_SUMMARY"))
