"""The lock that allows one upload of a database at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from pytest_armory.errors import TrackingError
from pytest_armory.store.destination import Destination


@contextmanager
def upload_lock(source: Destination) -> Iterator[None]:
    """Hold the lock of a database; raises :class:`TrackingError` if another upload holds it."""
    path = source.database
    if path is None or not path.exists():
        yield
        return
    lock = FileLock(path.with_name(f"{path.name}.sync.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrackingError(
            f"another sync of {source.display_uri} is at work; it uploads the same, so wait for it"
        ) from None
    except OSError as error:
        raise TrackingError(f"{lock.lock_file} cannot be locked: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
