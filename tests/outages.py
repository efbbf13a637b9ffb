"""Ways for a server to fail, with real sockets: faults of a proxy before a real one."""

from __future__ import annotations

import socket
import struct
import time

from loopback import Handler
from servers import Fault, Proxy


def status(code: int, body: str = "", kind: str = "text/html", **headers: str) -> Fault:
    """Answer every request with a status."""

    def answer(_: Proxy, handler: Handler) -> bool:
        handler.give(code, body.encode(), Content_Type=kind, **headers)
        return True

    return answer


def reset(_: Proxy, handler: Handler) -> bool:
    """Cut the connection in the middle of the response, with a reset."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    handler.wfile.flush()
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True
    return True


def drip(_: Proxy, handler: Handler) -> bool:
    """Answer a byte at a time, for longer than anybody waits."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _byte in range(200):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            break
        time.sleep(0.2)
    handler.close_connection = True
    return True


def black_hole(_: Proxy, handler: Handler) -> bool:
    """Take the request and never answer."""
    time.sleep(40)
    handler.close_connection = True
    return True


def after(number: int, fault: Fault) -> Fault:
    """Behave for some requests, then fail."""

    def later(proxy: Proxy, handler: Handler) -> bool:
        return len(proxy.seen) > number and fault(proxy, handler)

    return later


def until(number: int, fault: Fault) -> Fault:
    """Fail for some requests, then behave."""

    def earlier(proxy: Proxy, handler: Handler) -> bool:
        return len(proxy.seen) <= number and fault(proxy, handler)

    return earlier
