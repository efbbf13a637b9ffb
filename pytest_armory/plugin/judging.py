"""The gates of one attempt: its metrics, the baseline's, and the verdicts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TypeVar

from pytest_armory.errors import TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.gates.parse import parse_tolerance
from pytest_armory.gates.verdicts import failure_text, judge, unread
from pytest_armory.plugin import user_hooks
from pytest_armory.plugin.attempt import Attempt
from pytest_armory.plugin.marker import Mark
from pytest_armory.plugin.options import Settings
from pytest_armory.values import legal_key

T = TypeVar("T")


def has_gates(mark: Mark, settings: Settings) -> bool:
    """Whether a test has gates."""
    return bool(mark.at_least or mark.at_most or mark.baseline or settings.tolerances)


def judge_attempt(attempt: Attempt, mark: Mark, settings: Settings, session: Baseline) -> str:
    """Judge an attempt by its gates; returns the text that it fails with, or ""."""
    attempt.baseline = baseline_of(attempt, session)
    own = _own_metrics(attempt)
    attempt.own_metrics = own or {}
    metrics = {"duration_seconds": attempt.elapsed, **attempt.run.metrics, **attempt.own_metrics}
    tolerances = _by_legal_name(mark.baseline)
    verdicts = judge(
        _by_legal_name(metrics),
        at_least=_by_legal_name(mark.at_least),
        at_most=_by_legal_name(mark.at_most),
        tolerances={name: parse_tolerance(text) for name, text in tolerances.items()},
        session_tolerances=_by_legal_name(settings.tolerances),
        baseline=attempt.baseline,
        sequences=_sequences(attempt, metrics),
    )
    attempt.verdicts = verdicts if own is not None else [unread(verdict) for verdict in verdicts]
    return failure_text(attempt.verdicts)


def _sequences(attempt: Attempt, metrics: Mapping[str, float]) -> set[str]:
    """The metrics that are a list or an array, unless ``mlflow.*`` has logged another value."""
    logged = attempt.run.metrics
    sequences = attempt.run.writer.metrics.sequences
    return {name for name in sequences if metrics.get(name) == logged.get(name)}


def baseline_of(attempt: Attempt, session: Baseline) -> Mapping[str, float] | None:
    """The metrics to compare an attempt with: a hook's, else those of an earlier session."""
    stored = session.of(attempt.run.experiment_id, attempt.record.nodeid)
    return user_hooks.baseline_of(attempt.item, stored, attempt.problems)


def _own_metrics(attempt: Attempt) -> Mapping[str, float] | None:
    """What the test has logged by ``mlflow.*`` itself; None if the store cannot be read."""
    if "mlflow" not in sys.modules:  # then nothing was logged by it
        return {}
    try:
        return attempt.run.writer.logged_metrics(attempt.started)
    except TrackingError as error:
        attempt.problems.append(str(error))
        return None


def _by_legal_name(named: Mapping[str, T] | None) -> dict[str, T]:
    """With the names that metrics have in MLflow: ``accuracy@1`` is ``accuracy_1`` there."""
    return {legal_key(name): value for name, value in (named or {}).items()}
