"""The tag of a session run with what the verdicts of the session depend on, for all its jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from json import dumps

from pytest_armory.records import fields
from pytest_armory.values import TAG_LIMIT

JUDGING = "armory.judging"

BASELINE_TEXT = "armory.baseline_text"
"""The tag of a session run with what its evaluations were compared with, in words.

:class:`Judging` has the sessions of every experiment of the store, since it is of all jobs.
"""

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

    @property
    def baseline_text(self) -> str:
        """What the session was compared with, in words; empty for nothing."""
        if not self.reference or self.sessions is None:
            return f"baseline {self.reference}" if self.reference else ""
        if not self.sessions:
            return f"baseline {self.reference}: no run of it was found"
        return sessions_text(self.reference, self.sessions)

    def to_tags(self) -> dict[str, str]:
        """The tag; without the sessions where they are too many for one."""
        text = dumps(asdict(self))
        if len(text) > TAG_LIMIT:
            text = dumps(asdict(replace(self, sessions=None)))
        return {JUDGING: text}


def sessions_text(reference: str, sessions: Sequence[str]) -> str:
    """A baseline with its sessions, of which there is one at least.

    >>> sessions_text("branch:main", ["s2", "s1"]), sessions_text("s1", ["s1"])
    ('baseline branch:main: sessions s2, s1', 'baseline: session s1')
    """
    if [*sessions] == [reference]:
        return f"baseline: session {reference}"
    some = ", ".join(sessions[:3]) + (", …" if len(sessions) > 3 else "")
    word = "session" if len(sessions) == 1 else "sessions"
    return f"baseline {reference}: {word} {some}"


judging_of = fields.instance_of(
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
"""Reads it from JSON's builtins; raises :class:`fields.UnreadableError`."""


def read_judging(value: object) -> Judging:
    """What :meth:`Judging.to_tags` wrote; raises :class:`fields.UnreadableError` for others."""
    found = judging_of(fields.json_value(fields.string(value)))
    if not 0 < found.confidence < 1 or not 1 <= found.pooled <= 100:
        raise fields.UnreadableError("has a number that is out of range")
    return found
