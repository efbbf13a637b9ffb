"""Hashes of node ids that are too many for one tag: the rest is in further ones. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import count, takewhile

from pytest_armory.records.fields import UnreadableError, read_value, string
from pytest_armory.values import TAG_LIMIT

MOST = 40
"""Further tags of one: 40,000 evaluations of one job. MLflow takes 100 tags in a request."""


def further_tags(name: str, hashes: str) -> dict[str, str]:
    """The tags ``NAME.1``, ``NAME.2`` … for joined hashes that the tag ``name`` cannot hold."""
    parts = [hashes[i : i + TAG_LIMIT] for i in range(0, len(hashes), TAG_LIMIT)]
    return {f"{name}.{i}": part for i, part in enumerate(parts[:MOST], 1)}


def further_hashes(tags: Mapping[str, str], name: str, problems: list[str]) -> str:
    """The joined hashes in the further tags of ``name``; ``problems`` says which cannot be read."""
    names = takewhile(tags.__contains__, (f"{name}.{i}" for i in count(1)))
    return "".join(read_value(f"the tag {n}", _hashes, tags[n], problems) or "" for n in names)


def _hashes(value: object) -> str:
    text = string(value)
    if re.fullmatch("(?:[0-9a-f]{8})*", text):
        return text
    raise UnreadableError("is not of hashes")


def first_tags(tags: Iterable[str], prefix: str) -> list[str]:
    """The names that a prefix and a job's hash make, without those of further tags."""
    names = [name for name in tags if name.startswith(prefix)]
    return [name for name in names if "." not in name.removeprefix(prefix)]
