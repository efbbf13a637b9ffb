"""Whether two evaluations were of the same data."""

from __future__ import annotations

from collections.abc import Mapping


def changed_data(own: Mapping[str, str], baseline: Mapping[str, str]) -> tuple[str, ...]:
    """The scores of which both have samples, by the digests of their data, and not the same ones.

    >>> changed_data({"accuracy": "ab", "l2": "cd"}, {"accuracy": "ef", "l2": "cd"})
    ('accuracy',)
    """
    return tuple(name for name in own if name in baseline and own[name] != baseline[name])
