"""Texts as they are kept: cut at a length, without secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_armory.values import (
    REDACTED,
    clip,
    clip_name,
    describe,
    is_secret_key,
    redact_text,
    visible,
)
from pytest_armory.values.redaction import hides

TEXT_LIMIT = 1_000
"""The most characters of a text in a table; the end of a longer one says how many are missing."""

_AT_ONCE = 1_000


def kept_texts(name: str, values: list[Any], cut: Callable[[str, int], str] = clip) -> list[Any]:
    """The values of the column ``name`` as they are kept: numbers, booleans, None, and texts.

    Any other object becomes a text, as a parameter would. NaN, by which pandas says that a text is
    missing, is None.
    """
    texts = [_plain(one) if _is_plain(one) else _text(one) for one in values]
    found: list[Any] = []
    for start in range(0, len(texts), _AT_ONCE):
        some = _redacted(name, texts[start : start + _AT_ONCE])
        found += [cut(one, TEXT_LIMIT) if isinstance(one, str) else one for one in some]
    return found


def kept_labels(name: str, values: list[str]) -> list[str]:
    """Ids or groups as they are kept: a long one ends with a hash, so that they stay different."""
    return kept_texts(name, values, cut=clip_name)


def _plain(value: Any) -> Any:
    return None if type(value) is float and value != value else value


def _is_plain(value: object) -> bool:
    """Whether it is None, a boolean, or a number of 64 bits."""
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return value is None or type(value) in (bool, float)


def _text(value: object) -> str:
    return visible(value if isinstance(value, str) else describe(value))


def _redacted(name: str, values: list[Any]) -> list[Any]:
    if is_secret_key(name):
        values = [REDACTED if hides(name, value) else value for value in values]
    joined = "\n".join(value for value in values if isinstance(value, str))
    # One search over many texts takes a third of the time of one for each.
    if redact_text(joined) != joined:
        values = [redact_text(value) if isinstance(value, str) else value for value in values]
    return values
