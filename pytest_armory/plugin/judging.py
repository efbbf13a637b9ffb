"""The gates of one attempt: its metrics, the baseline's, and the verdicts."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pytest_armory.errors import TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.gates.evidence import Known, Terms
from pytest_armory.gates.parse import Tolerance, parse_tolerance
from pytest_armory.gates.past_runs import PastEvaluation
from pytest_armory.gates.same_data import changed_data
from pytest_armory.gates.verdicts import depends_on_baseline, failure_text, judge, unread
from pytest_armory.plugin import user_hooks
from pytest_armory.plugin.attempt import Attempt, keep_error, with_run
from pytest_armory.plugin.guard import unexpected_error
from pytest_armory.plugin.marker import Mark, merged_mark
from pytest_armory.plugin.options import Settings
from pytest_armory.plugin.remarks import remark
from pytest_armory.records import Verdict
from pytest_armory.records.judging_tag import Judging
from pytest_armory.store.destination import Destination
from pytest_armory.track.connection import RunConnection
from pytest_armory.track.context import unrecorded
from pytest_armory.values import legal_key

if TYPE_CHECKING:
    from pytest_armory.gates.known import Sources

T = TypeVar("T")

NOT_COMPARED = "cannot be compared: the comparison of its samples failed"


def has_gates(mark: Mark, settings: Settings) -> bool:
    """Whether a test has gates."""
    return bool(mark.at_least or mark.at_most or mark.baseline or settings.tolerances)


def wanted_judging(settings: Settings) -> Judging:
    """What verdicts depend on, as this job was given it."""
    return Judging(
        reference=str(settings.baseline) if settings.baseline else "",
        confidence=settings.confidence,
        unclear=settings.verdicts.unclear,
        overrides=settings.verdicts.overrides,
        pooled=settings.verdicts.sessions,
    )


def prepare(baseline: Baseline) -> None:
    """Import before the first test what judging its samples takes, if the baseline has some."""
    every = (runs for found in baseline.runs.values() for runs in found.values())
    if any(run.has_samples for runs in every for run in runs):
        from pytest_armory.statistics.numeric import preload
        from pytest_armory.tables.files import preload as preload_files

        preload()
        preload_files()


def terms_of(judging: Judging, mark: Mark) -> Terms:
    """What the gates of a test are judged by: the command line wins over its markers."""
    unclear = judging.unclear if judging.overrides else mark.unclear or judging.unclear
    return Terms(judging.confidence, judging.gates, unclear)


@dataclass(frozen=True)
class Compared:
    """What a session's evaluations are compared with, and by which terms.

    ``where`` is None in a session that is not tracked.
    """

    baseline: Baseline
    judging: Judging
    where: Destination | None


def with_history(
    attempt: Attempt, mark: Mark, settings: Settings, baseline: Baseline, where: Destination | None
) -> Baseline:
    """The baseline with earlier sessions, looked up now if its run had no gate on noise yet.

    They were looked up with the baseline for the gates that its own run had.
    """
    given = (*mark.baseline.values(), *settings.tolerances.values())
    experiment, nodeid = _experiment_of(attempt, baseline), attempt.record.nodeid
    is_new = baseline.runs.get(experiment or "") and not baseline.has_looked_for(experiment, nodeid)
    location = attempt.run.connection.location
    if where is None or location is None or not is_new:
        return baseline
    if not any("noise" in str(one).lower() for one in given):
        return baseline
    from pytest_armory.gates import baselines

    try:
        return baselines.with_history(where, baseline, location.run.tags["armory.session"])
    except TrackingError as error:
        attempt.problems.append(f"earlier sessions cannot be looked up: {error}")
        return baseline


def judge_attempt(attempt: Attempt, mark: Mark, settings: Settings, session: Compared) -> str:
    """Judge an attempt by its gates; returns the text that it fails with, or ""."""
    attempt.baseline = baseline_of(attempt, session.baseline)
    _note_intervals(attempt, mark, settings)
    own = _own_metrics(attempt)
    attempt.own_metrics = own or {}
    metrics = {"duration_seconds": attempt.elapsed, **attempt.run.metrics, **attempt.own_metrics}
    key_of = attempt.run.writer.metrics.key_of
    by_key = _by_key(metrics, legal_key)
    own_tolerances = _by_key(mark.baseline, key_of)
    tolerances = {name: parse_tolerance(text) for name, text in own_tolerances.items()}
    lines = _by_key(settings.tolerances, key_of)
    terms = terms_of(session.judging, mark)
    sources = _sources(attempt, session, terms)
    judged = partial(
        judge,
        by_key,
        at_least=_by_key(mark.at_least, key_of),
        at_most=_by_key(mark.at_most, key_of),
        tolerances=tolerances,
        session_tolerances=lines,
        baseline=attempt.baseline,
        sequences=_sequences(attempt, metrics),
        terms=terms,
    )
    verdicts = _by_evidence(judged, sources, {**lines, **tolerances}, by_key, attempt.problems)
    verdicts = verdicts if sources is None else _with_changes(verdicts, sources, attempt)
    verdicts = [_completed(verdict, attempt, session.baseline) for verdict in verdicts]
    attempt.verdicts = verdicts if own is not None else [unread(verdict) for verdict in verdicts]
    return failure_text(attempt.verdicts)


def _completed(verdict: Verdict, attempt: Attempt, baseline: Baseline) -> Verdict:
    """A verdict with what the attempt alone knows of its metric."""
    verdict = _naming_evaluations(_known(_looked_up(verdict, attempt, baseline), attempt), attempt)
    if verdict.unread:
        verdict = replace(verdict, text=f"{verdict.text}; this session will be no baseline")
    samples = attempt.run.writer.samples
    if verdict.metric not in samples.functions or not samples.table:
        return verdict
    from pytest_armory.gates.functions import without_resamples

    return without_resamples(verdict)


def _looked_up(verdict: Verdict, attempt: Attempt, baseline: Baseline) -> Verdict:
    """A verdict that says so where its baseline may exist, but could not be looked up."""
    if baseline.is_read or attempt.baseline is not None or not depends_on_baseline(verdict):
        return verdict
    return replace(verdict, text="has a baseline that cannot be looked up", unread=True)


def _known(verdict: Verdict, attempt: Attempt) -> Verdict:
    """A verdict that is not judged where the metric's value is not known, and says so."""
    reason = attempt.run.writer.metrics.unknown.get(verdict.metric)
    is_known = verdict.value is not None and verdict.value == verdict.value
    if reason is None or verdict.state != "failed" or is_known:
        return verdict
    if attempt.run.connection.location is None:  # such a session has no summary
        sentence = f"not judged: {verdict.metric} {reason}"
        remark(attempt.item.config, [(sentence, attempt.record.nodeid)])
    return replace(verdict, state="unjudged", text=reason)


def _note_intervals(attempt: Attempt, mark: Mark, settings: Settings) -> None:
    """Compute the intervals of scores for a gate on their ends; else the test's end does so."""
    gates = (mark.at_least, mark.at_most, mark.baseline, settings.tolerances)
    if any(name.endswith(("/ci_low", "/ci_high")) for gate in gates for name in gate or ()):
        attempt.run.writer.samples.results()


def _sources(attempt: Attempt, session: Compared, terms: Terms) -> Sources | None:
    """What is known of chance; None where nothing is tracked, or a hook gave the baseline."""
    where, past = session.where, past_of(attempt, session.baseline)
    samples = attempt.run.writer.samples
    digests = samples.digests_so_far()
    repeated = attempt.run.writer.repeats
    repeats = repeated.number if repeated is not None else 1
    if where is None or not past.runs or not attempt.has_stored_baseline:
        return None
    for run in past.runs:
        attempt.problems += [
            f"of the baseline's run {run.run_id}, {text}" for text in run.unreadable
        ]
    from pytest_armory.gates.known import Sources, samples_at
    from pytest_armory.store.stack import reads

    return Sources(
        own=samples.table,
        runs=past.runs,
        read=lambda run: samples_at(where, run.run_id, run.artifact_uri),
        history=lambda metric: past.history_of(metric, digests, repeats),
        problems=attempt.problems,
        functions=attempt.run.writer.samples.functions,
        alpha=terms.alpha,
        written=lambda: (reads(), attempt.run.connection.request_seconds),
        digests=digests,
    )


def _by_evidence(
    judged: Callable[..., list[Verdict]],
    sources: Sources | None,
    tolerances: Mapping[str, Tolerance],
    metrics: Mapping[str, float],
    problems: list[str],
) -> list[Verdict]:
    """The verdicts by what is known of chance; an unexpected error there leaves bounds judged."""
    if sources is None:
        return judged()
    try:
        with unrecorded():  # functions of all predictions are called again, of resamples
            known = sources.of(tolerances, metrics)
        return judged(known=known)
    except Exception as error:  # noqa: BLE001 - see `unexpected_error`
        problems.append(f"the samples are not compared: {unexpected_error(error)}")
        return judged(known=dict.fromkeys(tolerances, Known(unreadable=NOT_COMPARED)))


def _with_changes(verdicts: list[Verdict], sources: Sources, attempt: Attempt) -> list[Verdict]:
    """The verdicts, missed and unclear ones with the samples that changed; the run keeps all.

    An unexpected error there leaves the verdicts as they are.
    """
    try:
        attempt.run.writer.samples.changes = {name: sources.changes(name) for name in sources.names}
        return [_with_flips(verdict, sources) for verdict in verdicts]
    except Exception as error:  # noqa: BLE001 - see `unexpected_error`
        keep_error(attempt, error, "changed samples are not shown: ")
        return verdicts


def _with_flips(verdict: Verdict, sources: Sources) -> Verdict:
    if verdict.verdict != "unclear" and (verdict.state != "failed" or not verdict.verdict):
        return verdict
    found = sources.flips(verdict.metric, bool(verdict.higher_is_worse))
    return replace(verdict, flips=tuple(found))


def past_of(attempt: Attempt, baseline: Baseline) -> PastEvaluation:
    """What the baseline has of an evaluation, by the version in its markers."""
    version = merged_mark(attempt.item).version
    text = "" if version is None else str(version)
    return baseline.of(_experiment_of(attempt, baseline), attempt.record.nodeid, text)


def _naming_evaluations(verdict: Verdict, attempt: Attempt) -> Verdict:
    """A verdict that says which evaluation's metric was judged, if several measured it."""
    logged = attempt.run.writer.metrics
    first, *others = logged.measured_by(verdict.metric) or [""]
    if not others:
        return verdict
    whose = f"of the evaluation {first!r}, not {', '.join(map(repr, others))}"
    measured = logged.values.get(verdict.metric, math.nan)
    stored = attempt.own_metrics.get(verdict.metric, measured)
    is_another = stored != measured and not (math.isnan(stored) and math.isnan(measured))
    if logged.is_replaced(verdict.metric) or is_another:
        whose = f"which the test itself has logged after {', '.join(map(repr, [first, *others]))}"
    return replace(verdict, text=f"{verdict.text} ({whose})".strip())


def _sequences(attempt: Attempt, metrics: Mapping[str, float]) -> set[str]:
    """The metrics that are a list or an array, unless ``mlflow.*`` has logged another value."""
    logged = attempt.run.metrics
    sequences = attempt.run.writer.metrics.sequences
    return {name for name in sequences if metrics.get(name) == logged.get(name)}


def _experiment_of(attempt: Attempt, baseline: Baseline) -> str | None:
    return baseline.experiment_of(with_run(attempt.record, attempt.run))


def baseline_of(attempt: Attempt, session: Baseline) -> Mapping[str, float] | None:
    """The metrics to compare an attempt with: a hook's, else those of an earlier session."""
    digests = attempt.run.writer.samples.digests_so_far()
    stored = past_of(attempt, session).metrics(digests)
    found = user_hooks.baseline_of(attempt.item, stored, attempt.problems)
    attempt.has_stored_baseline = found is stored
    return found


def changed_data_of(attempt: Attempt, session: Baseline) -> tuple[str, ...]:
    """The scores of an attempt whose data are not those of the run it is compared with."""
    samples = attempt.run.writer.samples
    own = {**samples.digests_of_data(), **samples.digests}
    return changed_data(own, past_of(attempt, session).digests(own))


def _own_metrics(attempt: Attempt) -> Mapping[str, float] | None:
    """What the test has logged by ``mlflow.*`` itself; None if the store cannot be read."""
    if "mlflow" not in sys.modules:  # then nothing was logged by it
        return {}
    try:
        return attempt.run.writer.logged_metrics(attempt.started)
    except TrackingError as error:
        attempt.problems.append(str(error))
        return {} if _is_ours_alone(attempt.run.connection) else None


def _is_ours_alone(connection: RunConnection) -> bool:
    """Whether no other code of this process can have written to the run."""
    activation = connection.activation
    return activation is not None and not (connection.may_hold_more or activation.was_used)


def _by_key(named: Mapping[str, T] | None, key_of: Callable[[str], str]) -> dict[str, T]:
    """With the names that metrics have in MLflow: ``accuracy@1`` is ``accuracy_at_1`` there."""
    return {key_of(name): value for name, value in (named or {}).items()}
