"""Options of jobs that share a session: which part of the collection this one runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import pytest

    from pytest_armory.session.shards import ShardJob

INI_DEVICES = "armory_devices"
INI_REPEATS = "armory_repeats"
INI_RESUME = "armory_resume"
INI_SHARD = "armory_shard"
INI_DURATIONS = "armory_durations"

OPTIONS = (
    (
        "--armory-resume",
        "[ID]",
        "skip the evaluations that have passed already in session ID (given as "
        "--armory-resume=ID; default: that of --armory-session) and have not changed since, and "
        "add the rest to it; a session that does not exist yet is begun",
    ),
    (
        "--armory-resume-any",
        None,
        "the same, also for evaluations whose file, conftest files, marker, parameters or commit "
        "have changed",
    ),
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
    (
        "--armory-devices",
        "LIST",
        "give each worker of `-n` one of these GPUs in turn, as CUDA_VISIBLE_DEVICES: `0,1,2,3`, "
        "or `auto` for those that CUDA_VISIBLE_DEVICES or the driver has",
    ),
    (
        "--armory-repeats",
        "N",
        "run the body of each evaluation N times, and judge the means of its metrics",
    ),
)
"""Each option with its metavar, None for a flag, in brackets if it needs no value; its help."""

MOST_REPEATS = 1000

OF_SESSION = "of the session"
"""What --armory-resume stands for without an ID."""

INI_KEYS: tuple[tuple[str, Literal["bool", "linelist"] | None, str], ...] = (
    (INI_DEVICES, None, "the same as --armory-devices"),
    (INI_REPEATS, None, "the same as --armory-repeats; a marker's own number goes first"),
    (INI_RESUME, "bool", "the same as --armory-resume"),
    (INI_SHARD, None, "the same as --armory-shard"),
    (INI_DURATIONS, None, "the same as --armory-durations"),
)
"""Each ini key with its type, None for one line of text, and its help."""


class JobSettings(NamedTuple):
    """The settings of one job among several; ``shard`` None if it runs the whole collection.

    ``resume`` says whether evaluations that passed already are skipped, ``resume_any`` whether that
    goes for changed ones too, ``devices`` whether GPUs are divided among the workers.
    ``repeats`` is how often each body runs, whatever its marker says; ``default_repeats`` if it
    says nothing.
    """

    resume: bool = False
    resume_any: bool = False
    devices: bool = False
    repeats: int | None = None
    default_repeats: int = 1
    shard: ShardJob | None = None
    durations: Mapping[str, float] = MappingProxyType({})


def read_job_settings(config: pytest.Config) -> JobSettings:
    """The job's settings. Raises ``pytest.UsageError`` for what cannot be used."""
    import pytest

    from pytest_armory.plugin import xdist

    option = config.option
    any_too = bool(option.armory_resume_any)
    settings = JobSettings(
        resume=option.armory_resume is not None or bool(any_too or ini_flag(config, INI_RESUME)),
        resume_any=any_too,
        devices=given(option.armory_devices, config.getini(INI_DEVICES)) is not None,
        repeats=_repeats("--armory-repeats", option.armory_repeats),
        default_repeats=_repeats(INI_REPEATS, config.getini(INI_REPEATS) or None) or 1,
    )
    sent = xdist.given_shard(config)
    if sent is not None:
        return settings._replace(shard=sent[0], durations=sent[1])
    shard = given(option.armory_shard, config.getini(INI_SHARD))
    durations = _durations_path(config)
    if shard is None:
        if option.armory_durations is not None:
            raise pytest.UsageError(
                "armory: --armory-durations balances the parts of --armory-shard; add "
                "--armory-shard, as in `--armory-shard 2/8`"
            )
        return settings

    from pytest_armory.errors import ArmoryUsageError
    from pytest_armory.session.durations import read_durations
    from pytest_armory.session.shards import read_shard

    try:
        job = read_shard(shard, os.environ)
        known = read_durations(durations) if durations else {}
    except ArmoryUsageError as error:
        raise pytest.UsageError(f"armory: {error}") from None
    return settings._replace(shard=job, durations=known)


def given(option: str | None, key: str) -> str | None:
    """What the option gives, also if that is empty, as an unset variable; else the key, or None."""
    return option if option is not None else key or None


def _repeats(name: str, text: str | None) -> int | None:
    import pytest

    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_REPEATS):
        raise pytest.UsageError(
            f"armory: {name} must be a whole number from 1 to {MOST_REPEATS:,}, got {text!r}; as "
            f"in {name}=5"
        )
    return int(text)


def _durations_path(config: pytest.Config) -> Path | None:
    """The option is relative to the invocation dir, the key to the rootdir."""
    option, key = config.option.armory_durations, config.getini(INI_DURATIONS)
    if option is not None:
        return config.invocation_params.dir / str(option)
    return config.rootpath / str(key) if key else None


def session_of_job(
    config: pytest.Config, jobs: JobSettings, given: str | None, track: bool
) -> str | None:
    """The session's ID: what was given, else what the environment of a shard says.

    Raises ``pytest.UsageError`` where each shard would begin a session of its own, or where nothing
    says which session is resumed.
    """
    import pytest

    shard = jobs.shard
    session = given or (shard.session if shard else "") or None
    if config.option.armory_resume is not None:
        session = _resumed(config, session)
    if track and jobs.resume and not session:
        raise pytest.UsageError(
            "armory: --armory-resume needs a session: give its ID, as in "
            "--armory-resume=nightly-42, or with --armory-session; `pytest-armory sessions` has "
            "them"
        )
    if track and shard and shard.needs_session and not session:
        raise pytest.UsageError(
            "armory: --armory-shard in a Kubernetes Indexed Job needs the session's ID, which is "
            "not in its environment; give all of its pods the same with --armory-session"
        )
    return session


def _resumed(config: pytest.Config, session: str | None) -> str | None:
    """The session that --armory-resume names. Raises ``pytest.UsageError``."""
    import pytest

    name = str(config.option.armory_resume)
    if name == OF_SESSION:
        return session
    if not name:
        raise pytest.UsageError(
            "armory: --armory-resume= gives no session's ID; give one, as in "
            "--armory-resume=nightly-42, or --armory-resume alone for that of --armory-session"
        )
    if "::" in name or (config.invocation_params.dir / name).exists():
        raise pytest.UsageError(
            f"armory: --armory-resume has taken {name!r} for a session's ID; give the ID as "
            f"--armory-resume=ID, or none and write it last: `pytest {name} --armory-resume`; an "
            "ini file has `armory_resume = true` for it"
        )
    if session and session != name:
        raise pytest.UsageError(
            f"armory: --armory-resume={name} and the session {session} (--armory-session, "
            "ARMORY_SESSION, armory_session or the environment of a shard) differ; give one of them"
        )
    return name


def ini_flag(config: pytest.Config, key: str) -> bool | None:
    """An ini key that is true or false; None where it has neither value nor default.

    Raises ``pytest.UsageError`` for anything else, which pytest refuses without naming the key.
    """
    import pytest

    try:
        value = config.getini(key)
    except (TypeError, ValueError, pytest.UsageError) as error:
        raise pytest.UsageError(f"armory: {key} must be true or false: {error}") from None
    return None if value is None else bool(value)


def refuse_resume_without_tracking(config: pytest.Config) -> None:
    """Raise ``pytest.UsageError`` for --armory-resume in a session that is not tracked."""
    import pytest

    if config.option.armory_resume is not None or config.option.armory_resume_any:
        raise pytest.UsageError(
            "armory: --armory-resume skips what was tracked and passed, but nothing is tracked "
            "without --armory-track; add --armory-track"
        )
