"""What a tracked test exports to its threads and child processes, in an environment variable."""

from __future__ import annotations

import os
from json import dumps
from typing import Any

from pytest_armory.environment import value_of

VARIABLE = "ARMORY_ACTIVE_RUN"
"""JSON: ``uri``, ``experiment_id`` and ``tags`` of the evaluation that is running.

``instead_of`` is there too if that URI stands in the place of ``MLFLOW_TRACKING_URI``, which is as
the user has set it: a child process in which it is the same takes the other.
"""


def exported() -> dict[str, Any]:
    """What is known of the evaluation that is running, if one is; anybody can set a variable."""
    text = value_of(VARIABLE)
    if not text:
        return {}
    from pytest_armory.records import fields

    readers = {
        "uri": fields.string,
        "experiment_id": fields.optional(fields.string),
        "tags": fields.mapping_of(fields.string),
        "instead_of": fields.optional(fields.string),
    }
    known, _ = fields.read_text(fields.members_of(readers, required=("uri",)), text)
    return known or {}


def export(known: dict[str, Any] | None) -> None:
    """Set the variable, or remove it."""
    if known is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = dumps(known)
