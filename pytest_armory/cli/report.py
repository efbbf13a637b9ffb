"""``pytest-armory report``."""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic, sleep

from pytest_armory.cli.arguments import writing
from pytest_armory.cli.stores import (
    add_tracking_uri,
    check_exists,
    given_store,
    newest_session,
    no_such_session,
)
from pytest_armory.errors import ArmoryUsageError
from pytest_armory.report.files import write_text_file, written_text
from pytest_armory.report.markdown import to_markdown
from pytest_armory.report.sentences import missed_lines
from pytest_armory.report.terminal import terminal_lines
from pytest_armory.session.whole_session import WholeSession, read_session
from pytest_armory.store import Store, open_store
from pytest_armory.store.destination import Destination

HELP = "report a session over all its jobs; the exit status is 1 unless all of it is well"

POLL = 5.0
"""Seconds between two looks at a session that is waited for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "SESSION",
        nargs="?",
        help="the session's ID, or latest (default: ARMORY_SESSION, else the latest)",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        default=0.0,
        help="wait so long at most for jobs that have not come or not ended",
    )
    parser.add_argument(
        "--summary",
        metavar="PATH",
        type=Path,
        help="write it as Markdown, too (the file that GITHUB_STEP_SUMMARY names gets it without "
        "asking)",
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write it as an HTML page, too")
    parser.add_argument(
        "--comment",
        action="store_true",
        help="comment the pull or merge request of this CI job with it, or update the comment",
    )
    parser.add_argument(
        "--comment-name",
        metavar="NAME",
        default="",
        help="tell the comment from others of the same job, as in a matrix of GitHub's",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="the exit status is 1 if the comment could not be made, too",
    )
    add_tracking_uri(parser)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, got {text!r}")
    return seconds


def run(where: Destination, arguments: argparse.Namespace) -> Iterator[str]:
    """Print the table of one session as a whole, and what is missing of it.

    The exit status is 0 if every evaluation of every shard has run and none has failed, else 1;
    2 if there is no such session.
    """
    whole = _wait_for(where, arguments)
    yield from _lines(whole)
    for problem in _write(whole, arguments.summary):
        yield f"warning: {problem}"
    if arguments.html is not None:
        _write_page(where, whole, arguments.html)
        yield f"the page is {written_text(arguments.html)}"
    arguments.status = 0 if whole.has_passed else 1
    if arguments.comment:
        from pytest_armory.cli.comment import post_comment

        posted = post_comment(partial(to_markdown, whole.summary), name=arguments.comment_name)
        yield posted.text
        if arguments.strict and not posted.is_ok:
            arguments.status = 1


def _write_page(where: Destination, whole: WholeSession, path: Path) -> None:
    from pytest_armory.session.page import write_page

    with writing(path):
        write_page(open_store(where), whole.summary, path)


def _wait_for(where: Destination, arguments: argparse.Namespace) -> WholeSession:
    """The session once nothing more of it may come, or when it has been waited for."""
    deadline = monotonic() + arguments.wait
    while True:
        whole = _read(where, arguments)
        left = deadline - monotonic()
        if left <= 0 or (whole is not None and not whole.is_open):
            break
        sleep(min(POLL, left))
    if whole is None:
        check_exists(where)
        name = arguments.SESSION or os.environ.get("ARMORY_SESSION", "")
        raise ArmoryUsageError(no_such_session(name, where))
    return whole


def _read(where: Destination, arguments: argparse.Namespace) -> WholeSession | None:
    if not where.exists:
        return None
    store = open_store(where)
    session = _session(store, arguments.SESSION)
    return read_session(store, session, where, given_store(where, arguments)) if session else None


def _session(store: Store, given: str | None) -> str:
    name = given or os.environ.get("ARMORY_SESSION", "")
    return newest_session(store) if name in ("", "latest") else name


def _lines(whole: WholeSession) -> Iterable[str]:
    width = shutil.get_terminal_size((100, 24)).columns
    lines = [line.text.rstrip() for line in terminal_lines(whole.summary, width, verbosity=1)]
    return [*lines, *missed_lines(whole.summary.records)]


def _write(whole: WholeSession, path: Path | None) -> Iterator[str]:
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    paths = dict.fromkeys(p for p in (path, Path(step) if step else None) if p is not None)
    for one in paths:
        try:
            # GitHub's file may have the summaries of other steps.
            write_text_file(one, to_markdown(whole.summary), append=str(one) == step)
        except OSError as error:
            yield f"the summary could not be written to {one}: {error.strerror}"
