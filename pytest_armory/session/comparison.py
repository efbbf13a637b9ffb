"""A session that has ended, judged again with another baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pytest_armory.errors import TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.gates.evidence import Known, Terms
from pytest_armory.gates.functions import is_of_resamples
from pytest_armory.gates.known import Sources, samples_at
from pytest_armory.gates.past_runs import PastEvaluation, PastRun, of_one_data
from pytest_armory.gates.same_data import changed_data
from pytest_armory.gates.verdicts import judge_again, tolerances_of
from pytest_armory.records import EvaluationRecord, Verdict
from pytest_armory.records.judging_tag import VERSION, Judging
from pytest_armory.records.tags import decode_attempt, decode_session_counts, repeats_of
from pytest_armory.report.rows import title
from pytest_armory.report.summary import Summary
from pytest_armory.session.stored_records import is_attempt, is_session, summary_of
from pytest_armory.store import Store, StoredRun
from pytest_armory.store.destination import Destination

ONLY_THE_TEST = (
    "only its test can draw resamples, and was not compared with these sessions, so the change "
    "alone decides"
)
CANNOT_BE_READ = "cannot be compared: this session's samples cannot be read"


@dataclass
class Comparison:
    """Judges a session's evaluations again, whose runs are ``attempts``, by their ids."""

    where: Destination
    baseline: Baseline
    attempts: dict[str, StoredRun]
    judging: Judging
    problems: list[str] = field(default_factory=list)

    def judged(self, record: EvaluationRecord) -> EvaluationRecord:
        """A record with its tolerances judged by the baseline."""
        past, digests = self._past(record), self._digests(record)
        terms = Terms(self.judging.confidence, self.judging.gates)
        judged = judge_again(record, past.metrics(digests), self._known(record), terms)
        judged = self._with_functions(judged, record, of_one_data(past.runs, digests))
        return replace(judged, changed=changed_data(digests, past.digests(digests)))

    def _with_functions(
        self, judged: EvaluationRecord, record: EvaluationRecord, runs: Sequence[PastRun]
    ) -> EvaluationRecord:
        """A record with the test's own verdicts on functions of all predictions.

        They count where it was compared with the same runs; only the test knows the functions.
        """
        own = {v.metric: v for v in record.verdicts if is_of_resamples(v)}
        is_same = {run.session for run in runs} <= {*(self.judging.sessions or ())}

        def chosen(verdict: Verdict) -> Verdict:
            found = own.get(verdict.metric)
            if found is None or found.rule != verdict.rule or verdict.state == "unjudged":
                return verdict
            if is_same and found.baseline == verdict.baseline:
                return found
            return replace(verdict, evidence=ONLY_THE_TEST)

        return replace(judged, verdicts=tuple(map(chosen, judged.verdicts)))

    def _past(self, record: EvaluationRecord) -> PastEvaluation:
        run = self.attempts.get(record.run_id or "")
        version = run.tags.get(VERSION, "") if run is not None else ""
        return self.baseline.of(record.experiment_id, record.nodeid, version)

    def _digests(self, record: EvaluationRecord) -> dict[str, str]:
        """Which data an evaluation was of, whether or not it has kept samples."""
        run = self.attempts.get(record.run_id or "")
        return {**(decode_attempt(run.tags, {}).data if run is not None else {}), **record.digests}

    def _known(self, record: EvaluationRecord) -> dict[str, Known]:
        tolerances = tolerances_of(record)
        if not tolerances:
            return {}
        try:
            return self._sources(record).of(tolerances, record.metrics)
        except TrackingError as error:
            self.problems.append(f"the samples of {title(record)} cannot be read: {error}")
            return {name: Known(unreadable=CANNOT_BE_READ) for name in tolerances}

    def _sources(self, record: EvaluationRecord) -> Sources:
        run, past = self.attempts[record.run_id or ""], self._past(record)
        digests, repeats = self._digests(record), repeats_of(run.tags)
        own = samples_at(self.where, run.run_id, run.artifact_uri) if record.digests else None
        return Sources(
            own=own,
            runs=past.runs,
            read=lambda run: samples_at(self.where, run.run_id, run.artifact_uri),
            history=lambda metric: past.history_of(metric, digests, repeats),
            problems=self.problems,
            digests=digests,
        )

    def flip_lines(self, record: EvaluationRecord, most: int) -> list[str]:
        """The samples of a record that the baseline's run has answered differently, by score."""
        if not record.digests:
            return []
        sources, lines = self._sources(record), []
        for name in sources.names:
            found = sources.read_flips(name, most)
            lines += [f"{title(record)}: {name}", *(f"  {line}" for line in found)] if found else []
        return lines


def compare_session(
    where: Destination, store: Store, session: str, runs: Sequence[StoredRun], baseline: Baseline
) -> tuple[Summary, Comparison]:
    """The summary of a session from all of its runs, with its tolerances judged by this baseline.

    How it ended, what was never run and what its verdicts depend on is in its session runs.
    """
    session_runs = [run for run in runs if is_session(run)]
    summary = summary_of(store, session, runs)
    attempts = {run.run_id: run for run in runs if is_attempt(run)}
    judging = summary.judging or _default_judging(summary)
    comparison = Comparison(where, baseline, attempts, judging)
    records = [comparison.judged(record) for record in summary.records]
    not_run = (decode_session_counts(run.metrics).numbers.get("not_run", 0) for run in session_runs)
    compared = replace(
        summary,
        records=records,
        baseline=baseline.describe(records),
        judged_again=True,
        judging=judging,
        interrupted=any(run.status == "KILLED" for run in session_runs),
        not_run=max(not_run, default=0),
        problems=[*summary.problems, *dict.fromkeys(comparison.problems)],
    )
    return compared, comparison


def _default_judging(summary: Summary) -> Judging:
    """What verdicts depend on in a session that has not recorded it, as older ones have not."""
    return Judging(gates=sum(len(tolerances_of(record)) for record in summary.records))
