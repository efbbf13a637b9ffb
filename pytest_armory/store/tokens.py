"""The client of Mantik's token service: a login that renews its tokens, and its inherited state.

The protocol is that of Mantik's client (https://pypi.org/project/mantik, 0.5.11,
``utils/mantik_api/client.py``). The password goes to Mantik's API only.

Nothing here raises from a frame whose arguments or variables have a secret: pytest shows both.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import partial
from json import dumps
from math import inf
from time import time
from typing import Any, NamedTuple

from pytest_armory.budget import within
from pytest_armory.environment import value_of
from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.values import REDACTED, conceal, redact_text
from pytest_armory.values.origin import origin
from pytest_armory.values.times import seconds

API = "https://api.cloud.mantik.ai"
"""Mantik's API without ``MANTIK_API_URL``, as in Mantik's client."""

TIMEOUT = 10.0
"""Seconds for the token service to take the connection, and to answer."""


def api_address() -> str:
    """The address of Mantik's API. Raises :class:`ArmoryUsageError` if it cannot be used."""
    problem = _problem_with_api()
    if problem:
        raise ArmoryUsageError(problem)
    return value_of("MANTIK_API_URL") or API


def _problem_with_api() -> str:
    given = value_of("MANTIK_API_URL") or API
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


class Grant(NamedTuple):
    """The response of a token service; times are seconds since the epoch."""

    access: str
    refresh: str
    expires_at: float
    renew_at: float

    def __repr__(self) -> str:
        return REDACTED


def _session_of_requests() -> Any:
    import requests

    return requests.Session()


class Tokens:
    """A login at Mantik that renews itself; safe to share between threads.

    ``token`` requests a new token 60 s, or a tenth of its lifetime, before the old one expires.
    """

    new_session: Callable[[], Any] = staticmethod(_session_of_requests)
    """What makes the session of a request: a tracked session has one that no test replaces."""

    def __init__(self, api: str, user: str, password: str, grant: Grant | None = None) -> None:
        self.api, self.user = api.rstrip("/"), user
        self._password, self._grant = password, grant
        self._failure, self._pause_until = "", 0.0
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls) -> Tokens:
        """The login at ``MANTIK_API_URL``, by default at the API of Mantik's client.

        Raises :class:`ArmoryUsageError`.
        """
        user, password = (value_of(f"MANTIK_{n}", "") for n in ("USERNAME", "PASSWORD"))
        return cls(api_address(), user, password)

    def __repr__(self) -> str:
        return f"<login of {self.user!r} at {redact_text(self.api)}>"

    @property
    def known(self) -> str:
        """The access token that was granted last, valid or not; "" before the first."""
        return self._grant.access if self._grant else ""

    def token(self) -> str:
        """A valid access token. Raises :class:`TrackingError` if none can be obtained."""
        with self._lock:
            grant, now = self._grant, time()
            if grant and now < grant.renew_at:
                return grant.access
            if now >= self._pause_until:
                answer = self._renewed(grant.refresh if grant else "")
                if isinstance(answer, Grant):
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

    def _renewed(self, refresh: str) -> Grant | str:
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
        refresh = self._grant.refresh if self._grant else ""
        secrets = {"refresh": {"refresh_token": refresh}, "create": {"password": self._password}}
        insecure = value_of("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
        with self.new_session() as session:
            return session.request(
                "POST",
                f"{self.api}/mantik/tokens/{action}",
                json={"username": self.user, **secrets[action]},
                timeout=TIMEOUT,
                allow_redirects=False,  # no other server is to receive the password
                auth=lambda request: request,  # otherwise ~/.netrc's login for that host is used
                verify=value_of("MLFLOW_TRACKING_SERVER_CERT_PATH") or not insecure,
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


def _granted(answer: Any, old_refresh: str) -> Grant:
    access, expires_at = answer["AccessToken"], seconds(answer["ExpiresAt"])
    if not re.fullmatch(r"[!-~]+", access):  # an HTTP library's error would show it
        raise ValueError
    # Behind Mantik is AWS Cognito, whose answer to a refresh has no new refresh token.
    refresh = answer.get("RefreshToken") or old_refresh
    margin = max(0.0, min(60.0, (expires_at - time()) / 10))
    return Grant(access, refresh, expires_at, expires_at - margin)


def fixed(token: str) -> Tokens:
    """A login that has this one token for good."""
    return Tokens("", "", "", Grant(token, "", inf, inf))


def inherited(text: str) -> tuple[str, Tokens] | None:
    """The tracking URI and the login that :meth:`Tokens.for_children` has made a text of.

    None if it cannot be read: a child process may have another version of this package, and
    anyone may change its environment.
    """
    from pytest_armory.records.fields import read_text

    read, _ = read_text(_state, text)
    if read is None:
        return None
    uri, api, user, grant = read
    return uri, Tokens(api, user, value_of("MANTIK_PASSWORD", ""), grant)


def _state(value: object) -> tuple[str, str, str, Grant]:
    from pytest_armory.records.fields import UnreadableError, anything, list_of, number, string

    parts = list_of(anything)(value)
    grant = list_of(anything)(parts[3]) if len(parts) == 4 else ()
    if len(grant) != 4:
        raise UnreadableError("is not a login")
    uri, api, user, access, refresh = map(string, (*parts[:3], *grant[:2]))
    try:
        origin(uri)
    except ValueError:
        raise UnreadableError("has no URI") from None
    return uri, api, user, Grant(access, refresh, number(grant[2]), number(grant[3]))
