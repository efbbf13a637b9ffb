"""A summary as Markdown: the session run's note, its artifact, and a CI job's summary."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from pytest_armory.records import EvaluationRecord, Verdict
from pytest_armory.report.evidence import comparison_lines
from pytest_armory.report.rows import (
    CHIEF,
    ROWS,
    Gated,
    gated_metrics,
    outcome_text,
    run_on_several_workers,
    shown_metrics,
    title,
    verdicts_of,
)
from pytest_armory.report.sentences import (
    WARNINGS,
    counts_text,
    missed_text,
    resumed_lines,
)
from pytest_armory.report.summary import (
    SessionVerdict,
    Summary,
    is_good,
    latest,
    missed_by,
    missed_gates,
)
from pytest_armory.report.text import plural, printable, seconds, shorten
from pytest_armory.report.usage import usage_lines

LIMIT = 250_000
"""The limit of a summary in characters; GitHub refuses a step summary over 1 MiB."""

TITLE_WIDTH = 200

_CUT = "\n\n… cut here; the artifact summary.md has all of it.\n"

# As HTML entities: a backslash does not escape everything in a table cell. A slash begins a command
# of GitLab's, if it is the first character of a line.
_MARKUP = re.compile(r"[&<>|`\[\]*_~\\!$@]|#(?=\w)|^/")
_NO_WIDTH = "&#8203;"
"""After what begins a mention or a reference: hosts look for these when entities are decoded."""


def to_markdown(summary: Summary, limit: int = LIMIT) -> str:
    """The session's summary: the verdict, the table of what failed, its gates; what passed, folded.

    The table comes before every other line, for MLflow shows the first lines of a note only.
    """
    summary = summary.of_all_jobs()
    missed = missed_gates(latest(summary.records))
    between = [*_missed(missed), *_unstored(summary), *_warnings(summary.problems)]
    below = [
        *_source(summary),
        *map(_sentence, (*resumed_lines(summary), *usage_lines(summary.records))),
        *map(_sentence, comparison_lines(summary, most=WARNINGS)),
    ]
    heading = f"## {summary.verdict.sign} {literal(_heading(summary, len(missed)))}"
    used = sum(map(len, [heading, *between, *below]))
    first, folded = _tables(summary.records, used, limit)
    return "\n".join([heading, *first, *between, *folded, *below]) + "\n"


def _heading(summary: Summary, missed: int) -> str:
    """The counts, of what is explained under the table too."""
    parts = [
        counts_text(summary),
        f"{plural(missed, 'gate')} missed" if missed else "",
        f"{summary.waiting:,} waiting to be stored" if summary.waiting else "",
        f"{summary.lost:,} not stored" if summary.lost else "",
        plural(len(summary.problems), "warning") if summary.problems else "",
    ]
    return "; ".join(filter(None, parts))


def shortened(text: str, limit: int) -> str:
    """A summary's Markdown, cut at the end of a line if it is longer than ``limit`` characters."""
    return cut(text, limit, _CUT)


def cut(text: str, limit: int, sentence: str) -> str:
    """Markdown of ours of at most ``limit`` characters, cut at the end of a line with a sentence.

    What folds the lines before it is closed, or the sentence would be folded too.
    """
    if len(text) <= limit:
        return text
    longest = sum(map(len, _FOLDING.values()))
    kept = text[: max(limit - longest - len(sentence), 0)].rpartition("\n")[0]
    ends = (
        end
        for tag, end in _FOLDING.items()
        if len(re.findall(rf"^<{tag}>", kept, re.M)) > len(re.findall(rf"</{tag}>$", kept, re.M))
    )
    return kept + "".join(ends) + sentence


_FOLDING = {"pre": "\n</pre>", "details": "\n\n</details>"}
"""Our elements that have several lines, the inner one first, and what closes each."""


def _source(summary: Summary) -> list[str]:
    revision = [code_span(part) for part in (summary.commit[:12], summary.branch) if part]
    commit = f", commit {' on '.join(revision)}" if revision else ""
    session = f"Session {code_span(summary.session)}{commit}"
    return ["", f"{session}, tracked to {code_span(summary.where)}."]


def _unstored(summary: Summary) -> list[str]:
    lines = []
    if summary.waiting:
        count = plural(summary.waiting, "evaluation")
        lines.append(f"\n**Waiting for {code_span(summary.where)}: {count}.**")
    if summary.lost:
        lines.append(f"\n**Not stored: {plural(summary.lost, 'evaluation')}.**")
    return lines


def _sentence(text: str) -> str:
    return f"\n{literal(text[0].upper() + text[1:])}."


def _missed(missed: Sequence[tuple[EvaluationRecord, Verdict]]) -> list[str]:
    lines = ["", f"**{plural(len(missed), 'gate')} missed**", ""] if missed else []
    for record, verdict in missed[:ROWS]:
        name = code_span(shorten(title(record), TITLE_WIDTH))
        lines.append(f"- {name}: {literal(missed_text(verdict))}")
    if len(missed) > ROWS:
        lines.append(f"- … and {len(missed) - ROWS:,} more")
    for record, verdict in missed[:ROWS]:
        lines += _flips(record, verdict)
    return lines


def _flips(record: EvaluationRecord, verdict: Verdict) -> list[str]:
    """The samples that changed, of a missed gate, folded."""
    if not verdict.flips:
        return []
    what = f"samples of {verdict.metric} that changed, the worst first: {title(record)}"
    rows = "\n".join(map(literal, verdict.flips))
    summary = f"<summary>{literal(shorten(what, TITLE_WIDTH))}</summary>"
    return ["", f"<details>{summary}", "", f"<pre>{rows}</pre>", "", "</details>"]


def _warnings(problems: Sequence[str]) -> list[str]:
    lines = [f"\n⚠️ {literal(problem)}" for problem in problems[:WARNINGS]]
    if len(problems) > WARNINGS:
        lines.append(f"\n… and {plural(len(problems) - WARNINGS, 'more warning')}.")
    return lines


# Tables


def _tables(
    records: Sequence[EvaluationRecord], used: int, limit: int
) -> tuple[list[str], list[str]]:
    """Those that failed, missed gates first, and the others, folded; if none did, the first ROWS.

    ``used`` is how many characters of ``limit`` the rest of the summary has.
    """
    good: list[EvaluationRecord] = []
    bad: list[EvaluationRecord] = []
    for record in records:
        (good if is_good(record) and not missed_by(record) else bad).append(record)
    names = run_on_several_workers(records), gated_metrics(records)
    shown = sorted(bad, key=lambda record: not missed_by(record)) or good[:ROWS]
    first = _table(shown, limit // 2, *names)
    rest = good if bad else good[ROWS:]
    if not rest:
        return first, []
    table = _table(rest, limit - used - sum(map(len, first)) - 500, *names)
    label = f"{len(rest):,} good" if bad else f"{len(rest):,} more"
    return first, ["", f"<details><summary>{label}</summary>", *table, "", "</details>"]


def _table(
    records: Sequence[EvaluationRecord], limit: int, on_several_workers: Set[str], gated: Gated
) -> list[str]:
    if not records:
        return []
    judged = any(map(verdicts_of, records))
    lines = ["", "| test | outcome | metrics | duration |", "| --- | --- | --- | ---: |"]
    if judged:
        head = "| test | outcome | metrics | verdict | duration |"
        lines = ["", head, "| --- | --- | --- | --- | ---: |"]
    for index, record in enumerate(records):
        row = _row(record, on_several_workers, gated, judged)
        limit -= len(row) + 1
        if limit < 0:
            return [*lines, "", f"… and {plural(len(records) - index, 'more row')} cut here."]
        lines.append(row)
    return lines


def _row(record: EvaluationRecord, on_several_workers: Set[str], gated: Gated, judged: bool) -> str:
    name = name_cell(record, on_several_workers)
    cells = (
        f"[{name}]({record.url})" if record.url else name,
        outcome_text(record),
        literal(_metrics_text(record, gated)),
        *([literal(_verdict_text(record))] if judged else []),
        seconds(record.duration),
    )
    return f"| {' | '.join(cells)} |"


def name_cell(record: EvaluationRecord, on_several_workers: Set[str]) -> str:
    """The name of a test, and which worker or attempt it was of, as code in a table."""
    return code_span(shorten(title(record, on_several_workers), TITLE_WIDTH), in_table=True)


def _metrics_text(record: EvaluationRecord, gated: Gated) -> str:
    """The chief metrics, and whatever else missed a gate; what did is marked."""
    missed = dict.fromkeys(printable(verdict.metric) for verdict in missed_by(record))
    shown = {metric.name: metric.text for metric in shown_metrics(record, gated=gated)}
    others = [name for name in missed if name not in shown]
    texts = {**shown, **dict(zip(others[:CHIEF], others, strict=False))}
    more = [f"… {len(others) - CHIEF:,} more missed"] if len(others) > CHIEF else []
    sign = SessionVerdict.FAILED.sign
    return ", ".join(
        [*(f"{sign} {text}" if name in missed else text for name, text in texts.items()), *more]
    )


def _verdict_text(record: EvaluationRecord) -> str:
    verdicts = [f"{metric} {verdict}" for metric, verdict in verdicts_of(record).items()]
    more = f", … {len(verdicts) - CHIEF} more" if len(verdicts) > CHIEF else ""
    return ", ".join(verdicts[:CHIEF]) + more


# Escaping


def code_span(text: str, in_table: bool = False) -> str:
    """Text as a code span that no character in it can end, neither a backtick nor ``|``."""
    text = printable(text)
    text = text.replace("|", "\\|") if in_table else text
    fence = "`"
    while fence in text:
        fence += "`"
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def literal(text: str) -> str:
    """Text escaped for Markdown, on one line, in table cells too."""
    return _MARKUP.sub(_entity, printable(text))


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};" + (_NO_WIDTH if match[0] in "@#" else "")
