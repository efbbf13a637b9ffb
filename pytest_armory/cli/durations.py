"""``pytest-armory durations``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from itertools import chain

from pytest_armory.cli.stores import add_tracking_uri, check_exists
from pytest_armory.errors import ArmoryUsageError
from pytest_armory.gates import baselines
from pytest_armory.gates.parse import Reference, parse_reference
from pytest_armory.session.durations import to_text
from pytest_armory.store import open_store
from pytest_armory.store.destination import Destination

HELP = "print how long each evaluation takes, for --armory-durations"

SEARCH_LIMIT = 5000
"""How many runs are searched, the newest first."""

_MEASURED = "tags.`armory.kind` = 'evaluation' AND tags.`armory.outcome` = '{}'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--from",
        metavar="REF",
        dest="reference",
        help="latest, branch:NAME, commit:SHA or a session's ID (default: each evaluation's newest "
        "run in the store)",
    )
    add_tracking_uri(parser)


def run(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """Print the seconds that each evaluation takes by its node id, as JSON.

    They are those of its newest run that passed, or else failed, with its setup and teardown.
    """
    reference = parse_reference(arguments.reference) if arguments.reference else None
    check_exists(where)
    found = _newest(where) if reference is None else _of(where, reference)
    if not found:
        raise ArmoryUsageError(f"no evaluation at {where.display_uri} has ended yet")
    return to_text(found).splitlines()


def _newest(where: Destination) -> Mapping[str, float]:
    search, ids = open_store(where).search, open_store(where).experiments.ids()
    runs = [
        search.runs(ids, _MEASURED.format(outcome), newest=True, most=SEARCH_LIMIT)
        for outcome in ("passed", "xfailed", "failed")
    ]
    found: dict[str, float] = {}
    for run in chain(*runs):
        if "duration_seconds" in run.metrics:
            nodeid = run.tags.get("armory.nodeid", "")
            found.setdefault(nodeid, run.metrics["duration_seconds"])
    found.pop("", None)
    return found


def _of(where: Destination, reference: Reference) -> Mapping[str, float]:
    baseline = baselines.find(where, reference)
    if baseline.problem:
        raise ArmoryUsageError(baseline.problem)
    every = (item for evaluations in baseline.runs.values() for item in evaluations.items())
    seconds = ((nodeid, runs[0].metrics.get("duration_seconds")) for nodeid, runs in every)
    return {nodeid: value for nodeid, value in seconds if value is not None}
