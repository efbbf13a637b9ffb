"""The nouns: what an attempt at an evaluation was, and how a session's job ended.

Records are frozen. What carries them beyond a process is text: :mod:`wire` between the processes of
a session, :mod:`tags` in a store, where anyone may have written anything.
"""

from __future__ import annotations

from pytest_armory.records.evaluation import (
    EvaluationRecord,
    Outcome,
    Verdict,
    count_outcomes,
)
from pytest_armory.records.job_end import JobEnd
from pytest_armory.records.wire import from_wire, to_wire

__all__ = [
    "EvaluationRecord",
    "JobEnd",
    "Outcome",
    "Verdict",
    "count_outcomes",
    "from_wire",
    "to_wire",
]
