"""What an evaluation is made of, as digests: if none has changed, it need not run again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps

from pytest_armory.records import fields

TAG = "armory.fingerprint"

Fingerprint = Mapping[str, str]
"""A digest by the name of each part; "" for a part that has no stable form."""

PARTS = {
    "file": "its file has changed",
    "conftest": "a conftest file has changed",
    "marker": "its marker has changed",
    "params": "its parameters have changed",
    "repeats": "the number of its repeats has changed",
    "judging": "what its gates are judged by has changed",
    "version": "pytest-armory has changed",
    "commit": "the git commit has changed",
    "changes": "uncommitted changes have changed",
}
"""Each part, and what is said of an evaluation where it differs."""

_UNSTABLE = {
    "marker": "its marker has no stable form",
    "params": "its parameters have no stable form",
    "changes": "git cannot tell uncommitted changes",
}


def to_text(fingerprint: Fingerprint) -> str:
    """As JSON, for the tag."""
    return dumps(dict(fingerprint))


def read_fingerprint(tags: Mapping[str, str], problems: list[str]) -> Fingerprint:
    """That of a run; empty without one, and where it cannot be read, which ``problems`` says."""
    return fields.read_tag(tags, TAG, fields.mapping_of(fields.string), problems) or {}


def changes(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What has changed since, in words; empty if nothing has."""
    if not before:
        return ["it has no fingerprint"]
    found = [_difference(part, before.get(part), now.get(part)) for part in PARTS]
    return [text for text in found if text]


def _difference(part: str, before: str | None, now: str | None) -> str:
    if part in _UNSTABLE and "" in (before, now):
        return _UNSTABLE[part]
    return PARTS[part] if before != now else ""
