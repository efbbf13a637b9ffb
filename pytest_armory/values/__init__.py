"""Anything -> parameter strings; anything -> metrics and arrays; secrets -> `[redacted]`.

NumPy, torch and pandas are known by what their objects answer to; none of them is imported. Kinds
are looked up on `type(value)`, never on the value, so that a mock that answers everything is taken
for nothing. Foreign code may raise anything, `pytest.fail` and `SystemExit` too; only Ctrl-C comes
from outside the value and passes.
"""

from __future__ import annotations

from pytest_armory.values.describe import clip, describe
from pytest_armory.values.params import (
    PARAM_LIMIT,
    TAG_LIMIT,
    clip_name,
    legal_key,
    param_strings,
    short_hash,
)
from pytest_armory.values.redaction import (
    REDACTED,
    conceal,
    is_secret_key,
    redact_argv,
    redact_text,
    redacting,
    visible,
    without_concealed,
)
from pytest_armory.values.results import MetricValues, metric_values

__all__ = [
    "PARAM_LIMIT",
    "REDACTED",
    "TAG_LIMIT",
    "MetricValues",
    "clip",
    "clip_name",
    "conceal",
    "describe",
    "is_secret_key",
    "legal_key",
    "metric_values",
    "param_strings",
    "redact_argv",
    "redact_text",
    "redacting",
    "short_hash",
    "visible",
    "without_concealed",
]
