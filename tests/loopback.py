"""HTTP servers on loopback whose answers a test decides, with real sockets."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """One request: ``body`` is what it brought."""

    protocol_version = "HTTP/1.1"
    respond: Callable[[Handler], None]
    body: bytes

    def give(self, status: int, content: bytes = b"", **headers: str) -> None:
        """Answer; ``Content_Type`` is a header's name as a keyword."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def answer_of(self, server: str, path: str | None = None) -> tuple[int, bytes, str]:
        """What another server says to this request: status, content and its type."""
        address = server.rpartition("/")[2]
        with closing(http.client.HTTPConnection(address, timeout=300)) as upstream:
            upstream.request(self.command, path or self.path, self.body, dict(self.headers))
            response = upstream.getresponse()
            content = response.read()
        return response.status, content, response.getheader("Content-Type", "text/plain")

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        if len(self.body) == length:  # of a client that was killed meanwhile no server sees more
            self.respond(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's

    def log_message(self, *args: object) -> None:
        """Say nothing on stderr."""


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # of more than its five the system lets a client try again in a second

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not wait is what some tests are about."""


@contextmanager
def listening(respond: Callable[[Handler], None]) -> Iterator[str]:
    """The URL of a server that answers each request, in a thread of its own, by ``respond``."""
    handler = type("Responding", (Handler,), {"respond": staticmethod(respond)})
    server = _Listening(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
