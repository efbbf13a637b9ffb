"""Setting environment variables, and restoring them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


def put(variables: Mapping[str, str | None]) -> None:
    """Set each of them, or unset it where it is None."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def changed(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set them for the duration of a context, and restore each of them at its end."""
    before = {name: os.environ.get(name) for name in variables}
    put(variables)
    try:
        yield
    finally:
        put(before)
