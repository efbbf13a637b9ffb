"""The origin of a URL."""

from __future__ import annotations

from urllib.parse import urlsplit


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, to which credentials belong. Raises ValueError for an invalid one."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port
