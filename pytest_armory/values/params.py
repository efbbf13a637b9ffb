"""Parameters for MLflow: legal keys, flat strings and their limits."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

from pytest_armory.values.describe import Members, Refused, describe, leaves, pairs_of
from pytest_armory.values.redaction import (
    REDACTED,
    hides,
    is_redacting,
    is_secret_key,
    redact_text,
    visible,
)

PARAM_LIMIT = 6000
"""Characters of one parameter value; MLflow silently cuts a longer one."""

TAG_LIMIT = 8000
"""The same for a tag; MLflow's ``create_run`` itself neither truncates nor checks."""

_KEY_LIMIT = 250


def param_strings(params: Mapping[str, object], *, prefix: str = "") -> dict[str, str]:
    """Parameters as flat strings, `prefix.key.inner`, redacted and of any length.

    Mappings, dataclass instances and namedtuples are flattened; the keys are legal for MLflow and
    the values encode as UTF-8. The caller cuts with `clip`, keeping the full text.
    """
    strings: dict[str, str] = {}
    used: dict[str, int] = {}

    def unprefixed(key: str) -> str:  # the prefix is the caller's and says nothing of the value
        return key.removeprefix(prefix)

    def look(key: str, value: Any) -> tuple[Any, Members]:
        # An empty mapping under a key is a leaf, "{}".
        secret = is_redacting() and is_secret_key(unprefixed(key))
        pairs = None if secret else pairs_of(value)
        return value, pairs if pairs or value is params else None

    for key, value in leaves(prefix or None, params, ".", look):
        if type(value) is Refused:
            text = str(value)
        elif hides(unprefixed(key), value):
            text = REDACTED
        else:
            text = visible(_redacted(describe(value)))
        strings[unused(legal_key(key), used)] = text
    return strings


# MLflow itself refuses the colon on Windows, where a key may become a file's name.
_ILLEGAL = re.compile(r"[^/\w.\- ]" if os.name == "nt" else r"[^/\w.\- :]")


_SPOKEN = {"@": "_at_", "^": "_hat_"}


def legal_key(name: str) -> str:
    """`name` in a form that MLflow accepts: at most 250 legal characters, a normalised path.

    `@` becomes `_at_` and `^` becomes `_hat_`, for `pass@8` and `pass^8` are two metrics; whatever
    else is not legal becomes `_`; a name cut short ends with a hash of the full name.
    """
    for character, word in _SPOKEN.items():
        name = name.replace(character, word)
    parts = _ILLEGAL.sub("_", name).split("/")
    parts = ["_" * max(len(part), 1) if part in ("", ".", "..") else part for part in parts]
    key = "/".join(parts)
    if key.startswith(".."):
        key = "__" + key[2:]
    if len(key) <= _KEY_LIMIT:
        return key
    return _ending_in_hash(key, _KEY_LIMIT, name)


def clip_name(text: str, limit: int) -> str:
    """A name cut to a limit, if need be, that then ends with a hash of the full name."""
    return text if len(text) <= limit else _ending_in_hash(text, limit, text)


def _ending_in_hash(text: str, limit: int, name: str) -> str:
    return f"{text[: limit - 9]}_{short_hash(name)}"


def short_hash(text: str) -> str:
    """Eight hexadecimal digits that distinguish similar texts."""
    return hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def unused(key: str, used: dict[str, int]) -> str:
    """`key`, or the first of `key-2`, `key-3`, … that is free."""
    name = key
    while name in used:
        used[key] += 1
        suffix = f"-{used[key]}"
        name = key[: _KEY_LIMIT - len(suffix)] + suffix
    used[name] = 1
    return name


def _redacted(text: str) -> str:
    return redact_text(text) if is_redacting() else text
