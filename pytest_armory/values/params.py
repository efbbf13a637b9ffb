"""Parameters for MLflow: legal keys, flat strings and their limits."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_armory.values.describe import Members, Refused, clip, describe, leaves, pairs_of
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

_MEMBERS = 1000
"""How many members a value has at most of which each is a parameter; more are data."""

VALUE_LIMIT = 1_000_000
"""Characters of one value that are kept at most."""

_UNSURE = 10_000
"""Characters before a cut in which a part of a secret may not be known for one."""


class Descriptions:
    """The texts of values, each described once: a `__repr__` may be slow, or print.

    The values are kept alive; those that `others` has described are not described again.
    """

    def __init__(self, others: Descriptions | None = None) -> None:
        self._known: dict[int, tuple[object, str]] = {}
        self._others = {} if others is None else others._known

    def of(self, value: object) -> str:
        """A value's text, in at most :data:`VALUE_LIMIT` characters."""
        known = self._known.get(id(value)) or self._others.get(id(value))
        if known is None:
            known = self._known[id(value)] = value, redacted_value(describe(value))
        return known[1]


def redacted_value(text: str, limit: int = VALUE_LIMIT) -> str:
    """A text without secrets that encodes as UTF-8, cut to a limit before it is searched."""
    if len(text) <= limit + _UNSURE:
        return clip(visible(_redacted(text)), limit)
    return clip(visible(_redacted(text[: limit + _UNSURE])), limit, len(text))


def param_strings(
    params: Mapping[str, object], *, known: Descriptions | None = None
) -> dict[str, str]:
    """Parameters as flat strings, `key.inner`, redacted; `known` are texts known before.

    Mappings, dataclass instances and namedtuples of at most 1,000 members are flattened; the keys
    are legal for MLflow and the values encode as UTF-8. The caller cuts with `clip`, keeping the
    full text.
    """
    texts = Descriptions() if known is None else known
    strings: dict[str, str] = {}
    used: dict[str, int] = {}

    def look(key: str, value: Any) -> tuple[Any, Members]:
        # An empty mapping under a key is a leaf, "{}".
        secret = is_redacting() and is_secret_key(key)
        pairs = None if secret else pairs_of(value)
        if value is not params and not 0 < len(pairs or ()) <= _MEMBERS:
            return value, None
        return value, pairs

    for key, value in leaves(None, params, ".", look):
        if type(value) is Refused:
            text = str(value)
        elif hides(key, value):
            text = REDACTED
        else:
            text = texts.of(value)
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


def legal_keys(names: Sequence[str]) -> list[str]:
    """The :func:`legal_key` of each name, all distinct, and the same in whatever order they are.

    Of those that would become one, each character that is not legal is spelled by its Unicode
    name: `a+b` is `a_plus_sign_b`. Equal names are numbered, as by :func:`unused`.
    """
    keys = list(map(legal_key, names))
    counts = Counter(keys)
    apart = [
        key if counts[key] == 1 or key == name else legal_key(_ILLEGAL.sub(_spelled, name))
        for key, name in zip(keys, names, strict=True)
    ]
    used: dict[str, int] = {}
    order = sorted(range(len(names)), key=lambda i: (apart[i] != names[i], names[i]))
    found = {i: unused(apart[i], used) for i in order}
    return [found[i] for i in range(len(names))]


def _spelled(character: re.Match[str]) -> str:
    if character[0] in _SPOKEN:
        return _SPOKEN[character[0]]
    name = unicodedata.name(character[0], f"u{ord(character[0]):04x}")
    return f"_{name.lower().replace(' ', '_').replace('-', '_')}_"


def array_files(names: Iterable[str]) -> dict[str, str]:
    """The artifact of each array of one result, all distinct.

    Characters that MLflow does not quote over HTTP are replaced.
    """
    used: dict[str, int] = {}
    stems = {name: legal_key(name).replace(":", "_").replace(" ", "_") for name in names}
    order = sorted(stems, key=lambda name: (stems[name] != name, name))
    return {name: f"metrics/{unused(stems[name], used)}.json" for name in order}


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
