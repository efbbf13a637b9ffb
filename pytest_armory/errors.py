"""The exceptions and warnings of the package.

::

    ArmoryError                     everything this package raises
    ├── ArmoryUsageError            the user's input is invalid (also a ValueError)
    │   └── EvaluationError         an evaluation cannot be run as described
    └── TrackingError               the store could not be opened, read or written
        ├── StoreRefusedError       the store responded, and refused the request
        └── StoreUnreachableError   the store did not respond in time, or is no MLflow server
            └── LoginRefusedError   the store refused the login
    ArmoryWarning                   everything this package warns about (a UserWarning)
    ├── ParameterWarning            a parameter was replaced, truncated or not stored as given
    ├── MetricWarning               a result is not a metric and was left out
    └── TrackingWarning             something was not stored; the verdict is unchanged
"""

from __future__ import annotations


class ArmoryError(Exception):
    """The root of every exception this package raises on purpose."""


class ArmoryUsageError(ArmoryError, ValueError):
    """An option, marker or argument that cannot be used; the text says what to type instead."""


class EvaluationError(ArmoryUsageError):
    """An evaluation that cannot be run as described; names the evaluation, batch and metric."""


class TrackingError(ArmoryError):
    """The store could not be opened, read or written; no secret is in its text."""


class StoreRefusedError(TrackingError):
    """The store responded and refused the request; a retry would not help."""


class StoreUnreachableError(TrackingError):
    """The store did not respond within its budget, or it is no MLflow server."""


class LoginRefusedError(StoreUnreachableError):
    """The store refused the login; the text says which variables to check."""


class ArmoryWarning(UserWarning):
    """The root of every warning this package issues."""


class ParameterWarning(ArmoryWarning):
    """A parameter was replaced by a later one, truncated, or could not be stored as given."""


class MetricWarning(ArmoryWarning):
    """A result that is no number, mapping or array, and was left out of the metrics."""


class TrackingWarning(ArmoryWarning):
    """Something was not stored. The test's verdict is unchanged."""
