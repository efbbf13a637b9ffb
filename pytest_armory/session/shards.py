"""Shards: which part of a collection a job runs, and what its environment says of it. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pytest_armory.errors import ArmoryUsageError

OPTION = "--armory-shard"
_ADVICE = f"as in `{OPTION} 2/8`, `{OPTION} auto` or `{OPTION} auto/8`"
_EXPLICIT = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)
_AUTO = re.compile(r"auto(?:/(\d{1,6}))?", re.ASCII)


@dataclass(frozen=True)
class Environment:
    """The variables in which one kind of environment numbers its jobs; "" where it has none.

    ``first`` is the index of its first job. ``session`` is what all jobs of a build share and no
    other build has. ``attempt`` differs if a job runs again; ``leg`` stays the same if it does, and
    differs between jobs of one build.
    """

    name: str
    index: str = ""
    number: str = ""
    first: int = 0
    session: str = ""
    attempt: str = ""
    leg: str = ""


SLURM = Environment(
    "a Slurm array",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_COUNT",
    session="SLURM_ARRAY_JOB_ID",
    attempt="SLURM_RESTART_COUNT",
)
KUBERNETES = Environment("a Kubernetes Indexed Job", "JOB_COMPLETION_INDEX", leg="HOSTNAME")

ENVIRONMENTS = (
    SLURM,
    KUBERNETES,
    Environment(
        "GitLab CI",
        "CI_NODE_INDEX",
        "CI_NODE_TOTAL",
        first=1,
        session="CI_PIPELINE_ID",
        leg="CI_JOB_NAME",
    ),
    Environment(
        "Buildkite",
        "BUILDKITE_PARALLEL_JOB",
        "BUILDKITE_PARALLEL_JOB_COUNT",
        session="BUILDKITE_BUILD_ID",
        attempt="BUILDKITE_RETRY_COUNT",
    ),
    Environment("CircleCI", "CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", session="CIRCLE_WORKFLOW_ID"),
    Environment("GitHub Actions", session="GITHUB_RUN_ID", attempt="GITHUB_RUN_ATTEMPT"),
)
"""In the order in which they are asked: a job of Slurm's or Kubernetes' may be a CI's as well."""


@dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``number`` parts of a collection, counted from 1."""

    index: int
    number: int

    def __str__(self) -> str:
        return f"{self.index}/{self.number}"


@dataclass(frozen=True)
class ShardJob:
    """A shard, and what the environment says of the job that runs it.

    ``index_from`` and ``session_from`` are the variables that ``shard`` and ``session`` were read
    from, "" if they were not. Two jobs run the same part for the same reason again if ``attempt``
    differs, or ``leg`` is known and does not.
    """

    shard: Shard
    index_from: str = ""
    session: str = ""
    session_from: str = ""
    attempt: str = ""
    leg: str = ""
    needs_session: bool = False


def read_shard(text: str, environ: Mapping[str, str]) -> ShardJob:
    """The shard that ``--armory-shard`` gives: ``I/N``, ``auto`` or ``auto/N``.

    Raises :class:`ArmoryUsageError` for anything else, and for ``auto`` outside of the environments
    that number their jobs.
    """
    explicit, auto = _EXPLICIT.fullmatch(text), _AUTO.fullmatch(text)
    if explicit:
        shard, index_from = Shard(int(explicit[1]), int(explicit[2])), ""
        where = _environment_of_session(environ)
    elif auto:
        where = _environment_of_index(text, environ)
        shard, index_from = _numbered(where, auto[1], environ), where.index
    else:
        raise ArmoryUsageError(f"{OPTION} must be I/N, auto or auto/N, got {text!r}; {_ADVICE}")
    if not 1 <= shard.index <= shard.number:
        given = f" ({index_from}={environ[index_from]!r})" if index_from else ""
        raise ArmoryUsageError(
            f"{OPTION} must be I/N with I from 1 to N, got {shard}{given}; {_ADVICE}"
        )
    return _job(shard, index_from, where, environ)


def _job(
    shard: Shard, index_from: str, where: Environment | None, environ: Mapping[str, str]
) -> ShardJob:
    if where is None:
        return ShardJob(shard)
    session = environ.get(where.session, "")
    return ShardJob(
        shard,
        index_from=index_from,
        session=session,
        session_from=where.session if session else "",
        attempt=environ.get(where.attempt, ""),
        leg=environ.get(where.leg, ""),
        needs_session=where is KUBERNETES,
    )


def _environment_of_session(environ: Mapping[str, str]) -> Environment | None:
    """The environment that gives the session's ID; else one that numbers this job, if any."""
    asked = [one for one in ENVIRONMENTS if environ.get(one.session)]
    return next(iter([*asked, *(one for one in ENVIRONMENTS if environ.get(one.index))]), None)


def _environment_of_index(text: str, environ: Mapping[str, str]) -> Environment:
    for environment in ENVIRONMENTS:
        if environ.get(environment.index):
            return environment
    known = ", ".join(f"{one.name} ({one.index})" for one in ENVIRONMENTS if one.index)
    raise ArmoryUsageError(
        f"{OPTION} {text} needs an environment that numbers its jobs: {known}; elsewhere give the "
        f"numbers, as in `{OPTION} 2/8`"
    )


def _numbered(where: Environment, given: str | None, environ: Mapping[str, str]) -> Shard:
    """The shard by an environment's variables, of the number that is given or the environment's."""
    if not (environ.get(where.number) or given):
        raise ArmoryUsageError(
            f"{where.name} does not say how many jobs there are; give it: `{OPTION} auto/8` for 8"
        )
    number = _whole(where.number, environ) if environ.get(where.number) else int(given or 0)
    if given and number != int(given):
        raise ArmoryUsageError(
            f"{OPTION} auto/{given} contradicts {where.number}={number}; write `{OPTION} auto`"
        )
    index = _whole(where.index, environ) - where.first
    if where is SLURM:
        first = _whole("SLURM_ARRAY_TASK_MIN", environ, 0)
        index, rest = divmod(index - first, _whole("SLURM_ARRAY_TASK_STEP", environ, 1) or 1)
        if rest or index >= number:
            raise ArmoryUsageError(
                f"{OPTION} auto needs an array whose indices are evenly spaced, as "
                f"`--array=0-{max(number - 1, 0)}`; got {where.index}={environ[where.index]} of "
                f"{number} from {first}"
            )
    return Shard(index + 1, number)


def _whole(name: str, environ: Mapping[str, str], default: int | None = None) -> int:
    text = environ.get(name, "")
    if re.fullmatch(r"\d{1,9}", text, re.ASCII):
        return int(text)
    if not text and default is not None:
        return default
    raise ArmoryUsageError(f"{name} must be a whole number for {OPTION} auto, got {text!r}")


# The split


def part_of(weights: Sequence[float], shard: Shard) -> range:
    """The positions that a shard takes: a stretch of about an equal part of all weights.

    An item belongs to the shard in whose part of the sum its middle lies, so a shard is over its
    equal part by at most one item. Weights that are all 0 count as equal.
    """
    if not any(weights):
        weights = [1.0] * len(weights)
    ends = list(accumulate(weights))
    middles = (end - weight / 2 for end, weight in zip(ends, weights, strict=True))
    total, number = (ends[-1] if ends else 1.0), shard.number
    owners = [min(int(middle * number / total), number - 1) + 1 for middle in middles]
    start = sum(owner < shard.index for owner in owners)
    return range(start, start + owners.count(shard.index))


def digest(nodeids: Iterable[str]) -> str:
    """Sixteen hexadecimal digits for a collection: its node ids in their order."""
    text = "\n".join(nodeids).encode("utf-8", "surrogatepass")
    return hashlib.blake2s(text, digest_size=8).hexdigest()
