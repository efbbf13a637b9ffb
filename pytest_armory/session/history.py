"""Evaluations over the sessions of a store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.trend import Trend, metric_to_show, point_of
from pytest_armory.session.stored_records import is_attempt, record_of
from pytest_armory.store import Store, StoredRun

MOST_RUNS = 20_000
"""The most runs that are read for one history."""


class Ran(NamedTuple):
    """An evaluation in one session: its last attempt."""

    run: StoredRun
    record: EvaluationRecord


def histories(
    store: Store, pattern: str, sessions: int, metrics: Sequence[str] = ()
) -> list[Trend]:
    """The trends of the evaluations that match, each over its newest sessions.

    A pattern is a node id; else a part of node ids, with ``*`` for anything. Without
    ``metrics`` it is the first one that a table shows.
    """
    attempts = _attempts(store, pattern, MOST_RUNS)
    found = []
    for nodeid in matching(pattern, [run.tags["armory.nodeid"] for run in attempts]):
        ran = _newest_of_each_session(store, nodeid, attempts, sessions)
        shown = next(filter(None, (metric_to_show(one.record) for one in reversed(ran))), "")
        found += [trend_of(nodeid, name, ran) for name in metrics or [shown] if name]
    return found


def sessions_of(store: Store, nodeid: str, sessions: int, until: int | None = None) -> list[Ran]:
    """One evaluation in its newest sessions, the oldest first.

    ``until`` leaves out what began later, in milliseconds since the epoch.
    """
    attempts = _attempts(store, nodeid, 10 * sessions)
    known = [run for run in attempts if until is None or run.start <= until]
    return _newest_of_each_session(store, nodeid, known, sessions)


def trend_of(nodeid: str, metric: str, ran: Sequence[Ran]) -> Trend:
    """A metric over sessions, which are given the oldest first."""
    points = [
        point_of(one.record, metric, one.run.tags.get("armory.session", ""), one.run.start,
                 one.run.tags)
        for one in ran
    ]  # fmt: skip
    return Trend(nodeid, metric, points)


def matching(pattern: str, nodeids: Iterable[str]) -> list[str]:
    """The node ids with a part that a pattern is meant for, in order and each once."""
    known = sorted(set(nodeids))
    if pattern in known:
        return [pattern]
    if "*" in pattern:
        regex = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
        return [nodeid for nodeid in known if regex.search(nodeid)]
    return [nodeid for nodeid in known if pattern in nodeid]


def _attempts(store: Store, pattern: str, most: int) -> list[StoredRun]:
    """The attempts that may match, the newest first."""
    part = max(re.split(r"[*\\\"']", pattern), key=len)  # a quote would end the condition's text
    like = f" AND tags.`armory.nodeid` LIKE '%{part}%'" if part else ""
    condition = f"tags.`armory.kind` = 'evaluation'{like}"
    runs = store.search.runs(store.experiments.ids(), condition, newest=True, most=most)
    return [run for run in runs if is_attempt(run)]


def _newest_of_each_session(
    store: Store, nodeid: str, attempts: Sequence[StoredRun], sessions: int
) -> list[Ran]:
    """The last attempt of each session, the oldest session first, of attempts newest first."""
    newest: dict[tuple[str, str], StoredRun] = {}
    for run in attempts:
        if run.tags["armory.nodeid"] == nodeid:
            newest.setdefault((run.experiment_id, run.tags.get("armory.session", "")), run)
    return [Ran(run, record_of(store, run)) for run in reversed(list(newest.values())[:sessions])]
