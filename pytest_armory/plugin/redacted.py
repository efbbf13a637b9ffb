"""Node ids without secrets."""

from __future__ import annotations

from functools import lru_cache

from pytest_armory.values import redact_text, short_hash


@lru_cache(maxsize=4096)  # called for each report of a test
def display_id(nodeid: str) -> str:
    """A node id without what looks like a secret; a hash keeps redacted ids distinct."""
    redacted = redact_text(nodeid)
    if redacted == nodeid:
        return nodeid
    return f"{redacted} {short_hash(nodeid)}"
