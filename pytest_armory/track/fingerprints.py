"""What identifies the data that a call is given: files, and datasets of Hugging Face."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_armory.track.arguments import named_arguments
from pytest_armory.values import is_secret_key

MOST_BYTES = 64 * 1024 * 1024
"""The largest file whose content is read, in a tenth of a second or two."""


def fingerprints(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, str]:
    """Of the arguments of a call by parameter name: ``{name}.sha256``, ``{name}.fingerprint``.

    A ``Path`` of a file of up to 64 MB has the SHA-256 of its content, read once by a process; a
    dataset of Hugging Face's ``datasets``, or each of a dictionary of them, its own fingerprint.
    """
    given = named_arguments(func, args, kwargs)
    return {key: text for name, value in given.items() for key, text in _of(name, value)}


def _of(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Path):
        digest = "" if is_secret_key(name) else _digest_of_file(value)
        if digest:
            yield f"{name}.sha256", digest
    elif _is_of_datasets(value) and isinstance(value, Mapping):
        for split, dataset in value.items():
            yield from _of(f"{name}.{split}", dataset)
    elif _is_of_datasets(value) and isinstance(getattr(value, "_fingerprint", None), str):
        yield f"{name}.fingerprint", value._fingerprint


def _is_of_datasets(value: object) -> bool:
    return any(kind.__module__.partition(".")[0] == "datasets" for kind in type(value).__mro__)


def _digest_of_file(path: Path) -> str:
    """The SHA-256 of a file; "" for what is none, cannot be read or is too large."""
    try:
        found = path.stat()
        if not path.is_file() or found.st_size > MOST_BYTES:
            return ""
        return _digest(path.absolute(), found.st_size, found.st_mtime_ns)
    except OSError:  # the call itself will say what is wrong with it
        return ""


@lru_cache(maxsize=1024)
def _digest(path: Path, size: int, changed: int) -> str:  # noqa: ARG001 - a file of other values is another
    return hashlib.sha256(path.read_bytes()).hexdigest()
