"""The login at a tracking platform, renewed for as long as a session lasts.

Mantik requires a bearer token that is valid for about an hour. It is requested with
``MANTIK_USERNAME`` and ``MANTIK_PASSWORD``, renewed before it expires, and added to every request
by MLflow's own extension point, so that the tests' own ``mlflow.*`` calls have it too. The
protocol is that of Mantik's client (https://pypi.org/project/mantik, 0.5.11,
``utils/mantik_api/client.py``); the extension point is MLflow's ``RequestAuthProvider``
(``MLFLOW_TRACKING_AUTH``). The password goes to Mantik's API only, and a token only to the origin
of the tracking URI that it was requested for: :func:`needed` says which servers are Mantik's.

Nothing here raises from a frame whose arguments or variables have a secret: pytest shows both.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from json import dumps, loads
from math import inf
from time import time
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from pytest_armory.budget import within
from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.values import REDACTED, conceal, redact_text
from pytest_armory.values.origin import origin
from pytest_armory.values.times import seconds

PROVIDER = "armory"
"""The name of this auth provider, in ``MLFLOW_TRACKING_AUTH`` and in ``pyproject.toml``."""

TRACKING_PATH = "/tracking"
"""Where Mantik's API serves MLflow: its client's default is https://api.cloud.mantik.ai/tracking/"""

API = "https://api.cloud.mantik.ai"
"""Mantik's API without ``MANTIK_API_URL``, as in Mantik's client."""

DOMAIN = "cloud.mantik.ai"
"""The host, with those below it, that is Mantik's own."""

TOKEN = "MLFLOW_TRACKING_TOKEN"
"""The variable of MLflow's that Mantik's client reads, so that it is set while logged in."""

INHERITED = "ARMORY_ACCESS_TOKENS"
"""The variable by which child processes inherit the login. `ps` would show an argument."""

WITHHELD = "withheld"
"""The variable's value while requests are to carry no credentials."""

TIMEOUT = 10.0
"""Seconds for the token service to take the connection, and to answer."""


class Login(Protocol):
    """An object that provides a valid token."""

    def token(self) -> str:
        """A bearer token. Called before each request, from any thread: cache it, renew it."""


def needed(uri: str, *, requested: bool = False) -> bool:
    """Whether tracking to `uri` requires a login at Mantik: a name, a password, Mantik's server.

    Mantik's are the servers under its own domain and that of ``MANTIK_API_URL``, and whichever
    :func:`init_tracking` was called for (``requested``). At any other, MLflow's own credentials are
    the only ones. A token, or another ``MLFLOW_TRACKING_AUTH``, is the user's own login. Raises
    :class:`ArmoryUsageError` for a user name without a password and the reverse, and for a
    ``MANTIK_API_URL`` that is no address.
    """
    other = (os.environ.get("MLFLOW_TRACKING_AUTH") or PROVIDER) != PROVIDER
    missing = [n for n in ("MANTIK_USERNAME", "MANTIK_PASSWORD") if not os.environ.get(n)]
    if other or _is_users_token() or len(missing) == 2 or not re.match("https?://", uri.lower()):
        return False
    if not (requested or is_mantiks(uri) or _login_for(uri)):
        return False
    if missing:
        raise ArmoryUsageError(
            f"a login at Mantik takes MANTIK_USERNAME and MANTIK_PASSWORD, and {missing[0]}"
            " is not set; set it, or unset the other one to track without a login"
        )
    return True


def is_mantiks(uri: str) -> bool:
    """Whether a server is Mantik's: under its domain, or of the origin of ``MANTIK_API_URL``."""
    host = urlsplit(uri).hostname or ""
    if host == DOMAIN or host.endswith(f".{DOMAIN}"):
        return True
    return bool(os.environ.get("MANTIK_API_URL")) and origin(uri) == origin(_api())


def _is_users_token() -> bool:
    logged_in = os.environ.get("MLFLOW_TRACKING_AUTH") == PROVIDER and INHERITED in os.environ
    return bool(os.environ.get(TOKEN)) and not logged_in


def _api() -> str:
    """The address of Mantik's API. Raises :class:`ArmoryUsageError` if it cannot be used."""
    problem = _problem_with_api()
    if problem:
        raise ArmoryUsageError(problem)
    return os.environ.get("MANTIK_API_URL") or API


def _problem_with_api() -> str:
    given = os.environ.get("MANTIK_API_URL") or API
    try:
        scheme, host, _ = origin(given)
    except ValueError:  # whose text may hold a part of a password
        scheme, host = "", None
    if scheme in ("http", "https") and host:
        return ""
    shown = re.sub(r"[^/]*@", f"{REDACTED}@", redact_text(given))
    return (
        f"MANTIK_API_URL is {shown!r}, and the address of an API starts with a scheme and a host; "
        f"set it as in MANTIK_API_URL={API}, or unset it for that one"
    )


def tracking_uri(uri: str) -> str:
    """`uri` for MLflow: if it is only the platform's host, with the path at which it serves MLflow.

    No other server's address is changed.
    """
    only_host = urlsplit(uri).path in ("", "/")
    return uri.rstrip("/") + TRACKING_PATH if only_host and is_mantiks(uri) else uri


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
    def from_environment(cls) -> Tokens:
        """The login at ``MANTIK_API_URL``, by default at the API of Mantik's client.

        Raises :class:`ArmoryUsageError`.
        """
        user, password = (os.environ.get(f"MANTIK_{n}", "") for n in ("USERNAME", "PASSWORD"))
        return cls(_api(), user, password)

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
        raised while one of them is handled. Only a refresh token that is refused leads to a new
        login: a service that is in trouble is not sent the password as well.
        """
        failure = ""
        for action in ("refresh", "create") if refresh else ("create",):
            try:
                response = within(TIMEOUT + 2, partial(self._post, action))
            except (OSError, ValueError) as error:  # a second request would wait as long
                return f"got no answer ({type(error).__name__}); {_WHERE}"
            status = response.status_code
            if not 200 <= status < 300:
                failure = f"failed: HTTP {status}; {_advice(status)}"
                if status in _REFUSED:
                    continue
                return failure
            try:
                return _granted(response.json(), refresh)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                return f"got an answer without a usable token; {_WHERE}"
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
        return dumps([uri, self.api, self.user, self._grant])


_WHERE = "set MANTIK_API_URL to the address of Mantik's API"


_REFUSED = (400, 401, 403, 422)
"""Status codes for what was sent: a user name and password, or a refresh token."""


def _advice(status: int) -> str:
    if status in _REFUSED:
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


_current: tuple[str, Login] | None = None  # the tracking URI, and the login there


def _in_force() -> tuple[str, Login] | None:
    inherited = os.environ.get(INHERITED)
    return _current or (_from_parent(inherited) if inherited else None)


@lru_cache(maxsize=4)  # a process that never called `_start` renews once, not at each request
def _from_parent(text: str) -> tuple[str, Login]:
    uri, api, user, grant = loads(text)
    _published.add(grant[0])
    return uri, Tokens(api, user, os.environ.get("MANTIK_PASSWORD", ""), _Grant(*grant))


def _login_for(uri: str) -> Tokens | None:
    """The login of Mantik's user that is in force for the origin of `uri`, if there is one."""
    where, login = _in_force() or ("", None)
    if not isinstance(login, Tokens) or login.user != os.environ.get("MANTIK_USERNAME"):
        return None
    return login if origin(where) == origin(uri) else None


def _start(uri: str, login: Login | None = None, *, requested: bool = False) -> str:
    global _current
    if login is None:
        if not needed(uri, requested=requested):
            return uri
        uri = tracking_uri(uri)
        login = _login_for(uri) or Tokens.from_environment()
    token = login.token()  # so that a wrong password fails here, not at the first run
    _current = uri, login
    _publish(uri, login, token)
    os.environ["MLFLOW_TRACKING_AUTH"] = PROVIDER
    os.environ["MLFLOW_TRACKING_URI"] = uri
    return uri


_published: set[str] = set()
"""The tokens of this process's logins: MLflow itself would send the variable's to any server."""


def _publish(uri: str, login: Login, token: str) -> None:
    """Set the variables by which child processes and Mantik's client have the login."""
    # A hook's login is called again in a worker; other child processes have only this one token.
    fixed = Tokens("", "", "", _Grant(token, "", inf, inf))
    inherited = login if isinstance(login, Tokens) else fixed
    _published.add(token)
    os.environ[INHERITED] = inherited.for_children(uri)
    os.environ[TOKEN] = token


def _restorer() -> Callable[[], None]:
    """What restores the login and its variables: a dictionary's secrets would be in tracebacks."""
    names = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_URI", TOKEN, INHERITED)
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
    place. Calling it says that the server takes Mantik's tokens, whatever its address. Raises what
    :func:`logged_in` raises.
    """
    return _start(uri or os.environ.get("MLFLOW_TRACKING_URI") or "local", requested=True)


class AuthProvider:
    """The entry point of the group ``mlflow.request_auth_provider``.

    A ``RequestAuthProvider`` by its two methods; to inherit from it would import MLflow.
    """

    def get_name(self) -> str:
        """What ``MLFLOW_TRACKING_AUTH`` calls this provider."""
        return PROVIDER

    def get_auth(self) -> Callable[[Any], Any]:
        """The `auth` of one request. Raises :class:`TrackingError` without a login."""
        if os.environ.get(INHERITED) == WITHHELD:
            return _without_credentials
        login = _in_force()
        if login is None:
            raise TrackingError(
                f"MLFLOW_TRACKING_AUTH is {PROVIDER!r}, but nobody is logged in; call "
                "pytest_armory.init_tracking() first, or unset it"
            )
        return Bearer(*login)


def _without_credentials(request: Any) -> Any:
    # MLflow has other sources than the environment: ~/.mlflow/credentials is for any server.
    request.headers.pop("Authorization", None)
    return request


class Bearer:
    """Adds the current token to a request, if it goes to the server that the token is for."""

    def __init__(self, uri: str, login: Login) -> None:
        self._uri, self._login = uri, login

    def __call__(self, request: Any) -> Any:
        """The request of `requests`, changed in place; this replaces MLflow's basic auth."""
        if origin(request.url) == origin(self._uri):
            token = self._login.token()
            request.headers["Authorization"] = f"Bearer {token}"
            if os.environ.get(TOKEN, token) != token and os.environ.get(TOKEN) in _published:
                _publish(self._uri, self._login, token)  # it was renewed
        elif request.headers.get("Authorization", "").removeprefix("Bearer ") in _published:
            del request.headers["Authorization"]
        return request
