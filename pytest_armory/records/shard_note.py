"""What one job of a shared session has collected, and which part of it the job took."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from json import dumps

from pytest_armory.records import fields
from pytest_armory.records.job_end import HASH, parts


@dataclass(frozen=True)
class ShardNote:
    """The note of a job that was given ``--armory-shard``.

    ``index`` of ``number`` is its shard; ``digest`` stands for the whole collection of
    ``collected`` tests, of which it ``took`` so many, ``evaluations`` among them; ``first`` is the
    position of the first one, counted from 1, and 0 if it is not known; ``hashes`` are those of the
    evaluations' node ids, joined. ``began`` is in
    milliseconds since the epoch. ``attempt`` and ``leg`` tell a job that runs again from another
    one; ``resumed`` says that it continues what an earlier one has begun.
    """

    index: int
    number: int
    digest: str
    collected: int
    took: int
    evaluations: int = 0
    hashes: str = ""
    host: str = ""
    began: int = 0
    attempt: str = ""
    leg: str = ""
    resumed: bool = False
    first: int = 0

    @property
    def known_hashes(self) -> list[str]:
        """The hashes of the evaluations that it took."""
        return parts(self.hashes)

    def kept_hashes(self, limit: int) -> str:
        """Those of the hashes that fit into :meth:`to_text`."""
        room = limit - len(dumps(asdict(replace(self, hashes=""))))
        return self.hashes[: max(0, room // HASH) * HASH]

    def to_text(self, limit: int) -> str:
        """As JSON of at most ``limit`` characters, with as many hashes as fit."""
        return dumps(asdict(replace(self, hashes=self.kept_hashes(limit))))


MOST_SHARDS = 999_999

_read = fields.instance_of(
    ShardNote,
    {
        **dict.fromkeys(
            ("index", "number", "collected", "took", "evaluations", "first"), fields.count
        ),
        **dict.fromkeys(("digest", "hashes", "host", "attempt", "leg"), fields.string),
        "began": fields.count,
        "resumed": fields.boolean,
    },
)


def read_shard_note(value: object) -> ShardNote:
    """A note from JSON's builtins; raises :class:`fields.UnreadableError`."""
    note = _read(value)
    if not 1 <= note.index <= note.number <= MOST_SHARDS:
        raise fields.UnreadableError("is of no shard")
    return note
