"""The origin of a URL."""

from __future__ import annotations

from urllib.parse import urlsplit


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, to which credentials belong. Raises ValueError for an invalid one."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def origin_text(url: str) -> str:
    """The origin of a URL as one writes it.

    >>> origin_text("https://me:secret@host:444/path?query")
    'https://host:444'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
