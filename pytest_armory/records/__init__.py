"""Records of an attempt at an evaluation, and of the end of a session's job.

Records are frozen. They are serialized as text: :mod:`wire` between the processes of a session,
:mod:`tags` in a store, whose content is not trusted.
"""

from __future__ import annotations

from pytest_armory.records.evaluation import (
    USAGE,
    AttemptPlace,
    EvaluationRecord,
    Outcome,
    Verdict,
    count_outcomes,
    is_one_of_each_test,
    last_attempts,
    local_name,
)
from pytest_armory.records.job_end import JobEnd
from pytest_armory.records.wire import from_wire, to_wire

__all__ = [
    "USAGE",
    "AttemptPlace",
    "EvaluationRecord",
    "JobEnd",
    "Outcome",
    "Verdict",
    "count_outcomes",
    "from_wire",
    "is_one_of_each_test",
    "last_attempts",
    "local_name",
    "to_wire",
]
