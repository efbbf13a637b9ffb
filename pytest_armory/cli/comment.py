"""One comment on a pull or merge request, updated in place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

from pytest_armory.cli import github, gitlab
from pytest_armory.cli.rest import HostError
from pytest_armory.provenance import ci_tags
from pytest_armory.report.markdown import cut
from pytest_armory.values import redact_text

_RESERVED = 1000
"""Characters kept free for what stands around the summary."""


class Host(Protocol):
    """Where a pull request is. Its methods raise :class:`HostError`."""

    name: str
    limit: int
    number: int | None

    def comments(self) -> Iterator[tuple[str, str]]:
        """The id and the text of each of our own comments."""

    def create(self, text: str) -> str:
        """Post a comment; returns its address."""

    def update(self, comment: str, text: str) -> str:
        """Replace a comment's text; returns its address."""

    def delete(self, comment: str) -> None:
        """Delete a comment."""

    def advice(self, error: HostError) -> str:
        """What to grant or to do about a request that was refused."""


class Posted(NamedTuple):
    """What has become of a comment: a sentence, and whether it is as it should be."""

    text: str
    is_ok: bool


def post_comment(
    summary: Callable[[int], str], environ: Mapping[str, str] = os.environ, name: str = ""
) -> Posted:
    """Post the summary as a comment, or edit the one that an earlier job has posted.

    ``summary`` makes Markdown of at most so many characters, or about; ``name`` tells this comment
    from others of the same job. Nothing is raised: a comment is no reason to fail a job.
    """
    host: Host | None = None
    try:
        host = _host(environ)
        if host is None:
            return Posted("no comment: this is no job of GitHub Actions or GitLab CI", False)
        if host.number is None:
            return Posted("no comment: this job is for no pull or merge request", True)
        return _post(host, summary(host.limit - _RESERVED), environ, name)
    except HostError as error:
        advice = host.advice(error) if host is not None else ""
        name = f"{host.name}: " if host is not None else ""
        sentence = f"no comment: {name}{' '.join(redact_text(str(error)).split())}"
        return Posted(f"{sentence}; {advice}" if advice else sentence, False)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        return Posted(f"no comment: the host's answer cannot be read: {error!r}", False)


def _host(environ: Mapping[str, str]) -> Host | None:
    if environ.get("GITHUB_ACTIONS"):
        return github.job_of(environ)
    return gitlab.job_of(environ) if environ.get("GITLAB_CI") else None


def _post(host: Host, summary: str, environ: Mapping[str, str], name: str) -> Posted:
    marker = _marker(environ, name)
    text = _within(host, f"{marker}\n{summary}", environ)
    found = _marked(host, marker)
    if found:
        return Posted(f"updated the comment: {_merge(host, found, text)}", True)
    page = host.create(text)
    with suppress(HostError):  # there is a comment in any case
        found = _marked(host, marker)
        # Another run of the job, as of the next push, found none at that time, too: its comment is
        # there, or that alone, where it has deleted this one.
        if found and [body.split() for body in found.values()] != [text.split()]:
            page = _merge(host, found, text)
    return Posted(f"commented: {page}", True)


def _merge(host: Host, comments: Iterable[str], text: str) -> str:
    """Write the text to the first comment, and delete the others; returns the first's address."""
    first, *others = comments
    page = host.update(first, text)
    for other in others:
        with suppress(HostError):  # the other run may have deleted it
            host.delete(other)
    return page


def _marked(host: Host, marker: str) -> dict[str, str]:
    """The texts of the job's comments, by id. A reply that quotes one does not start with it."""
    return {one: body for one, body in host.comments() if body.startswith(marker)}


def _marker(environ: Mapping[str, str], name: str) -> str:
    """The hidden first line, the same in each run of one job, and another in each job."""
    parts = ("GITHUB_WORKFLOW", "GITHUB_JOB") if environ.get("GITHUB_ACTIONS") else ("CI_JOB_NAME",)
    words = [*(environ.get(part, "") for part in parts), *filter(None, [name])]
    job = "/".join(re.sub(r"[^\w.]+", "-", word) for word in words)
    return f"<!-- pytest-armory report {job} -->"


def _within(host: Host, text: str, environ: Mapping[str, str]) -> str:
    """The text with a link to the job, cut to the host's limit; it says so."""
    page = ci_tags(environ).get("armory.ci.url", "")
    foot = f"\n<sub>[the job]({page})</sub>\n" if page else "\n"
    if len(text) + len(foot) <= host.limit:
        return text + foot
    note = f"\n\n… cut here: {host.name} takes {host.limit:,} characters; the job has all of it.\n"
    return cut(text, host.limit - len(foot), note) + foot
