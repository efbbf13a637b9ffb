"""Mantik's API on loopback: its token service, and under ``/tracking`` a real MLflow server.

It speaks what Mantik's client speaks (https://pypi.org/project/mantik, 0.5.11).
"""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USER, PASSWORD = "jane", "correct horse/battery staple"


def naive(moment: float) -> str:
    """As Mantik writes times: UTC, microseconds, no offset."""
    return datetime.fromtimestamp(moment, timezone.utc).replace(tzinfo=None).isoformat()


class Mantik:
    """What the platform knows, and what it was asked; change it in mid-flight.

    ``life`` is a token's, in seconds. ``answer`` overrides what a token request gets: a status.
    """

    def __init__(self, url: str, life: float) -> None:
        self.url, self.life = url, life
        self.write_time: Callable[[float], str] = naive
        self.rotates = True
        self.delay = 0.0
        self.answer: dict[str, int] = {}
        self.asked: list[str] = []
        self.tracked: list[tuple[str, str]] = []
        """Each request to MLflow as (its path, its Authorization header)."""
        self.refused = 0
        self.valid: dict[str, float] = {}
        self.refresh_tokens: set[str] = set()
        self.basic: list[str] = []
        """The Authorization headers that token requests came with; there should be none."""

    def grant(self, action: str, body: dict[str, str]) -> tuple[int, dict[str, str]]:
        self.asked.append(action)
        time.sleep(self.delay)
        if action in self.answer:
            return self.answer[action], {"detail": f"no {action} for {json.dumps(body)}"}
        if action == "create":
            known = body == {"username": USER, "password": PASSWORD}
        else:
            refresh = body.pop("refresh_token")
            known = body == {"username": USER} and refresh in self.refresh_tokens
        if not known:
            return 401, {"detail": f"Refused: {json.dumps(body)}"}
        access, expires_at = f"access-{secrets.token_hex(16)}", time.time() + self.life
        self.valid[access] = expires_at
        granted = {"AccessToken": access, "ExpiresAt": self.write_time(expires_at)}
        if action == "create" or self.rotates:
            granted["RefreshToken"] = f"refresh-{secrets.token_hex(16)}"
            self.refresh_tokens = {granted["RefreshToken"]}
        return 200, granted

    def lets_in(self, authorization: str) -> bool:
        """Whether the token is valid; a busy machine may take a while to bring it here."""
        scheme, _, token = authorization.partition(" ")
        return scheme == "Bearer" and time.time() < self.valid.get(token, 0) + 0.5

    @property
    def secrets(self) -> list[str]:
        return [PASSWORD, *self.valid, *self.refresh_tokens]


@contextmanager
def mantik_platform(server: str | None = None, life: float = 3600.0) -> Iterator[Mantik]:
    """The platform; without a `server` there is only the token service."""
    port = int(server.rpartition(":")[2]) if server else 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            authorization = self.headers.get("Authorization", "")
            start, _, action = self.path.rpartition("/")
            if self.command == "POST" and start == "/mantik/tokens":
                if authorization:
                    platform.basic.append(authorization)
                status, granted = platform.grant(action, json.loads(body))
                self.give(status, json.dumps(granted).encode(), "application/json")
            elif not self.path.startswith("/tracking/"):
                self.give(404, b"<html>the platform's pages</html>", "text/html")
            else:
                platform.tracked.append((self.path.partition("?")[0], authorization))
                if platform.lets_in(authorization):
                    self.forward(body)
                else:
                    platform.refused += 1
                    self.give(401, b"Unauthorized", "text/plain")

        def forward(self, body: bytes) -> None:
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            path = self.path.removeprefix("/tracking")
            upstream.request(self.command, path, body, dict(self.headers))
            response = upstream.getresponse()
            content = response.read()
            self.give(response.status, content, response.getheader("Content-Type", "text/plain"))
            upstream.close()

        def give(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            if 300 <= status < 400:
                self.send_header("Location", "http://localhost:9/elsewhere")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's

        def log_message(self, *args: object) -> None:
            """Say nothing on stderr."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    platform = Mantik(f"http://127.0.0.1:{listening.server_port}", life)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield platform
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
