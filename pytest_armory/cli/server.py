"""The command ``armory-mlflow-server``: MLflow's own server over the local database."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_armory.errors import ArmoryError, ArmoryUsageError
from pytest_armory.store import destination

NAME = "armory-mlflow-server"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the local database on http://127.0.0.1:5000; options are those of ``mlflow server``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments:
        print(  # noqa: T201 - a command talks on stdout
            f"{NAME} [--armory-tracking-uri URI] [options of `mlflow server`]\n\n"
            "Serves the database under the Armory home (ARMORY_HOME, default ~/.armory), or the\n"
            "one that URI names, on http://127.0.0.1:5000. All else is passed on to:\n",
            flush=True,
        )
        return _replace_by(_command(arguments))
    try:
        planned = plan(arguments)
        _check_free(planned.host, planned.port)
    except ArmoryError as error:
        print(f"{NAME}: {error}", file=sys.stderr)  # noqa: T201 - a command's own error
        return 2
    print(planned.line, flush=True)  # noqa: T201 - the URL comes first, before MLflow's own lines
    # Not as an argument: those of a process can be read by every user, and it may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = planned.store_uri
    # Two or more workers add 40 ms to each request, and jobs start processes nobody asked for.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    return _replace_by(planned.command)


class Plan(NamedTuple):
    """What to serve, where, the line to say first, and the command to run."""

    host: str
    port: int
    store_uri: str
    line: str
    command: list[str]


def plan(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Plan:
    """What the options and the environment ask for; makes a missing database."""
    parser = argparse.ArgumentParser(NAME, add_help=False, allow_abbrev=False)
    parser.add_argument("--armory-tracking-uri")
    parser.add_argument("--backend-store-uri", default=environ.get("MLFLOW_BACKEND_STORE_URI"))
    parser.add_argument("--host", "-h", default=environ.get("MLFLOW_HOST") or "127.0.0.1")
    parser.add_argument("--port", "-p", default=environ.get("MLFLOW_PORT") or "5000")
    known, rest = parser.parse_known_args(list(arguments))
    if not known.port.isdecimal() or not 0 < int(known.port) < 65536:
        raise ArmoryUsageError(
            f"the port must be a number from 1 to 65535, got {known.port!r}; as in --port 5001"
        )
    where = _served(known.backend_store_uri or known.armory_tracking_uri, environ)
    options = ["--host", known.host, "--port", known.port]
    store_uri = where.uri or ""
    if where.database is not None and where.artifacts is not None:
        from pytest_armory.store.database import ensure_database, sqlite_uri

        ensure_database(where.database, where.artifacts)
        store_uri = where.uri or sqlite_uri(where.database)
        if not _given(rest, environ, "--artifacts-destination"):
            options += ["--artifacts-destination", where.artifacts.as_uri()]
    if not _given(rest, environ, "--workers", "-w"):
        options += ["--workers", "1"]
    host = f"[{known.host}]" if ":" in known.host else known.host
    line = f"{NAME}: http://{host}:{known.port} serves {where.display_uri} (Ctrl-C ends it)"
    return Plan(known.host, int(known.port), store_uri, line, _command([*options, *rest]))


def _served(uri: str | None, environ: Mapping[str, str]) -> destination.Destination:
    tracking = environ.get("MLFLOW_TRACKING_URI", "")
    if uri is None and not tracking.startswith(("http://", "https://", "databricks", "uc")):
        uri = tracking or None
    where = destination.resolve(uri, environ)
    if (where.uri or "").startswith(("http://", "https://", "databricks", "uc")):
        raise ArmoryUsageError(
            f"{where.display_uri} is a server already; give `local` or a database, as sqlite:///…"
        )
    from pytest_armory.store.database import check_usable

    check_usable(where)
    return where


def _given(arguments: Sequence[str], environ: Mapping[str, str], *names: str) -> bool:
    variable = f"MLFLOW_{names[0].strip('-').upper().replace('-', '_')}"
    return variable in environ or any(word.split("=")[0] in names for word in arguments)


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ArmoryUsageError(
                f"port {port} on {host} cannot be served: {error.strerror}; give another, as in "
                f"`{NAME} --port {port + 1}`"
            ) from None


def _command(options: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "mlflow", "server", *options]


def _replace_by(command: list[str]) -> int:
    if os.name == "posix":
        sys.stdout.flush()
        os.execv(command[0], command)
    return subprocess.call(command)  # Windows would give the prompt back too early


if __name__ == "__main__":
    sys.exit(main())
