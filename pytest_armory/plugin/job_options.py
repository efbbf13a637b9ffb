"""Options of jobs that share a session: which part of the collection this one runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pytest

    from pytest_armory.session.shards import ShardJob

INI_SHARD = "armory_shard"
INI_DURATIONS = "armory_durations"

OPTIONS = (
    (
        "--armory-shard",
        "I/N",
        "run the I-th of N parts of the collection; `auto` takes I and N from the environment of "
        "Slurm arrays, GitLab, Buildkite and CircleCI, `auto/N` I alone, as in Kubernetes Indexed "
        "Jobs. All tests are divided, marked or not, tracked or not",
    ),
    (
        "--armory-durations",
        "FILE",
        "balance the parts of --armory-shard by the seconds in this file, which "
        "`pytest-armory durations` writes (default: by the number of tests)",
    ),
)
"""Each option with its metavar, None for a flag, and its help."""

INI_KEYS: tuple[tuple[str, Literal["bool", "linelist"] | None, str], ...] = (
    (INI_SHARD, None, "the same as --armory-shard"),
    (INI_DURATIONS, None, "the same as --armory-durations"),
)
"""Each ini key with its type, None for one line of text, and its help."""


@dataclass(frozen=True)
class JobSettings:
    """The settings of one job among several; ``shard`` None if it runs the whole collection."""

    shard: ShardJob | None = None
    durations: Mapping[str, float] = field(default_factory=dict)


def read_job_settings(
    config: pytest.Config, environ: Mapping[str, str] = os.environ
) -> JobSettings:
    """The job's settings. Raises ``pytest.UsageError`` for what cannot be used."""
    shard = config.option.armory_shard or config.getini(INI_SHARD)
    durations = _durations_path(config)
    import pytest

    if not shard:
        if config.option.armory_durations:
            raise pytest.UsageError(
                "armory: --armory-durations balances the parts of --armory-shard; add "
                "--armory-shard, as in `--armory-shard 2/8`"
            )
        return JobSettings()

    from pytest_armory.errors import ArmoryUsageError
    from pytest_armory.session.durations import read_durations
    from pytest_armory.session.shards import read_shard

    try:
        job = read_shard(shard, environ)
        known = read_durations(durations) if durations else {}
    except ArmoryUsageError as error:
        raise pytest.UsageError(f"armory: {error}") from None
    _hand_to_workers(config, job, durations)
    return JobSettings(job, known)


def _durations_path(config: pytest.Config) -> Path | None:
    """The option is relative to the invocation dir, the key to the rootdir."""
    option, key = config.option.armory_durations, config.getini(INI_DURATIONS)
    if option:
        return config.invocation_params.dir / str(option)
    return config.rootpath / str(key) if key else None


def _hand_to_workers(config: pytest.Config, job: ShardJob, durations: Path | None) -> None:
    """xdist gives a worker these options as they are here; its environment may be another."""
    config.option.armory_shard = str(job.shard)
    config.option.armory_durations = str(durations) if durations else None


def session_of_job(jobs: JobSettings, given: str | None, track: bool) -> str | None:
    """The session's ID: what was given, else what the environment of a shard says.

    Raises ``pytest.UsageError`` where each shard would begin a session of its own.
    """
    if given or jobs.shard is None:
        return given
    if track and jobs.shard.needs_session and not jobs.shard.session:
        import pytest

        raise pytest.UsageError(
            "armory: --armory-shard in a Kubernetes Indexed Job needs the session's ID, which is "
            "not in its environment; give all of its pods the same with --armory-session"
        )
    return jobs.shard.session or None
