"""How many tolerances share a session's chance of a false alarm: those of the whole collection.

They are noted before `-k`, `-m`, a shard or a plugin deselects any: else a part of the collection
would be judged by another measure than all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest

from pytest_armory.gates.baselines import Baseline
from pytest_armory.plugin.marker import is_evaluation, merged_mark
from pytest_armory.plugin.redacted import display_id
from pytest_armory.values import legal_key

Collected = Sequence[tuple[str, frozenset[str]]]
"""The node id of each collected evaluation, and the metrics with a tolerance in its markers."""

_COLLECTED = pytest.StashKey[Collected]()


def note_collected(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Note the evaluations and their tolerances; what is no valid marker is refused later."""
    found = []
    for item in filter(is_evaluation, items):
        try:
            tolerances = merged_mark(item).baseline
            named = frozenset(legal_key(metric) for metric in tolerances)
        except (TypeError, AttributeError):
            continue
        found.append((display_id(item.nodeid), named))
    config.stash[_COLLECTED] = found


def count_gates(config: pytest.Config, lines: Mapping[str, object], baseline: Baseline) -> int:
    """The tolerances of all collected evaluations.

    Those of markers, and of the ``lines`` of ``armory_tolerances`` those on a metric that the
    evaluation's baseline run holds.
    """
    return number_of_gates(config.stash.get(_COLLECTED, ()), lines, baseline)


def number_of_gates(collected: Collected, lines: Mapping[str, object], baseline: Baseline) -> int:
    """The same of evaluations that are given."""
    named = {legal_key(metric) for metric in lines}
    known: dict[str, set[str]] = {}
    for evaluations in baseline.runs.values() if named else ():
        for nodeid, runs in evaluations.items():
            known.setdefault(nodeid, set()).update(*(run.metrics for run in runs))
    return sum(
        len(metrics) + len((named - metrics) & known.get(nodeid, set()))
        for nodeid, metrics in collected
    )
