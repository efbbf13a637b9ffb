"""armory-mlflow-server: what it decides, and one real server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from servers import free_port, started

from pytest_armory.cli import server
from pytest_armory.cli.server import plan
from pytest_armory.errors import ArmoryUsageError
from pytest_armory.store import database
from pytest_armory.store.database import sqlite_uri
from pytest_armory.store.pages import run_page
from pytest_armory.track import track_evaluation, track_metrics

pytestmark = pytest.mark.usefixtures("armory_home")


# --- What it decides -----------------------------------------------------------------------------


def options(command: list[str]) -> dict[str, str]:
    """The options of ``python -m mlflow server`` by name."""
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    return dict(zip(command[4::2], command[5::2], strict=True))


def test_the_home_is_served_on_loopback(armory_home: Path) -> None:
    planned = plan([])
    path = armory_home / "mlruns" / "mlflow.db"
    assert (planned.host, planned.port) == ("127.0.0.1", 5000)
    assert planned.store_uri == sqlite_uri(path)
    assert planned.line == (
        f"armory-mlflow-server: http://127.0.0.1:5000/#/?workflowType=machine_learning serves "
        f"{path} (Ctrl-C ends it)"
    )
    assert options(planned.command) == {
        "--host": "127.0.0.1",
        "--port": "5000",
        "--artifacts-destination": (armory_home / "mlruns" / "artifacts").as_uri(),
        "--workers": "1",
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "5001"], {"--port": "5001"}),
        (["-p5001"], {"--port": "5001"}),
        (["--port=5001", "-h", "0.0.0.0"], {"--port": "5001", "--host": "0.0.0.0"}),
        (["--workers", "4"], {"--workers": "4"}),
        (["-w", "4"], {"-w": "4"}),
        (["--artifacts-destination", "s3://b"], {"--artifacts-destination": "s3://b"}),
        (["--x-frame-options", "DENY"], {"--x-frame-options": "DENY", "--workers": "1"}),
        (["--uvicorn-opts", "--port 7"], {"--uvicorn-opts": "--port 7", "--port": "5000"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mlflows_own_options_are_passed_on(arguments: list[str], expected: dict[str, str]) -> None:
    found = options(plan(arguments).command)
    assert expected.items() <= found.items()
    assert not {"--workers", "-w"} <= found.keys()


@pytest.mark.parametrize(
    ("variable", "value", "option", "passed"),
    [
        ("MLFLOW_HOST", "0.0.0.0", "--host", "0.0.0.0"),
        ("MLFLOW_PORT", "5002", "--port", "5002"),
        ("MLFLOW_WORKERS", "3", "--workers", None),
        ("MLFLOW_ARTIFACTS_DESTINATION", "s3://b", "--artifacts-destination", None),
    ],
)
def test_mlflows_own_variables_hold(
    variable: str, value: str, option: str, passed: str | None
) -> None:
    planned = plan([], {**os.environ, variable: value})
    assert options(planned.command).get(option) == passed  # MLflow reads the others itself


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--armory-tracking-uri", "{}"], {}),
        (["--backend-store-uri", "{}"], {}),
        ([], {"MLFLOW_BACKEND_STORE_URI": "{}"}),
        ([], {"MLFLOW_TRACKING_URI": "{}"}),
    ],
    ids=["our option", "MLflow's option", "server's variable", "client's variable"],
)
def test_another_database_is_made_and_served_with_artifacts_beside_it(
    arguments: list[str],
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[Path, Path]] = []
    monkeypatch.setattr(database, "ensure_database", lambda *paths: made.append(paths))
    folder = tmp_path / "else where"
    uri = sqlite_uri(folder / "runs.db")
    given = {name: value.format(uri) for name, value in environ.items()}
    planned = plan([word.format(uri) for word in arguments], {**os.environ, **given})
    assert planned.store_uri == uri
    assert options(planned.command)["--artifacts-destination"] == (folder / "artifacts").as_uri()
    assert made == [(folder / "runs.db", folder / "artifacts")]


def test_the_home_is_served_though_a_server_is_tracked_to(armory_home: Path) -> None:
    planned = plan([], {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"})
    assert planned.store_uri == sqlite_uri(armory_home / "mlruns" / "mlflow.db")


def test_a_password_is_in_no_argument_and_not_shown() -> None:
    planned = plan(["--backend-store-uri", "postgresql://user:secret@host/db"])
    assert planned.store_uri == "postgresql://user:secret@host/db"
    assert "secret" not in " ".join([*planned.command, planned.line])
    assert "--artifacts-destination" not in planned.command


def test_the_url_of_an_ipv6_address() -> None:
    assert "http://[::1]:5000/#/?workflowType=" in plan(["--host", "::1"]).line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "http"], "must be a number from 1 to 65535, got 'http'; as in --port 5001"),
        (["--port", "0"], "from 1 to 65535"),
        (["--port", "70000"], "from 1 to 65535"),
        (["--armory-tracking-uri", "http://u:secret@h"], r"http://\[redacted\]@h is a server alr"),
        (["--backend-store-uri", "databricks"], "is a server already"),
        (["--backend-store-uri", "file:runs"], "cannot be used"),
    ],
)
def test_what_cannot_be_served_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ArmoryUsageError, match=message):
        plan(arguments)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that this process would have been replaced by."""
    commands: list[list[str]] = []
    monkeypatch.setattr(server, "_replace_by", lambda command: commands.append(command) or 0)
    for name in (
        "MLFLOW_BACKEND_STORE_URI",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW",
    ):
        monkeypatch.setenv(name, "")  # so that what main sets is taken back
        monkeypatch.delenv(name)
    return commands


def test_main_says_the_url_and_hands_over(
    executed: list[list[str]], capsys: pytest.CaptureFixture[str], armory_home: Path
) -> None:
    port = free_port()
    assert server.main(["--port", str(port)]) == 0
    assert capsys.readouterr().out.startswith(f"armory-mlflow-server: http://127.0.0.1:{port}/#/?")
    assert options(executed[0])["--port"] == str(port)
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == sqlite_uri(armory_home / "mlruns/mlflow.db")
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert os.environ["MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"] == "100"


def test_help_is_ours_and_then_mlflows(
    executed: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.main(["--help"]) == 0
    assert "ARMORY_HOME" in capsys.readouterr().out
    assert executed[0][3:] == ["server", "--help"]


def test_a_taken_port_is_one_line(
    executed: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert server.main(["--port", str(port)]) == 2
    out, err = capsys.readouterr()
    assert (out, executed) == ("", [])
    assert err == (
        f"armory-mlflow-server: port {port} on 127.0.0.1 cannot be served: Address already in "
        f"use; give another, as in `armory-mlflow-server --port {port + 1}`\n"
    )


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"], ids=["unknown", "other"])
def test_a_host_that_is_not_this_machines_is_no_matter_of_the_port(
    executed: list[list[str]], capsys: pytest.CaptureFixture[str], host: str
) -> None:
    assert server.main(["--host", host, "--port", "5001"]) == 2
    assert executed == []
    assert "give another, as in `armory-mlflow-server --host 127.0.0.1`" in capsys.readouterr().err


# --- A real one ----------------------------------------------------------------------------------


class Running:
    """The command in a process group of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [Path(sys.executable).with_name("armory-mlflow-server"), *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()

    def wait_for(self, url: str) -> bytes:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return bytes(answer.read())
            except OSError:
                time.sleep(0.1)
        pytest.fail(f"{url} does not answer: {self.end(signal.SIGKILL)}")

    def is_alive(self) -> bool:
        """Whether any process of the group is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def gone(self) -> None:
        """Wait until none is left: what has ended is there until its parent has noticed."""
        deadline = time.monotonic() + 300
        while self.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self, number: int) -> str:
        """Signal the command alone, as Ctrl-C or a supervisor does, and read what it said."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=300)
        return str(out)

    def clean_up(self) -> None:
        if self.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@pytest.fixture
def running() -> Iterator[Any]:
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.clean_up()


def test_a_real_server(running: Any, armory_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    served = running("--port", url.rpartition(":")[2])
    assert served.first_line.startswith(f"armory-mlflow-server: {url}/#/?workflowType=")
    assert served.wait_for(f"{url}/health") == b"OK"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with track_evaluation("over http") as run:
        track_metrics({"accuracy": 0.5, "confusion": [[1, 2]]})
        mlflow.log_dict({"a": 1}, "fluent.json")
    stored = MlflowClient(url).get_run(run.run_id)
    assert stored.data.metrics == {"accuracy": 0.5}
    assert stored.info.status == "FINISHED"
    assert run.url == run_page(url, str(run.experiment_id), str(run.run_id))
    artifacts = (armory_home / "mlruns" / "artifacts").rglob("*.json")
    assert sorted(path.name for path in artifacts) == ["confusion.json", "fluent.json"]

    served.end(signal.SIGTERM)
    served.gone()


def test_hosts_and_origins_are_those_that_mlflow_allows(
    executed: list[list[str]], fork_server: Callable[[], str], tmp_path: Path
) -> None:
    """What is named is allowed; a page elsewhere is not, nor a host that leads here."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    allowed = ("--allowed-hosts", f"127.0.0.1:{port},evals.example")
    named = ("--port", str(port), *allowed, "--cors-allowed-origins", "http://page.example")
    assert server.main(named) == 0
    path = f"{url}/api/2.0/mlflow/experiments/search"

    def status(**headers: str) -> int:
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(path, b'{"max_results": 1}', headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    with started(fork_server(), tmp_path, url, *executed[0][2:]):
        assert status() == 200
        assert status(Host="evals.example") == 200
        assert status(Host="rebound.example") == 403
        assert status(Origin="http://page.example") == 200
        assert status(Origin="http://elsewhere.example") == 403
