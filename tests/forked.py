"""Processes with MLflow imported already: forked from one process instead of started anew.

They are processes of their own, as any; only the seconds that importing MLflow
takes each of them are spent once. ``python forked.py SOCKET DATABASE`` is the process that forks,
for all workers of a test session; it ends with the last of those who hold it.
:class:`Command` is a ``python -m ...`` of its making; execnet gets its workers by `worker_launch`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import worker_launch
from filelock import FileLock
from once import (
    Known,
    compile_statements_once,
    find_plugins_once,
    import_for_sessions,
    parse_files_once,
    remember_revision,
    search_plugins_once,
)
from worker_launch import ask

START = "import sys;exec(eval(sys.stdin.readline()))"  # execnet's


class Command:
    """``python -m`` in a process group of its own; what `subprocess.Popen` says of a child."""

    def __init__(
        self, address: str, *argv: str, folder: Path, files: tuple[int, int], apart: bool = True
    ) -> None:
        """``apart`` from the group of who starts it."""
        self._connection = socket.socket(socket.AF_UNIX)
        group = 0 if apart else os.getpgrp()
        with open(os.devnull) as nothing:
            ask(self._connection, address, (nothing.fileno(), *files), str(folder), argv, group)
        self._reported = self._connection.makefile("r")
        self.pid = int(self._reported.readline())
        self.returncode: int | None = None
        self._waiting = threading.RLock()  # a signal handler may ask while its thread waits

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it lives."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """The same once it has ended."""
        with self._waiting:
            if self.returncode is None:
                ready = select.poll()  # `select` takes no descriptor above 1023
                ready.register(self._connection, select.POLLIN)
                if not ready.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
                self.returncode = int(self._reported.readline())
                self._reported.close()
                self._connection.close()
            return self.returncode


def preload(address: str, *modules: str) -> None:
    """Have modules imported by who forks, so that what is forked from now on has them.

    ``module:function`` calls a function too, which imports more.
    """
    with _asked(address, "import", *modules) as connection, connection.makefile() as reply:
        failure = reply.read()  # nothing, when it is done
    if failure:
        raise ImportError(failure)


def _asked(address: str, *wish: str) -> socket.socket:
    """A connection to who forks, by which something is wanted of itself."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with open(os.devnull) as nothing:
            ask(connection, address, (nothing.fileno(),) * 3, os.getcwd(), wish)
    except BaseException:
        connection.close()
        raise
    return connection


def _look_at_every_file() -> None:
    """What a failure in each fork would: the files of all modules, the parsed ones of pytest's."""
    from _pytest._code import Source, code

    inspect.getmodule(serve.__code__)
    for name in ("_pytest.main", "_pytest.python", "_pytest.runner", "pluggy._callers",
                 "pluggy._hooks", "pluggy._manager", "_pytest.config", "xdist.remote"):  # fmt: skip
        code.getstatementrange_ast(0, Source(inspect.getsource(sys.modules[name])))


def _use_a_store(database: Path) -> None:
    """What the first use of a store in each fork would: SQLAlchemy's mappers, and statements."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.create_experiment("used")
    client.get_experiment_by_name("used")
    run_id = client.create_run(experiment, tags={"mlflow.parentRunId": "0"}).info.run_id
    values = [Metric("a", 1.0, 0, 0)], [Param("a", "1")], [RunTag("a", "1")]
    client.log_batch(run_id, *values)
    client.log_metric(run_id, "b", 1.0)
    client.set_tag(run_id, "b", "1")
    client.set_terminated(run_id)
    client.get_run(run_id)
    client.search_runs([experiment], "tags.a = '1'", order_by=["start_time ASC"])
    client._tracking_client.store.engine.dispose()  # no fork shares a connection


def _import_plugins(known: list[Known]) -> None:
    """What pytest imports at each start."""
    from _pytest.config import default_plugins

    for name in default_plugins:
        importlib.import_module(f"_pytest.{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in known:
            for point in one.entry_points.select(group="pytest11"):
                point.load()


def serve(address: str, database: Path) -> None:
    """Fork for everybody who connects; ``database`` is one to try things with."""
    from pytest_armory.store.database import import_database_store

    import_database_store()
    import_for_sessions()
    remember_revision()
    compile_statements_once()
    _import_plugins(find_plugins_once())
    search_plugins_once()
    parse_files_once()
    _use_a_store(database)
    _look_at_every_file()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    holding: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)  # noqa: T201 - to who started it
        while True:
            ready, _, _ = select.select([listening, *holding], (), ())
            for one in {*ready} & {*holding}:
                one.close()
                holding.remove(one)
            if listening not in ready:
                if not holding:
                    return None
                continue
            connection, _ = listening.accept()
            wish, files = _wish(connection)
            if wish is None:
                pass
            elif wish["argv"] == ["hold"]:
                connection.sendall(b"!")
                holding.append(connection.dup())
            elif wish["argv"][:1] == ["import"]:
                with suppress(BrokenPipeError):
                    connection.sendall(_failure_of_loading(wish["argv"][1:]).encode())
                gc.freeze()
            elif os.fork() == 0:
                for one in (listening, *holding):
                    one.close()
                return _become(address, connection, wish, files)
            for file in files:
                os.close(file)
            connection.close()


def _wish(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """What somebody wants, and the files for it; None where who asks was killed meanwhile."""
    request, files = b"", []
    with suppress(ConnectionError):
        head, files, _, _ = socket.recv_fds(connection, 4, 3)
        size = int.from_bytes(head, "big")
        while len(request) < size and (part := connection.recv(65536)):
            request += part
        if size and len(request) == size:
            return json.loads(request), files
    return None, files


def _failure_of_loading(names: list[str]) -> str:
    """The traceback of what cannot be loaded: it is to fail who asked, and not all tests."""
    try:
        for name in names:
            _load(*name.split(":"))
    except Exception:  # noqa: BLE001 - of any library
        return traceback.format_exc()
    return ""


def _load(module: str, *functions: str) -> None:
    """Import a module, and call functions of it that import more."""
    loaded = importlib.import_module(module)
    for function in functions:
        getattr(loaded, function)()


def _become(address: str, connection: socket.socket, request: dict, files: list[int]) -> None:  # type: ignore[type-arg]
    """What was asked for, in this process."""
    # A shell has commands in the background ignore Ctrl-C, and so do we what is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if request["argv"]:
        _be_watched(connection, request["group"])
    else:
        with suppress(PermissionError):  # another terminal's
            os.setpgid(0, request["group"])
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    if request["argv"]:
        import execnet.gateway_io

        execnet.gateway_io.popen_args = lambda _: worker(address)
        if request["argv"][:2] == ["mlflow", "server"]:
            _fork_web_server(address)
        sys.argv, sys.path[0] = request["argv"], request["folder"]
        _run_to_its_end(sys.argv[0])
    sys.argv, sys.path[0] = ["-c"], ""
    status = 1
    try:
        exec(START, {"__name__": "__main__"})
        status = 0
    finally:
        atexit._run_exitfuncs()  # as where a worker is started anew
        sys.stderr.flush()
        os._exit(status)


def _run_to_its_end(module: str) -> None:
    """As ``python -m`` does, but for taking all modules apart: that copies all that is shared."""
    status: object = None
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    if not isinstance(status, int | None):
        print(status, file=sys.stderr)  # noqa: T201 - as Python does
        status = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
    except BaseException:  # noqa: BLE001 - of a signal, as Python does
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((status or 0) & 0xFF)


def _fork_web_server(address: str) -> None:
    """Let MLflow's command have uvicorn forked too: it would import all of MLflow a second time."""
    from mlflow.utils import process

    start = process._exec_cmd

    def started(command: list[str], **options: Any) -> Any:
        if command[1:3] != ["-m", "uvicorn"] or options.get("synchronous", True):
            return start(command, **options)
        os.environ.update(options["extra_env"])
        return Command(address, *command[2:], folder=Path.cwd(), files=(1, 2), apart=False)

    process._exec_cmd = started


def _be_watched(connection: socket.socket, group: int) -> None:
    """Go on in a child, in a group that hears signals; its parent tells its id and its end."""
    child = os.fork()
    if child:
        os.setpgid(child, group or child)
        connection.sendall(f"{child}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(BrokenPipeError):
            connection.sendall(f"{status}\n".encode())
        os._exit(0)
    os.setpgid(0, group)
    connection.close()


def worker(address: str) -> list[str]:
    """The command that execnet is to start for a worker."""
    return [sys.executable, "-S", "-E", worker_launch.__file__, address]


def forking(folder: Path, template: Path) -> Iterator[Callable[[], str]]:
    """The address of the process that forks; it begins with who first asks for it.

    It uses a copy of ``template``, a ready database. Processes that give the same folder share it.
    """
    address, database = str(folder / "fork.sock"), str(folder / "fork.db")
    holding: list[socket.socket] = []

    def get_address() -> str:
        if not holding:
            with FileLock(folder / "fork.lock"):
                held = _held(address)
                if held is None:
                    Path(address).unlink(missing_ok=True)
                    shutil.copy(template, database)
                    _start(address, database)
                    held = _held(address)
            assert held is not None
            holding.append(held)
        return address

    yield get_address
    for held in holding:
        held.close()


def _held(address: str) -> socket.socket | None:
    """What keeps the process that forks from its end; None where there is none."""
    with suppress(FileNotFoundError, ConnectionError):
        connection = _asked(address, "hold")
        if connection.recv(1):
            return connection
        connection.close()
    return None


def _start(address: str, database: str) -> None:
    """Start the process that forks, which may live longer than this one."""
    argv = [sys.executable, __file__, address, database]
    reading, writing = os.pipe()
    os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
    os.close(writing)
    with open(reading) as output:
        assert output.readline() == "ready\n"


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
