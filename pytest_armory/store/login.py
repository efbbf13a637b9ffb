"""The login at a tracking platform, renewed for as long as a session lasts.

Mantik requires a bearer token that is valid for about an hour. It is requested with
``MANTIK_USERNAME`` and ``MANTIK_PASSWORD``, renewed before it expires, and added to every request
by MLflow's own extension point, so that the tests' own ``mlflow.*`` calls have it too. The
protocol is that of Mantik's client (https://pypi.org/project/mantik, 0.5.11,
``utils/mantik_api/client.py``); the extension point is MLflow's ``RequestAuthProvider``
(``MLFLOW_TRACKING_AUTH``).

Nothing here raises from a frame whose arguments or variables have a secret: pytest shows both.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import lru_cache, partial
from math import inf
from time import time
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from pytest_armory.budget import within
from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.values import REDACTED, conceal, redact_text

PROVIDER = "armory"
"""The name of this auth provider, in ``MLFLOW_TRACKING_AUTH`` and in ``pyproject.toml``."""

TRACKING_PATH = "/tracking"
"""Where Mantik's API serves MLflow: its client's default is https://api.cloud.mantik.ai/tracking/"""

INHERITED = "ARMORY_ACCESS_TOKENS"
"""The variable by which child processes inherit the login. `ps` would show an argument."""

TIMEOUT = 10.0
"""Seconds for the token service to take the connection, and to answer."""


class Login(Protocol):
    """An object that provides a valid token."""

    def token(self) -> str:
        """A bearer token. Called before each request, from any thread: cache it, renew it."""


def needed(uri: str) -> bool:
    """Whether tracking to `uri` requires a login at Mantik: a server, a name, a password, no token.

    A token, or another ``MLFLOW_TRACKING_AUTH``, is the user's own login. Raises
    :class:`ArmoryUsageError` for a user name without a password and the reverse.
    """
    other = (os.environ.get("MLFLOW_TRACKING_AUTH") or PROVIDER) != PROVIDER
    if other or os.environ.get("MLFLOW_TRACKING_TOKEN") or not re.match("https?://", uri.lower()):
        return False
    missing = [n for n in ("MANTIK_USERNAME", "MANTIK_PASSWORD") if not os.environ.get(n)]
    if len(missing) == 1:
        raise ArmoryUsageError(
            f"a login at Mantik takes MANTIK_USERNAME and MANTIK_PASSWORD, and {missing[0]}"
            " is not set; set it, or unset the other one to track without a login"
        )
    return not missing


def tracking_uri(uri: str) -> str:
    """`uri` for MLflow: if it is only a host, with the path at which the platform serves MLflow."""
    return uri.rstrip("/") + TRACKING_PATH if urlsplit(uri).path in ("", "/") else uri


class _Grant(NamedTuple):
    """The response of a token service; times are seconds since the epoch."""

    access: str
    refresh: str
    expires_at: float
    renew_at: float

    def __repr__(self) -> str:
        return REDACTED


class Tokens:
    """A login at Mantik that renews itself; safe to share between threads.

    ``token`` requests a new token 60 s, or a tenth of its lifetime, before the old one expires.
    """

    def __init__(self, api: str, user: str, password: str, grant: _Grant | None = None) -> None:
        self.api, self.user = api.rstrip("/"), user
        self._password, self._grant = password, grant
        self._failure, self._pause_until = "", 0.0
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls, uri: str) -> Tokens:
        """The login for tracking to `uri`: at ``MANTIK_API_URL``, else at the host of `uri`."""
        scheme, host = uri.split("://", 1)
        own = f"{scheme}://{re.split('[/?#]', host)[0].rpartition('@')[2]}"
        return cls(
            os.environ.get("MANTIK_API_URL") or own,
            os.environ.get("MANTIK_USERNAME", ""),
            os.environ.get("MANTIK_PASSWORD", ""),
        )

    def __repr__(self) -> str:
        return f"<login of {self.user!r} at {redact_text(self.api)}>"

    def token(self) -> str:
        """A valid access token. Raises :class:`TrackingError` if none can be obtained."""
        with self._lock:
            grant, now = self._grant, time()
            if grant and now < grant.renew_at:
                return grant.access
            if now >= self._pause_until:
                answer = self._renewed(grant.refresh if grant else "")
                if isinstance(answer, _Grant):
                    self._grant = answer
                    conceal(answer.access, answer.refresh)
                    return answer.access
                self._failure = answer
                # Otherwise each request during an outage would wait for the time-out.
                margin = grant.expires_at - grant.renew_at if grant else 0.0
                self._pause_until = time() + margin / 6
            if grant and time() < grant.expires_at:
                return grant.access
            who = f"the login of {self.user!r} at {redact_text(self.api)}"
            raise TrackingError(f"{who} {self._failure}")

    def _renewed(self, refresh: str) -> _Grant | str:
        """A new grant, or a text that says why there is none.

        It never raises: the exceptions of `requests` carry the request, and so would whatever is
        raised while one of them is handled.
        """
        failure = ""
        for action in ("refresh", "create") if refresh else ("create",):
            try:
                response = within(TIMEOUT + 2, partial(self._post, action))
            except (OSError, ValueError) as error:  # a second request would wait as long
                return f"got no answer ({type(error).__name__}); {_WHERE}"
            if response.status_code != 200:
                failure = f"failed: HTTP {response.status_code}; {_advice(response.status_code)}"
                continue
            try:
                return _granted(response.json(), refresh)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                failure = f"got an answer without a usable token; {_WHERE}"
        return failure

    def _post(self, action: str) -> Any:
        import requests

        refresh = self._grant.refresh if self._grant else ""
        secrets = {"refresh": {"refresh_token": refresh}, "create": {"password": self._password}}
        insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
        return requests.post(
            f"{self.api}/mantik/tokens/{action}",
            json={"username": self.user, **secrets[action]},
            timeout=TIMEOUT,
            allow_redirects=False,  # no other server is to receive the password
            auth=lambda request: request,  # otherwise ~/.netrc's login for that host is used
            verify=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not insecure,
        )

    def for_children(self, uri: str) -> str:
        """The state that child processes inherit; the password is in their environment anyway."""
        return json.dumps([uri, self.api, self.user, self._grant])


_WHERE = "set MANTIK_API_URL to the address of Mantik's API"


def _advice(status: int) -> str:
    if status in (400, 401, 403, 422):
        return "check MANTIK_USERNAME and MANTIK_PASSWORD"
    if status == 429 or status >= 500:
        return "try later, or set MLFLOW_TRACKING_TOKEN"
    return _WHERE


def _granted(answer: Any, old_refresh: str) -> _Grant:
    access, expires_at = answer["AccessToken"], seconds(answer["ExpiresAt"])
    if not re.fullmatch(r"[!-~]+", access):  # an HTTP library's error would show it
        raise ValueError
    # Behind Mantik is AWS Cognito, whose answer to a refresh has no new refresh token.
    refresh = answer.get("RefreshToken") or old_refresh
    margin = max(0.0, min(60.0, (expires_at - time()) / 10))
    return _Grant(access, refresh, expires_at, expires_at - margin)


def seconds(when: str) -> float:
    """An ISO 8601 date and time as seconds since the epoch; without an offset it is UTC.

    Written out because ``datetime.fromisoformat`` of Python 3.10 knows no ``Z``, no ``+0200`` and
    no fraction but of three or six digits. Raises ValueError.
    """
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?"
        r"(?:Z|([+-])([01]\d|2[0-3]):?([0-5]\d)?)?",
        when.strip().upper(),
    )
    if not match:
        raise ValueError("not a date and time of ISO 8601")
    moment, fraction, sign, hours, minutes = match.groups("0")
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    utc = datetime.fromisoformat(moment).replace(tzinfo=timezone.utc) - offset
    return utc.timestamp() + float(f"0.{fraction}")


_current: tuple[str, Login] | None = None  # the tracking URI, and the login there


def _in_force() -> tuple[str, Login] | None:
    inherited = os.environ.get(INHERITED)
    return _current or (_from_parent(inherited) if inherited else None)


@lru_cache(maxsize=4)  # a process that never called `_start` renews once, not at each request
def _from_parent(text: str) -> tuple[str, Login]:
    uri, api, user, grant = json.loads(text)
    return uri, Tokens(api, user, os.environ.get("MANTIK_PASSWORD", ""), _Grant(*grant))


def _start(uri: str, login: Login | None = None) -> str:
    global _current
    if login is None:
        if not needed(uri):
            return uri
        uri = tracking_uri(uri)
        login = Tokens.from_environment(uri)
        where, old = _in_force() or ("", None)  # of this process, or inherited
        if isinstance(old, Tokens) and old.user == login.user and _origin(where) == _origin(uri):
            login = old
    token = login.token()  # so that a wrong password fails here, not at the first run
    _current = uri, login
    # A hook's login is called again in a worker; other child processes have only this one token.
    fixed = Tokens("", "", "", _Grant(token, "", inf, inf))
    inherited = login if isinstance(login, Tokens) else fixed
    os.environ[INHERITED] = inherited.for_children(uri)
    os.environ["MLFLOW_TRACKING_AUTH"] = PROVIDER
    os.environ["MLFLOW_TRACKING_URI"] = uri
    return uri


def _restorer() -> Callable[[], None]:
    """What restores the login and its variables: a dictionary's secrets would be in tracebacks."""
    names = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_URI", INHERITED)
    login, before = _current, {name: os.environ.get(name) for name in names}

    def restore() -> None:
        global _current
        if _current is login:  # there was no other login since
            return
        _current = login
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    return restore


@contextmanager
def logged_in(uri: str, login: Login | None = None) -> Iterator[str]:
    """Log this process and its children in for tracking to `uri`; yields the URI to track to.

    Tokens are requested from `login` if it is given, else from Mantik if that is :func:`needed`;
    otherwise nothing is done. At the end everything is restored. Raises
    :class:`TrackingError` for a login that fails.
    """
    restore = _restorer()
    try:
        yield _start(uri, login)
    finally:
        restore()


def init_tracking(uri: str | None = None) -> str:
    """Log a script in, for as long as it runs; returns the tracking URI in force.

    `uri` defaults to ``MLFLOW_TRACKING_URI``, which is set to what is returned if a login took
    place. Raises what :func:`logged_in` raises.
    """
    return _start(uri or os.environ.get("MLFLOW_TRACKING_URI") or "local")


class AuthProvider:
    """The entry point of the group ``mlflow.request_auth_provider``.

    A ``RequestAuthProvider`` by its two methods; to inherit from it would import MLflow.
    """

    def get_name(self) -> str:
        """What ``MLFLOW_TRACKING_AUTH`` calls this provider."""
        return PROVIDER

    def get_auth(self) -> Bearer:
        """The `auth` of one request. Raises :class:`TrackingError` without a login."""
        login = _in_force()
        if login is None:
            raise TrackingError(
                f"MLFLOW_TRACKING_AUTH is {PROVIDER!r}, but nobody is logged in; call "
                "pytest_armory.init_tracking() first, or unset it"
            )
        return Bearer(*login)


class Bearer:
    """Adds the current token to a request, if it goes to the server that the token is for."""

    def __init__(self, uri: str, login: Login) -> None:
        self._origin, self._login = _origin(uri), login

    def __call__(self, request: Any) -> Any:
        """The request of `requests`, changed in place; this replaces MLflow's basic auth."""
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = f"Bearer {self._login.token()}"
        return request


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port
