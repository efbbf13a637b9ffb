"""Real servers on loopback, and a proxy in front of one that sees every request."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import SystemRandom

import pytest
from forked import Command
from loopback import Handler, listening
from werkzeug.security import generate_password_hash

from pytest_armory.store.database import sqlite_uri

ForkServer = Callable[[], str]


def free_port() -> int:
    """A port for a server that is about to be started: none that the system gives to others."""
    for port in SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL where nobody listens, and no server of another test can: its port is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="session")
def mlflow_server(
    tmp_path_factory: pytest.TempPathFactory, database_template: Path, fork_server: ForkServer
) -> Iterator[str]:
    """The URL of a real MLflow server over a database file, artifacts proxied."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(database_template, folder / "mlflow.db")
    with served(fork_server(), folder) as url:
        yield url


ADMIN = ("admin", "correct-horse-battery-staple")


@pytest.fixture(scope="session")
def auth_server(
    tmp_path_factory: pytest.TempPathFactory, database_template: Path, fork_server: ForkServer
) -> Iterator[str]:
    """The same with MLflow's own basic-auth app in front; only :data:`ADMIN` may log in."""
    folder = tmp_path_factory.mktemp("auth-server")
    shutil.copy(database_template, folder / "mlflow.db")
    config = folder / "auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {ADMIN[0]}\nadmin_password = {ADMIN[1]}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for tests",
    }
    with served(fork_server(), folder, "--app-name", "basic-auth", **environment) as url:
        _hash_quickly(folder / "auth.db")
        yield url


def _hash_quickly(users: Path) -> None:
    """Let the server check passwords in no time: its own hash takes 0.1 s of every request."""
    quick = generate_password_hash(ADMIN[1], "pbkdf2:sha256:1")
    with closing(sqlite3.connect(users)) as database, database:
        database.execute("UPDATE users SET password_hash = ?", (quick,))


@pytest.fixture(scope="session")
def postgres_server(
    tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> Iterator[str]:
    """The same over PostgreSQL."""
    pgserver = pytest.importorskip("pgserver")
    folder = tmp_path_factory.mktemp("pg")
    starting = pgserver.postgres_server
    pg_ctl = starting.pg_ctl

    def patiently(*args: object, **options: object) -> object:
        return pg_ctl(*args, **{**options, "timeout": 300})

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of a runtime folder that a container has not
        # It gives up after 10 s, in which a busy machine may not have started the server.
        patch.setattr(starting, "pg_ctl", patiently)
        database = pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        uri = database.get_uri().replace("postgresql:", "postgresql+psycopg2:")
        with served(fork_server(), folder, database=uri) as url:
            yield url
    finally:
        database.cleanup()


@contextmanager
def served(
    fork_server: str, folder: Path, *options: str, database: str | None = None, **variables: str
) -> Iterator[str]:
    port = free_port()
    command = [
        *("mlflow", "server", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database or sqlite_uri(folder / "mlflow.db")),
        *("--artifacts-destination", str(folder / "artifacts")),
        *("--default-artifact-root", "mlflow-artifacts:/"),
        *options,
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **variables}.items():
            patch.setenv(name, value)
        with started(fork_server, folder, f"http://127.0.0.1:{port}", *command) as url:
            patch.undo()
            yield url


@contextmanager
def started(fork_server: str, folder: Path, url: str, *command: str) -> Iterator[str]:
    """What a command serves, from its first answer on."""
    with (folder / "log.txt").open("w") as log:
        files = (log.fileno(), log.fileno())
        server = Command(fork_server, *command, folder=folder, files=files)
    try:
        _wait_for(f"{url}/health", server, folder / "log.txt")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # it would wait for its clients
        server.wait(30)


def _wait_for(url: str, server: Command, log: Path) -> None:
    deadline = time.monotonic() + 300  # one of several on a busy machine
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the MLflow server did not start:\n{log.read_text()}")


Fault = Callable[["Proxy", Handler], bool]
"""Whether it has dealt with a request, in its way."""


class Proxy:
    """Forwards to a server; ``seen`` is every request as ``METHOD path``, in order of arrival.

    ``times`` are when they came. ``before`` is called with each; ``fault`` may deal with it before
    the server has seen it, ``after`` once that has answered.
    """

    url: str

    def __init__(self, server: str) -> None:
        self.server = server
        self.seen: list[str] = []
        self.times: list[float] = []
        self.before: Callable[[str], None] = lambda _: None
        self.fault: Fault | None = None
        self.after: Fault | None = None
        self._settled = threading.Condition()
        self._under_way = 0

    def settle(self) -> None:
        """Wait until the server has done what it was asked, if only by clients that have ended."""
        with self._settled:
            assert self._settled.wait_for(lambda: not self._under_way, 300)

    def count(self, part: str) -> int:
        return sum(part in request for request in self.seen)

    def respond(self, handler: Handler) -> None:
        with self._settled:
            self._under_way += 1
        try:
            self._respond(handler)
        finally:
            with self._settled:
                self._under_way -= 1
                self._settled.notify_all()

    def _respond(self, handler: Handler) -> None:
        request = f"{handler.command} {handler.path.partition('?')[0]}"
        self.times.append(time.monotonic())
        self.seen.append(request)
        self.before(request)
        if self.fault is not None and self.fault(self, handler):
            return
        status, content, kind = handler.answer_of(self.server)
        if self.after is not None and self.after(self, handler):
            return
        handler.give(status, content, Content_Type=kind)


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with proxied(mlflow_server) as proxy:
        yield proxy


@contextmanager
def proxied(server: str) -> Iterator[Proxy]:
    proxy = Proxy(server)
    with listening(proxy.respond) as proxy.url:
        yield proxy
