"""Whether a test has replaced what requests to a server go through, as its mocks do.

The replacement would take a request of ours for the test's own: count it, answer or record it. One
that wraps what it replaces, such as those that trace requests or set a timeout, is for all.
"""

from __future__ import annotations

import os
import sys
from functools import partialmethod
from typing import Any

_THROUGH = (
    ("requests", "Session", "request"),
    ("requests", "Session", "send"),
    ("requests", "Session", "get_adapter"),
    ("requests.adapters", "HTTPAdapter", "send"),
    ("urllib3.connectionpool", "HTTPConnectionPool", "urlopen"),
    ("urllib3.connectionpool", "HTTPConnectionPool", "ConnectionCls"),
)
"""Each a module, a class of it and an attribute of that. Those of ``unittest.mock``, ``responses``,
``requests-mock``, ``pook`` and ``vcrpy`` are among them."""

_originals: dict[tuple[str, str, str], Any] = {}


def remember_originals() -> None:
    """Take what is there for what has not been replaced: the first test has not begun."""
    for part in _THROUGH:
        _originals.setdefault(part, _found(part))


def mocked_part() -> str:
    """The name of what is replaced; empty if nothing is."""
    if "get" in vars(os.environ):  # by which proxies, logins and limits are read
        return "os.environ.get"
    for part, original in _originals.items():
        found = _found(part)
        if found is not original and not _is_wrapper(found):
            return ".".join(part)
    return ""


def _found(part: tuple[str, str, str]) -> Any:
    module, name, attribute = part
    owner = getattr(sys.modules.get(module), name, None)
    # Without binding it, which would make another object each time.
    return vars(owner).get(attribute) if isinstance(owner, type) else owner


def _is_wrapper(found: Any) -> bool:
    """Whether it says that it wraps a function: a mock has no such attribute."""
    return hasattr(found, "__wrapped__") or isinstance(found, partialmethod)
