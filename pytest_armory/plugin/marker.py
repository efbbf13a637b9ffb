"""The marker ``evaluation``: merged over a test, its class and its module, and checked.

The functions are pure: they read pytest's items and configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_armory.plugin.options import NAME_LIMIT

if TYPE_CHECKING:
    import pytest

MARKER = "evaluation"

MARKER_HELP = (
    "evaluation(*, name=None, description=None, tags=None, at_least=None, at_most=None, "
    "baseline=None, activate=True): with --armory-track this test is tracked as one MLflow run. "
    "name: the MLflow experiment, the same between runs; description: the run's note; tags: a "
    "mapping of extra tags; at_least, at_most: {metric: number}, bounds that the test fails "
    'outside of; baseline: {metric: "-2%"}, the worst change against --armory-baseline that still '
    "passes; activate: False leaves MLflow's own state alone, so that mlflow.log_* does not land "
    "in the run. Markers on function, class and module merge, the closest wins key by key."
)


@dataclass(frozen=True)
class Mark:
    """A test's merged evaluation markers."""

    name: str | None = None
    description: str | None = None
    tags: Mapping[str, object] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    baseline: Mapping[str, str] = field(default_factory=dict)
    activate: bool | None = None


_TYPES: dict[str, tuple[type, str]] = {
    "name": (str, 'a string, as in name="digits-robustness"'),
    "description": (str, 'a string, as in description="PGD on logistic regression"'),
    "tags": (Mapping, 'a mapping, as in tags={"team": "vision"}'),
    "activate": (bool, "True or False, as in activate=False"),
}

_GATES = ("at_least", "at_most", "baseline")
_KEYWORDS = ("name", "description", "tags", *_GATES, "activate")


def is_evaluation(item: pytest.Item) -> bool:
    """Whether a test is marked as an evaluation."""
    return item.get_closest_marker(MARKER) is not None


def merged_mark(item: pytest.Item) -> Mark:
    """The markers on a test, its class and its module as one; assumes :func:`marker_errors`."""
    merged: dict[str, Any] = {}
    for mark in _closest_first(item):
        for key, value in mark.kwargs.items():
            if value is None:
                continue
            if key in merged and isinstance(value, Mapping):
                merged[key] = {**value, **merged[key]}
            else:
                merged.setdefault(key, value)
    return Mark(**merged)


def _closest_first(item: pytest.Item) -> Iterator[pytest.Mark]:
    """The markers on a test's parameter set, function, class and module.

    pytest yields those of a parameter set last, and those of a base class before a subclass's.
    """
    callspec = getattr(item, "callspec", None)
    case = [mark for mark in getattr(callspec, "marks", ()) if mark.name == MARKER]
    yield from case
    for node in reversed(item.listchain()):
        marks = [mark for mark in node.own_markers if mark.name == MARKER and mark not in case]
        cls = getattr(node, "obj", None)
        if isinstance(cls, type):
            bases = reversed([*enumerate(cls.__mro__)])
            depth = {id(mark): i for i, base in bases for mark in _marks_of(base)}
            marks.sort(key=lambda mark: depth.get(id(mark), -1))
        yield from marks


def _marks_of(cls: type) -> list[object]:
    marks = vars(cls).get("pytestmark", [])
    return [getattr(mark, "mark", mark) for mark in (marks if isinstance(marks, list) else [marks])]


def marker_errors(items: Iterable[pytest.Item]) -> list[str]:
    """One sentence for every invalid marker, with what to write instead."""
    errors: dict[str, None] = {}
    for item in items:
        for mark in item.iter_markers():
            for problem in _mark_problems(mark, item.config):
                errors[f"{item.nodeid.split('[')[0]}: {problem}"] = None
        if is_evaluation(item) and not errors:
            clash = _clash(merged_mark(item))
            if clash:
                errors[f"{item.nodeid}: @pytest.mark.evaluation{clash}"] = None
    return list(errors)


def _mark_problems(mark: pytest.Mark, config: pytest.Config) -> list[str]:
    if mark.name != MARKER:
        return _misspelt(mark.name, config)
    problems = []
    if mark.args:
        given = ", ".join(map(repr, mark.args))
        problems.append(
            f"@pytest.mark.evaluation takes keywords only, got {given}; write "
            f"@pytest.mark.evaluation(name={mark.args[0]!r})"
        )
    for key, value in mark.kwargs.items():
        if key not in _KEYWORDS:
            problems.append(
                f"@pytest.mark.evaluation takes {', '.join(_KEYWORDS)}, and has no keyword "
                f"{key!r}{_nearest(key, _KEYWORDS)}"
            )
        elif key in _GATES:
            problem = _gate_problem(key, value) if value is not None else None
            if problem:
                problems.append(f"@pytest.mark.evaluation({key}=…) {problem}")
        elif key == "name" and isinstance(value, str) and len(value) > NAME_LIMIT:
            problems.append(
                f"@pytest.mark.evaluation(name=…) must have at most {NAME_LIMIT} characters, "
                f"as MLflow's experiments; got {len(value)}"
            )
        elif value is not None and not (isinstance(value, _TYPES[key][0]) and value != ""):
            problems.append(
                f"@pytest.mark.evaluation({key}=…) must be {_TYPES[key][1]}; got {value!r}"
            )
    return problems


def _gate_problem(key: str, value: object) -> str | None:
    from pytest_armory.gates import parse as gates

    return (gates.tolerances_problem if key == "baseline" else gates.bounds_problem)(value)


def _clash(mark: Mark) -> str:
    """What is wrong with the gates of merged markers, each of which is valid; else empty."""
    if not (mark.at_least or mark.at_most or mark.baseline):
        return ""
    from pytest_armory.gates import parse as gates

    for key in sorted(_GATES):
        if problem := gates.collision(getattr(mark, key) or {}):
            return f"({key}=…) {problem}"
    problem = gates.contradiction(mark.at_least or {}, mark.at_most or {})
    return f" {problem}" if problem else ""


def _misspelt(name: str, config: pytest.Config) -> list[str]:
    """Refuse an unregistered marker of a similar name: its tests would not be tracked."""
    if not name.startswith(("eva", "val")) or name in _registered(config):
        return []
    nearest = _nearest(name, [MARKER])
    if not nearest:
        return []
    return [f"@pytest.mark.{name} is not a registered marker{nearest}"]


def _registered(config: pytest.Config) -> set[str]:
    lines: list[str] = config.getini("markers")
    return {line.split(":")[0].split("(")[0].strip() for line in lines}


def _nearest(name: str, known: Iterable[str]) -> str:
    import difflib

    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""
