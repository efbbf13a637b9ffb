"""Baselines: which earlier run an evaluation is compared with, looked up once for a session.

The controller of xdist looks, and hands what it found to its workers as builtins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_armory.errors import TrackingError
from pytest_armory.gates.judge import Reference
from pytest_armory.records.tags import decode_counts, origin_of
from pytest_armory.store.destination import Destination

if TYPE_CHECKING:
    from pytest_armory.store import Store

MOST = 5000
"""How many passed runs of a branch or commit are looked through, the newest first."""


@dataclass(frozen=True)
class Baseline:
    """What a reference named: the metrics of runs by experiment id and node id, and in words.

    ``sessions`` are the sessions these runs are of, the newest first, with the ids of their
    experiments; ``problem`` says why there are none.
    """

    reference: str
    sessions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    problem: str = ""

    def of(self, experiment_id: str | None, nodeid: str) -> Mapping[str, float] | None:
        """The metrics of the run to compare with, or None."""
        return self.metrics.get(experiment_id or "", {}).get(nodeid)

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
    """Look a reference up; what cannot be found is a :class:`Baseline` with a ``problem``.

    For ``latest`` it is, in each experiment, the last session that finished well and in which
    something passed: a session that failed is no measure, or running it again would pass, nor is
    one of which a job is still at work. ``own`` is the session that asks.
    """
    from pytest_armory.store import open_store

    shown = str(reference)
    most = MOST if reference.kind in ("branch", "commit") else None
    if where.database is not None and not where.database.exists():
        return Baseline(shown, problem=f"there is no session at {where.display_uri} yet")
    try:
        store = open_store(where)
        runs = [
            run
            for ids, condition in _searches(store, reference, own)
            for run in store.search(ids, f"{_PASSED} AND {condition}", newest=True, most=most)
            if run.tags.get("armory.session") != own
        ]
    except TrackingError as error:
        return Baseline(shown, problem=str(error))
    if not runs:
        what = "session that finished well" if shown == "latest" else "passed evaluation of it"
        return Baseline(shown, problem=f"no {what} is at {where.display_uri}{_advice(reference)}")
    found: dict[str, dict[str, Mapping[str, float]]] = {}
    sessions: dict[str, list[str]] = {}
    for run in sorted(runs, key=lambda run: -run.start):
        of_it, nodeid = found.setdefault(run.experiment_id, {}), run.tags.get("armory.nodeid", "")
        if nodeid not in of_it:
            of_it[nodeid] = run.metrics
            sessions.setdefault(run.tags.get("armory.session", ""), []).append(run.experiment_id)
    return Baseline(shown, {name: sorted({*ids}) for name, ids in sessions.items()}, found)


def _advice(reference: Reference) -> str:
    """A branch or commit that somebody wrote without its word is taken for a session."""
    if reference.kind != "session":
        return ""
    kind = "commit" if re.fullmatch("[0-9a-f]{7,40}", reference.value) else "branch"
    return f"; for a {kind} write {kind}:{reference.value}"


def _searches(store: Store, reference: Reference, own: str) -> Iterator[tuple[list[str], str]]:
    """The experiments and the condition of each search that a reference takes."""
    experiments = store.experiment_ids()
    if reference.kind == "session":
        yield experiments, f"tags.`armory.session` = {quoted(reference.value)}"
    elif reference.kind == "latest":
        latest: dict[str, str] = {}
        for run in store.search(experiments, _SESSIONS, newest=True, most=MOST):
            counts, session = decode_counts(run.metrics).numbers, origin_of(run.tags).session
            if session not in (own, "") and counts.get("passed") and not counts.get("running"):
                latest.setdefault(run.experiment_id, session)
        for session in dict.fromkeys(latest.values()):
            ids = [experiment_id for experiment_id in latest if latest[experiment_id] == session]
            yield ids, f"tags.`armory.session` = {quoted(session)}"
    elif reference.kind == "branch":
        # Not `armory.ci.ref`: of a pull request from anywhere that may be `main` as well.
        yield experiments, f"tags.`mlflow.source.git.branch` = {quoted(reference.value)}"
    else:
        yield experiments, f"tags.`mlflow.source.git.commit` LIKE '{reference.value}%'"


_SESSIONS = "tags.`armory.kind` = 'session' AND attributes.status = 'FINISHED'"
_PASSED = "tags.`armory.kind` = 'evaluation' AND tags.`armory.outcome` = 'passed'"


def quoted(text: str) -> str:
    """A value in MLflow's filter strings, which know no escapes."""
    return f'"{text}"' if "'" in text else f"'{text}'"
