"""Mantik's API on loopback: its token service, and under ``/tracking`` a real MLflow server.

It speaks what Mantik's client speaks (https://pypi.org/project/mantik, 0.5.11).
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
from loopback import Handler, listening

USER, PASSWORD = "jane", "correct horse/battery staple"


class Clock:
    """The time of several processes, in which nothing passes but what a test says: of a file.

    On a busy machine a request may be under way for longer than a token is valid.
    """

    def __init__(self, path: Path, is_new: bool = True) -> None:
        self.path = path
        if is_new:
            path.touch()

    def __call__(self) -> float:
        return self.path.stat().st_mtime

    def sleep(self, seconds: float) -> None:
        os.utime(self.path, (self() + seconds,) * 2)

    @property
    def source(self) -> str:
        """What lets another process have it, as ``clock``."""
        return f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
from pathlib import Path
from mantik import Clock
from pytest_armory.store import tokens
tokens.time = clock = Clock(Path({str(self.path)!r}), is_new=False)
"""


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which tokens are renewed."""
    clock = Clock(tmp_path / "clock")
    monkeypatch.setattr("pytest_armory.store.tokens.time", clock)
    return clock


def naive(moment: float) -> str:
    """As Mantik writes times: UTC, microseconds, no offset."""
    return datetime.fromtimestamp(moment, timezone.utc).replace(tzinfo=None).isoformat()


class Mantik:
    """What the platform knows, and what it was asked; change it in mid-flight.

    ``life`` is a token's, in seconds, and ``leeway`` for how much longer MLflow takes it: where a
    process lets time pass, a request of another one may be under way. ``answer`` overrides what a
    token request gets: a status.
    """

    url: str

    def __init__(self, life: float, leeway: float) -> None:
        self.life, self.leeway = life, leeway
        self.clock: Callable[[], float] = time.time
        self.write_time: Callable[[float], str] = naive
        self.rotates = True
        self.delay = 0.0
        self.answer: dict[str, int] = {}
        self.asked: list[str] = []
        self.tracked: list[tuple[str, str]] = []
        """Each request to MLflow as (its path, its Authorization header)."""
        self.refused, self.refusal = 0, 401
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
        access, expires_at = f"access-{secrets.token_hex(16)}", self.clock() + self.life
        self.valid[access] = expires_at
        granted = {"AccessToken": access, "ExpiresAt": self.write_time(expires_at)}
        if action == "create" or self.rotates:
            granted["RefreshToken"] = f"refresh-{secrets.token_hex(16)}"
            self.refresh_tokens = {granted["RefreshToken"]}
        return 200, granted

    def lets_in(self, authorization: str) -> bool:
        """Whether the token is valid."""
        scheme, _, token = authorization.partition(" ")
        return scheme == "Bearer" and self.clock() < self.valid.get(token, 0) + self.leeway

    @property
    def secrets(self) -> list[str]:
        return [PASSWORD, *self.valid, *self.refresh_tokens]


@contextmanager
def mantik_platform(
    server: str | None = None,
    life: float = 3600.0,
    clock: Callable[[], float] = time.time,
    leeway: float = 0.0,
) -> Iterator[Mantik]:
    """The platform; without a `server` there is only the token service."""

    def respond(handler: Handler) -> None:
        authorization = handler.headers.get("Authorization", "")
        start, _, action = handler.path.rpartition("/")
        if handler.command == "POST" and start == "/mantik/tokens":
            if authorization:
                platform.basic.append(authorization)
            status, granted = platform.grant(action, json.loads(handler.body))
            away = {"Location": "http://localhost:9/elsewhere"} if 300 <= status < 400 else {}
            content = json.dumps(granted).encode()
            handler.give(status, content, Content_Type="application/json", **away)
        elif not handler.path.startswith("/tracking/"):
            handler.give(404, b"<html>the platform's pages</html>", Content_Type="text/html")
        else:
            platform.tracked.append((handler.path.partition("?")[0], authorization))
            if platform.lets_in(authorization):
                path = handler.path.removeprefix("/tracking")
                status, content, kind = handler.answer_of(str(server), path)
                handler.give(status, content, Content_Type=kind)
            else:
                platform.refused += 1
                handler.give(platform.refusal, b"no", Content_Type="text/plain")

    platform = Mantik(life, leeway)
    platform.clock = clock
    with listening(respond) as platform.url:
        yield platform
