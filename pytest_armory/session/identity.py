"""The identity of a session and of its processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Identity:
    """The identity of a session, known to each of its processes.

    ``shard`` names the process that reports, and the session in it; ``shared`` says that others may
    contribute to the session as well; ``tags`` are for each of its runs; ``job_run`` is the MLflow
    run that the whole job is inside, if any; ``reproduce`` are the parts of the command that runs
    one evaluation again; ``checkout`` is the session's part of a fingerprint.
    """

    session: str
    shard: str = ""
    shared: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    command: str = ""
    job_run: str | None = None
    reproduce: Sequence[str] = ()
    checkout: Mapping[str, str] = field(default_factory=dict)


def process_tags() -> dict[str, str]:
    """The tags of the process that opens a run; its lease tells whether it is alive."""
    from pytest_armory.session import leases  # which an untracked session never needs

    return {"armory.host": leases.host_name(), "armory.process": leases.process_name()}
