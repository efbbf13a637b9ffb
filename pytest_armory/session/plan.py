"""What a process has collected and is about to run, for the process that reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_armory.records.shard_note import ShardNote


@dataclass(frozen=True)
class Plan:
    """The evaluations that a process is about to run, by node id; in a shard with its note.

    ``gates`` are the tolerances that share the chance of a false alarm, ``counted`` those of the
    whole collection: another number where the session's first job has counted others. The note
    belongs to the experiment of that name, or if it has none, of that id. ``resumed`` are those
    that are skipped because they passed before; ``again`` says with the node id why one that passed
    before is not.
    """

    evaluations: Sequence[str] = ()
    note: ShardNote | None = None
    experiment: str = ""
    experiment_id: str | None = None
    resumed: Sequence[str] = ()
    again: Sequence[Sequence[str]] = ()
    gates: int = 0
    counted: int = 0
