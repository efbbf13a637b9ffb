"""Servers that fail in every way, with real sockets: a proxy that misbehaves before a real one."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Faulty", BaseHTTPRequestHandler], bool]


class Faulty:
    """The proxy: ``fault`` is asked before each request whether it has dealt with it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen: list[tuple[float, str]] = []
        self.fault: Fault | None = None
        self.after: Fault | None = None


def status(code: int, body: str = "", kind: str = "text/html", **headers: str) -> Fault:
    """Answer every request with a status."""

    def answer(_: Faulty, handler: BaseHTTPRequestHandler) -> bool:
        content = body.encode()
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
        return True

    return answer


def reset(_: Faulty, handler: BaseHTTPRequestHandler) -> bool:
    """Cut the connection in the middle of the response, with a reset."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    handler.wfile.flush()
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True
    return True


def drip(_: Faulty, handler: BaseHTTPRequestHandler) -> bool:
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


def black_hole(_: Faulty, handler: BaseHTTPRequestHandler) -> bool:
    """Take the request and never answer."""
    time.sleep(40)
    handler.close_connection = True
    return True


def after(number: int, fault: Fault) -> Fault:
    """Behave for some requests, then fail."""

    def later(proxy: Faulty, handler: BaseHTTPRequestHandler) -> bool:
        return len(proxy.seen) > number and fault(proxy, handler)

    return later


def until(number: int, fault: Fault) -> Fault:
    """Fail for some requests, then behave."""

    def earlier(proxy: Faulty, handler: BaseHTTPRequestHandler) -> bool:
        return len(proxy.seen) <= number and fault(proxy, handler)

    return earlier


@contextmanager
def faulty(server: str) -> Iterator[Faulty]:
    """The proxy in front of a server."""
    port = int(server.rpartition(":")[2])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            proxy.seen.append((time.monotonic(), f"{self.command} {self.path.partition('?')[0]}"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if proxy.fault is not None and proxy.fault(proxy, self):
                return
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers))
            response = upstream.getresponse()
            content = response.read()
            upstream.close()
            if proxy.after is not None and proxy.after(proxy, self):
                return
            self.send_response(response.status)
            self.send_header("Content-Type", response.getheader("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815 - http.server's

        def log_message(self, *args: object) -> None:
            """Say nothing on stderr."""

        def log_error(self, *args: object) -> None:
            """Nor when a client has gone."""

    class Listening(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not wait is what is tested."""

    listening = Listening(("127.0.0.1", 0), Handler)
    proxy = Faulty(listening.server_port)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
