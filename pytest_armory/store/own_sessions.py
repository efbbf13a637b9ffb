"""Sessions of ``requests`` for our calls, which go past what a test has put in its place.

``unittest.mock``, ``responses``, ``requests-mock``, ``pook`` and ``vcrpy`` replace attributes of
classes of ``requests`` and ``urllib3``, and take a request of ours for the test's own: count it,
answer or record it. In a session of ours these attributes are what they were before the first
test, or what wraps that, such as what traces requests or sets a timeout for all of them. MLflow
keeps a session for all calls of a process alike; ours have others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, lru_cache, partial, partialmethod, wraps
from http import HTTPStatus
from typing import Any

from pytest_armory.errors import LoginRefusedError
from pytest_armory.store.own_requests import is_own, own, stand_in
from pytest_armory.store.tokens import Tokens
from pytest_armory.values.origin import origin, origin_text

_Part = tuple[str, str, str]

_URLOPEN = "urllib3.connectionpool", "HTTPConnectionPool", "urlopen"
_CONNECTIONS = tuple(
    ("urllib3.connectionpool", name, "ConnectionCls")
    for name in ("HTTPConnectionPool", "HTTPSConnectionPool")
)
_SEND: _Part = ("requests", "Session", "send")
_BOUND: tuple[_Part, ...] = (
    ("requests", "Session", "request"),
    _SEND,
    ("requests", "Session", "get_adapter"),
    ("requests.adapters", "HTTPAdapter", "send"),
)
"""Those of sessions and adapters, of which we have our own. Each part is a module, a class of it
and an attribute of that."""

_REQUESTS = "mlflow.utils.request_utils"
"""The module of MLflow that makes sessions."""

_CACHE = "_cached_get_request_session"
"""Its function that keeps them."""

_originals: dict[_Part, tuple[Any, Any]] = {}
"""By part: the class and its attribute."""


def use_own_sessions() -> None:
    """Have MLflow send our calls by sessions of ours; the first test has not begun."""
    if _originals:
        return
    for part in (*_BOUND, _URLOPEN, *_CONNECTIONS):
        if _found(part) is not None:
            _originals[part] = (_owner(part), _found(part))
    names = vars(sys.modules[_REQUESTS])
    names["requests"] = stand_in(names["requests"])
    if _CACHE in names:  # else a version of MLflow to come has it elsewhere
        names[_CACHE] = _apart(names[_CACHE])
    Tokens.new_session = staticmethod(_own_session)


def _own_session() -> Any:
    with own():
        return _as_own(sys.modules[_REQUESTS].requests.Session())


def mocked_part() -> str:
    """What of requests, or of the environment, a test has replaced; empty if nothing is.

    For calls that other libraries send in their own ways, such as those of a cloud's storage.
    """
    if "get" in vars(os.environ):  # by which proxies, logins and limits are read
        return "os.environ.get"
    replaced = (part for part in _originals if _in_force(part) is not _found(part))
    return ".".join(next(replaced, ()))


def _owner(part: _Part) -> Any:
    return getattr(sys.modules.get(part[0]), part[1], None)


def _found(part: _Part) -> Any:
    owner = _owner(part)
    # Without binding it, which would make another object each time.
    return vars(owner).get(part[2]) if isinstance(owner, type) else owner


def _in_force(part: _Part) -> Any:
    """What is there now if it says that it wraps a function, as no mock does; else the original."""
    found = _found(part)
    is_wrapper = hasattr(found, "__wrapped__") or isinstance(found, partialmethod)
    return found if is_wrapper else _originals[part][1]


def _apart(theirs: Any) -> Callable[..., Any]:
    """MLflow's cache of sessions, with another one for our calls."""

    @lru_cache(maxsize=64)
    def ours(*args: Any, **options: Any) -> Any:
        return _as_own(theirs.__wrapped__(*args, **options))

    @wraps(theirs)
    def session(*args: Any, **options: Any) -> Any:
        return (ours if is_own() else theirs)(*args, **options)

    session.cache_clear, session.cache_info = theirs.cache_clear, theirs.cache_info  # type: ignore[attr-defined]
    return session


def _as_own(session: Any) -> Any:
    """The session, past what replaces attributes of its classes and those of what it stands on."""
    for one in (session, *session.adapters.values()):
        for part in _BOUND:
            if part in _originals and isinstance(one, _originals[part][0]):
                setattr(one, part[2], partial(_call, part, one))
    for adapter in session.adapters.values():
        _own_pools(adapter.poolmanager)
        adapter.proxy_manager_for = partial(_own_proxies, adapter.proxy_manager_for)
    return session


def _call(part: _Part, instance: Any, /, *args: Any, **options: Any) -> Any:
    with own():
        call = _in_force(part).__get__(instance, type(instance))
        return _send(call, *args, **options) if part == _SEND else call(*args, **options)


_first: ContextVar[tuple[object, ...] | None] = ContextVar("armory_first_origin", default=None)
"""The origin that the request was for which is being sent: inside it, redirects are followed."""


def _send(call: Callable[..., Any], request: Any, /, **options: Any) -> Any:
    """Send a request; one to another origin, as a redirect, without login and certificate.

    ``requests`` itself drops the login, but not for https of the same host, nor the certificate.
    """
    asked, where = _first.get(), origin(request.url)
    if asked == where:
        return call(request, **options)
    if asked is None:
        token = _first.set(where)
        try:
            return call(request, **options)
        finally:
            _first.reset(token)
    request.headers.pop("Authorization", None)
    response = call(request, **{**options, "cert": None})
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        raise LoginRefusedError(
            f"it redirects to {origin_text(request.url)}, another origin, to which no login goes; "
            "if that is your server, give its address"
        )
    return response


def _own_proxies(theirs: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    return _own_pools(theirs(*args, **options))


def _own_pools(manager: Any) -> Any:
    kinds = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _own_pool(kinds[scheme]) for scheme in kinds}
    return manager


@cache
def _own_pool(kind: type[Any]) -> type[Any]:
    """A class of connection pools that opens what it did; with its own class that is unchanged."""
    if kind.__module__ == __name__:
        return kind

    def urlopen(self: Any, *args: Any, **options: Any) -> Any:
        return _call(_URLOPEN, self, *args, **options)

    part = (kind.__module__, kind.__name__, "ConnectionCls")
    _, connection = _originals.get(part, (kind, kind.ConnectionCls))
    own = {"urlopen": urlopen, "ConnectionCls": connection, "__module__": __name__}
    return type(kind.__name__, (kind,), own)
