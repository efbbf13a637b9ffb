"""What a session says at its end, with the tests that it is about, and never as a warning.

A Python warning would fail the tests of a project with ``filterwarnings = error``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

Remark = tuple[str, str]
"""A sentence, and the node id of a test that it is about, or ""."""

_NO_EVALUATION = (
    "no test that ran is marked `evaluation`, so nothing was tracked; write "
    "@pytest.mark.evaluation above each test that is to become an MLflow run"
)
_NO_TEST = (
    "no test ran, so nothing was tracked; `pytest --collect-only -q` lists the tests that the same "
    "arguments select"
)
_NOT_OURS = (
    "`armory_marker = false` in the ini file says that the marker `evaluation` is the project's "
    "own, so no test is an evaluation and nothing was tracked"
)
WITHOUT_MARKER = (
    "what is logged through evaluation_run in a test that is not marked is not stored; write "
    "@pytest.mark.evaluation above the test"
)


def no_evaluation(is_ours: bool | None, ran: bool) -> str:
    """Why nothing was tracked; ``is_ours`` is what the ini file says of the marker, if anything.

    ``ran`` is whether a test ran: where none did, all may be marked.
    """
    if not ran:
        return _NO_TEST
    return _NOT_OURS if is_ours is False else _NO_EVALUATION


_FILES = ("armory_html", "armory_summary", "armory_durations")
"""Options whose value is a file."""


_MOVED = (
    "pytest took {value}, which was there, for the path of a test, so the rootdir is {root}: node "
    "ids, and baselines with them, are others, and no ini file of the project was read; write "
    "{option}={value}"
)


def moved_rootdir(config: pytest.Config) -> Iterator[Remark]:
    """Say that pytest took the file of an option for a test's, and its folder for the rootdir.

    It determines the rootdir before it knows our options: then a word that exists is a test's path.
    """
    here, root = config.invocation_params.dir, config.rootpath
    is_above = config.inipath is None and root != here and not (root / "setup.py").exists()
    is_given = config.option.rootdir or config.option.inifilename
    if is_given or (here.is_relative_to(root) and not is_above):
        return
    tests = [os.path.abspath(here / text.partition("::")[0]) for text in config.args]
    common = os.path.commonpath([here, *tests])  # what pytest would take without the file
    for name in _FILES:
        value = getattr(config.option, name)
        if value not in config.invocation_params.args:  # as --option=value it is no word
            continue
        path = Path(os.path.abspath(here / value))
        if path.exists() and not path.is_relative_to(common):
            yield (_MOVED.format(value=value, root=root, option=f"--{name.replace('_', '-')}"), "")


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
