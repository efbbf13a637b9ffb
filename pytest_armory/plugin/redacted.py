"""Node ids and exceptions as texts that hold no secret."""

from __future__ import annotations

import traceback
from functools import lru_cache
from pathlib import Path

from pytest_armory.errors import TrackingError
from pytest_armory.values import redact_text, short_hash


@lru_cache(maxsize=4096)  # each report of a test asks
def display_id(nodeid: str) -> str:
    """A node id without what looks like a secret in it; still another one than its neighbours'."""
    redacted = redact_text(nodeid)
    if redacted == nodeid:
        return nodeid
    return f"{redacted} {short_hash(nodeid)}"


def unexpected_error(error: Exception) -> str:
    """What to report of an exception that nobody foresaw: of a machine or test that breaks Python.

    It may cost what was to be stored, but never a verdict. One that the store foresaw says it all.
    """
    if isinstance(error, TrackingError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    redacted = redact_text(" ".join(str(error).split()))[:300]
    return f"tracking failed in {place}: {type(error).__name__}: {redacted}"
