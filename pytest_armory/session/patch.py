"""What a checkout's tracked files differ in from its commit, as a patch without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pytest_armory.provenance import git
from pytest_armory.values import redact_text

PATCH = "uncommitted.patch"
LIMIT = 1_000_000
"""The limit of a patch in bytes: what does not fit is named at its top instead."""

_LINES = 20_000
"""The limit on one file's changed lines."""

_SECRET_FILE = re.compile(
    r"(^|/)(\.env(\..*)?|\.netrc|\.pypirc|\.npmrc|id_(rsa|dsa|ecdsa|ed25519)|credentials?(\..*)?"
    r"|secrets?(\..*)?|.*\.(pem|key|p12|pfx|kdbx))$",
    re.IGNORECASE,
)
_DIFF = (
    "diff",
    "HEAD",
    "--no-color",
    "--no-renames",
    "--no-ext-diff",
    "--no-textconv",
    "--ignore-submodules",
)


def working_tree_patch(folder: Path, limit: int = LIMIT) -> bytes:
    """The patch that ``git apply`` makes the working tree with; empty if nothing can be told.

    A file is left out, and named at the top, in lines that ``git apply`` skips, if it is binary or
    too large, if its name says that it is secret, or if something in its difference looks like a
    secret. Files that git does not track are not looked at.
    """
    differences = [*_differences(folder, limit)]
    heading = [f"left out: {path!a}: {reason}\n" for path, reason, _ in differences if reason]
    return _encoded("".join([*heading, *(part for _, reason, part in differences if not reason)]))


def has_patch(folder: Path) -> bool:
    """Whether the patch changes anything: ``git apply`` refuses one that only names files."""
    return any(not reason for _, reason, _ in _differences(folder, LIMIT))


def _differences(folder: Path, limit: int) -> Iterator[tuple[str, str, str]]:
    """Each file that differs: its path, and why its difference is left out, or its text."""
    stat = git(folder, *_DIFF, "--numstat", "-z", errors="surrogateescape")
    for entry in filter(None, (stat or "").split("\0")):
        added, deleted, path = entry.split("\t", 2)
        reason, part = _difference(folder, added, deleted, path)
        size = len(_encoded(part))
        if not reason and size > limit:
            reason = "too large"
        if not reason:
            limit -= size
        yield path, reason, part


def _difference(folder: Path, added: str, deleted: str, path: str) -> tuple[str, str]:
    """Why a file's difference is left out, or its text."""
    if added == "-":
        return "binary", ""
    if _SECRET_FILE.search(path):
        return "its name says that it is secret", ""
    if int(added) + int(deleted) > _LINES:
        return "too large", ""
    text = git(
        folder, *_DIFF, "--src-prefix=a/", "--dst-prefix=b/", "--",
        f":(top,literal){path}", errors="surrogateescape",
    )  # fmt: skip
    if text is None:
        return "git cannot tell", ""
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    secret = redact_text(readable) != readable
    return ("something in it looks like a secret", "") if secret else ("", text)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
