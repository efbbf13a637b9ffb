"""Baselines: which earlier run an evaluation is compared with, looked up once for a session.

The controller of xdist looks them up, and sends the result to its workers as builtins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_armory.errors import TrackingError
from pytest_armory.gates.parse import Reference
from pytest_armory.records.tags import (
    decode_attempt,
    decode_counts,
    decode_session_counts,
    origin_of,
)
from pytest_armory.store.destination import Destination

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun

SEARCH_LIMIT = 5000
"""How many passed runs of a branch or commit are searched, the newest first."""


@dataclass(frozen=True)
class Baseline:
    """The runs that a reference names: their metrics by experiment id and node id; a description.

    ``digests`` has in the same way which data each score was of.

    ``sessions`` are the sessions these runs are of, the newest first, with the ids of their
    experiments; ``problem`` says why there are none.
    """

    reference: str
    sessions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    problem: str = ""
    digests: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)

    def of(self, experiment_id: str | None, nodeid: str) -> Mapping[str, float] | None:
        """The metrics of the run to compare with, or None."""
        return self.metrics.get(experiment_id or "", {}).get(nodeid)

    def digests_of(self, experiment_id: str | None, nodeid: str) -> Mapping[str, str]:
        """The digest of each score's data in the run to compare with."""
        return self.digests.get(experiment_id or "", {}).get(nodeid, {})

    def describe(self, experiments: Collection[str | None]) -> str:
        """The baseline of a session in these experiments (their ids; None: unknown), in words."""
        asked = {*experiments} - {None}
        named = [name for name, ids in self.sessions.items() if not asked or asked & {*ids}]
        if self.problem or not named:
            problem = self.problem or "no run of it is in the experiments of this session"
            return f"baseline {self.reference}: {problem}"
        if named == [self.reference]:
            return f"baseline: session {self.reference}"
        some = ", ".join(named[:3]) + (", …" if len(named) > 3 else "")
        word = "session" if len(named) == 1 else "sessions"
        return f"baseline {self.reference}: {word} {some}"


def find(where: Destination, reference: Reference, own: str = "") -> Baseline:
    """Look a reference up; if nothing is found, returns a :class:`Baseline` with a ``problem``.

    For ``latest`` it is, in each experiment, the last session that finished well and in which an
    evaluation passed. A session that failed is not a baseline, or running it again would pass; nor
    is one with a job that is still running. ``own`` is the current session.
    """
    name = str(reference)
    if where.database is not None and not where.database.exists():
        return Baseline(name, problem=f"there is no session at {where.display_uri} yet")
    try:
        runs = _passed_runs(where, reference, own)
    except TrackingError as error:
        return Baseline(name, problem=str(error))
    if not runs:
        what = "session that finished well" if name == "latest" else "passed evaluation of it"
        return Baseline(name, problem=f"no {what} is at {where.display_uri}{_advice(reference)}")
    return _newest_of_each(name, runs)


def _passed_runs(where: Destination, reference: Reference, own: str) -> list[StoredRun]:
    from pytest_armory.store import open_store

    most = SEARCH_LIMIT if reference.kind in ("branch", "commit") else None
    store = open_store(where)
    return [
        run
        for ids, condition in _searches(store, reference, own)
        for run in store.search.runs(ids, f"{_PASSED} AND {condition}", newest=True, most=most)
        if run.tags.get("armory.session") != own
    ]


def _newest_of_each(name: str, runs: Iterable[StoredRun]) -> Baseline:
    """The newest of the runs for each evaluation."""
    metrics: dict[str, dict[str, Mapping[str, float]]] = {}
    digests: dict[str, dict[str, Mapping[str, str]]] = {}
    sessions: dict[str, set[str]] = {}
    for run in sorted(runs, key=lambda run: -run.start):
        evaluations = metrics.setdefault(run.experiment_id, {})
        nodeid = run.tags.get("armory.nodeid", "")
        if nodeid not in evaluations:
            evaluations[nodeid] = run.metrics
            known = decode_attempt(run.tags, {}).digests
            if known:
                digests.setdefault(run.experiment_id, {})[nodeid] = known
            sessions.setdefault(run.tags.get("armory.session", ""), set()).add(run.experiment_id)
    by_session = {session: sorted(ids) for session, ids in sessions.items()}
    return Baseline(name, by_session, metrics, digests=digests)


def _advice(reference: Reference) -> str:
    """The hint that a branch or commit needs its prefix: it was taken for a session's ID."""
    if reference.kind != "session":
        return ""
    kind = "commit" if re.fullmatch("[0-9a-f]{7,40}", reference.value) else "branch"
    return f"; for a {kind} write {kind}:{reference.value}"


def _searches(store: Store, reference: Reference, own: str) -> Iterator[tuple[list[str], str]]:
    """The experiments and the condition of each search that a reference takes."""
    experiments = store.experiments.ids()
    if reference.kind == "session":
        yield experiments, f"tags.`armory.session` = {_quoted(reference.value)}"
    elif reference.kind == "latest":
        latest = _latest_sessions(store, experiments, own)
        for session in dict.fromkeys(latest.values()):
            ids = [experiment_id for experiment_id in latest if latest[experiment_id] == session]
            yield ids, f"tags.`armory.session` = {_quoted(session)}"
    elif reference.kind == "branch":
        # Not `armory.ci.ref`: for a pull request from a fork that may be `main` as well.
        yield experiments, f"tags.`mlflow.source.git.branch` = {_quoted(reference.value)}"
    else:
        yield experiments, f"tags.`mlflow.source.git.commit` LIKE '{reference.value}%'"


def _latest_sessions(store: Store, experiments: list[str], own: str) -> dict[str, str]:
    """The last session that succeeded, with a passed evaluation, by the experiment's id."""
    latest: dict[str, str] = {}
    for run in store.search.runs(experiments, _SESSIONS, newest=True, most=SEARCH_LIMIT):
        passed = decode_counts(run.metrics).numbers.get("passed")
        running = decode_session_counts(run.metrics).numbers.get("running")
        session = origin_of(run.tags).session
        if session not in (own, "") and passed and not running:
            latest.setdefault(run.experiment_id, session)
    return latest


_SESSIONS = "tags.`armory.kind` = 'session' AND attributes.status = 'FINISHED'"
_PASSED = "tags.`armory.kind` = 'evaluation' AND tags.`armory.outcome` = 'passed'"


def _quoted(text: str) -> str:
    """A value in MLflow's filter strings, which have no escapes."""
    return f'"{text}"' if "'" in text else f"'{text}'"
