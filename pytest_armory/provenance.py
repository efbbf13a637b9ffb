"""Tags for the file, the git checkout and the CI job that a run comes from, without secrets."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pytest_armory.values import redact_text

_CI: dict[str, dict[str, str]] = {
    "github": {
        "": "GITHUB_ACTIONS",
        "run_id": "GITHUB_RUN_ID",
        "run_attempt": "GITHUB_RUN_ATTEMPT",
        "workflow": "GITHUB_WORKFLOW",
        "job": "GITHUB_JOB",
        "actor": "GITHUB_ACTOR",
        "ref": "GITHUB_REF_NAME",
        "commit": "GITHUB_SHA",
    },
    "gitlab": {
        "": "GITLAB_CI",
        "run_id": "CI_PIPELINE_ID",
        "job": "CI_JOB_NAME",
        "url": "CI_JOB_URL",
        "actor": "GITLAB_USER_LOGIN",
        "ref": "CI_COMMIT_REF_NAME",
        "commit": "CI_COMMIT_SHA",
    },
    "jenkins": {
        "": "JENKINS_URL",
        "run_id": "BUILD_ID",
        "job": "JOB_NAME",
        "url": "BUILD_URL",
        "ref": "GIT_BRANCH",
        "commit": "GIT_COMMIT",
    },
    "azure": {
        "": "TF_BUILD",
        "run_id": "BUILD_BUILDID",
        "job": "AGENT_JOBNAME",
        "ref": "BUILD_SOURCEBRANCHNAME",
        "commit": "BUILD_SOURCEVERSION",
    },
}


@lru_cache(maxsize=8)
def git_tags(folder: Path) -> Mapping[str, str]:
    """Commit, branch, remote and whether tracked files differ; empty outside a git checkout."""
    status = git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return {}
    lines = status.splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    remote = git(folder, "remote", "get-url", "origin")
    tags = {
        "mlflow.source.git.commit": heads.get("branch.oid", ""),
        "mlflow.source.git.branch": heads.get("branch.head", ""),
        "mlflow.source.git.repoURL": redact_text((remote or "").strip()),
        "armory.git.dirty": str(any(not line.startswith("#") for line in lines)).lower(),
    }
    return {key: value for key, value in tags.items() if value and not value.startswith("(")}


def checkout_parts(folder: Path) -> dict[str, str]:
    """The commit of a checkout, and a digest of its uncommitted changes to tracked files.

    "" stands for changes that git cannot tell; outside of a checkout both are ``none``.
    """
    tags = git_tags(folder)
    commit = tags.get("mlflow.source.git.commit", "none")
    if tags.get("armory.git.dirty") != "true":
        return {"commit": commit, "changes": "none"}
    text = git(folder, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--no-textconv")
    digest = hashlib.blake2b((text or "").encode(), digest_size=8).hexdigest()
    return {"commit": commit, "changes": digest if text is not None else ""}


def ci_tags(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The CI job's own variables, as ``armory.ci.*``; empty outside CI."""
    for provider, names in _CI.items():
        if environ.get(names[""]):
            tags = {"armory.ci.provider": provider}
            for tag, variable in names.items():
                if tag and environ.get(variable):
                    tags[f"armory.ci.{tag}"] = redact_text(environ[variable])
            if provider == "github":
                server = environ.get("GITHUB_SERVER_URL", "https://github.com")
                repository = environ.get("GITHUB_REPOSITORY", "")
                run = environ.get("GITHUB_RUN_ID", "")
                tags["armory.ci.url"] = f"{server}/{repository}/actions/runs/{run}"
            return tags
    return {"armory.ci.provider": "unknown"} if environ.get("CI") else {}


def source_tags(name: str = "", folder: Path | None = None) -> dict[str, str]:
    """The source file (this script unless given), its git state and CI job."""
    script = name or (sys.argv[0] if sys.argv and sys.argv[0] else "<interactive>")
    return {
        "mlflow.source.name": script,
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        **git_tags(folder or Path.cwd()),
        **ci_tags(),
    }


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def git(folder: Path, *arguments: str, errors: str = "replace") -> str | None:
    """What a git command prints, read-only; None if it fails or takes more than ten seconds."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Not as a text stream, which would change the ends of lines.
    return done.stdout.decode("utf-8", errors) if done.returncode == 0 else None
