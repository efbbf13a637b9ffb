"""The command ``pytest-armory``: what is done about sessions outside of pytest."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence

from pytest_armory import destination, recovery
from pytest_armory.destination import Destination
from pytest_armory.errors import ArmoryError
from pytest_armory.records import Outcome
from pytest_armory.reports import age, printable, table
from pytest_armory.store import StoredRun, open_store

NAME = "pytest-armory"

_URI_HELP = (
    "the store: `local`, the database under the Armory home (the default), or any MLflow tracking "
    "URI (environment: MLFLOW_TRACKING_URI)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; its exit status is 0, or 2 with an error on stderr."""
    arguments = _parser().parse_args(argv)
    uri = arguments.armory_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    try:
        lines = arguments.run(destination.resolve(uri), arguments)
        for line in lines:
            print(printable(line))  # noqa: T201 - a command talks on stdout
    except ArmoryError as error:
        print(f"{NAME}: {error}", file=sys.stderr)  # noqa: T201 - a command's own error
        return 2
    except BrokenPipeError:  # `| head` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(NAME, description="Sessions of tracked evaluations.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("sessions", _sessions, "list the latest sessions"),
        ("recover", _recover, "close the runs that a killed process left RUNNING"),
    ):
        command = commands.add_parser(name, help=text, description=run.__doc__)
        command.add_argument("--armory-tracking-uri", metavar="URI", help=_URI_HELP)
        command.set_defaults(run=run)
        if name == "recover":
            command.add_argument(
                "--session",
                metavar="ID",
                help="also close every run of this session that was opened elsewhere, on another "
                "machine say: you know that it is over",
            )
        else:
            command.add_argument(
                "-n", "--most", type=_positive, default=20, help="how many (default: 20)"
            )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def _sessions(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """List the latest sessions: verdict, counts, commit, branch, and how long ago they began."""
    if not _exists(where):
        return [_nothing(where)]
    # A session has a run in each of its experiments, with the same counts in all.
    runs = open_store(where).latest_sessions(arguments.most * 10)
    sessions: dict[str, list[StoredRun]] = {}
    for run in runs:
        sessions.setdefault(run.tags.get("armory.session", ""), []).append(run)
    if not sessions:
        return [_nothing(where)]
    rows = [_row(session, of_it) for session, of_it in sessions.items()][: arguments.most]
    return table([("session", "verdict", "evaluations", "commit", "branch", "began"), *rows])


_VERDICTS = {"FINISHED": "passed", "FAILED": "failed", "KILLED": "interrupted"}


def _row(session: str, runs: Sequence[StoredRun]) -> tuple[str, ...]:
    run = runs[0]
    counts = [
        f"{int(run.metrics[name]):,} {name.replace('_', ' ')}"
        for name in (*(outcome.value for outcome in Outcome), "not_run")
        if run.metrics.get(name)
    ]
    commit = run.tags.get("mlflow.source.git.commit", "")[:8]
    dirty = "+" if run.tags.get("armory.git.dirty") == "true" else ""
    return (
        session,
        _VERDICTS.get(run.status, run.status.lower()),
        ", ".join(counts),
        commit + dirty,
        run.tags.get("mlflow.source.git.branch", ""),
        age(time.time() - min(one.start for one in runs) / 1000),
    )


def _recover(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """Close the runs that a killed process of this machine left RUNNING.

    A run whose process is alive is never touched. Safe to run at any time, and again.
    """
    found = recovery.recover(where, arguments.session)
    for run in found.closed:
        outcome = run.tags.get("armory.outcome", "")
        yield f"closed {run.run_id} ({run.name}{f', {outcome}' if outcome else ''})"
    if not found.closed:
        of_it = f" of session {arguments.session}" if arguments.session else ""
        yield f"nothing to close{of_it} at {where.shown}; see `{NAME} sessions`"
    if found.alive:
        yield f"left alone: {_of_sessions(found.alive)}, at work on this machine"
    if found.unknown:
        session = found.unknown[0].tags["armory.session"]
        yield (
            f"left alone: {_of_sessions(found.unknown)}, opened on another machine or under "
            "another Armory home; recover them there, or if you know that a session is over: "
            f"{NAME} recover --session {session}"
        )


def _of_sessions(runs: Sequence[StoredRun]) -> str:
    sessions = ", ".join(dict.fromkeys(run.tags["armory.session"] for run in runs))
    return f"{len(runs):,} open run{'' if len(runs) == 1 else 's'} of {sessions}"


def _exists(where: Destination) -> bool:
    return where.database is None or where.database.exists()


def _nothing(where: Destination) -> str:
    return f"no sessions at {where.shown}; `pytest --armory-track` makes one"


if __name__ == "__main__":
    sys.exit(main())
