"""The command ``pytest-armory``: sessions, outside of pytest."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Protocol

from pytest_armory.cli import (
    compare,
    durations,
    history,
    recover,
    report,
    sessions,
    sync,
    worst_samples,
)
from pytest_armory.cli.stores import logged_in
from pytest_armory.errors import ArmoryError, ArmoryUsageError
from pytest_armory.report.text import printable
from pytest_armory.store import destination
from pytest_armory.store.destination import Destination

NAME = "pytest-armory"


class Command(Protocol):
    """The module of a command. The docstring of ``run`` is the text of its ``--help``."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Add its arguments, and its exit statuses where they differ from those in ``_parser``."""

    def run(self, where: Destination, arguments: argparse.Namespace, /) -> Iterable[str]:
        """Run the command, and yield the lines to print. Raises :class:`ArmoryError`.

        It may set ``arguments.status`` to an exit status other than 0.
        """


COMMANDS: dict[str, Command] = {
    "sessions": sessions,
    "recover": recover,
    "compare": compare,
    "report": report,
    "history": history,
    "durations": durations,
    "samples": worst_samples,
    "sync": sync,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; its exit status is 0, or 2 with an error on stderr.

    That of ``sync`` is 1 if something is not uploaded, that of ``report`` if not all is well.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may lack an arrow of the table
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    try:
        _print_lines(arguments)
    except ArmoryUsageError as error:
        return _failed(error, 2)
    except ArmoryError as error:
        return _failed(error, arguments.failure_status)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except BrokenPipeError:  # as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(arguments.broken_pipe_status)
    return int(arguments.status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(NAME, description="Sessions of tracked evaluations.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.HELP, description=command.run.__doc__)
        subparser.set_defaults(run=command.run, status=0, failure_status=2, broken_pipe_status=0)
        command.add_arguments(subparser)
    return parser


def _print_lines(arguments: argparse.Namespace) -> None:
    uri = arguments.armory_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    with logged_in(destination.resolve(uri)) as where:
        for line in arguments.run(where, arguments):
            print(printable(line), flush=True)  # noqa: T201 - a command talks on stdout


def _failed(error: object, status: int) -> int:
    for sentence in getattr(error, "args", None) or [error]:
        text = printable(str(sentence))
        print(f"{NAME}: {text}", file=sys.stderr)  # noqa: T201 - a command's own error
    return status


if __name__ == "__main__":
    sys.exit(main())
