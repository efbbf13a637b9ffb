"""A client of JSON over HTTP: it pages, waits for rate limits, keeps its token to one origin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from time import sleep, time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pytest_armory.errors import ArmoryError
from pytest_armory.values.origin import origin_text

TIMEOUT = 20.0
"""Seconds for one request."""

PATIENCE = 90.0
"""Seconds that all requests together may wait for rate limits and servers that fail."""

FORKS = (
    "https://github.com/pytest-armory/pytest-armory/blob/main/docs/xdist-and-ci.md"
    "#pull-requests-from-forks"
)
"""What to do about pull requests from forks."""

PAGES = 50
"""The most pages of one list that are read."""


class HostError(ArmoryError):
    """A request that failed: ``status`` is 0 if there was no answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _SameOrigin(HTTPRedirectHandler):
    """urllib would send the token along to wherever a redirect leads."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if origin_text(newurl) != origin_text(req.full_url):
            raise HostError(code, f"redirected to another server, {origin_text(newurl)}")
        following: Request | None = super().redirect_request(req, fp, code, msg, headers, newurl)
        return following


@dataclass
class Client:
    """A client of one API. ``base`` is its root, ``headers`` hold the login."""

    base: str
    headers: Mapping[str, str]
    patience: float = PATIENCE

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send one request, and return its JSON. Raises :class:`HostError`."""
        return self._send(method, f"{self.base}{path}", body)[0]

    def pages(self, path: str) -> Iterator[Any]:
        """The members of a list over all its pages. Raises :class:`HostError`."""
        url: str | None = f"{self.base}{path}"
        for _ in range(PAGES):
            if url is None:
                return
            found, headers = self._send("GET", url, None)
            if not isinstance(found, list):
                raise HostError(0, "the answer is no list")
            yield from found
            url = _next_page(url, headers)

    def _send(self, method: str, url: str, body: object) -> tuple[Any, Message]:
        while True:
            try:
                return self._send_once(method, url, body)
            except HTTPError as error:
                message = _message(error)
                seconds = _seconds_to_wait(error, method, message)
                if seconds is None or seconds > self.patience:
                    status = error.code if seconds is None else 429
                    raise HostError(status, _reason(error, seconds, message)) from None
                self.patience -= seconds
                sleep(seconds)
            except (URLError, OSError, ValueError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                raise HostError(0, f"no answer from {origin_text(url)}: {reason}") from None

    def _send_once(self, method: str, url: str, body: object) -> tuple[Any, Message]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(url, data, {"User-Agent": "pytest-armory", **self.headers}, method=method)
        request.add_header("Content-Type", "application/json")
        with build_opener(_SameOrigin).open(request, timeout=TIMEOUT) as answer:
            return json.loads(answer.read() or b"null"), answer.headers


def token_in(environ: Mapping[str, str], *names: str) -> str:
    """The token in the first variable that is set, without space around it; "" for none.

    Raises :class:`HostError` for one that no header can hold: the error of that would show it.
    """
    name = next((name for name in names if environ.get(name, "").strip()), "")
    token = environ.get(name, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise HostError(0, f"{name} has characters that are in no token: set it again")
    return token


def _next_page(url: str, headers: Message) -> str | None:
    match = re.search(r'<([^>]+)>\s*;[^,]*\brel="?next\b', headers.get("Link", ""))
    if match is None:
        return None
    following: str = urljoin(url, match[1])
    if origin_text(following) != origin_text(url):
        raise HostError(0, f"the next page is at another server, {origin_text(following)}")
    return following


def _seconds_to_wait(error: HTTPError, method: str, message: str) -> float | None:
    """How long to wait before a request may be sent again; None if that is no use."""
    if error.code in (403, 429):
        after = _number(error.headers.get("Retry-After"))
        if after is not None:
            return max(1.0, after)
        left = error.headers.get("X-RateLimit-Remaining", error.headers.get("RateLimit-Remaining"))
        reset = error.headers.get("X-RateLimit-Reset", error.headers.get("RateLimit-Reset"))
        if left == "0" and (at := _number(reset)) is not None:
            return max(1.0, at - time() + 1)
        if "rate limit" in message.lower():
            return 60.0  # GitHub's secondary limits: a minute at least, if no header says more
        return 10.0 if error.code == 429 else None
    # A comment might have been made although there was no answer.
    return 5.0 if error.code in (500, 502, 503, 504) and method != "POST" else None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\d{1,12}", text.strip()) else None


def _reason(error: HTTPError, seconds: float | None, message: str) -> str:
    if seconds is not None and error.code in (403, 429):
        return f"its rate limit is reached for {seconds:,.0f} seconds more"
    return f"{error.code} {message[:200]}"


def _message(error: HTTPError) -> str:
    """What the server says of an error, else what its status means."""
    try:
        answer = json.loads(error.read())
        message = answer.get("message") or answer.get("error")
        # GitHub's message of a comment that it refuses is the same for all reasons.
        reasons = [one["message"] for one in answer.get("errors") or []
                   if isinstance(one, dict) and "message" in one]  # fmt: skip
    except (ValueError, AttributeError, TypeError, OSError, HTTPException):
        message, reasons = None, []
    return ": ".join(map(str, [message or error.reason, *reasons]))
