"""What can go wrong, and what it is called.

::

    ArmoryError                     everything this package raises
    ├── ArmoryUsageError            the user's input is refused (also a ValueError)
    │   └── EvaluationError         an evaluation cannot be run as it was described
    └── TrackingError               the store could not be opened, read or written
        ├── StoreRefusedError       the store answered, and refused what it was given
        └── StoreUnreachableError   the store did not answer in time, or is none
            └── LoginRefusedError   it let nobody in
    ArmoryWarning                   everything this package warns about (a UserWarning)
    ├── ParameterWarning            a parameter was replaced, cut or not stored as given
    ├── MetricWarning               a result is not a metric and was left out
    └── TrackingWarning             something was not stored; the verdict is not touched
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
    """The store answered and refused what it was given; to ask again would not help."""


class StoreUnreachableError(TrackingError):
    """The store did not answer within its budget, or it is no MLflow server."""


class LoginRefusedError(StoreUnreachableError):
    """The store refused the login; the text says which variables to look at."""


class ArmoryWarning(UserWarning):
    """The root of every warning this package issues."""


class ParameterWarning(ArmoryWarning):
    """A parameter was replaced by a later one, cut, or could not be stored as given."""


class MetricWarning(ArmoryWarning):
    """A result that is no number, mapping or array, and was left out of the metrics."""


class TrackingWarning(ArmoryWarning):
    """Something was not stored. The test's own verdict is not touched by it."""
