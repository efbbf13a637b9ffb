"""Evaluations over the sessions of a store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.trend import Point, Trend, metric_to_show, point_of
from pytest_armory.session.stored_records import is_attempt, record_of
from pytest_armory.store import Store, StoredRun

MOST_RUNS = 20_000
"""The most runs that are read for one history."""


class _Ran(NamedTuple):
    run: StoredRun
    record: EvaluationRecord


def histories(
    store: Store, pattern: str, sessions: int, metrics: Sequence[str] = ()
) -> list[Trend]:
    """The trends of the evaluations that match, each over its newest sessions.

    A pattern is a node id; else a text with ``*`` for anything; else a part of node ids. Without
    ``metrics`` it is the first one that a table shows. Of each session the last attempt counts.
    """
    condition = f"tags.`armory.kind` = 'evaluation'{_like(pattern)}"
    runs = store.search.runs(store.experiments.ids(), condition, newest=True, most=MOST_RUNS)
    attempts = [run for run in runs if is_attempt(run)]
    ids = matching(pattern, [run.tags["armory.nodeid"] for run in attempts])
    return [
        trend for nodeid in ids for trend in _trends(store, nodeid, attempts, sessions, metrics)
    ]


def matching(pattern: str, nodeids: Iterable[str]) -> list[str]:
    """The node ids that a pattern is meant for, in order and each once."""
    known = sorted(set(nodeids))
    if pattern in known:
        return [pattern]
    if "*" in pattern:
        regex = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
        return [nodeid for nodeid in known if regex.fullmatch(nodeid)]
    return [nodeid for nodeid in known if pattern in nodeid]


def _like(pattern: str) -> str:
    """A condition that holds for at least what matches, so that the store sends less."""
    part = max(re.split(r"[*\\\"']", pattern), key=len)  # a quote would end the condition's text
    return f" AND tags.`armory.nodeid` LIKE '%{part}%'" if part else ""


def _trends(
    store: Store, nodeid: str, attempts: Sequence[StoredRun], sessions: int, metrics: Sequence[str]
) -> list[Trend]:
    newest: dict[tuple[str, str], StoredRun] = {}
    for run in attempts:  # the newest first
        if run.tags["armory.nodeid"] == nodeid:
            newest.setdefault((run.experiment_id, run.tags.get("armory.session", "")), run)
    ran = [_Ran(run, record_of(store, run)) for run in list(newest.values())[:sessions]]
    default = next(filter(None, (metric_to_show(one.record) for one in ran)), "")
    names = metrics or [default]
    return [
        Trend(nodeid, name, [_point(one, name) for one in reversed(ran)]) for name in names if name
    ]


def _point(one: _Ran, metric: str) -> Point:
    session = one.run.tags.get("armory.session", "")
    return point_of(one.record, metric, session, one.run.start, one.run.tags)
