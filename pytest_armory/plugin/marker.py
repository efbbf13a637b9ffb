"""The marker ``evaluation``: merged over a test, its class and its module, and checked.

The functions are pure: they read pytest's items and configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from pytest_armory.plugin.job_options import MOST_REPEATS
from pytest_armory.plugin.options import INI_MARKER, NAME_LIMIT
from pytest_armory.plugin.verdict_options import UNCLEAR

MARKER = "evaluation"

MARKER_HELP = (
    "evaluation(*, name=None, description=None, tags=None, at_least=None, at_most=None, "
    "baseline=None, unclear=None, version=None, repeats=1, activate=True): with --armory-track "
    "this test is tracked as one MLflow run. name: the MLflow experiment, the same between runs; "
    "description: the run's note; tags: a mapping of extra tags; at_least, at_most: {metric: "
    'number}, bounds that the test fails outside of; baseline: {metric: "-2%"}, the worst change '
    "against --armory-baseline that still passes; unclear: pass, fail or measured, what a gate "
    "does if its samples do not tell whether it is worse; version: with a changed one the "
    "evaluation has neither baseline nor history; repeats: how often the body runs, judged by the "
    "means of its metrics; activate: False leaves MLflow's own state alone, so that mlflow.log_* "
    "does not land in the run. Markers on function, class and module merge, the closest wins key "
    "by key."
)


class Mark(NamedTuple):
    """A test's merged evaluation markers."""

    name: str | None = None
    description: str | None = None
    tags: Mapping[str, object] = MappingProxyType({})
    at_least: Mapping[str, float] = MappingProxyType({})
    at_most: Mapping[str, float] = MappingProxyType({})
    baseline: Mapping[str, str] = MappingProxyType({})
    unclear: str | None = None
    version: str | int | None = None
    activate: bool | None = None
    repeats: int | None = None


_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, 'a string, as in name="digits-robustness"'),
    "description": (str, 'a string, as in description="PGD on logistic regression"'),
    "tags": (Mapping, 'a mapping, as in tags={"team": "vision"}'),
    "version": ((str, int), "a string or a whole number, as in version=2"),
    "activate": (bool, "True or False, as in activate=False"),
    "repeats": (int, f"a whole number from 1 to {MOST_REPEATS:,}, as in repeats=5"),
}

_GATES = ("at_least", "at_most", "baseline")
_KEYWORDS = ("name", "description", "tags", *_GATES, "unclear", "version", "repeats", "activate")

_ABBREVIATIONS = ("eval", "evals")

RUN_BEFORE = pytest.StashKey[Any]()
"""The run in memory that the fixture ``evaluation_run`` gave a test that was not marked yet."""

IS_OURS = pytest.StashKey[bool | None]()
"""Whether every use of the marker is this plugin's, of a config; None: each use says it itself."""

_DECIDE = (
    f"in the ini file `{INI_MARKER} = true` refuses such uses, and `{INI_MARKER} = false` says "
    "that the marker is the project's own"
)

POSITIONAL = (
    f"@pytest.mark.{MARKER} with an argument that is no keyword is not this plugin's, so it is "
    f'left alone; an evaluation is marked as in @pytest.mark.{MARKER}(name="digits"); {_DECIDE}'
)
_REGISTER = "If it is the project's own, register it in the ini file under `markers`"
UNREADABLE = (
    f"the project registers a marker {MARKER!r}, and this use of it is not valid as this plugin's, "
    f"so it is left alone; {_DECIDE}"
)


def is_evaluation(item: pytest.Item) -> bool:
    """Whether a test is marked as an evaluation."""
    return any(_is_ours(mark, item.config) for mark in item.iter_markers(MARKER))


def is_unmarked(item: pytest.Item) -> bool:
    """Whether no mark of a test is this plugin's, or may have been meant to be."""
    return not any(
        mark.name == MARKER or _is_misspelt(mark.name, item.config) for mark in item.iter_markers()
    )


def _is_ours(mark: pytest.Mark, config: pytest.Config) -> bool:
    """Whether a use of the marker is this plugin's, be it valid or not."""
    decision = config.stash.get(IS_OURS, None)
    return decision if decision is not None else not _foreign(mark, config)


def _foreign(mark: pytest.Mark, config: pytest.Config) -> str:
    """Why a use of the marker is another's where nobody has decided; "" if it is this plugin's."""
    if mark.args and not mark.kwargs:
        return POSITIONAL
    if _is_registered_by_project(config) and not _has_gate(mark) and _mark_problems(mark):
        return UNREADABLE
    return ""


def _has_gate(mark: pytest.Mark) -> bool:
    """Whether a mark has a mapping by the name of a gate, misspelt or not."""
    return any(
        isinstance(value, Mapping) and _nearest(key, _GATES, cutoff=0.8)
        for key, value in mark.kwargs.items()
    )


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
    yield from (mark for mark in case if _is_ours(mark, item.config))
    for node in reversed(item.listchain()):
        marks = [mark for mark in node.own_markers if mark.name == MARKER and mark not in case]
        marks = [mark for mark in marks if _is_ours(mark, item.config)]
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
            for problem in _refusals(mark, item.config):
                errors[f"{item.nodeid.split('[')[0]}: {problem}"] = None
        if is_evaluation(item) and not errors:
            clash = _clash(merged_mark(item))
            if clash:
                errors[f"{item.nodeid}: @pytest.mark.evaluation{clash}"] = None
    return list(errors)


def marker_remarks(items: Iterable[pytest.Item]) -> list[tuple[str, str]]:
    """A sentence for each marker that is passed over and may have been meant, with its test."""
    remarks: dict[tuple[str, str], None] = {}
    for item in items:
        for mark in item.iter_markers():
            text = _remark(mark, item.config)
            if text:
                remarks[text, item.nodeid.split("[")[0]] = None
    return list(remarks)


def _refusals(mark: pytest.Mark, config: pytest.Config) -> list[str]:
    """What is wrong with a marker that is this plugin's, or was meant to be."""
    if mark.name == MARKER:
        return _mark_problems(mark) if _is_ours(mark, config) else []
    own = next(filter(_is_own_keyword, mark.kwargs), "")
    if own and _is_misspelt(mark.name, config):
        return [
            f"@pytest.mark.{mark.name} is not a registered marker, and has the keyword {own!r}; "
            f"did you mean {MARKER!r}? {_REGISTER}"
        ]
    return []


def _remark(mark: pytest.Mark, config: pytest.Config) -> str:
    if mark.name == MARKER:
        return _foreign(mark, config) if config.stash.get(IS_OURS, None) is None else ""
    if not _is_misspelt(mark.name, config) or any(map(_is_own_keyword, mark.kwargs)):
        return ""
    return (
        f"@pytest.mark.{mark.name} is not a registered marker, so it is left alone; did you mean "
        f"{MARKER!r}? {_REGISTER}"
    )


def _is_own_keyword(key: str) -> bool:
    """Whether a keyword is the marker's, or nearly that of a gate."""
    return key in _KEYWORDS or bool(_nearest(key, _GATES, cutoff=0.8))


def _mark_problems(mark: pytest.Mark) -> list[str]:
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
        elif key == "unclear":
            problem = _unclear_problem(value) if value is not None else ""
            problems += [f"@pytest.mark.evaluation(unclear=…) {problem}"] if problem else []
        elif key == "name" and isinstance(value, str) and len(value) > NAME_LIMIT:
            problems.append(
                f"@pytest.mark.evaluation(name=…) must have at most {NAME_LIMIT} characters, "
                f"as MLflow's experiments; got {len(value)}"
            )
        elif value is not None and not _fits(key, value):
            problems.append(
                f"@pytest.mark.evaluation({key}=…) must be {_TYPES[key][1]}; got {value!r}"
            )
    return problems


def _fits(key: str, value: object) -> bool:
    """Whether a value is of its keyword's type, and in its range."""
    if isinstance(value, bool):
        return key == "activate"
    if key == "repeats":
        return isinstance(value, int) and 1 <= value <= MOST_REPEATS
    return isinstance(value, _TYPES[key][0]) and value != ""


def _gate_problem(key: str, value: object) -> str | None:
    from pytest_armory.gates import parse as gates

    return (gates.tolerances_problem if key == "baseline" else gates.bounds_problem)(value)


def _unclear_problem(value: object) -> str:
    if value in UNCLEAR:
        return ""
    nearest = _nearest(value, UNCLEAR) if isinstance(value, str) else ""
    return f"must be {', '.join(UNCLEAR[:-1])} or {UNCLEAR[-1]}; got {value!r}{nearest}"


def _clash(mark: Mark) -> str:
    """What is wrong with the gates of merged markers, each of which is valid; else empty."""
    if not (mark.at_least or mark.at_most or mark.baseline):
        return ""
    from pytest_armory.gates import parse as gates

    for key in sorted(_GATES):
        if problem := gates.collision(getattr(mark, key) or {}):
            return f"({key}=…) {problem}"
    at_least, at_most = mark.at_least or {}, mark.at_most or {}
    problem = gates.contradiction(at_least, at_most)
    problem = problem or gates.collision({**at_least, **at_most, **(mark.baseline or {})})
    return f" {problem}" if problem else ""


def _is_misspelt(name: str, config: pytest.Config) -> bool:
    """Whether an unregistered marker has nearly the name of this plugin's, in whatever case."""
    folded = name.casefold()
    if not folded.startswith(("e", "v")) or name in map(_name_of, _registered(config)):
        return False
    # `validation` and `evasion` are words of their own; `evaluate` is no slip of the keyboard.
    cutoff = 0.6 if folded.startswith("eval") else 0.85
    return folded in _ABBREVIATIONS or bool(_nearest(folded, [MARKER], cutoff))


def _is_registered_by_project(config: pytest.Config) -> bool:
    """Whether another line than this plugin's registers a marker of this name."""
    return any(_name_of(line) == MARKER for line in _registered(config) if line != MARKER_HELP)


def _registered(config: pytest.Config) -> list[str]:
    lines: list[str] = config.getini("markers")
    return lines


def _name_of(line: str) -> str:
    return line.split(":")[0].split("(")[0].strip()


def _nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    import difflib

    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {matches[0]!r}?" if matches else ""
