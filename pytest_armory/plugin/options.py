"""Options and ini keys -> frozen settings, or a usage error that says what to type instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import environ
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytest_armory.plugin import job_options, verdict_options
from pytest_armory.plugin.job_options import JobSettings, read_job_settings, session_of_job
from pytest_armory.plugin.verdict_options import VerdictSettings, read_verdict_settings

if TYPE_CHECKING:
    from argparse import Namespace

    import pytest

    from pytest_armory.gates.parse import Reference, Tolerance

INI_TRACK = "armory_track"
INI_URI = "armory_tracking_uri"
INI_EXPERIMENT = "armory_experiment"
INI_SUMMARY = "armory_summary"
INI_HTML = "armory_html"
INI_STRICT = "armory_strict"
INI_BUDGET = "armory_budget"
INI_REDACT = "armory_redact"
INI_REDACTION = "armory_redaction"
INI_ACTIVATE = "armory_activate"
INI_MARKER = "armory_marker"
INI_PATCH = "armory_patch"
INI_SESSION = "armory_session"
INI_BASELINE = "armory_baseline"
INI_TOLERANCES = "armory_tolerances"
INI_CONFIDENCE = "armory_confidence"


class Settings(NamedTuple):
    """The settings of a session; ``uri`` None is the local database."""

    track: bool
    uri: str | None
    experiment: str
    experiment_id: str | None
    summary: Path | None
    html: Path | None = None
    strict: bool = False
    budget: float | None = None
    secret_names: tuple[str, ...] = ()
    redaction: bool = True
    activate: bool = True
    marker: bool | None = None
    patch: bool = True
    session: str | None = None
    baseline: Reference | None = None
    tolerances: Mapping[str, Tolerance] = MappingProxyType({})
    confidence: float = 0.95
    jobs: JobSettings = JobSettings()
    verdicts: VerdictSettings = VerdictSettings()


UNTRACKED = Settings(track=False, uri=None, experiment="pytest", experiment_id=None, summary=None)
"""The settings of a session whose own could not be read."""

NAME_LIMIT = 500
"""MLflow's limit on the name of an experiment, in characters."""

_OPTIONS = (
    (
        "--armory-track",
        None,
        "track this session: every test marked `evaluation` becomes an MLflow run. Without it "
        "nothing is tracked and no file is written",
    ),
    (
        "--armory-tracking-uri",
        "URI",
        "where to track: `local`, the database under the Armory home (the default), or any "
        "MLflow tracking URI, as http://127.0.0.1:5000 (environment: MLFLOW_TRACKING_URI)",
    ),
    (
        "--armory-experiment",
        "NAME",
        "the MLflow experiment of evaluations whose marker gives no name (environment: "
        "MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID; default: the name of pytest's rootdir)",
    ),
    (
        "--armory-summary",
        "PATH",
        "write the session's summary to PATH as Markdown (the file that GITHUB_STEP_SUMMARY "
        "names gets it without asking)",
    ),
    (
        "--armory-html",
        "PATH",
        "write the session's report to PATH, an HTML page, and store it with the session run",
    ),
    (
        "--armory-session",
        "ID",
        "the session this process contributes to: jobs of a CI matrix that give the same ID "
        "share one session run (environment: ARMORY_SESSION; default: a fresh one)",
    ),
    (
        "--armory-baseline",
        "REF",
        "compare each evaluation with its run in an earlier session: `latest`, branch:NAME, "
        "commit:SHA or a session's ID (environment: ARMORY_BASELINE)",
    ),
    (
        "--armory-strict",
        None,
        "fail the session if anything could not be tracked, instead of only saying so",
    ),
    *job_options.OPTIONS,
    *verdict_options.OPTIONS,
)
"""Each option with its metavar, None for a flag, and its help."""

_INI_KEYS: tuple[tuple[str, Literal["bool", "linelist"] | None, str], ...] = (
    (INI_TRACK, "bool", "the same as --armory-track"),
    (INI_URI, None, "the same as --armory-tracking-uri"),
    (INI_EXPERIMENT, None, "the same as --armory-experiment"),
    (INI_SUMMARY, None, "the same as --armory-summary"),
    (INI_HTML, None, "the same as --armory-html"),
    (INI_STRICT, "bool", "the same as --armory-strict"),
    (
        INI_BUDGET,
        None,
        "seconds that a call to the tracking server may take, retries included (default: 10); then "
        "evaluations are recorded locally",
    ),
    (
        INI_REDACT,
        "linelist",
        "more names of parameters and tags whose values are stored as [redacted], one a line",
    ),
    (INI_REDACTION, "bool", "false: store parameters and tags as they are, secrets among them"),
    (INI_SESSION, None, "the same as --armory-session"),
    (INI_BASELINE, None, "the same as --armory-baseline"),
    (
        INI_ACTIVATE,
        "bool",
        "false: leave MLflow's own state alone: no evaluation's run is MLflow's active run, and "
        "what is logged by `mlflow.*` goes where it goes without this plugin",
    ),
    (
        INI_MARKER,
        "bool",
        "whose the marker `evaluation` is: true, this plugin's, which refuses every use that it "
        "cannot read; false, the project's own, and no test is an evaluation (default: true if the "
        "session is tracked, else by each use)",
    ),
    (
        INI_PATCH,
        "bool",
        "false: do not store what the checkout's tracked files differ in from the commit",
    ),
    (
        INI_TOLERANCES,
        "linelist",
        "lines of `metric: tolerance`, as `accuracy: -2%`: the worst change against the baseline "
        "that still passes, for every evaluation that logs the metric",
    ),
    (
        INI_CONFIDENCE,
        None,
        "the confidence of the intervals of metrics that are means over samples, and of verdicts, "
        "in percent (default: 95)",
    ),
    *job_options.INI_KEYS,
    *verdict_options.INI_KEYS,
)
"""Each ini key with its type, None for one line of text, and its help."""

_DEFAULTS = {INI_REDACTION: True, INI_ACTIVATE: True, INI_MARKER: None, INI_PATCH: True}
_INI_DEFAULTS = {None: "", "bool": False, "linelist": ()}


def add_options(parser: pytest.Parser) -> None:
    """Add every option with its ini key; precedence is command line, environment, ini, default."""
    group = parser.getgroup("armory", "tracked evaluations (pytest-armory)")
    for flag, metavar, text in _OPTIONS:
        if metavar and metavar.startswith("["):
            const, name = job_options.OF_SESSION, metavar.strip("[]")
            group.addoption(flag, nargs="?", const=const, metavar=name, help=text)
        elif metavar is None:  # None where it is not given, so that the ini key decides
            group.addoption(flag, action="store_true", default=None, help=text)
        else:
            group.addoption(flag, metavar=metavar, help=text)
    for key, kind, text in _INI_KEYS:
        default = _DEFAULTS.get(key, _INI_DEFAULTS[kind])
        parser.addini(key, text, type=kind, default=default)


def read_settings(config: pytest.Config) -> Settings:
    """The session's settings. Raises ``pytest.UsageError`` for invalid combinations."""
    option = config.option
    track = bool(option.armory_track or job_options.ini_flag(config, INI_TRACK))
    if not track:
        _refuse_without_tracking(option)
        job_options.refuse_resume_without_tracking(config)
    experiment, experiment_id = _experiment(config)
    uri = option.armory_tracking_uri or environ.get("MLFLOW_TRACKING_URI") or config.getini(INI_URI)
    jobs = read_job_settings(config)
    return Settings(
        track=track,
        uri=uri or None,
        experiment=experiment,
        experiment_id=experiment_id,
        summary=_path(config, config.option.armory_summary, INI_SUMMARY),
        html=_path(config, config.option.armory_html, INI_HTML),
        strict=bool(option.armory_strict or job_options.ini_flag(config, INI_STRICT)),
        budget=_budget(config.getini(INI_BUDGET)),
        secret_names=tuple(config.getini(INI_REDACT)),
        redaction=bool(job_options.ini_flag(config, INI_REDACTION)),
        activate=bool(job_options.ini_flag(config, INI_ACTIVATE)),
        marker=job_options.ini_flag(config, INI_MARKER),
        patch=bool(job_options.ini_flag(config, INI_PATCH)),
        jobs=jobs,
        confidence=_confidence(config.getini(INI_CONFIDENCE)),
        verdicts=read_verdict_settings(config),
        **_comparison(config, track, jobs),
    )


def _refuse_without_tracking(option: Namespace) -> None:
    """Refuse options that have no effect in a session that is not tracked."""
    import pytest

    for given, text in (
        (
            option.armory_tracking_uri,
            f"--armory-tracking-uri {_safe(option.armory_tracking_uri)} says where to track",
        ),
        (option.armory_strict, "--armory-strict fails what cannot be tracked"),
        (
            option.armory_baseline,
            f"--armory-baseline {option.armory_baseline} compares with what was tracked",
        ),
        (
            option.armory_summary,
            f"--armory-summary {option.armory_summary} says where to write what was tracked",
        ),
        (
            option.armory_html,
            f"--armory-html {option.armory_html} says where to write what was tracked",
        ),
    ):
        if given:
            raise pytest.UsageError(
                f"armory: {text}, but nothing is tracked without --armory-track; add --armory-track"
            )


def _path(config: pytest.Config, option: str | None, key: str) -> Path | None:
    """A file's path: the option is relative to the invocation dir, the key to the rootdir."""
    if option:
        return config.invocation_params.dir / option
    given = config.getini(key)
    return config.rootpath / str(given) if given else None


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


def _confidence(text: str) -> float:
    import pytest

    if not text:
        return UNTRACKED.confidence
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not 50 <= float(text) < 100:
        raise pytest.UsageError(
            f"armory: {INI_CONFIDENCE} must be percent, at least 50 and below 100, got {text!r}; "
            f"as in {INI_CONFIDENCE} = 95"
        )
    return float(text) / 100


def _comparison(config: pytest.Config, track: bool, jobs: JobSettings) -> dict[str, Any]:
    """The session's ID, and what it is compared with."""
    import pytest

    option = config.option
    session = option.armory_session or environ.get("ARMORY_SESSION") or config.getini(INI_SESSION)
    session = session_of_job(config, jobs, session, track)
    given = option.armory_baseline or environ.get("ARMORY_BASELINE") or config.getini(INI_BASELINE)
    lines = config.getini(INI_TOLERANCES)
    if not (session or given or lines):
        return {}
    from pytest_armory.errors import ArmoryUsageError
    from pytest_armory.gates.parse import parse_reference, parse_tolerances

    if session:
        _check_session_id(session)
    try:
        return {
            "session": session or None,
            "baseline": parse_reference(given) if given and track else None,
            "tolerances": parse_tolerances(lines),
        }
    except ArmoryUsageError as error:
        raise pytest.UsageError(f"armory: {error}") from None


def _check_session_id(session: str) -> None:
    import pytest

    from pytest_armory.gates.parse import SESSION

    if not SESSION.fullmatch(session):
        raise pytest.UsageError(
            f"armory: a session's ID must be 1 to 100 letters, digits and . _ - /, got "
            f"{session!r}; as in --armory-session nightly-42"
        )
    if not _is_session_id(session):
        raise pytest.UsageError(
            f"armory: a session's ID must not be {session!r}, for --armory-baseline means "
            "something else by it; as in --armory-session nightly-42"
        )


def _is_session_id(name: str) -> bool:
    """Whether ``--armory-baseline`` takes the name for a session."""
    from pytest_armory.errors import ArmoryUsageError
    from pytest_armory.gates.parse import parse_reference

    try:
        return parse_reference(name).kind == "session"
    except ArmoryUsageError:
        return False


def _experiment(config: pytest.Config) -> tuple[str, str | None]:
    """The experiment's name; or, where only its ID is given, no name and the ID."""
    import pytest

    name = config.option.armory_experiment or environ.get("MLFLOW_EXPERIMENT_NAME")
    if not name and environ.get("MLFLOW_EXPERIMENT_ID"):
        return "", environ["MLFLOW_EXPERIMENT_ID"]
    name = name or config.getini(INI_EXPERIMENT) or config.rootpath.name or "pytest"
    if len(name) > NAME_LIMIT:
        raise pytest.UsageError(
            f"armory: the experiment's name must have at most {NAME_LIMIT} characters, got "
            f"{len(name)}; give a shorter one with --armory-experiment"
        )
    return name, None


def _safe(uri: str | None) -> str:
    if not uri:
        return ""
    from pytest_armory.values import redact_text

    return redact_text(uri)
