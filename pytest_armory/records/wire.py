"""A record as one JSON string, between the processes of a session and in their journals.

execnet serializes exact builtins only: one ``numpy.float64`` in a report crashes a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from json import dumps

from pytest_armory.records import fields
from pytest_armory.records.evaluation import STATES, VERDICTS, EvaluationRecord, Outcome, Verdict

_NAMES = tuple(EvaluationRecord.__dataclass_fields__)


def to_wire(record: EvaluationRecord) -> str:
    """A record as one JSON string of ASCII characters; NaN and infinities keep their JSON names."""
    members = {name: getattr(record, name) for name in _NAMES}
    members["verdicts"] = [asdict(verdict) for verdict in record.verdicts]
    members["metrics"] = _floats(record.metrics)
    members["baseline"] = _floats(record.baseline)
    members["outcome"] = record.outcome.value if record.outcome else None
    return str(dumps(members))


def _floats(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items()}


def from_wire(text: str) -> EvaluationRecord:
    """The record that :func:`to_wire` wrote; raises ``ValueError`` for anything else."""
    return read_record(fields.json_value(text))


def _outcome(value: object) -> Outcome:
    return Outcome(fields.one_of([outcome.value for outcome in Outcome])(value))


read_verdict = fields.instance_of(
    Verdict,
    {
        "metric": fields.string,
        "rule": fields.string,
        "state": fields.one_of(STATES),
        "value": fields.optional(fields.number),
        "limit": fields.optional(fields.number),
        "baseline": fields.optional(fields.number),
        "text": fields.string,
        "higher_is_worse": fields.optional(fields.boolean),
        "verdict": fields.one_of(VERDICTS),
        "p": fields.optional(fields.number),
        "low": fields.optional(fields.number),
        "high": fields.optional(fields.number),
        "worse": fields.optional(fields.count),
        "better": fields.optional(fields.count),
        "needed": fields.optional(fields.count),
        "method": fields.string,
        "evidence": fields.string,
        "unclear": fields.string,
        "flips": fields.list_of(fields.string),
        "unread": fields.boolean,
    },
)
"""Reads a verdict from JSON's builtins; raises :class:`fields.UnreadableError`."""


read_record = fields.instance_of(
    EvaluationRecord,
    {
        "nodeid": fields.shared_string,
        "attempt": fields.count,
        "worker": fields.shared_string,
        "run_id": fields.optional(fields.string),
        "experiment_id": fields.optional(fields.shared_string),
        "parent_id": fields.optional(fields.shared_string),
        "url": fields.optional(fields.string),
        "waiting": fields.boolean,
        "unreachable": fields.boolean,
        "outcome": fields.optional(_outcome),
        "duration": fields.number,
        "metrics": fields.mapping_of(fields.number),
        "params": fields.mapping_of(fields.string),
        "problems": fields.list_of(fields.string),
        "chief": fields.list_of(fields.string),
        "baseline": fields.mapping_of(fields.number),
        "verdicts": fields.list_of(read_verdict),
        "digests": fields.mapping_of(fields.string),
        "changed": fields.list_of(fields.string),
        "experiment": fields.shared_string,
        "confirmed": fields.boolean,
        "copy_key": fields.string,
        "job": fields.shared_string,
    },
)
"""Reads a record from JSON's builtins; raises :class:`fields.UnreadableError`."""
