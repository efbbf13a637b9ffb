"""Sentences about a session: its counts, its gates, and the tests that a sentence is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_armory.gates.formatting import distinct_number
from pytest_armory.records import EvaluationRecord, Verdict, count_outcomes
from pytest_armory.report.rows import RUNNING, title
from pytest_armory.report.summary import Summary, latest, missed_gates
from pytest_armory.report.text import plural, printable

WARNINGS = 20
"""The default number of warnings, and of gates not judged, that are shown."""

_ADVICE = "--armory-baseline latest"


def counts_text(summary: Summary) -> str:
    """``3 evaluations: 2 passed, 1 failed``, then reruns and evaluations that were not started."""
    last = latest(summary.records)
    outcomes = [f"{count:,} {name}" for name, count in count_outcomes(last).items()]
    running = sum(record.outcome is None for record in last)
    if running:
        outcomes.append(f"{running:,} {RUNNING}")
    if summary.not_run:
        outcomes.append(f"{summary.not_run:,} not run")
    text = plural(len(last) + summary.not_run, "evaluation")
    text += f": {', '.join(outcomes)}" if outcomes else ""
    reruns = len(summary.records) - len(last)
    return f"{text} ({plural(reruns, 'earlier attempt')})" if reruns else text


def still_running(records: Sequence[EvaluationRecord], recover: str) -> list[str]:
    """A sentence for attempts that a session which is cut off leaves to its workers."""
    running = sum(record.outcome is None for record in records)
    if not running:
        return []
    return [
        f"{plural(running, 'evaluation')} still running in workers, which may begin another each "
        f"before they end; they close their own runs, and `{recover}` what they do not"
    ]


def resumed_lines(summary: Summary) -> list[str]:
    """How many evaluations were skipped because they had passed before."""
    if not summary.resumed:
        return []
    return [f"resumed: {plural(summary.resumed, 'evaluation')} passed before in this session"]


def gate_lines(records: Sequence[EvaluationRecord], baseline: str) -> list[str]:
    """The gates that were not judged: a line for each of the first reasons, with evaluations."""
    reasons = [
        (_reason(verdict, baseline), record.nodeid)
        for record in records
        for verdict in record.verdicts
        if verdict.state == "unjudged"
    ]
    lines = [f"not judged: {line}" for line in with_tests(reasons)]
    more = len(lines) - WARNINGS
    return lines if more <= 0 else [*lines[:WARNINGS], f"not judged: {plural(more, 'more gate')}"]


def _reason(verdict: Verdict, baseline: str) -> str:
    if verdict.text.startswith("has no baseline run") and not baseline:
        return f"{verdict.metric}, for no baseline is given; add {_ADVICE}"
    return f"{verdict.metric} {verdict.text}"


def data_lines(records: Sequence[EvaluationRecord]) -> list[str]:
    """The scores that are of other data than the baseline's, a line for each, with evaluations."""
    changed = [
        (f"the data changed: {name} is of other samples or targets than in the baseline", r.nodeid)
        for r in records
        for name in r.changed
    ]
    lines = with_tests(changed)
    more = len(lines) - WARNINGS
    return lines if more <= 0 else [*lines[:WARNINGS], f"the data of {more:,} more scores changed"]


def missed_lines(records: Sequence[EvaluationRecord]) -> list[str]:
    """A sentence for each missed gate."""
    return [
        printable(f"missed: {title(record)}: {missed_text(verdict)}")
        for record, verdict in missed_gates(latest(records))
    ]


def missed_text(verdict: Verdict) -> str:
    """A missed gate as a sentence, with its evidence."""
    return "; ".join(filter(None, (gate_text(verdict), evidence_of(verdict))))


def gate_text(verdict: Verdict) -> str:
    """A gate as a sentence; its value has enough digits to differ from the limit."""
    value = "" if verdict.value is None else f" {distinct_number(verdict.value, verdict.limit)}"
    return f"{verdict.metric}{value} {verdict.text}"


def evidence_of(verdict: Verdict) -> str:
    """What a verdict by samples rests on, after the verdict; empty without one."""
    return f"{verdict.verdict}: {verdict.evidence}" if verdict.verdict and verdict.evidence else ""


def with_tests(sentences: Iterable[tuple[str, str]]) -> list[str]:
    """Sentences, given with node ids: each of them once, with the names of its first tests."""
    tests: dict[str, dict[str, None]] = {}
    for text, nodeid in sentences:
        tests.setdefault(text, {})[nodeid.partition("::")[2] or nodeid] = None
    return [f"{text} ({_named(list(names))})" for text, names in tests.items()]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
