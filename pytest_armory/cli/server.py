"""The command ``armory-mlflow-server``: MLflow's own server over the local database."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from errno import EADDRNOTAVAIL
from importlib.metadata import version
from typing import NamedTuple

from pytest_armory.errors import ArmoryError, ArmoryUsageError
from pytest_armory.store.destination import Destination, resolve
from pytest_armory.store.pages import home_page

NAME = "armory-mlflow-server"

SERVERS = ("http://", "https://", "databricks", "uc")
"""The prefixes of tracking URIs that name a server."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the local database on http://127.0.0.1:5000; options are those of ``mlflow server``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments:
        return _help(arguments)
    try:
        planned = plan(arguments)
        _check_free(planned.host, planned.port)
    except ArmoryError as error:
        print(f"{NAME}: {error}", file=sys.stderr)  # noqa: T201 - a command's own error
        return 2
    print(planned.line, flush=True)  # noqa: T201 - the URL comes first, before MLflow's own lines
    # Not an argument: every user can read those of a process, and it may have a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = planned.store_uri
    # Two or more workers add 40 ms to each request, and job execution starts more processes.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Older versions open a connection for each use, and know no such option.
    if planned.store_uri.startswith("sqlite") and not version("sqlalchemy").startswith("1."):
        # A request that stores a trace holds one connection and waits for a second one: of 15 that
        # come at once, none would go on. Two for each of the server's threads cost nothing.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "100")
    return _replace_by(planned.command)


def _help(arguments: Sequence[str]) -> int:
    print(  # noqa: T201 - a command talks on stdout
        f"{NAME} [--armory-tracking-uri URI] [options of `mlflow server`]\n\n"
        "Serves the database under the Armory home (ARMORY_HOME, default ~/.armory), or the\n"
        "one that URI names, on http://127.0.0.1:5000. All else is passed on to:\n",
        flush=True,
    )
    return _replace_by(_command(arguments))


class Plan(NamedTuple):
    """What to serve and where, the first line to print, and the command to run."""

    host: str
    port: int
    store_uri: str
    line: str
    command: list[str]


def plan(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Plan:
    """What the options and the environment select; creates a missing database.

    Raises :class:`ArmoryUsageError` for a port or a store that cannot be served.
    """
    known, rest = _parser(environ).parse_known_args(list(arguments))
    port = _port(known.port)
    where = _store_to_serve(known.backend_store_uri or known.armory_tracking_uri, environ)
    options = ["--host", known.host, "--port", known.port]
    if where.artifacts is not None and not _is_given(rest, environ, "--artifacts-destination"):
        options += ["--artifacts-destination", where.artifacts.as_uri()]
    if not _is_given(rest, environ, "--workers", "-w"):
        options += ["--workers", "1"]
    host = f"[{known.host}]" if ":" in known.host else known.host
    page = home_page(f"http://{host}:{known.port}")
    line = f"{NAME}: {page} serves {where.display_uri} (Ctrl-C ends it)"
    return Plan(known.host, port, _made(where), line, _command([*options, *rest]))


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(NAME, add_help=False, allow_abbrev=False)
    parser.add_argument("--armory-tracking-uri")
    parser.add_argument("--backend-store-uri", default=environ.get("MLFLOW_BACKEND_STORE_URI"))
    parser.add_argument("--host", "-h", default=environ.get("MLFLOW_HOST") or "127.0.0.1")
    parser.add_argument("--port", "-p", default=environ.get("MLFLOW_PORT") or "5000")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ArmoryUsageError(
            f"the port must be a number from 1 to 65535, got {text!r}; as in --port 5001"
        )
    return int(text)


def _store_to_serve(uri: str | None, environ: Mapping[str, str]) -> Destination:
    tracking = environ.get("MLFLOW_TRACKING_URI", "")
    if uri is None and not tracking.startswith(SERVERS):
        uri = tracking or None
    where = resolve(uri, environ)
    if (where.uri or "").startswith(SERVERS):
        raise ArmoryUsageError(
            f"{where.display_uri} is a server already; give `local` or a database, as sqlite:///…"
        )
    from pytest_armory.store.database import check_usable

    check_usable(where)
    return where


def _made(where: Destination) -> str:
    """The URI for MLflow's server, once a database that is a file exists."""
    if where.database is None or where.artifacts is None:
        return where.uri or ""
    from pytest_armory.store.database import ensure_database, sqlite_uri

    ensure_database(where.database, where.artifacts)
    return where.uri or sqlite_uri(where.database)


def _is_given(arguments: Sequence[str], environ: Mapping[str, str], *names: str) -> bool:
    """Whether one of MLflow's options, or the variable that it reads for it, is set."""
    variable = f"MLFLOW_{names[0].strip('-').upper().replace('-', '_')}"
    return variable in environ or any(word.split("=")[0] in names for word in arguments)


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            is_of_host = isinstance(error, socket.gaierror) or error.errno == EADDRNOTAVAIL
            better = "--host 127.0.0.1" if is_of_host else f"--port {port + 1}"
            raise ArmoryUsageError(
                f"port {port} on {host} cannot be served: {error.strerror}; give another, as in "
                f"`{NAME} {better}`"
            ) from None


def _command(options: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "mlflow", "server", *options]


def _replace_by(command: list[str]) -> int:
    if os.name == "posix":
        sys.stdout.flush()
        os.execv(command[0], command)
    return subprocess.call(command)  # on Windows the prompt would return too early


if __name__ == "__main__":
    sys.exit(main())
