"""Sentences about evidence: what is unclear, what has none, and what chance may do."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_armory.gates.evidence import NOT_WORSE, OTHER_DATA
from pytest_armory.records import EvaluationRecord, Verdict
from pytest_armory.records.judging_tag import Judging
from pytest_armory.report.sentences import data_lines, gate_lines, with_tests
from pytest_armory.report.summary import Summary, latest
from pytest_armory.report.text import plural

NAMED = 3
"""How many unclear gates one line names."""

_Gate = tuple[Verdict, EvaluationRecord]


def comparison_lines(summary: Summary, most: int) -> list[str]:
    """What a session was compared with, and what is to be known of that; see `evidence_lines`."""
    last = latest(summary.records)
    return [
        *([summary.baseline] if summary.baseline else []),
        *data_lines(last),
        *gate_lines(last, summary.baseline),
        *evidence_lines(last, summary.judging, most),
    ]


def evidence_lines(
    records: Sequence[EvaluationRecord], judging: Judging | None, most: int
) -> list[str]:
    """Lines on unclear gates, at most ``most``, on what evidence lacks, and on chance."""
    gates = [(verdict, record) for record in records for verdict in record.verdicts]
    lacking = [
        (f"{verdict.metric}: {verdict.evidence}", record.nodeid)
        for verdict, record in gates
        if verdict.verdict in ("", NOT_WORSE) and verdict.evidence not in ("", OTHER_DATA)
    ]
    return [
        *_unclear_lines([gate for gate in gates if _is_quiet(gate[0])], most),
        *with_tests(lacking),
        *_chance_lines([verdict for verdict, _ in gates], judging or Judging()),
    ]


def _is_quiet(verdict: Verdict) -> bool:
    """Whether an unclear verdict has not failed its test, which would say so itself."""
    return verdict.verdict == "unclear" and verdict.state != "failed"


def _unclear_lines(gates: Sequence[_Gate], most: int) -> list[str]:
    if len(gates) <= most:
        return [f"unclear: {_named(gate)}; {gate[0].evidence}" for gate in gates]
    if most > 1:
        more = f"unclear: {plural(len(gates) - most, 'more gate')}"
        return [*_unclear_lines(gates[:most], most), more]
    names = [_named(gate) for gate in gates[:NAMED]]
    more = f" and {len(gates) - NAMED:,} more" if len(gates) > NAMED else ""
    first = f"of the first: {gates[0][0].evidence}; -v has each"
    return [f"unclear: {', '.join(names)}{more}; {first}"]


def _named(gate: _Gate) -> str:
    verdict, record = gate
    return f"{verdict.metric} of {record.nodeid.partition('::')[2] or record.nodeid}"


def _chance_lines(verdicts: Sequence[Verdict], judging: Judging) -> list[str]:
    """The promise about gates with evidence; it is none about the others."""
    covered = [v for v in verdicts if v.verdict and not v.unclear]
    if not covered:
        return []
    shared = max(judging.gates, 1)
    times = int(shared / max(len(covered), shared) / (1 - judging.confidence) * (1 + 1e-9))
    which = "this gate" if len(covered) == 1 else f"these {len(covered):,} gates"
    if len(covered) < judging.gates:
        which = f"{len(covered):,} of the session's {judging.gates:,} gates"
    elif len(covered) > judging.gates > 0:
        which += f", of which {shared:,} {'was' if shared == 1 else 'were'} counted,"
    fails = "fails" if len(covered) == 1 else "fail"
    promise = f"chance: if nothing got worse, {which} {fails} a session at most "
    promise += f"1 in {times:,} times"
    others = ", ".join(_not_covered(verdicts))
    return [f"{promise}; not covered: {others}" if others else promise]


def _not_covered(verdicts: Sequence[Verdict]) -> list[str]:
    judged = [verdict for verdict in verdicts if verdict.state != "unjudged"]
    tolerances = [verdict for verdict in judged if verdict.rule.startswith("baseline ")]
    bounds = len(judged) - len(tolerances)
    without = sum(not verdict.verdict for verdict in tolerances)
    strict = sum(bool(verdict.verdict and verdict.unclear) for verdict in tolerances)
    counts = (
        (bounds, "bound", ""),
        (without, "tolerance", " without samples"),
        (strict, "gate", " that unclear does not pass"),
    )
    return [f"{plural(count, word)}{rest}" for count, word, rest in counts if count]
