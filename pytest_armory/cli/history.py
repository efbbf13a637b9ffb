"""``pytest-armory history``."""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_armory.cli.arguments import positive, writing
from pytest_armory.cli.stores import add_tracking_uri, check_exists
from pytest_armory.errors import ArmoryUsageError
from pytest_armory.report.files import write_text_file, written_text
from pytest_armory.report.text import plural
from pytest_armory.report.trend import CSV_HEADER, Trend, csv_rows, trend_lines
from pytest_armory.session.history import histories
from pytest_armory.store import open_store
from pytest_armory.store.destination import Destination

HELP = "show evaluations over the latest sessions"

SHOWN = 20
"""How many evaluations are shown in the terminal; a CSV file has all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("PATTERN", help="a node id, or a part of node ids, with * for anything")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="M",
        help="the metric, also several times (default: the first one that tables show)",
    )
    parser.add_argument(
        "--sessions",
        type=positive,
        default=20,
        metavar="N",
        help="how many of its latest sessions (default: 20)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the points as CSV, too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="draw them on an HTML page, too")
    add_tracking_uri(parser)


def run(where: Destination, arguments: argparse.Namespace) -> Iterator[str]:
    """Show a metric of evaluations over sessions: value, interval, change, verdict, commit.

    The newest session comes first, below a sparkline of all of them.
    """
    check_exists(where)
    pattern = arguments.PATTERN
    trends = histories(open_store(where), pattern, arguments.sessions, arguments.metric)
    if not trends:
        raise ArmoryUsageError(
            f"no evaluation at {where.display_uri} with a metric matches {pattern!r}; "
            "`pytest-armory report` lists those of a session"
        )
    trends = [trend for trend in trends if trend.is_known]
    if not trends:
        raise ArmoryUsageError(
            f"no evaluation at {where.display_uri} that matches {pattern!r} has logged "
            f"{' or '.join(map(repr, arguments.metric))}; without --metric the first metric of its "
            "table is shown"
        )
    if arguments.csv is not None:
        _write_csv(arguments.csv, trends)
    if arguments.html is not None:
        _write_page(arguments.html, trends, where)
    yield from _lines(trends)
    if arguments.csv is not None:
        yield f"the points are {written_text(arguments.csv)}"
    if arguments.html is not None:
        yield f"the page is {written_text(arguments.html)}"


def _write_page(path: Path, trends: list[Trend], where: Destination) -> None:
    from pytest_armory.report.page import trends_page

    with writing(path):
        write_text_file(path, trends_page(trends, where.display_uri))


def _lines(trends: list[Trend]) -> Iterable[str]:
    width = shutil.get_terminal_size((100, 24)).columns
    for i, trend in enumerate(trends[:SHOWN]):
        yield from ["", *trend_lines(trend, width)] if i else trend_lines(trend, width)
    if len(trends) > SHOWN:
        yield f"… {plural(len(trends) - SHOWN, 'more trend')}; give a longer part of the node id"


def _write_csv(path: Path, trends: list[Trend]) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(CSV_HEADER)
            writer.writerows(row for trend in trends for row in csv_rows(trend))
