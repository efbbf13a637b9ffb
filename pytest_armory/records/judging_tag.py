"""The tag of a session run with what the verdicts of the session depend on, for all its jobs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from json import dumps

from pytest_armory.records import fields
from pytest_armory.values import TAG_LIMIT

JUDGING = "armory.judging"

VERSION = "armory.evaluation_version"
"""The tag of a run with the marker's ``version``."""

UNCLEAR = ("pass", "fail", "measured")
"""What an unclear verdict may do."""


@dataclass(frozen=True)
class Judging:
    """What the verdicts of a session depend on.

    ``reference`` is the baseline as it was given, empty for none, ``sessions`` are those it was
    found to be, None where that is not known; ``pooled`` is of how many sessions it is the mean.
    ``gates`` are the tolerances that share the chance of a false alarm, ``confidence`` is one less
    that chance. ``overrides`` says that ``unclear`` counts whatever a marker says.
    """

    reference: str = ""
    sessions: tuple[str, ...] | None = ()
    confidence: float = 0.95
    unclear: str = "pass"
    overrides: bool = False
    pooled: int = 1
    gates: int = 0

    def to_tags(self) -> dict[str, str]:
        """The tag; without the sessions where they are too many for one."""
        text = dumps(asdict(self))
        if len(text) > TAG_LIMIT:
            text = dumps(asdict(replace(self, sessions=None)))
        return {JUDGING: text}


_read = fields.instance_of(
    Judging,
    {
        "reference": fields.string,
        "sessions": fields.optional(fields.list_of(fields.string)),
        "confidence": fields.number,
        "unclear": fields.one_of(UNCLEAR),
        "overrides": fields.boolean,
        "pooled": fields.count,
        "gates": fields.count,
    },
)


def read_judging(value: object) -> Judging:
    """What :meth:`Judging.to_tags` wrote; raises :class:`fields.UnreadableError` for others."""
    found = _read(fields.json_value(fields.string(value)))
    if not 0 < found.confidence < 1 or not 1 <= found.pooled <= 100:
        raise fields.UnreadableError("has a number that is out of range")
    return found
