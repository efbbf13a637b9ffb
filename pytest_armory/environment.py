"""Read environment variables, and set them for good or for a while.

By none of the methods of ``os.environ`` that a test may have replaced by a mock, such as ``get``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import overload


@overload
def value_of(name: str) -> str | None: ...
@overload
def value_of(name: str, default: str) -> str: ...
def value_of(name: str, default: str | None = None) -> str | None:
    """What ``os.environ.get`` returns where it is not replaced."""
    return os.environ[name] if name in os.environ else default  # noqa: SIM401 - see above


def put(variables: Mapping[str, str | None]) -> None:
    """Set each of them, or unset it where it is None."""
    for name, value in variables.items():
        if value is None:
            if name in os.environ:
                del os.environ[name]
        else:
            os.environ[name] = value


@contextmanager
def changed(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Override them meanwhile, then restore each to what it was."""
    before = {name: value_of(name) for name in variables}
    put(variables)
    try:
        yield
    finally:
        put(before)
