"""How to run one evaluation of a session again: the command, and the session's files for it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pytest_armory.provenance import git_tags
from pytest_armory.records.job_end import file_of_job
from pytest_armory.session.installed import environment_text
from pytest_armory.session.patch import PATCH, has_patch, working_tree_patch
from pytest_armory.values import TAG_LIMIT, clip, redact_argv, redact_text

ENVIRONMENT = "environment.txt"

_VARIABLES = ("PYTEST_ADDOPTS", "PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""What of the environment changes what a session measures."""

# What selects tests, distributes them or names the session's own files says nothing of one test.
_WITH_VALUE = frozenset(
    (
        "-k", "-m", "-n", "--numprocesses", "--maxprocesses", "--dist", "--tx", "--deselect",
        "--ignore", "--ignore-glob", "--maxfail", "--junitxml", "--junit-xml", "--durations",
        "--basetemp", "--lfnf", "--last-failed-no-failures", "--armory-session",
        "--armory-summary", "--armory-html", "--armory-shard", "--armory-durations",
        "--armory-devices",
    )
)  # fmt: skip
_ALONE = frozenset(
    (
        "--armory-track", "--armory-strict", "--armory-resume", "--armory-resume-any", "-x",
        "--exitfirst", "--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--new-first",
        "--sw", "--stepwise", "--sw-skip",
    )
)  # fmt: skip


def command_parts(
    arguments: Sequence[str],
    positional: Sequence[str],
    folder: Path,
    patch: bool,
    environ: Mapping[str, str] = os.environ,
    start: Path | None = None,
) -> tuple[str, str, str, str]:
    """The command before and after the node id, for a session that pytest was given these words.

    Between them are two folders: the root directory, and where the command runs pytest.
    ``positional`` are those that pytest took for paths; ``folder`` is the root directory; ``start``
    is where pytest was called, which paths in options are relative to; ``patch`` says that the
    session stores what differs from the commit. Secrets are redacted.
    """
    tags = git_tags(folder)
    steps = []
    if commit := tags.get("mlflow.source.git.commit"):
        steps.append(f"git checkout {commit[:12]}")
        if patch and tags.get("armory.git.dirty") == "true" and has_patch(folder):
            steps.append(f"git apply {PATCH}")
    top = _top_of_checkout(folder)
    where = start if start is not None and start.is_relative_to(top) else folder
    if (inside := where.relative_to(top).as_posix()) != ".":
        steps.append(f"cd {shlex.quote(inside)}")
    given = [(name, environ[name]) for name in _VARIABLES if environ.get(name)]
    variables = [f"{name}={shlex.quote(redact_text(value))}" for name, value in given]
    steps.append(" ".join([*variables, "pytest"]))
    options = redact_argv(["--armory-track", *_options(arguments, positional)])
    return " && ".join(steps), str(folder), str(where), options


def command_of(parts: Sequence[str], nodeid: str) -> str:
    """The command that runs one evaluation again, for the tag ``armory.reproduce``."""
    before, root, where, after = parts
    if root != where:
        file, separator, name = nodeid.partition("::")
        path = Path(os.path.relpath(Path(root) / file, where)).as_posix()
        nodeid = f"{path}{separator}{name}"
    return clip(f"{before} {shlex.quote(nodeid)} {after}", TAG_LIMIT)


def _options(arguments: Sequence[str], positional: Sequence[str]) -> list[str]:
    """The words that are options, without those that concern the whole session only."""
    left = list(positional)
    kept: list[str] = []
    for word in reversed(arguments):  # an option's value may be a path too: those come last
        if word in left:
            left.remove(word)
        else:
            kept.insert(0, word)
    options, skip = [], False
    for word in kept:
        name = word.partition("=")[0]
        if skip and not word.startswith("-"):
            skip = False
        elif name in _WITH_VALUE:
            skip = "=" not in word
        elif name not in _ALONE and not _is_glued(word):
            options.append(word)
            skip = False
    return options


def _is_glued(word: str) -> bool:
    """Whether it is a short option with its value, as ``-n4``."""
    return len(word) > 2 and word[:2] in ("-k", "-m", "-n")


def _top_of_checkout(folder: Path) -> Path:
    """The git checkout that a folder is in; the folder itself outside of one."""
    return next((path for path in (folder, *folder.parents) if (path / ".git").exists()), folder)


# Files of the session run

Files = Mapping[str, str | bytes]


def describe_with(folder: Path, patch: bool) -> Callable[[], Files]:
    """A function that makes the session's files, when the first evaluation is about to run."""
    return partial(_files, folder, patch)


def _files(folder: Path, patch: bool) -> Files:
    files: dict[str, str | bytes] = {ENVIRONMENT: environment_text()}
    is_dirty = git_tags(folder).get("armory.git.dirty") == "true"
    difference = working_tree_patch(folder) if patch and is_dirty else b""
    return {**files, PATCH: difference} if difference else files


def for_another_job(files: Files, shard: str) -> Files:
    """The files of a job that contributes to a session run of another one, under other names."""
    return {file_of_job(name, shard): content for name, content in files.items()}
