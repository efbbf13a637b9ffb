"""A merge request's comment on GitLab, by the variables of a job of GitLab CI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytest_armory.cli.rest import FORKS, Client, HostError, token_in

LIMIT = 1_000_000
"""GitLab's limit on a note, in characters."""

_GRANT = (
    "set the CI/CD variable GITLAB_TOKEN to a project access token with the scope `api` and the "
    "role Reporter; a job's own token may not comment"
)


@dataclass
class GitLab:
    """One job of GitLab CI; ``number`` is its merge request's, None if it has none."""

    client: Client
    project: str
    number: int | None
    page: str = ""
    is_fork: bool = False
    name: str = "GitLab"
    limit: int = LIMIT

    @property
    def _notes(self) -> str:
        return f"/projects/{self.project}/merge_requests/{self.number}/notes"

    def comments(self) -> Iterator[tuple[str, str]]:
        """The id and the text of each of our own comments. Raises :class:`HostError`."""
        own = self.client.request("GET", "/user")["id"]
        for note in self.client.pages(f"{self._notes}?per_page=100&sort=asc"):
            if not note.get("system") and (note.get("author") or {}).get("id") == own:
                yield str(note["id"]), str(note.get("body") or "")

    def create(self, text: str) -> str:
        """Post a comment; returns its address."""
        return self._page(self.client.request("POST", self._notes, {"body": text}))

    def update(self, comment: str, text: str) -> str:
        """Replace a comment's text; returns its address."""
        return self._page(self.client.request("PUT", f"{self._notes}/{comment}", {"body": text}))

    def delete(self, comment: str) -> None:
        """Delete a comment."""
        self.client.request("DELETE", f"{self._notes}/{comment}")

    def _page(self, note: Mapping[str, object]) -> str:
        return f"{self.page}/-/merge_requests/{self.number}#note_{note.get('id')}"

    def advice(self, error: HostError) -> str:
        """What to grant or to do about a request that was refused."""
        if error.status not in (401, 403, 404):
            return ""
        if self.is_fork:
            return (
                "a pipeline of a fork does not get the project's variables; let a member run it "
                f"in the project, see {FORKS}"
            )
        return _GRANT


def job_of(environ: Mapping[str, str]) -> GitLab:
    """The job that this process runs in. Raises :class:`HostError` if it has no token."""
    project = environ.get("CI_MERGE_REQUEST_PROJECT_ID") or environ.get("CI_PROJECT_ID", "")
    source = environ.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID") or project
    number = environ.get("CI_MERGE_REQUEST_IID", "")
    base = environ.get("CI_API_V4_URL") or "https://gitlab.com/api/v4"
    page = environ.get("CI_MERGE_REQUEST_PROJECT_URL") or environ.get("CI_PROJECT_URL", "")
    token = token_in(environ, "GITLAB_TOKEN")
    job = GitLab(
        Client(base, {"PRIVATE-TOKEN": token}),
        project,
        int(number) if number.isdecimal() else None,
        page,
        is_fork=source != project,
    )
    if not token and job.number is not None:
        raise HostError(0, f"GITLAB_TOKEN is not set: {job.advice(HostError(401, ''))}")
    return job
