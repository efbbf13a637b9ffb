"""Processes with MLflow imported already: forked from one process instead of started anew.

They are processes of their own, as any; only the seconds that importing MLflow
takes each of them are spent once. ``python forked.py SOCKET DATABASE`` is the process that forks;
:class:`Command` is a ``python -m ...`` of its making; execnet gets its workers by `worker_launch`.
"""

from __future__ import annotations

import ast
import atexit
import gc
import importlib
import importlib.metadata
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
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import worker_launch
from worker_launch import ask

START = "import sys;exec(eval(sys.stdin.readline()))"  # execnet's


class Command:
    """``python -m`` in a process group of its own; what `subprocess.Popen` says of a child."""

    def __init__(self, address: str, *argv: str, folder: Path, files: tuple[int, int]) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        with open(os.devnull) as nothing:
            ask(self._connection, address, (nothing.fileno(), *files), str(folder), argv)
        self._reported = self._connection.makefile("r")
        self.pid = int(self._reported.readline())
        self.returncode: int | None = None
        self._waiting = threading.Lock()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it lives."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The same once it has ended."""
        with self._waiting:
            if self.returncode is None:
                ready = select.poll()  # `select` takes no descriptor above 1023
                ready.register(self._connection, select.POLLIN)
                if not ready.poll(timeout * 1000):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout)
                self.returncode = int(self._reported.readline())
                self._reported.close()
                self._connection.close()
            return self.returncode


def preload(address: str, *modules: str) -> None:
    """Have modules imported by who forks, so that what is forked from now on has them.

    ``module:function`` calls a function too, which imports more.
    """
    with socket.socket(socket.AF_UNIX) as connection, open(os.devnull) as nothing:
        ask(connection, address, (nothing.fileno(),) * 3, os.getcwd(), ("import", *modules))
        connection.recv(1)  # nothing, when it is done


def remember_revision() -> None:
    """Let MLflow look up its newest schema once: it reads fifty files for each store it opens."""
    from mlflow.store.db import utils

    utils._get_latest_schema_revision = lru_cache(utils._get_latest_schema_revision)


class _Known:
    """An installed distribution with plugins of pytest, whose entry points have been read."""

    files: Sequence[Path] = ()  # pytest would mark each for rewriting, but all are imported already

    def __init__(self, found: importlib.metadata.Distribution) -> None:
        self.metadata, self.version = found.metadata, found.version
        self.entry_points = found.entry_points


def import_for_sessions() -> None:
    """What sessions import: pytester drops what one has imported, and forks share nothing."""
    for name in (
        "alembic.command",
        "mlflow.tracing.processor.base_mlflow",
        "mlflow.tracing.processor.otel",
        "pdb",
        "pytest_armory.plugin.mlflow_fixtures",
        "pytest_armory.plugin.tracked",
        "pytest_armory.store.monitor",
        "sqlalchemy.dialects.sqlite",
        "xdist.dsession",
        "xdist.remote",
    ):
        importlib.import_module(name)


def compile_statements_once() -> None:
    """Let SQLAlchemy compile a statement once for all SQLite databases: each has its own engine."""
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite as Dialect
    from sqlalchemy.engine import Engine
    from sqlalchemy.util import LRUCache

    compiled: LRUCache[Any, Any] = LRUCache(2000)
    create = Engine.__init__

    def created(engine: Engine, pool: Any, dialect: Any, *args: Any, **options: Any) -> None:
        create(engine, pool, dialect, *args, **options)
        if type(dialect) is Dialect:
            engine._compiled_cache = compiled

    Engine.__init__ = created
    # What is compiled is found by the dialect too, of which each engine has its own.
    Dialect.__eq__ = lambda one, other: type(one) is type(other)
    Dialect.__hash__ = lambda _: hash(Dialect)


def parse_files_once() -> None:
    """Let pytest parse a file of tracebacks once: it does for each, and Ctrl-C shows dozens."""
    from _pytest._code import code

    parsed, original = lru_cache(64)(ast.parse), code.getstatementrange_ast

    def found(
        line: int, source: Any, assertion: bool = False, astnode: ast.AST | None = None
    ) -> Any:
        if astnode is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                astnode = parsed(str(source))
        return original(line, source, assertion, astnode)

    code.getstatementrange_ast = found


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


def find_plugins_once() -> list[_Known]:
    """Let pytest and pluggy read what is installed once, not for each session of a process."""
    from _pytest.config import Config
    from pluggy import PluginManager

    every = [_Known(found) for found in importlib.metadata.distributions()]
    known = [one for one in every if any(point.group == "pytest11" for point in one.entry_points)]

    def with_known(original: Callable[..., Any]) -> Callable[..., Any]:
        def looked_up(*args: Any, **kwargs: Any) -> Any:
            with mock.patch.object(importlib.metadata, "distributions", return_value=known):
                return original(*args, **kwargs)

        return looked_up

    for owner, name in (
        (Config, "_mark_plugins_for_rewrite"),
        (PluginManager, "load_setuptools_entrypoints"),
    ):
        setattr(owner, name, with_known(getattr(owner, name)))
    return known


def _import_plugins(known: list[_Known]) -> None:
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
    parse_files_once()
    _use_a_store(database)
    _look_at_every_file()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        print("ready", flush=True)  # noqa: T201 - to who started it
        while True:
            connection, _ = listening.accept()
            wish, files = _wish(connection)
            if wish is None:
                pass
            elif wish["argv"][:1] == ["import"]:
                for name in wish["argv"][1:]:
                    _load(*name.split(":"))
                gc.freeze()
            elif os.fork() == 0:
                listening.close()
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
        _be_watched(connection)
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
        sys.argv, sys.path[0] = request["argv"], request["folder"]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    sys.argv, sys.path[0] = ["-c"], ""
    status = 1
    try:
        exec(START, {"__name__": "__main__"})
        status = 0
    finally:
        atexit._run_exitfuncs()  # as where a worker is started anew
        sys.stderr.flush()
        os._exit(status)


def _be_watched(connection: socket.socket) -> None:
    """Go on in a child, as a group that hears signals; its parent tells its id and its end."""
    child = os.fork()
    if child:
        os.setpgid(child, child)
        connection.sendall(f"{child}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(BrokenPipeError):
            connection.sendall(f"{status}\n".encode())
        os._exit(0)
    os.setpgid(0, 0)
    connection.close()


def worker(address: str) -> list[str]:
    """The command that execnet is to start for a worker."""
    return [sys.executable, "-S", "-E", worker_launch.__file__, address]


def forking(folder: Path, template: Path) -> Iterator[Callable[[], str]]:
    """The address of the process that forks; it begins with who first asks for it.

    It uses a copy of ``template``, a ready database.
    """
    address, database = str(folder / "fork.sock"), str(folder / "mlflow.db")
    servers: list[subprocess.Popen[str]] = []

    def get_address() -> str:
        if not servers:
            shutil.copy(template, database)
            here = [sys.executable, __file__, address, database]
            servers.append(subprocess.Popen(here, stdout=subprocess.PIPE, text=True))
            assert servers[0].stdout is not None
            assert servers[0].stdout.readline() == "ready\n"
        return address

    yield get_address
    for server in servers:
        server.kill()
        server.communicate()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
