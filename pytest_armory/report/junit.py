"""The properties of a record's test case in ``--junitxml``."""

from __future__ import annotations

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.rows import chief_of, interval_of, verdicts_of

METRICS = 8
"""How many metrics of an evaluation become properties."""


def junit_properties(record: EvaluationRecord) -> list[tuple[str, str]]:
    """The run's id and URL, if any, the chief metrics at full precision, intervals, verdicts."""
    run = [("armory_run_id", record.run_id), ("armory_run_url", record.url)]
    properties = [(name, value) for name, value in run if value]
    metrics = chief_of(record, most=METRICS)
    exact = {name: repr(value).removesuffix(".0") for name, value in metrics.items()}
    intervals = {name: interval_of(record.metrics, name) for name in metrics}
    verdicts = verdicts_of(record)
    return [
        *properties,
        *((f"armory_metric_{name}", value) for name, value in exact.items()),
        *((f"armory_ci_{n}", f"{ci[0]:.6g} {ci[1]:.6g}") for n, ci in intervals.items() if ci),
        *((f"armory_verdict_{name}", verdict) for name, verdict in verdicts.items()),
    ]
