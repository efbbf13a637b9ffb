"""Node ids as texts that hold no secret."""

from __future__ import annotations

from functools import lru_cache

from pytest_armory.values import redact_text, short_hash


@lru_cache(maxsize=4096)  # each report of a test asks
def display_id(nodeid: str) -> str:
    """A node id without what looks like a secret in it; still another one than its neighbours'."""
    redacted = redact_text(nodeid)
    if redacted == nodeid:
        return nodeid
    return f"{redacted} {short_hash(nodeid)}"
