"""xdist workers with MLflow imported already: forked from one process instead of started anew.

They are processes of their own, that live and die as any; only the seconds that importing MLflow
takes each of them are spent once. ``python forked.py serve SOCKET`` is the process that forks,
``python forked.py SOCKET`` stands where execnet would start Python.
"""

from __future__ import annotations

import array
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

START = "import sys;exec(eval(sys.stdin.readline()))"  # execnet's


def launch(address: str) -> None:
    """Have a process forked that has our files, environment and folder, and live as long as it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = json.dumps({"folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        files = array.array("i", [0, 1, 2])
        connection.sendmsg(
            [len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)]
        )
        connection.sendall(request)
        os.closerange(0, 3)  # the worker's end of the pipes is to be the last one
        connection.recv(1)


def serve(address: str) -> None:
    """Fork for everybody who connects."""
    import pytest  # noqa: F401
    import xdist.remote  # noqa: F401

    import pytest_armory.tracked  # noqa: F401
    from pytest_armory.store.database import import_database_store

    import_database_store()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        print("ready", flush=True)  # noqa: T201 - to who started it
        while True:
            connection, _ = listening.accept()
            head, files, _, _ = socket.recv_fds(connection, 4, 3)
            request = b""
            while len(request) < int.from_bytes(head, "big"):
                request += connection.recv(65536)
            if os.fork() == 0:
                listening.close()
                _become_worker(json.loads(request), files)
            for file in files:
                os.close(file)
            connection.close()


def _become_worker(request: dict[str, object], files: list[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    sys.argv, sys.path[0] = ["-c"], ""
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    status = 1
    try:
        exec(START, {"__name__": "__main__"})
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def forking(folder: Path) -> Iterator[Callable[[object], list[str]]]:
    """What execnet is to start instead of Python; the process that forks begins with the first."""
    address = str(folder / "fork.sock")
    servers: list[subprocess.Popen[str]] = []

    def command(_: object) -> list[str]:
        if not servers:
            here = [sys.executable, __file__, "serve", address]
            servers.append(subprocess.Popen(here, stdout=subprocess.PIPE, text=True))
            assert servers[0].stdout is not None
            assert servers[0].stdout.readline() == "ready\n"
        return [sys.executable, "-S", "-E", __file__, address]

    yield command
    for server in servers:
        server.kill()
        server.communicate()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        launch(sys.argv[1])
