"""Real servers on loopback, and a proxy in front of one that sees every request."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pytest_armory.store.database import sqlite_uri


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_server(
    tmp_path_factory: pytest.TempPathFactory, database_template: Path
) -> Iterator[str]:
    """The URL of a real MLflow server over a database file, artifacts proxied."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(database_template, folder / "mlflow.db")
    with _served(folder) as url:
        yield url


ADMIN = ("admin", "correct-horse-battery-staple")


@pytest.fixture(scope="session")
def auth_server(tmp_path_factory: pytest.TempPathFactory, database_template: Path) -> Iterator[str]:
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
    with _served(folder, "--app-name", "basic-auth", **environment) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same over PostgreSQL."""
    pgserver = pytest.importorskip("pgserver")
    folder = tmp_path_factory.mktemp("pg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a runtime folder that a container has not
        database = pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        uri = database.get_uri().replace("postgresql:", "postgresql+psycopg2:")
        with _served(folder, database=uri) as url:
            yield url
    finally:
        database.cleanup()


@contextmanager
def _served(
    folder: Path, *options: str, database: str | None = None, **variables: str
) -> Iterator[str]:
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database or sqlite_uri(folder / "mlflow.db")),
        *("--artifacts-destination", str(folder / "artifacts")),
        *("--default-artifact-root", "mlflow-artifacts:/"),
        *options,
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **variables}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/health", server, folder / "log.txt")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the MLflow server did not start:\n{log.read_text()}")


class Proxy:
    """Forwards to a server; ``seen`` is every request as ``METHOD path``, in order of arrival."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen: list[str] = []
        self.before: Callable[[str], None] = lambda _: None

    def count(self, part: str) -> int:
        return sum(part in request for request in self.seen)


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with proxied(mlflow_server) as proxy:
        yield proxy


@contextmanager
def proxied(server: str) -> Iterator[Proxy]:
    port = int(server.rpartition(":")[2])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            request = f"{self.command} {self.path.partition('?')[0]}"
            proxy.seen.append(request)
            proxy.before(request)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers))
            response = upstream.getresponse()
            content = response.read()
            self.send_response(response.status)
            self.send_header("Content-Type", response.getheader("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            upstream.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815 - http.server's

        def log_message(self, *args: object) -> None:
            """Say nothing on stderr."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy = Proxy(listening.server_port)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
