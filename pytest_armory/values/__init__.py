"""Any object as parameter strings, or as metrics and arrays; secrets as `[redacted]`.

NumPy, torch and pandas objects are recognized by duck type; none of these is imported. Attributes
are looked up on `type(value)`, never on the value, so that a mock, which has every attribute, is
not mistaken for an array. The code of a value may raise anything, `pytest.fail` and `SystemExit`
too; only `KeyboardInterrupt` is not caused by the value, and is not caught.
"""

from __future__ import annotations

from pytest_armory.values.describe import Refused, clip, describe, head_and_tail
from pytest_armory.values.params import (
    PARAM_LIMIT,
    TAG_LIMIT,
    Descriptions,
    array_files,
    clip_name,
    legal_key,
    legal_keys,
    param_strings,
    redacted_value,
    short_hash,
    unused,
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
from pytest_armory.values.results import (
    MetricValues,
    json_value,
    metric_values,
    one_name,
)

__all__ = [
    "PARAM_LIMIT",
    "REDACTED",
    "TAG_LIMIT",
    "Descriptions",
    "MetricValues",
    "Refused",
    "array_files",
    "clip",
    "clip_name",
    "conceal",
    "describe",
    "head_and_tail",
    "is_secret_key",
    "json_value",
    "legal_key",
    "legal_keys",
    "metric_values",
    "one_name",
    "param_strings",
    "redact_argv",
    "redact_text",
    "redacted_value",
    "redacting",
    "short_hash",
    "unused",
    "visible",
    "without_concealed",
]
