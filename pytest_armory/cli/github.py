"""A pull request's comment on GitHub, by the variables of a job of GitHub Actions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pytest_armory.cli.rest import FORKS, Client, HostError, token_in

LIMIT = 65_536
"""GitHub's limit on a comment, in characters."""

_GRANT = "give the job `permissions: pull-requests: write`"


@dataclass
class GitHub:
    """One job of GitHub Actions; ``number`` is its pull request's, None if it has none."""

    client: Client
    repository: str
    number: int | None
    is_fork: bool = False
    name: str = "GitHub"
    limit: int = LIMIT

    @property
    def _issues(self) -> str:
        return f"/repos/{self.repository}/issues"

    def comments(self) -> Iterator[tuple[str, str]]:
        """The id and the text of each of our own comments. Raises :class:`HostError`."""
        own = self._own_login()
        for comment in self.client.pages(f"{self._issues}/{self.number}/comments?per_page=100"):
            user = comment.get("user") or {}
            if user.get("login") == own or (own is None and user.get("type") == "Bot"):
                yield str(comment["id"]), str(comment.get("body") or "")

    def _own_login(self) -> str | None:
        """Who the token is; None for the token of a job, which may not ask."""
        try:
            return str(self.client.request("GET", "/user")["login"])
        except HostError as error:
            if error.status in (401, 403, 404):
                return None
            raise

    def create(self, text: str) -> str:
        """Post a comment; returns its address."""
        path = f"{self._issues}/{self.number}/comments"
        return str(self.client.request("POST", path, {"body": text}).get("html_url", ""))

    def update(self, comment: str, text: str) -> str:
        """Replace a comment's text; returns its address."""
        path = f"{self._issues}/comments/{comment}"
        return str(self.client.request("PATCH", path, {"body": text}).get("html_url", ""))

    def delete(self, comment: str) -> None:
        """Delete a comment."""
        self.client.request("DELETE", f"{self._issues}/comments/{comment}")

    def advice(self, error: HostError) -> str:
        """What to grant or to do about a request that was refused."""
        if error.status == 401:
            return "the token is not valid: pass `env: GITHUB_TOKEN: ${{ github.token }}`"
        if error.status in (403, 404) and self.is_fork:
            return f"jobs for pull requests from forks may only read; see {FORKS}"
        return _GRANT if error.status in (403, 404) else ""


def job_of(environ: Mapping[str, str]) -> GitHub:
    """The job that this process runs in. Raises :class:`HostError` if it has no token."""
    token = token_in(environ, "GITHUB_TOKEN", "GH_TOKEN")
    if not token:
        raise HostError(0, "GITHUB_TOKEN is not set: add `env: GITHUB_TOKEN: ${{ github.token }}`")
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    client = Client(environ.get("GITHUB_API_URL") or "https://api.github.com", headers)
    repository = environ.get("GITHUB_REPOSITORY", "")
    event = _event(environ)
    pull = event.get("pull_request") or {}
    head = pull.get("head") or {}
    is_fork = "repo" in head and (head["repo"] or {}).get("full_name") != repository
    return GitHub(client, repository, _number(client, repository, event), is_fork)


def _event(environ: Mapping[str, str]) -> dict[str, Any]:
    path = environ.get("GITHUB_EVENT_PATH")
    try:
        event = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError) as error:
        raise HostError(0, f"GITHUB_EVENT_PATH cannot be read: {error}") from None
    return event if isinstance(event, dict) else {}


def _number(client: Client, repository: str, event: Mapping[str, Any]) -> int | None:
    """The pull request of an event: its own, or that of the workflow run it is about.

    For a run of a fork GitHub leaves it out, so that it is looked up by the fork's branch.
    """
    if "pull_request" in event:
        return int(event["pull_request"]["number"])
    issue = event.get("issue") or {}
    if "pull_request" in issue:
        return int(issue["number"])
    run = event.get("workflow_run")
    if not isinstance(run, dict) or run.get("event") not in ("pull_request", "pull_request_target"):
        return None
    own = (event.get("repository") or {}).get("id")
    named = [pull["number"] for pull in run.get("pull_requests") or [] if _is_of(pull, own)]
    if not named:
        owner = ((run.get("head_repository") or {}).get("owner") or {}).get("login", "")
        head = quote(f"{owner}:{run.get('head_branch', '')}", safe="")
        path = f"/repos/{repository}/pulls?state=open&per_page=100&head={head}"
        found = list(client.pages(path))
        named = [p["number"] for p in found if p["head"]["sha"] == run.get("head_sha")]
    return int(named[0]) if named else None


def _is_of(pull: Mapping[str, Any], repository: object) -> bool:
    """Whether a pull request is one of this repository's, and not of a fork of it."""
    base = ((pull.get("base") or {}).get("repo") or {}).get("id")
    return base is None or repository is None or base == repository
