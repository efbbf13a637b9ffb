"""Baselines: which earlier runs an evaluation is compared with, looked up once for a session.

The controller of xdist looks them up, and sends the result to its workers as builtins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pytest_armory.errors import TrackingError
from pytest_armory.gates.evidence import MOST_SESSIONS
from pytest_armory.gates.parse import Reference, parse_reference
from pytest_armory.gates.past_runs import (
    PastEvaluation,
    PastRun,
    from_wire,
    has_noise_gate,
    has_passed_body,
    has_unread_gate,
    is_history,
    past_run,
)
from pytest_armory.records import EvaluationRecord, local_name
from pytest_armory.records.judging_tag import sessions_text
from pytest_armory.records.tags import decode_counts, decode_session_counts, origin_of
from pytest_armory.store.destination import Destination

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun

SEARCH_LIMIT = 5000
"""How many passed runs of a branch or commit are searched, the newest first."""

HISTORY_LIMIT = 25_000
"""How many runs of earlier sessions are searched: 20 of 1,000 evaluations, and some that failed."""

_Runs = Mapping[str, Mapping[str, Sequence[PastRun]]]
"""Runs by experiment id and node id, the newest first."""


@dataclass(frozen=True)
class Baseline:
    """The runs that a reference names, by experiment id and node id; a description.

    Several runs of one evaluation are pooled: its metrics are their means. ``history`` are the runs
    of the sessions before. ``sessions`` are those of the baseline, the newest first, with the ids
    of their experiments; ``problem`` says why there are none, ``is_read`` whether that is known.
    ``names`` are the ids of these experiments by name.
    """

    reference: str
    sessions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    runs: _Runs = field(default_factory=dict)
    history: _Runs = field(default_factory=dict)
    problem: str = ""
    is_read: bool = True
    names: Mapping[str, str] = field(default_factory=dict)

    def experiment_of(self, record: EvaluationRecord) -> str | None:
        """The id of a record's experiment where the baseline is; the local database has others."""
        is_there = record.experiment_id is not None and not record.waiting
        return record.experiment_id if is_there else self.names.get(record.experiment)

    def of(self, experiment_id: str | None, nodeid: str, version: str = "") -> PastEvaluation:
        """What is known of an evaluation; nothing of another version of it."""
        found = (
            each.get(experiment_id or "", {}).get(nodeid, ()) for each in (self.runs, self.history)
        )
        return PastEvaluation(*([run for run in runs if run.version == version] for runs in found))

    def has_looked_for(self, experiment_id: str | None, nodeid: str) -> bool:
        """Whether earlier sessions of an evaluation have been looked up; there may be none."""
        return nodeid in self.history.get(experiment_id or "", {})

    def describe(self, records: Iterable[EvaluationRecord]) -> str:
        """The baseline of a session with these records, in words."""
        asked = {self.experiment_of(record) or record.experiment for record in records} - {""}
        named = [name for name, ids in self.sessions.items() if not asked or asked & {*ids}]
        if self.problem or not named:
            problem = self.problem or "no run of it is in the experiments of this session"
            return f"baseline {self.reference}: {problem}"
        return sessions_text(self.reference, named)


def baseline_from_wire(members: Mapping[str, Any]) -> Baseline:
    """A baseline from what ``asdict`` and JSON made of it."""
    runs = {name: from_wire(members[name]) for name in ("runs", "history")}
    return Baseline(**{**members, **runs})


@dataclass(frozen=True)
class Wanted:
    """What of a reference is looked up.

    ``pooled`` is of how many sessions the baseline is the mean; ``sessions`` are those that the
    session's first job has found, None where that is not known.
    """

    pooled: int = 1
    sessions: Collection[str] | None = None


def find(
    where: Destination,
    reference: Reference,
    own: str = "",
    wanted: Wanted = Wanted(),
) -> Baseline:
    """Look a reference up; if nothing is found, returns a :class:`Baseline` with a ``problem``.

    For ``latest`` it is, in each experiment, the last session that finished well and in which an
    evaluation passed. A session that failed is not a baseline, or running it again would pass; nor
    is one with a job that is still running, nor with a gate that might have been missed, but could
    not be judged: else a worse model would become the baseline unseen. ``own`` is the current
    session.
    """
    name = str(reference)
    if wanted.sessions is not None and not wanted.sessions:
        return Baseline(name, problem="the session's first job has found none")
    if not where.exists:
        return Baseline(name, problem=f"there is no session at {where.display_uri} yet")
    try:
        known = _experiments_at(where)
        runs = _passed_runs(where, reference, own, wanted, known)
        if not runs:
            what = "session that finished well" if name == "latest" else "passed evaluation of it"
            text = f"no {what} is at {where.display_uri}{_advice(reference)}"
            return Baseline(name, problem=text)
        chosen = _newest_of_each(runs, wanted.pooled if reference.is_moving else 1)
        found, may_need = _by_evaluation(chosen), set(map(_key, filter(_may_need_history, chosen)))
        history = _history(where, reference, own, found, may_need)
    except TrackingError as error:
        return Baseline(name, problem=str(error), is_read=False)
    sessions: dict[str, set[str]] = {}
    for run in sorted(chosen, key=lambda run: -run.start):
        sessions.setdefault(origin_of(run.tags).session, set()).add(run.experiment_id)
    by_session = {session: sorted(ids) for session, ids in sessions.items()}
    names = {known[one]: one for one in found} | {local_name("", one): one for one in found}
    return Baseline(name, by_session, found, history, names=names)


def with_history(where: Destination, baseline: Baseline, own: str) -> Baseline:
    """A baseline with the earlier sessions of all its evaluations, for a gate that it has not had.

    ``own`` is the current session. Raises :class:`TrackingError`.
    """
    keys = {(experiment, nodeid) for experiment, found in baseline.runs.items() for nodeid in found}
    reference = parse_reference(baseline.reference)
    history = _history(where, reference, own, baseline.runs, keys)
    return replace(baseline, history=history)


def _experiments_at(where: Destination) -> dict[str, str]:
    """The names of experiments by id."""
    from pytest_armory.store import open_store

    return open_store(where).experiments.names()


def _passed_runs(
    where: Destination, reference: Reference, own: str, wanted: Wanted, experiments: Iterable[str]
) -> list[StoredRun]:
    from pytest_armory.store import open_store

    most = SEARCH_LIMIT if reference.kind in ("branch", "commit") else None
    store = open_store(where)
    return [
        run
        for ids, condition in _searches(store, [*experiments], reference, own, wanted)
        for run in store.search.runs(ids, f"{_PASSED} AND {condition}", newest=True, most=most)
        if run.tags.get("armory.session") != own
        and (not wanted.sessions or run.tags.get("armory.session") in wanted.sessions)
        and not (reference.is_moving and has_unread_gate(run))
    ]


def _newest_of_each(runs: Iterable[StoredRun], most: int) -> list[StoredRun]:
    """The newest run of each evaluation, in so many sessions."""
    found: dict[tuple[str, str], dict[str, StoredRun]] = {}
    for run in sorted(runs, key=lambda run: -run.start):
        by_session = found.setdefault(_key(run), {})
        if len(by_session) < most:
            by_session.setdefault(origin_of(run.tags).session, run)
    return [run for by_session in found.values() for run in by_session.values()]


def _by_evaluation(runs: Iterable[StoredRun]) -> dict[str, dict[str, list[PastRun]]]:
    found: dict[str, dict[str, list[PastRun]]] = {}
    for run in runs:
        evaluations = found.setdefault(run.experiment_id, {})
        evaluations.setdefault(_nodeid(run), []).append(past_run(run))
    return found


def _nodeid(run: StoredRun) -> str:
    return run.tags.get("armory.nodeid", "")


def _key(run: StoredRun) -> tuple[str, str]:
    return run.experiment_id, _nodeid(run)


def _advice(reference: Reference) -> str:
    """The hint for what was taken for a session's ID: `latest`, or the prefix that is missing."""
    if reference.kind != "session":
        return ""
    if get_close_matches(reference.value.lower(), ["latest"], cutoff=0.8):
        return "; did you mean latest?"
    kind = "commit" if re.fullmatch("[0-9a-f]{7,40}", reference.value) else "branch"
    return f"; for a {kind} write {kind}:{reference.value}"


def _searches(
    store: Store, experiments: list[str], reference: Reference, own: str, wanted: Wanted
) -> Iterator[tuple[list[str], str]]:
    """The experiments and the condition of each search that a reference takes."""
    if reference.kind == "session":
        yield experiments, f"tags.`armory.session` = {_quoted(reference.value)}"
    elif reference.kind == "latest" and wanted.sessions:
        for session in wanted.sessions:
            yield experiments, f"tags.`armory.session` = {_quoted(session)}"
    elif reference.kind == "latest":
        latest = _latest_sessions(store, experiments, own, wanted.pooled)
        for session in dict.fromkeys(name for names in latest.values() for name in names):
            ids = [experiment_id for experiment_id in latest if session in latest[experiment_id]]
            yield ids, f"tags.`armory.session` = {_quoted(session)}"
    elif reference.kind == "branch":
        yield experiments, _on_branch(reference)
    else:
        yield experiments, f"tags.`mlflow.source.git.commit` LIKE '{reference.value}%'"


def _on_branch(reference: Reference) -> str:
    # Not `armory.ci.ref`: for a pull request from a fork that may be `main` as well.
    return f"tags.`mlflow.source.git.branch` = {_quoted(reference.value)}"


def _latest_sessions(
    store: Store, experiments: list[str], own: str, most: int
) -> dict[str, list[str]]:
    """The last sessions that succeeded, with a passed evaluation, by the experiment's id."""
    latest: dict[str, list[str]] = {}
    for run in store.search.runs(experiments, _SESSIONS, newest=True, most=SEARCH_LIMIT):
        counts = decode_counts(run.metrics).numbers
        is_fit = counts.get("passed") and not counts.get("gates_unread")
        running = decode_session_counts(run.metrics).numbers.get("running")
        session = origin_of(run.tags).session
        if session not in (own, "") and is_fit and not running:
            found = latest.setdefault(run.experiment_id, [])
            if session not in found and len(found) < most:
                found.append(session)
    return latest


_SESSIONS = "tags.`armory.kind` = 'session' AND attributes.status = 'FINISHED'"
_EVALUATIONS = "tags.`armory.kind` = 'evaluation'"
_PASSED = f"{_EVALUATIONS} AND tags.`armory.outcome` = 'passed'"


def _quoted(text: str) -> str:
    """A value in MLflow's filter strings, which have no escapes."""
    return f'"{text}"' if "'" in text else f"'{text}'"


# Earlier sessions


def _history(
    where: Destination,
    reference: Reference,
    own: str,
    baseline: _Runs,
    keys: Collection[tuple[str, str]],
) -> dict[str, dict[str, list[PastRun]]]:
    """The runs of earlier sessions, of these evaluations by experiment and node id: one search."""
    from pytest_armory.store import open_store

    if not keys:
        return {}
    condition = _EVALUATIONS
    if reference.kind == "branch":
        condition += f" AND {_on_branch(reference)}"
    elif not reference.is_moving:
        starts = (
            run.start for found in baseline.values() for runs in found.values() for run in runs
        )
        condition += f" AND attributes.start_time < {min(starts)}"
    found: dict[str, dict[str, list[PastRun]]] = {}
    for experiment, nodeid in keys:
        found.setdefault(experiment, {})[nodeid] = []  # looked up, whether or not there are any
    known: dict[tuple[str, str], set[str]] = {key: set() for key in keys}
    search = open_store(where).search
    for run in search.each(sorted(found), condition, newest=True, most=HISTORY_LIMIT):
        key, session = _key(run), origin_of(run.tags).session
        if key not in known or session in ("", own) or not has_passed_body(run):
            continue
        if len(known[key]) < MOST_SESSIONS or session in known[key]:
            past = past_run(run)
            found[key[0]][key[1]].append(past)
            # Else a metric that stays worse would leave no history to see that by.
            if is_history(past, baseline[key[0]][key[1]][0]):
                known[key].add(session)
        elif all(len(sessions) >= MOST_SESSIONS for sessions in known.values()):
            break
    return found


def _may_need_history(run: StoredRun) -> bool:
    """Whether a baseline's run has samples, or a gate on what earlier sessions scatter."""
    return "armory.samples" in run.tags or has_noise_gate(run)
