"""Messages between the processes of a session, as exact builtins and JSON strings.

A record is an attribute of its test's report; a worker gets a :class:`WorkerInput` when it starts.
execnet serializes builtins only: a ``numpy.float64`` would crash the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from json import dumps, loads
from sys import intern

import pytest

from pytest_armory.gates.baselines import Baseline, baseline_from_wire
from pytest_armory.records import EvaluationRecord, from_wire, to_wire
from pytest_armory.records.judging_tag import Judging, judging_of
from pytest_armory.records.shard_note import ShardNote
from pytest_armory.session.identity import Identity
from pytest_armory.session.plan import Plan
from pytest_armory.session.resume import DoneBefore, PassedRun

_RECORD = "armory"
"""The attribute of a report that has the record of its test."""

_PLAN = "armory_plan"
"""That of a process's first report that has its plan."""


def attach_record(report: pytest.TestReport, record: EvaluationRecord) -> str:
    """Put a record on a report; returns the text."""
    text = to_wire(record)
    setattr(report, _RECORD, text)
    return text


def attach_plan(report: pytest.TestReport, plan: Plan) -> None:
    """Put what a process has collected on a report."""
    setattr(report, _PLAN, plan_to_wire(plan))


def detach(report: pytest.TestReport) -> tuple[Plan | None, EvaluationRecord | None]:
    """Take plan and record off a report, for pytest keeps every report until the end.

    It keeps the properties too, whose names are one object for all reports from here on.
    """
    plan, record = (vars(report).pop(name, None) for name in (_PLAN, _RECORD))
    if record:
        report.user_properties = [_with_shared_name(one) for one in report.user_properties]
    return plan_from_wire(plan) if plan else None, from_wire(record) if record else None


def _with_shared_name(given: tuple[str, object]) -> tuple[str, object]:
    """A property of a report; one that is not as pytest has it is left as it is."""
    is_named = type(given) is tuple and len(given) == 2 and type(given[0]) is str
    return (intern(given[0]), given[1]) if is_named else given


def plan_to_wire(plan: Plan) -> str:
    """A plan as one JSON string."""
    return dumps(asdict(plan))


def plan_from_wire(text: str) -> Plan:
    """The inverse of :func:`plan_to_wire`."""
    members = loads(text)
    note = ShardNote(**members["note"]) if members["note"] else None
    # The records of these evaluations have the same strings.
    evaluations = [intern(nodeid) for nodeid in members["evaluations"]]
    return Plan(**{**members, "evaluations": evaluations, "note": note})


@dataclass(frozen=True)
class WorkerInput:
    """What a worker needs of its session: its identity, and what the controller has looked up.

    ``out_of_reach`` says why the server is unreachable, or is empty; ``done`` what a resumed
    session has done before. ``is_agreed`` is whether another job of the session has said what
    verdicts depend on, the number of gates with it.
    """

    identity: Identity
    baseline: Baseline | None = None
    out_of_reach: str = ""
    done: DoneBefore | None = None
    judging: Judging = field(default_factory=Judging)
    is_agreed: bool = False

    def to_wire(self) -> dict[str, str]:
        """As strings by name."""
        baseline = {} if self.baseline is None else {_BASELINE: dumps(asdict(self.baseline))}
        done = {} if self.done is None else {_DONE: dumps(asdict(self.done))}
        return {
            _IDENTITY: dumps(asdict(self.identity)),
            _OUT_OF_REACH: self.out_of_reach,
            _JUDGING: dumps([asdict(self.judging), self.is_agreed]),
            **baseline,
            **done,
        }

    @classmethod
    def from_wire(cls, texts: Mapping[str, str]) -> WorkerInput | None:
        """The inverse of :meth:`to_wire`; None if the strings have no session."""
        if _IDENTITY not in texts:
            return None
        judging, is_agreed = loads(texts[_JUDGING])
        return cls(
            Identity(**loads(texts[_IDENTITY])),
            baseline_from_wire(loads(texts[_BASELINE])) if _BASELINE in texts else None,
            texts[_OUT_OF_REACH],
            _done_from_wire(texts[_DONE]) if _DONE in texts else None,
            judging_of(judging),
            is_agreed,
        )


def _done_from_wire(text: str) -> DoneBefore:
    members = loads(text)
    passed = {nodeid: PassedRun(**run) for nodeid, run in members["passed"].items()}
    return DoneBefore(**{**members, "passed": passed})


_IDENTITY = "armory"
_BASELINE = "armory_baseline"
_DONE = "armory_done"
_OUT_OF_REACH = "armory_out_of_reach"
_JUDGING = "armory_judging"
