"""The tag of a run that has samples: how many, whether all, and which data they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from json import dumps

from pytest_armory.records import fields
from pytest_armory.values import TAG_LIMIT

SAMPLES = "armory.samples"

DATA = "armory.data"
"""The tag of a run with the digests of the data of evaluations that keep no samples, by name."""


@dataclass(frozen=True)
class DatasetIdentity:
    """Which data an evaluation was of: a name, a digest, and the number of samples."""

    name: str
    digest: str
    samples: int


@dataclass(frozen=True)
class SampleTag:
    """The samples of a run: their rows, and the digest of the data of each score.

    ``is_partial`` says that the run was killed, or has not ended: more rows were to come.
    """

    rows: int
    is_partial: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)

    def to_tags(self) -> dict[str, str]:
        """The tag; without digests where they are too many for one."""
        scores: dict[str, list[str]] = {}
        for score, digest in self.digests.items():
            scores.setdefault(digest, []).append(score)
        members = {"rows": self.rows, "partial": self.is_partial, "data": scores}
        text = dumps(members)
        if len(text) > TAG_LIMIT:
            text = dumps({**members, "data": {}})
        return {SAMPLES: text}


_scores_by_digest = fields.mapping_of(fields.list_of(fields.string))


def read_sample_tag(value: object) -> SampleTag:
    """A tag from its JSON text; raises :class:`fields.UnreadableError`."""
    members = fields.mapping_of(fields.anything)(fields.json_value(fields.string(value)))
    found = _scores_by_digest(members.get("data", {}))
    return SampleTag(
        fields.count(members.get("rows")),
        fields.boolean(members.get("partial", False)),
        {score: digest for digest, scores in found.items() for score in scores},
    )


def data_tag(digests: Mapping[str, str]) -> dict[str, str]:
    """The tag with these digests; none without any, or where they are too many for one."""
    text = dumps({**digests})
    return {DATA: text} if digests and len(text) <= TAG_LIMIT else {}
