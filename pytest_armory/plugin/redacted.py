"""Node ids without secrets."""

from __future__ import annotations

from functools import lru_cache
from sys import intern

from pytest_armory.values import clip_name, redact_text, short_hash

_LIMIT = 20_000
"""More than any store keeps of a node id: pytest makes one of a whole string of any length."""


@lru_cache(maxsize=4096)  # called for each report of a test
def display_id(nodeid: str) -> str:
    """A node id without what looks like a secret; a hash keeps redacted ids distinct."""
    cut = clip_name(nodeid, _LIMIT)
    redacted = redact_text(cut)
    # Interned, for the session's records have the same one.
    return intern(str(cut if redacted == cut else f"{redacted} {short_hash(nodeid)}"))
