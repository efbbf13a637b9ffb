"""Messages between the processes of a session, as exact builtins and JSON strings.

A record is an attribute of its test's report; a worker gets a :class:`WorkerInput` when it starts.
execnet serializes builtins only: a ``numpy.float64`` would crash the worker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pytest

from pytest_armory.gates.baselines import Baseline
from pytest_armory.records import EvaluationRecord, from_wire, to_wire
from pytest_armory.session.identity import Identity

_RECORD = "armory"
"""The attribute of a report that has the record of its test."""

_PLANNED = "armory_planned"
"""That of a process's first report that has the node ids of all evaluations it collected."""


def attach_record(report: pytest.TestReport, record: EvaluationRecord) -> str:
    """Put a record on a report; returns the text."""
    text = to_wire(record)
    setattr(report, _RECORD, text)
    return text


def attach_planned(report: pytest.TestReport, planned: Sequence[str]) -> None:
    """Put the node ids of all evaluations that a process has collected on a report."""
    setattr(report, _PLANNED, json.dumps(planned))


def detach(report: pytest.TestReport) -> tuple[list[str], EvaluationRecord | None]:
    """Take node ids and record off a report, for pytest keeps every report until the end."""
    planned, record = (vars(report).pop(name, None) for name in (_PLANNED, _RECORD))
    return json.loads(planned) if planned else [], from_wire(record) if record else None


@dataclass(frozen=True)
class WorkerInput:
    """What a worker needs of its session: its identity, and what the controller has looked up.

    ``out_of_reach`` says why the server is unreachable, or is empty.
    """

    identity: Identity
    baseline: Baseline | None = None
    out_of_reach: str = ""

    def to_wire(self) -> dict[str, str]:
        """As strings by name."""
        baseline = {} if self.baseline is None else {_BASELINE: json.dumps(asdict(self.baseline))}
        identity = json.dumps(asdict(self.identity))
        return {_IDENTITY: identity, _OUT_OF_REACH: self.out_of_reach, **baseline}

    @classmethod
    def from_wire(cls, texts: Mapping[str, str]) -> WorkerInput | None:
        """The inverse of :meth:`to_wire`; None if the strings have no session."""
        if _IDENTITY not in texts:
            return None
        return cls(
            Identity(**json.loads(texts[_IDENTITY])),
            Baseline(**json.loads(texts[_BASELINE])) if _BASELINE in texts else None,
            texts[_OUT_OF_REACH],
        )


_IDENTITY = "armory"
_BASELINE = "armory_baseline"
_OUT_OF_REACH = "armory_out_of_reach"
