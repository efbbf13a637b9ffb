"""``pytest-armory samples``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from pytest_armory.cli.arguments import positive, writing
from pytest_armory.cli.stores import add_tracking_uri, check_exists, newest_session
from pytest_armory.errors import ArmoryUsageError
from pytest_armory.report.text import number, plural, shorten, table
from pytest_armory.session.stored_records import is_attempt
from pytest_armory.store import StoredRun, open_store
from pytest_armory.store.destination import Destination
from pytest_armory.tables import SampleTable
from pytest_armory.tables.files import worst_rows, write_csv
from pytest_armory.track.reading import find_run, read_samples

HELP = "print the worst samples of an evaluation"

CELL = 40
"""The most columns of a cell."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("RUN", help="the id of a run, or the node id of a test or its end")
    parser.add_argument("--session", metavar="S", help="the test's session, or latest (default)")
    parser.add_argument("--worst", metavar="N", type=positive, default=10, help="how many rows")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write all rows to a file, too")
    add_tracking_uri(parser)


def run(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """Print the worst samples of an evaluation: by its first score, then by the next."""
    check_exists(where)
    found = _find(where, arguments.RUN, arguments.session)
    samples = read_samples(where, found)
    if arguments.csv is not None:
        with writing(arguments.csv):
            write_csv(samples, arguments.csv)
    header, *rows = worst_rows(samples, arguments.worst)
    cells = [[shorten(_text(cell), CELL, keep_start=True) for cell in row] for row in rows]
    name = found.tags.get("armory.nodeid", found.name)
    return [f"{name}: {_summary(samples)}", *table([header, *cells])]


def _find(where: Destination, name: str, session: str | None) -> StoredRun:
    if session is None and _is_run_id(name):
        return find_run(where, name)
    store = open_store(where)
    if session in (None, "latest"):
        session = newest_session(store)
    runs = store.search.runs_of_session(session, store.experiments.ids())
    attempts = [one for one in runs if is_attempt(one)]
    nodeids = [one.tags["armory.nodeid"] for one in attempts]
    matching = [name] if name in nodeids else [n for n in nodeids if _ends(n, name)]
    if not matching or len(set(matching)) > 1:
        raise ArmoryUsageError(not_found(name, session, matching or nodeids, bool(matching)))
    return [one for one in attempts if one.tags["armory.nodeid"] == matching[0]][-1]


def _is_run_id(name: str) -> bool:
    return len(name) == 32 and set(name) <= set("0123456789abcdef")


def _ends(nodeid: str, name: str) -> bool:
    """Whether a name is the last parts of a node id, with or without its parameters."""
    plain = nodeid.partition("[")[0]
    parts = [0, *(part.end() for part in re.finditer("::|/", plain))]
    return any(name in (nodeid[start:], plain[start:]) for start in parts)


def not_found(name: str, session: str, nodeids: Sequence[str], several: bool) -> str:
    """The message for a name that is the end of no node id of a session, or of several."""
    if not nodeids:
        return f"the session {session!r} has no evaluation; `pytest-armory sessions` lists sessions"
    if several:
        found = list(dict.fromkeys(nodeids))
        some = ", ".join(found[:3]) + ", …" * (len(found) > 3)
        return (
            f"{name!r} is the end of {len(found):,} node ids in the session {session!r}: {some}; "
            "give one of them whole"
        )
    near = get_close_matches(name, nodeids, 1, cutoff=0.3) or nodeids[:1]
    return f"no evaluation {name!r} is in the session {session!r}; did you mean {near[0]!r}?"


def _summary(samples: SampleTable) -> str:
    scores = filter(None, map(samples.score, samples.names))
    means = [f"{s.name} {number(s.mean)}" if s.mean is not None else s.name for s in scores]
    partial = ", partial: the evaluation was cut short" if samples.is_partial else ""
    return f"{plural(samples.count, 'sample')}{partial}; {', '.join(means)}"


def _text(cell: object) -> str:
    if cell is None:
        return ""
    return number(cell) if isinstance(cell, float) else str(cell)
