"""Evaluations over the sessions of a store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.trend import Trend, metric_to_show, point_of
from pytest_armory.session.stored_records import is_attempt, record_of
from pytest_armory.store import Store, StoredRun

MOST_RUNS = 20_000
"""The most runs that are read for one history."""


class SessionAttempt(NamedTuple):
    """An evaluation in one session: its last attempt."""

    run: StoredRun
    record: EvaluationRecord


def histories(
    store: Store, pattern: str, sessions: int, metrics: Sequence[str] = ()
) -> list[Trend]:
    """The trends of the evaluations that match, of each experiment over its newest sessions.

    A pattern is a node id; else a part of node ids, with ``*`` for anything. Without
    ``metrics`` it is the first one that a table shows.
    """
    names = store.experiments.names()
    attempts = _attempts(store, pattern, MOST_RUNS, names)
    found = []
    for nodeid in matching(pattern, [run.tags["armory.nodeid"] for run in attempts]):
        experiments = _by_experiment(nodeid, attempts)
        for experiment_id, runs in experiments.items():
            ran = _newest_of_each_session(store, runs, sessions)
            shown = next(filter(None, (metric_to_show(one.record) for one in reversed(ran))), "")
            found += [
                replace(
                    trend_of(nodeid, name, ran),
                    experiment=names[experiment_id],
                    in_several=len(experiments) > 1,
                )
                for name in metrics or [shown]
                if name
            ]
    return found


def sessions_of(
    store: Store, nodeid: str, experiment_id: str, sessions: int, until: int
) -> list[SessionAttempt]:
    """One evaluation of an experiment in its newest sessions, the oldest first.

    ``until`` leaves out what began later, in milliseconds since the epoch.
    """
    attempts = _attempts(store, nodeid, 10 * sessions, [experiment_id], is_exact=True)
    known = [run for run in attempts if run.start <= until]
    runs = _by_experiment(nodeid, known).get(experiment_id, [])
    return _newest_of_each_session(store, runs, sessions)


def trend_of(nodeid: str, metric: str, ran: Sequence[SessionAttempt]) -> Trend:
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


def _attempts(
    store: Store, pattern: str, most: int, experiment_ids: Iterable[str], is_exact: bool = False
) -> list[StoredRun]:
    """The attempts that may match, the newest first; ``is_exact`` says it is a node id."""
    part = max(re.split(r"[*\\\"']", pattern), key=len)  # a quote would end the condition's text
    quote = next((one for one in "'\"" if one not in pattern), "")
    if is_exact and quote and not pattern.endswith("\\"):
        wanted = f" AND tags.`armory.nodeid` = {quote}{pattern}{quote}"
    else:
        wanted = f" AND tags.`armory.nodeid` LIKE '%{part}%'" if part else ""
    condition = f"tags.`armory.kind` = 'evaluation'{wanted}"
    runs = store.search.runs(experiment_ids, condition, newest=True, most=most)
    return [run for run in runs if is_attempt(run)]


def _by_experiment(nodeid: str, attempts: Iterable[StoredRun]) -> dict[str, list[StoredRun]]:
    """The attempts at one evaluation in each experiment: two projects may share a node id."""
    found: dict[str, list[StoredRun]] = {}
    for run in attempts:
        if run.tags["armory.nodeid"] == nodeid:
            found.setdefault(run.experiment_id, []).append(run)
    return found


def _newest_of_each_session(
    store: Store, attempts: Iterable[StoredRun], sessions: int
) -> list[SessionAttempt]:
    """The last attempt of each session, the oldest session first, of attempts newest first."""
    newest: dict[str, StoredRun] = {}
    for run in attempts:
        newest.setdefault(run.tags.get("armory.session", ""), run)
    return [
        SessionAttempt(run, record_of(store, run))
        for run in reversed(list(newest.values())[:sessions])
    ]
