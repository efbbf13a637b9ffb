"""The login at a tracking platform, renewed for as long as a session lasts.

Mantik requires a bearer token that is valid for about an hour. :mod:`tokens` requests it with
``MANTIK_USERNAME`` and ``MANTIK_PASSWORD`` and renews it before it expires; it is added to every
request by MLflow's own extension point, so that the tests' own ``mlflow.*`` calls have it too:
``RequestAuthProvider`` (``MLFLOW_TRACKING_AUTH``). A token goes only to the origin of the tracking
URI that it was requested for: :func:`needed` says which servers are Mantik's.

Nothing here raises from a frame whose arguments or variables have a secret: pytest shows both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from pytest_armory.environment import value_of
from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.store.tokens import Tokens, api_address, fixed, inherited
from pytest_armory.values import redact_text
from pytest_armory.values.origin import origin

PROVIDER = "armory"
"""The name of this auth provider, in ``MLFLOW_TRACKING_AUTH`` and in ``pyproject.toml``."""

TRACKING_PATH = "/tracking"
"""Where Mantik's API serves MLflow: its client's default is https://api.cloud.mantik.ai/tracking/"""

DOMAIN = "cloud.mantik.ai"
"""The host, with those below it, that is Mantik's own."""

TOKEN = "MLFLOW_TRACKING_TOKEN"
"""The variable of MLflow's that Mantik's client reads, so that it is set while logged in."""

INHERITED = "ARMORY_ACCESS_TOKENS"
"""The variable by which child processes inherit the login. `ps` would show an argument."""

WITHHELD = "withheld"
"""The variable's value while requests are to carry no credentials."""


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
    other = (value_of("MLFLOW_TRACKING_AUTH") or PROVIDER) != PROVIDER
    missing = [n for n in ("MANTIK_USERNAME", "MANTIK_PASSWORD") if not value_of(n)]
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
    return bool(value_of("MANTIK_API_URL")) and origin(uri) == origin(api_address())


def _is_users_token() -> bool:
    logged_in = value_of("MLFLOW_TRACKING_AUTH") == PROVIDER and INHERITED in os.environ
    return bool(value_of(TOKEN)) and not logged_in


def tracking_uri(uri: str) -> str:
    """`uri` for MLflow: if it is only the platform's host, with the path at which it serves MLflow.

    No other server's address is changed.
    """
    only_host = urlsplit(uri).path in ("", "/")
    return uri.rstrip("/") + TRACKING_PATH if only_host and is_mantiks(uri) else uri


_current: tuple[str, Login] | None = None  # the tracking URI, and the login there


def _in_force() -> tuple[str, Login] | None:
    text = value_of(INHERITED)
    return _current or (_from_parent(text) if text else None)


@lru_cache(maxsize=4)  # a process that never called `_start` renews once, not at each request
def _from_parent(text: str) -> tuple[str, Login] | None:
    found = inherited(text)
    if found is not None:
        _published.add(found[1].known)
    return found


def _login_for(uri: str) -> Tokens | None:
    """The login of Mantik's user that is in force for the origin of `uri`, if there is one."""
    where, login = _in_force() or ("", None)
    if not isinstance(login, Tokens) or login.user != value_of("MANTIK_USERNAME"):
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
    tokens = login if isinstance(login, Tokens) else fixed(token)
    _published.add(token)
    os.environ[INHERITED] = tokens.for_children(uri)
    os.environ[TOKEN] = token


def _restorer() -> Callable[[], None]:
    """What restores the login and its variables: a dictionary's secrets would be in tracebacks."""
    names = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_URI", TOKEN, INHERITED)
    login, before = _current, {name: value_of(name) for name in names}

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
    return _start(uri or value_of("MLFLOW_TRACKING_URI") or "local", requested=True)


def token_refused(code: str) -> str:
    """Text for a token of the login in force that the tracking server refused with `code`."""
    _, login = _in_force() or ("", None)
    whose, advice = "the login", "check the hook pytest_armory_login"
    if isinstance(login, Tokens) and login.user:
        whose = f"{login.user!r} from {redact_text(login.api)}"
        advice = "check that the server takes tokens from there, and this machine's clock"
    if code != "UNAUTHENTICATED":
        advice = "check what the user may do there"
    return f"the token of {whose} was refused ({code}); {advice}"


class AuthProvider:
    """The entry point of the group ``mlflow.request_auth_provider``.

    A ``RequestAuthProvider`` by its two methods; to inherit from it would import MLflow.
    """

    def get_name(self) -> str:
        """What ``MLFLOW_TRACKING_AUTH`` calls this provider."""
        return PROVIDER

    def get_auth(self) -> Callable[[Any], Any]:
        """The `auth` of one request. Raises :class:`TrackingError` without a login."""
        if value_of(INHERITED) == WITHHELD:
            return _without_credentials
        login = _in_force()
        if login is None:
            unreadable = f" ({INHERITED} holds no login)" if value_of(INHERITED) else ""
            raise TrackingError(
                f"MLFLOW_TRACKING_AUTH is {PROVIDER!r}, but nobody is logged in{unreadable}; call "
                "pytest_armory.init_tracking() first, or unset it"
            )
        return Bearer(*login)


def _without_credentials(request: Any) -> Any:
    # MLflow has other sources than the environment: ~/.mlflow/credentials is for any server.
    request.headers.pop("Authorization", None)
    return request


def _without_login_elsewhere(response: Any, **_options: Any) -> None:
    # `requests` takes a login along to https of the same host.
    if not response.is_redirect:
        return
    try:
        target = origin(urljoin(response.url, response.headers["Location"]))
    except ValueError:  # `requests` says so
        return
    if target != origin(response.url):
        response.request.headers.pop("Authorization", None)


class Bearer:
    """Adds the current token to a request, if it goes to the server that the token is for."""

    def __init__(self, uri: str, login: Login) -> None:
        self._uri, self._login = uri, login

    def __call__(self, request: Any) -> Any:
        """The request of `requests`, changed in place; this replaces MLflow's basic auth."""
        if origin(request.url) == origin(self._uri):
            token = self._login.token()
            request.headers["Authorization"] = f"Bearer {token}"
            request.register_hook("response", _without_login_elsewhere)
            if value_of(TOKEN, token) != token and value_of(TOKEN) in _published:
                _publish(self._uri, self._login, token)  # it was renewed
        elif request.headers.get("Authorization", "").removeprefix("Bearer ") in _published:
            del request.headers["Authorization"]
        return request
