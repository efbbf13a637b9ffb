"""The gates of one attempt: its metrics, the baseline's, and the verdicts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from pytest_armory.errors import TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.gates.parse import parse_tolerance
from pytest_armory.gates.same_data import changed_data
from pytest_armory.gates.verdicts import failure_text, judge, unread
from pytest_armory.plugin import user_hooks
from pytest_armory.plugin.attempt import Attempt
from pytest_armory.plugin.marker import Mark
from pytest_armory.plugin.options import Settings
from pytest_armory.records import Verdict
from pytest_armory.values import legal_key

T = TypeVar("T")


def has_gates(mark: Mark, settings: Settings) -> bool:
    """Whether a test has gates."""
    return bool(mark.at_least or mark.at_most or mark.baseline or settings.tolerances)


def judge_attempt(attempt: Attempt, mark: Mark, settings: Settings, session: Baseline) -> str:
    """Judge an attempt by its gates; returns the text that it fails with, or ""."""
    attempt.baseline = baseline_of(attempt, session)
    _note_intervals(attempt, mark, settings)
    own = _own_metrics(attempt)
    attempt.own_metrics = own or {}
    metrics = {"duration_seconds": attempt.elapsed, **attempt.run.metrics, **attempt.own_metrics}
    key_of = attempt.run.writer.metrics.key_of
    tolerances = _by_key(mark.baseline, key_of)
    verdicts = judge(
        _by_key(metrics, legal_key),
        at_least=_by_key(mark.at_least, key_of),
        at_most=_by_key(mark.at_most, key_of),
        tolerances={name: parse_tolerance(text) for name, text in tolerances.items()},
        session_tolerances=_by_key(settings.tolerances, key_of),
        baseline=attempt.baseline,
        sequences=_sequences(attempt, metrics),
    )
    verdicts = [_naming_evaluations(verdict, attempt) for verdict in verdicts]
    attempt.verdicts = verdicts if own is not None else [unread(verdict) for verdict in verdicts]
    return failure_text(attempt.verdicts)


def _note_intervals(attempt: Attempt, mark: Mark, settings: Settings) -> None:
    """Compute the intervals of scores for a gate on their ends; else the test's end does so."""
    gates = (mark.at_least, mark.at_most, mark.baseline, settings.tolerances)
    if any(name.endswith(("/ci_low", "/ci_high")) for gate in gates for name in gate or ()):
        attempt.run.writer.samples.results()


def _naming_evaluations(verdict: Verdict, attempt: Attempt) -> Verdict:
    """A verdict that says which evaluation's metric was judged, if several measured it."""
    first, *others = attempt.run.writer.metrics.measured_by(verdict.metric) or [""]
    if not others:
        return verdict
    text = f"{verdict.text} (of the evaluation {first!r}, not {', '.join(map(repr, others))})"
    return replace(verdict, text=text.strip())


def _sequences(attempt: Attempt, metrics: Mapping[str, float]) -> set[str]:
    """The metrics that are a list or an array, unless ``mlflow.*`` has logged another value."""
    logged = attempt.run.metrics
    sequences = attempt.run.writer.metrics.sequences
    return {name for name in sequences if metrics.get(name) == logged.get(name)}


def baseline_of(attempt: Attempt, session: Baseline) -> Mapping[str, float] | None:
    """The metrics to compare an attempt with: a hook's, else those of an earlier session."""
    stored = session.of(attempt.run.experiment_id, attempt.record.nodeid)
    return user_hooks.baseline_of(attempt.item, stored, attempt.problems)


def changed_data_of(attempt: Attempt, session: Baseline) -> tuple[str, ...]:
    """The scores of an attempt whose data are not those of the run it is compared with."""
    known = session.digests_of(attempt.run.experiment_id, attempt.record.nodeid)
    return changed_data(attempt.run.writer.samples.digests, known)


def _own_metrics(attempt: Attempt) -> Mapping[str, float] | None:
    """What the test has logged by ``mlflow.*`` itself; None if the store cannot be read."""
    if "mlflow" not in sys.modules:  # then nothing was logged by it
        return {}
    try:
        return attempt.run.writer.logged_metrics(attempt.started)
    except TrackingError as error:
        attempt.problems.append(str(error))
        return None


def _by_key(named: Mapping[str, T] | None, key_of: Callable[[str], str]) -> dict[str, T]:
    """With the names that metrics have in MLflow: ``accuracy@1`` is ``accuracy_at_1`` there."""
    return {key_of(name): value for name, value in (named or {}).items()}
