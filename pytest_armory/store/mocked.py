"""Whether a test has a mock in place of what requests to a server go through.

The mock would take a request of ours for the test's own, and count it. Other replacements, such as
those that trace requests, send them.
"""

from __future__ import annotations

import sys

_THROUGH = (
    ("requests", "Session", "request"),
    ("requests", "Session", "send"),
    ("requests", "Session", "get_adapter"),
    ("requests.adapters", "HTTPAdapter", "send"),
)
"""Each a module, a class of it and a method; a class that is a mock has methods that are mocks."""


def mocked_part() -> str:
    """The name of what is a mock of :mod:`unittest.mock`; empty if nothing is."""
    for module, name, method in _THROUGH:
        owner = getattr(sys.modules.get(module), name, None)
        if hasattr(getattr(owner, method, None), "assert_not_called"):
            return f"{module}.{name}.{method}"
    return ""
