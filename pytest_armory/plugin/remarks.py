"""What a session says at its end, with the tests that it is about, and never as a warning.

A Python warning would fail the tests of a project with ``filterwarnings = error``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

Remark = tuple[str, str]
"""A sentence, and the node id of a test that it is about, or ""."""

_NO_EVALUATION = (
    "no test that ran is marked `evaluation`, so nothing was tracked; write "
    "@pytest.mark.evaluation above each test that is to become an MLflow run"
)
_NOT_OURS = (
    "`armory_marker = false` in the ini file says that the marker `evaluation` is the project's "
    "own, so no test is an evaluation and nothing was tracked"
)
WITHOUT_MARKER = (
    "what is logged through evaluation_run in a test that is not marked is not stored; write "
    "@pytest.mark.evaluation above the test"
)


def no_evaluation(is_ours: bool | None) -> str:
    """Why nothing was tracked; ``is_ours`` is what the ini file says of the marker, if anything."""
    return _NOT_OURS if is_ours is False else _NO_EVALUATION


_remarks = pytest.StashKey[dict[Remark, None]]()


def remark(config: pytest.Config, remarks: Iterable[Sequence[str]]) -> None:
    """Add sentences to what this session says at its end, each once for a test."""
    known = config.stash.setdefault(_remarks, {})
    known.update(dict.fromkeys((text, nodeid) for text, nodeid in remarks))


def remarks_of(config: pytest.Config) -> list[Remark]:
    """All that were added."""
    return list(config.stash.get(_remarks, None) or ())


def remark_lines(config: pytest.Config) -> list[str]:
    """A line for each sentence, with its first tests."""
    remarks = remarks_of(config)
    if not remarks:
        return []
    from pytest_armory.report.sentences import with_tests
    from pytest_armory.report.text import printable

    about_tests = with_tests(one for one in remarks if one[1])
    return [*map(printable, about_tests), *(text for text, nodeid in remarks if not nodeid)]
