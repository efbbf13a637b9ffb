"""Options, ini keys and the marker -> frozen settings, or a usage error that says what to type."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from pytest_armory.gates.parse import Reference, Tolerance

MARKER = "evaluation"

MARKER_HELP = (
    "evaluation(*, name=None, description=None, tags=None, at_least=None, at_most=None, "
    "baseline=None): with --armory-track this test is tracked as one MLflow run. name: the MLflow "
    "experiment, the same between runs; description: the run's note; tags: a mapping of extra "
    "tags; at_least, at_most: {metric: number}, bounds that the test fails outside of; baseline: "
    '{metric: "-2%"}, the worst change against --armory-baseline that still passes. Markers on '
    "function, class and module merge, the closest wins key by key."
)

INI_TRACK = "armory_track"
INI_URI = "armory_tracking_uri"
INI_EXPERIMENT = "armory_experiment"
INI_SUMMARY = "armory_summary"
INI_STRICT = "armory_strict"
INI_BUDGET = "armory_budget"
INI_REDACT = "armory_redact"
INI_REDACTION = "armory_redaction"
INI_SESSION = "armory_session"
INI_BASELINE = "armory_baseline"
INI_TOLERANCES = "armory_tolerances"


@dataclass(frozen=True)
class Settings:
    """What this session was asked to do; ``uri`` None is the local database."""

    track: bool
    uri: str | None
    experiment: str
    experiment_id: str | None
    summary: Path | None
    strict: bool = False
    budget: float | None = None
    secret_names: tuple[str, ...] = ()
    redaction: bool = True
    session: str | None = None
    baseline: Reference | None = None
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """A test's merged evaluation markers."""

    name: str | None = None
    description: str | None = None
    tags: Mapping[str, object] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    baseline: Mapping[str, str] = field(default_factory=dict)


def add_options(parser: pytest.Parser) -> None:
    """Add every option with its ini key; precedence is command line, environment, ini, default."""
    group = parser.getgroup("armory", "tracked evaluations (pytest-armory)")
    group.addoption(
        "--armory-track",
        action="store_true",
        default=None,
        help="track this session: every test marked `evaluation` becomes an MLflow run. Without it "
        "nothing is tracked and no file is written",
    )
    group.addoption(
        "--armory-tracking-uri",
        metavar="URI",
        help="where to track: `local`, the database under the Armory home (the default), or any "
        "MLflow tracking URI, as http://127.0.0.1:5000 (environment: MLFLOW_TRACKING_URI)",
    )
    group.addoption(
        "--armory-experiment",
        metavar="NAME",
        help="the MLflow experiment of evaluations whose marker gives no name (environment: "
        "MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID; default: the name of pytest's rootdir)",
    )
    group.addoption(
        "--armory-summary",
        metavar="PATH",
        help="write the session's summary to PATH as Markdown (the file that GITHUB_STEP_SUMMARY "
        "names gets it without asking)",
    )
    group.addoption(
        "--armory-session",
        metavar="ID",
        help="the session this process contributes to: jobs of a CI matrix that give the same ID "
        "share one session run (environment: ARMORY_SESSION; default: a fresh one)",
    )
    group.addoption(
        "--armory-baseline",
        metavar="REF",
        help="compare each evaluation with its run in an earlier session: `latest`, branch:NAME, "
        "commit:SHA or a session's ID (environment: ARMORY_BASELINE)",
    )
    group.addoption(
        "--armory-strict",
        action="store_true",
        default=None,
        help="fail the session if anything could not be tracked, instead of only saying so",
    )
    parser.addini(INI_TRACK, "the same as --armory-track", type="bool", default=False)
    parser.addini(INI_URI, "the same as --armory-tracking-uri", default="")
    parser.addini(INI_EXPERIMENT, "the same as --armory-experiment", default="")
    parser.addini(INI_SUMMARY, "the same as --armory-summary", default="")
    parser.addini(INI_STRICT, "the same as --armory-strict", type="bool", default=False)
    parser.addini(
        INI_BUDGET,
        "seconds that a call to the tracking server may take, retries included (default: 10); then "
        "evaluations are recorded locally",
        default="",
    )
    parser.addini(
        INI_REDACT,
        "more names of parameters and tags whose values are stored as [redacted], one a line",
        type="linelist",
    )
    parser.addini(
        INI_REDACTION,
        "false: store parameters and tags as they are, secrets among them",
        type="bool",
        default=True,
    )
    parser.addini(INI_SESSION, "the same as --armory-session", default="")
    parser.addini(INI_BASELINE, "the same as --armory-baseline", default="")
    parser.addini(
        INI_TOLERANCES,
        "lines of `metric: tolerance`, as `accuracy: -2%`: the worst change against the baseline "
        "that still passes, for every evaluation that logs the metric",
        type="linelist",
    )


def read_settings(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """The session's settings. Raises ``pytest.UsageError`` for what cannot be used together."""
    import pytest

    option = config.option
    track = bool(option.armory_track or config.getini(INI_TRACK))
    if option.armory_tracking_uri and not track:
        raise pytest.UsageError(
            f"armory: --armory-tracking-uri {_safe(option.armory_tracking_uri)} says where to "
            "track, but nothing is tracked without --armory-track; add --armory-track"
        )
    if option.armory_strict and not track:
        raise pytest.UsageError(
            "armory: --armory-strict fails what cannot be tracked, but nothing is tracked without "
            "--armory-track; add --armory-track"
        )
    if option.armory_baseline and not track:
        raise pytest.UsageError(
            f"armory: --armory-baseline {option.armory_baseline} compares with what was tracked, "
            "but nothing is tracked without --armory-track; add --armory-track"
        )
    if option.armory_summary and not track:
        raise pytest.UsageError(
            f"armory: --armory-summary {option.armory_summary} says where to write what was "
            "tracked, but nothing is tracked without --armory-track; add --armory-track"
        )
    name, experiment_id = _experiment(config, environ)
    if len(name) > NAME_LIMIT:
        raise pytest.UsageError(
            f"armory: the experiment's name must have at most {NAME_LIMIT} characters, got "
            f"{len(name)}; give a shorter one with --armory-experiment"
        )
    summary, base = option.armory_summary, config.invocation_params.dir
    if not summary:
        summary, base = config.getini(INI_SUMMARY), config.rootpath
    uri = option.armory_tracking_uri or environ.get("MLFLOW_TRACKING_URI") or config.getini(INI_URI)
    return Settings(
        track=track,
        uri=uri or None,
        experiment=name,
        experiment_id=experiment_id,
        summary=base / summary if summary else None,
        strict=bool(option.armory_strict or config.getini(INI_STRICT)),
        budget=_budget(config.getini(INI_BUDGET)),
        secret_names=tuple(config.getini(INI_REDACT)),
        redaction=bool(config.getini(INI_REDACTION)),
        **_comparison(config, environ, track),
    )


def _budget(text: str) -> float | None:
    import pytest

    if not text:
        return None
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not 0 < float(text) <= 3600:
        raise pytest.UsageError(
            f"armory: {INI_BUDGET} must be seconds above 0, at most 3600, got {text!r}; as in "
            f"{INI_BUDGET} = 10"
        )
    return float(text)


def _comparison(config: pytest.Config, environ: Mapping[str, str], track: bool) -> dict[str, Any]:
    """The session's ID, and what it is compared with."""
    import pytest

    option = config.option
    session = option.armory_session or environ.get("ARMORY_SESSION") or config.getini(INI_SESSION)
    given = option.armory_baseline or environ.get("ARMORY_BASELINE") or config.getini(INI_BASELINE)
    lines = config.getini(INI_TOLERANCES)
    if not (session or given or lines):
        return {}
    from pytest_armory.errors import ArmoryUsageError
    from pytest_armory.gates.parse import SESSION, parse_reference, parse_tolerances

    if session and not SESSION.fullmatch(session):
        raise pytest.UsageError(
            f"armory: a session's ID must be 1 to 100 letters, digits and . _ - /, got "
            f"{session!r}; as in --armory-session nightly-42"
        )
    if session and not _is_session(session):
        raise pytest.UsageError(
            f"armory: a session's ID must not be {session!r}, for --armory-baseline means "
            "something else by it; as in --armory-session nightly-42"
        )
    try:
        return {
            "session": session or None,
            "baseline": parse_reference(given) if given and track else None,
            "tolerances": parse_tolerances(lines),
        }
    except ArmoryUsageError as error:
        raise pytest.UsageError(f"armory: {error}") from None


def _is_session(name: str) -> bool:
    from pytest_armory.errors import ArmoryUsageError
    from pytest_armory.gates.parse import parse_reference

    try:
        return parse_reference(name).kind == "session"
    except ArmoryUsageError:
        return False


NAME_LIMIT = 500
"""MLflow's limit on the name of an experiment, in characters."""


def _experiment(config: pytest.Config, environ: Mapping[str, str]) -> tuple[str, str | None]:
    if config.option.armory_experiment:
        return config.option.armory_experiment, None
    if environ.get("MLFLOW_EXPERIMENT_NAME"):
        return environ["MLFLOW_EXPERIMENT_NAME"], None
    if environ.get("MLFLOW_EXPERIMENT_ID"):
        return "", environ["MLFLOW_EXPERIMENT_ID"]
    return config.getini(INI_EXPERIMENT) or config.rootpath.name or "pytest", None


def _safe(uri: str) -> str:
    from pytest_armory.values import redact_text

    return redact_text(uri)


# The marker

_TYPES: dict[str, tuple[type, str]] = {
    "name": (str, 'a string, as in name="digits-robustness"'),
    "description": (str, 'a string, as in description="PGD on logistic regression"'),
    "tags": (Mapping, 'a mapping, as in tags={"team": "vision"}'),
}

_GATES = ("at_least", "at_most", "baseline")
_KEYWORDS = (*_TYPES, *_GATES)


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
    """The markers on a test's case, function, class and module.

    pytest gives those of a case last, and those of a base class before a subclass's.
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
    """One sentence for every marker that cannot be used, each with what to write instead."""
    errors: dict[str, None] = {}
    for item in items:
        for mark in item.iter_markers():
            for problem in _mark_problems(mark, item.config):
                errors[f"{item.nodeid.split('[')[0]}: {problem}"] = None
        if is_evaluation(item) and not errors:
            clash = _contradiction(merged_mark(item))
            if clash:
                errors[f"{item.nodeid}: @pytest.mark.evaluation {clash}"] = None
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


def _contradiction(mark: Mark) -> str | None:
    if not mark.at_least or not mark.at_most:
        return None
    from pytest_armory.gates import parse as gates

    return gates.contradiction(mark.at_least, mark.at_most)


def _misspelt(name: str, config: pytest.Config) -> list[str]:
    """A marker nobody registered whose name is all but ours would go untracked without a word."""
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
