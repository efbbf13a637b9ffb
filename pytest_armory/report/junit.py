"""The properties of a record's test case in ``--junitxml``."""

from __future__ import annotations

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.rows import chief_of

METRICS = 8
"""How many metrics of an evaluation become properties."""


def junit_properties(record: EvaluationRecord) -> list[tuple[str, str]]:
    """The run's id and URL, if any, and the chief metrics at full precision."""
    run = [("armory_run_id", record.run_id), ("armory_run_url", record.url)]
    properties = [(name, value) for name, value in run if value]
    metrics = chief_of(record, most=METRICS)
    exact = {name: repr(value).removesuffix(".0") for name, value in metrics.items()}
    return properties + [(f"armory_metric_{name}", value) for name, value in exact.items()]
