"""Stands where execnet would start Python for a worker; ``python worker_launch.py SOCKET``.

It runs once for each worker, and imports no more than it needs: `forked` takes 0.2 s.
"""

from __future__ import annotations

import array
import json
import os
import socket
import sys


def launch(address: str) -> None:
    """Have a worker forked that has our files, environment, folder and group; live as long."""
    with socket.socket(socket.AF_UNIX) as connection:
        ask(connection, address, (0, 1, 2), os.getcwd(), (), os.getpgrp())
        os.closerange(0, 3)  # the worker's end of the pipes is to be the last one
        connection.recv(1)


def ask(
    connection: socket.socket,
    address: str,
    files: tuple[int, int, int],
    folder: str,
    argv: tuple[str, ...],
    group: int = 0,
) -> None:
    """Send who forks what is wanted; group 0 is one of its own."""
    connection.connect(address)
    wish = {"folder": folder, "environment": dict(os.environ), "group": group}
    request = json.dumps({**wish, "argv": argv}).encode()
    sent = array.array("i", files)
    connection.sendmsg(
        [len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)]
    )
    connection.sendall(request)


if __name__ == "__main__":
    launch(sys.argv[1])
