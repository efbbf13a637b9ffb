"""Calls of users' hooks, with checked results; an exception becomes a problem of the attempt."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

import pytest

from pytest_armory.track.run import tag_strings
from pytest_armory.values import legal_key, metric_values

_RAISED = (Exception, pytest.fail.Exception, pytest.skip.Exception)
"""What a hook may raise without failing the test."""


def tags_of(item: pytest.Item, problems: list[str]) -> dict[str, str]:
    """The tags that ``pytest_armory_tags`` returns for a test's run."""
    tags: dict[str, str] = {}
    try:
        for answer in item.ihook.pytest_armory_tags(item=item):
            tags.update(tag_strings(answer or {}))
    except _RAISED as error:
        problems.append(f"the hook pytest_armory_tags raised {error!r}; its tags are left out")
    return tags


def baseline_of(
    item: pytest.Item, default: Mapping[str, float] | None, problems: list[str]
) -> Mapping[str, float] | None:
    """The metrics that ``pytest_armory_baseline`` returns for a test, else the default."""
    answer = _answer(item, "pytest_armory_baseline", problems)
    if answer is None:
        return default
    values = metric_values(answer) if isinstance(answer, Mapping) else None
    if values is None or values.refused or values.arrays:
        problems.append(
            "the hook pytest_armory_baseline must give a mapping of metric names to "
            f"numbers, got {reprlib.repr(answer)}"
        )
    return values.numbers if values else None


def chief_metrics_of(
    item: pytest.Item, metrics: dict[str, float], problems: list[str]
) -> tuple[str, ...]:
    """The metrics that ``pytest_armory_chief_metrics`` selects for tables; none by default."""
    answer = _answer(item, "pytest_armory_chief_metrics", problems, metrics=metrics)
    if answer is None:
        return ()
    if isinstance(answer, list | tuple):
        names = tuple(legal_key(str(name)) for name in answer)
        if all(name in metrics for name in names):
            return names
    problems.append(
        "the hook pytest_armory_chief_metrics must give a list of names of metrics that were "
        f"logged, got {reprlib.repr(answer)}"
    )
    return ()


def _answer(item: pytest.Item, hook: str, problems: list[str], **arguments: object) -> object:
    try:
        return getattr(item.ihook, hook)(item=item, **arguments)
    except _RAISED as error:
        problems.append(f"the hook {hook} raised {error!r}")
        return None
