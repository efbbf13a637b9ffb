"""Records -> what people read: terminal lines, Markdown, JUnit properties. Pure strings.

Whatever stands in a node id or a value, nothing here lets it break a line, a table or an escape
sequence: :func:`printable` and :func:`_text` see to that.
"""

from __future__ import annotations

import enum
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_armory.gates.formatting import distinct_number
from pytest_armory.records import EvaluationRecord, Outcome, Verdict, count_outcomes

ROWS = 40
"""How many rows a table has unless asked for more: what still fits on a screen."""

WARNINGS = 20
"""How many of them are shown unless asked for more."""

CHIEF = 3
"""How many metrics of an evaluation a table shows."""

MARKDOWN_LIMIT = 250_000
"""Characters of a summary; GitHub refuses a step summary over 1 MiB, and people long before."""

_SIDE = ("duration_seconds", "samples", "samples_per_second")
_SIDE_FOLDERS = ("time/", "progress/", "system/")
_STATES = ("failed", "unjudged", "passed")
_COLOUR = {"passed": "green", "xfailed": "yellow", "xpassed": "yellow", "skipped": "yellow"}


class SessionVerdict(enum.Enum):
    """What became of a session: its sign, and the status of its run."""

    PASSED = ("✅", "FINISHED")
    FAILED = ("❌", "FAILED")
    INTERRUPTED = ("🛑", "KILLED")
    RUNNING = ("⏳", "FINISHED")
    """Nothing has failed so far, and another of its jobs is at work."""

    def __init__(self, sign: str, status: str) -> None:
        self.sign = sign
        self.status = status


@dataclass(frozen=True)
class Summary:
    """What a session's end knows. ``records`` are as the store holds them, in order of start.

    Where several jobs contribute to the session, ``whole`` are the records of all of them, and
    ``others_…`` is what the others alone knew; ``interrupted`` says it of any. ``text`` is the
    Markdown as others may have edited it. ``judged_again`` says that gates were, after the tests.
    """

    session: str
    where: str
    records: Sequence[EvaluationRecord]
    open_with: Sequence[str] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    lost: int = 0
    waiting: int = 0
    not_run: int = 0
    commit: str = ""
    branch: str = ""
    baseline: str = ""
    whole: Sequence[EvaluationRecord] = ()
    interrupted: bool = False
    others_not_run: int = 0
    others_problems: Sequence[str] = ()
    text: str = ""
    judged_again: bool = False

    @property
    def verdict(self) -> SessionVerdict:
        """What became of the session as a whole, as far as it has come."""
        outcomes = [record.outcome for record in latest(self.every)]
        if self.interrupted:
            return SessionVerdict.INTERRUPTED
        missed = self.judged_again and _missed(latest(self.every))
        if missed or any(outcome and not outcome.is_good for outcome in outcomes):
            return SessionVerdict.FAILED
        return SessionVerdict.PASSED if all(outcomes) else SessionVerdict.RUNNING

    @property
    def every(self) -> Sequence[EvaluationRecord]:
        """The records of all jobs."""
        return self.whole or self.records


@dataclass(frozen=True)
class Line:
    """One terminal line in parts, each with its colour, if any."""

    parts: Sequence[tuple[str, str | None]]

    @property
    def text(self) -> str:
        """The line without colours."""
        return "".join(text for text, _ in self.parts)


def latest(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """The last attempt at every evaluation; those before it were rerun.

    Where several workers ran the same attempt, as ``--dist=each`` has it, each counts.
    """
    times = Counter((record.nodeid, record.attempt) for record in records)
    parallel = {nodeid for (nodeid, _), count in times.items() if count > 1}
    last: dict[tuple[str, str], EvaluationRecord] = {}
    for record in records:
        last[(record.nodeid, record.worker if record.nodeid in parallel else "")] = record
    return list(last.values())


def chief_metrics(metrics: Mapping[str, float], most: int = CHIEF) -> dict[str, float]:
    """The few metrics a table shows: the plainest names, no timings if there is anything else."""
    names = [n for n in metrics if n not in _SIDE and not n.startswith(_SIDE_FOLDERS)]
    names.sort(key=lambda name: (name.count("/"), name))
    return {name: metrics[name] for name in names[:most]}


def junit_properties(record: EvaluationRecord) -> list[tuple[str, str]]:
    """The properties of an evaluation's test case in ``--junitxml``."""
    found = [("armory_run_id", record.run_id), ("armory_run_url", record.url)]
    properties = [(name, value) for name, value in found if value]
    chief = chief_of(record, most=8)
    exact = {name: repr(value).removesuffix(".0") for name, value in chief.items()}
    return properties + [(f"armory_metric_{name}", value) for name, value in exact.items()]


def chief_of(record: EvaluationRecord, most: int = CHIEF) -> dict[str, float]:
    """The metrics a table shows of an evaluation: those somebody chose, else those with a gate.

    Of these what failed comes first, then what could not be judged.
    """
    by_state = sorted(record.verdicts, key=lambda verdict: _STATES.index(verdict.state))
    gated = [verdict.metric for verdict in by_state]
    chosen = record.chief or (*dict.fromkeys(gated), *chief_metrics(record.metrics, most))
    names = [name for name in dict.fromkeys(chosen) if name in record.metrics]
    return {name: record.metrics[name] for name in names[:most]}


def metric_parts(record: EvaluationRecord) -> list[tuple[str, str | None]]:
    """An evaluation's chief metrics and their changes, each with the colour a gate gives it."""
    ways = {(v.metric, v.higher_is_worse) for v in record.verdicts}
    worse = {name: way for name, way in ways if (name, not way) not in ways}
    parts: list[tuple[str, str | None]] = []
    for name, value in chief_of(record).items():
        gap = "  " if parts else ""
        parts.append((printable(f"{gap}{name} {number(value)}"), None))
        shown = change(value, record.baseline[name]) if name in record.baseline else ""
        if shown:
            higher = shown.startswith("↑")
            known = worse.get(name) is not None and shown[0] in "↑↓"
            colour = ("red" if worse[name] == higher else "green") if known else None
            parts += [(" (", None), (shown, colour), (")", None)]
    return parts


def change(value: float, base: float) -> str:
    """A metric's way from the baseline's: ``↑0.02``, ``↓0.02``, ``=``; empty where NaN is."""
    if value != value or base != base:
        return ""
    if value == base:
        return "="
    return f"{'↑' if value > base else '↓'}{number(float(f'{abs(value - base):.9g}'))}"


def gate_lines(records: Sequence[EvaluationRecord], baseline: str) -> list[str]:
    """What gates could not judge, a line for each of the first reasons, with its evaluations."""
    reasons: list[tuple[str, str]] = []
    for record in records:
        for verdict in record.verdicts:
            if verdict.state == "unjudged":
                reason = f"{verdict.metric} {verdict.text}"
                if verdict.text.startswith("has no baseline run") and not baseline:
                    reason = f"{verdict.metric}, for no baseline is given; add {_ADVICE}"
                reasons.append((reason, record.nodeid))
    lines = [f"not judged: {line}" for line in with_tests(reasons)]
    more = len(lines) - WARNINGS
    return lines if more <= 0 else [*lines[:WARNINGS], f"not judged: {_plural(more, 'more gate')}"]


def with_tests(said: Iterable[tuple[str, str]]) -> list[str]:
    """Sentences that node ids came with, each once, with the tests that it is of."""
    tests: dict[str, dict[str, None]] = {}
    for text, nodeid in said:
        tests.setdefault(text, {})[nodeid.partition("::")[2] or nodeid] = None
    return [
        f"{text} ({', '.join(list(names)[:3])}"
        f"{f' and {len(names) - 3:,} more' if len(names) > 3 else ''})"
        for text, names in tests.items()
    ]


_ADVICE = "--armory-baseline latest"


def _missed(records: Sequence[EvaluationRecord]) -> list[tuple[EvaluationRecord, Verdict]]:
    """The gates that failed a test, or would have; where it was expected to fail they did not."""
    asked = [record for record in records if record.outcome is not Outcome.XFAILED]
    return [(r, v) for r in asked for v in r.verdicts if v.state == "failed"]


def missed_lines(records: Sequence[EvaluationRecord]) -> list[str]:
    """A sentence for each missed gate."""
    return [
        printable(f"missed: {title(record)}: {_valued(verdict)} {verdict.text}")
        for record, verdict in _missed(latest(records))
    ]


def _valued(verdict: Verdict) -> str:
    value = "" if verdict.value is None else f" {distinct_number(verdict.value, verdict.limit)}"
    return f"{verdict.metric}{value}"


# Terminal


def terminal_lines(summary: Summary, width: int, verbosity: int) -> list[Line]:
    """The lines under the summary's title: a table, then where to look."""
    lines = _table(summary.records, width, all_rows=verbosity > 0) if verbosity >= 0 else []
    lines.append(Line([(f"{counted(summary)}, {_tracked(summary)}", None)]))
    if summary.whole:
        whole = counted(_of_all_jobs(summary))
        lines.append(Line([(f"session {summary.session} over all its jobs: {whole}", None)]))
    compared = [summary.baseline] if summary.baseline else []
    compared += gate_lines(latest(summary.records), summary.baseline)
    lines += [Line([(printable(text), None)]) for text in compared]
    lines += [Line([(printable(text), None)]) for text in (*summary.open_with, *summary.notes)]
    if summary.waiting:
        text = f"waiting for {summary.where}: {_plural(summary.waiting, 'evaluation')}"
        lines.append(Line([(printable(f"{text}, recorded locally"), "yellow")]))
    if summary.lost:
        lines.append(Line([(f"not stored: {_plural(summary.lost, 'evaluation')}", "red")]))
    shown = summary.problems if verbosity > 0 else summary.problems[:WARNINGS]
    warnings = [f"warning: {printable(text)}" for text in shown]
    if len(shown) < len(summary.problems):
        hidden = len(summary.problems) - len(shown)
        warnings.append(f"… {_plural(hidden, 'more warning')}; -v shows every one")
    return lines + [Line([(text, "yellow")]) for text in warnings]


def _tracked(summary: Summary) -> str:
    where = printable(summary.where)
    all_wait = summary.waiting == len(summary.records) > 0
    return f"recorded locally for {where}" if all_wait else f"tracked to {where}"


def _of_all_jobs(summary: Summary) -> Summary:
    return replace(
        summary,
        records=summary.every,
        not_run=summary.not_run + summary.others_not_run,
        problems=[*summary.problems, *summary.others_problems],
        others_not_run=0,
        others_problems=(),
    )


def counted(summary: Summary) -> str:
    """``3 evaluations: 2 passed, 1 failed``; reruns and what was never started apart."""
    last = latest(summary.records)
    outcomes = [f"{count:,} {name}" for name, count in count_outcomes(last).items()]
    running = sum(record.outcome is None for record in last)
    if running:
        outcomes.append(f"{running:,} running")
    if summary.not_run:
        outcomes.append(f"{summary.not_run:,} not run")
    text = f"{_plural(len(last) + summary.not_run, 'evaluation')}: {', '.join(outcomes)}"
    reruns = len(summary.records) - len(last)
    return f"{text} ({_plural(reruns, 'earlier attempt')})" if reruns else text


def _table(records: Sequence[EvaluationRecord], width: int, all_rows: bool) -> list[Line]:
    shown = _by_file(records if all_rows else _most_telling(records))
    header = ("test", "outcome", "metrics", "duration")
    everywhere = _on_several_workers(records)
    rows = [_row(record, everywhere) for record in shown]
    widths = [max(columns(row[i]) for row in [header, *rows]) for i in range(4)]
    # Where it is narrow the metrics give way first, then the test's name; the rest never does.
    spare = width - widths[1] - widths[3] - 7
    widths[2] = min(widths[2], max(spare - widths[0], min(spare // 2, 20), 10))
    widths[0] = min(widths[0], max(spare - widths[2], 12))
    lines = [_line(header, widths, None, [(header[2], None)])]
    file = None
    for record, row in zip(shown, rows, strict=True):
        if _file(record) != file:
            file = _file(record)
            lines.append(Line([(shorten(printable(file), width), None)]))
        name = record.outcome.value if record.outcome else ""
        lines.append(_line(row, widths, _COLOUR.get(name, "red"), metric_parts(record)))
    hidden = len(records) - len(shown)
    if hidden:
        lines.append(Line([(f"… {hidden:,} more, all of them good; -v shows every one", None)]))
    return lines


def _file(record: EvaluationRecord) -> str:
    return record.nodeid.partition("::")[0]


def _by_file(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """In their order, but each file's together: workers start them in any order."""
    files: dict[str, list[EvaluationRecord]] = {}
    for record in records:
        files.setdefault(_file(record), []).append(record)
    return [record for group in files.values() for record in group]


def _most_telling(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """Every bad one, and the first of the good ones, in their order."""
    room = ROWS - sum(not _is_good(record) for record in records)
    chosen = []
    for record in records:
        if not _is_good(record):
            chosen.append(record)
        elif room > 0:
            chosen.append(record)
            room -= 1
    return chosen


def _is_good(record: EvaluationRecord) -> bool:
    return record.outcome is not None and record.outcome.is_good


def _row(record: EvaluationRecord, everywhere: Set[str]) -> tuple[str, str, str, str]:
    return (
        "  " + title(record, everywhere).removeprefix(f"{printable(_file(record))}::"),
        record.outcome.value if record.outcome else "unknown",
        "".join(text for text, _ in metric_parts(record)),
        seconds(record.duration),
    )


def _line(
    row: Sequence[str],
    widths: Sequence[int],
    colour: str | None,
    metrics: Sequence[tuple[str, str | None]],
) -> Line:
    test = _pad(shorten(row[0], widths[0]), widths[0])
    outcome = _pad(row[1], widths[1])
    start = [(f"{test}  ", None), (outcome, colour), ("  ", None)]
    end = [(f"  {row[3].rjust(widths[3])}", None)]
    return Line([*start, *_fitted(metrics, widths[2]), *end])


def _fitted(parts: Sequence[tuple[str, str | None]], width: int) -> list[tuple[str, str | None]]:
    """Coloured parts cut or padded to a width."""
    fitted: list[tuple[str, str | None]] = []
    room = width - (columns("".join(text for text, _ in parts)) > width)
    for text, colour in parts:
        shown = text if columns(text) <= room else shorten(text, room + 1, keep_start=True)[:-1]
        fitted.append((shown, colour))
        room -= columns(shown)
        if shown != text:
            return [*fitted, ("…" + " " * room, None)]
    return [*fitted, (" " * room, None)]


def title(record: EvaluationRecord, everywhere: Set[str] = frozenset()) -> str:
    """An attempt's name in a table: its node id, worker and attempt only where they tell."""
    attempt = f" (attempt {record.attempt})" if record.attempt > 1 else ""
    worker = f" ({printable(record.worker)})" if record.nodeid in everywhere else ""
    return printable(record.nodeid) + worker + attempt


def _on_several_workers(records: Iterable[EvaluationRecord]) -> Set[str]:
    """The node ids that several workers ran, as ``--dist=each`` makes them."""
    workers: dict[str, set[str]] = {}
    for record in records:
        workers.setdefault(record.nodeid, set()).add(record.worker)
    return {nodeid for nodeid, names in workers.items() if len(names) > 1}


def number(value: float) -> str:
    """A metric in four significant digits, large whole numbers whole."""
    if value == value and abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}"


def seconds(duration: float) -> str:
    """A duration: ``0.02 s``, ``12.3 s``, ``4 min 05 s``, ``3 h 12 min``; "" for 0: not known."""
    if not duration:
        return ""
    if duration < 10:
        return f"{duration:.2f} s"
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def age(elapsed: float) -> str:
    """How long ago in one unit, from seconds: ``just now``, ``5 min ago``, ``3 h ago``."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if elapsed >= unit:
            return f"{int(elapsed // unit):,} {name} ago"
    return "just now"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with aligned columns, whatever stands in them."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(columns, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(_pad, row, widths)).rstrip() for row in shown]


def printable(text: str) -> str:
    """Text on one line without control characters: each is shown as Python would write it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def columns(text: str) -> int:
    """How many terminal columns a text takes: two for East Asian wide characters."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int, keep_start: bool = False) -> str:
    """Text cut to a width; of a node id the end says most, so the start goes."""
    if columns(text) <= width:
        return text
    kept, room = "", width - 1
    for character in text if keep_start else reversed(text):
        room -= _columns(character)
        if room < 0:
            break
        kept = kept + character if keep_start else character + kept
    return f"{kept}…" if keep_start else f"…{kept}"


def _pad(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# Markdown


def write_markdown(path: Path, text: str, append: bool = False) -> None:
    """Write Markdown to a file, or after what is there; its folder is made. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+" if append else "w", encoding="utf-8", errors="backslashreplace") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")
        file.write(text)


def markdown(summary: Summary, limit: int = MARKDOWN_LIMIT) -> str:
    """The session's summary: verdict first, then what failed, then passes folded."""
    summary = _of_all_jobs(summary)
    records = summary.records
    lines = [f"## {summary.verdict.sign} {_text(counted(summary))}", ""]
    state = " on ".join(_code(part) for part in (summary.commit[:12], summary.branch) if part)
    lines.append(
        f"Session {_code(summary.session)}{f', commit {state}' if state else ''}, tracked to "
        f"{_code(summary.where)}."
    )
    if summary.waiting:
        text = _plural(summary.waiting, "evaluation")
        lines.append(f"\n**Waiting for {_code(summary.where)}: {text}.**")
    if summary.lost:
        lines.append(f"\n**Not stored: {_plural(summary.lost, 'evaluation')}.**")
    if summary.baseline:
        lines.append(f"\n{_text(summary.baseline[0].upper() + summary.baseline[1:])}.")
    lines += _markdown_gates(latest(records), summary.baseline)
    lines += [f"\n⚠️ {_text(problem)}" for problem in summary.problems[:WARNINGS]]
    if len(summary.problems) > WARNINGS:
        lines.append(f"\n… and {_plural(len(summary.problems) - WARNINGS, 'more warning')}.")
    bad = [record for record in records if not _is_good(record)]
    good = [record for record in records if _is_good(record)]
    everywhere = _on_several_workers(records)
    lines += _markdown_table(bad, limit // 2, everywhere)
    if good:
        table = _markdown_table(good, limit - sum(map(len, lines)) - 500, everywhere)
        folded = ["", f"<details><summary>{len(good):,} good</summary>", *table, "", "</details>"]
        lines += folded if bad or len(good) > ROWS else table
    return "\n".join(lines) + "\n"


def _markdown_gates(records: Sequence[EvaluationRecord], baseline: str) -> list[str]:
    """Missed gates first, then what could not be judged."""
    missed = _missed(records)
    lines = ["", f"**{_plural(len(missed), 'gate')} missed**", ""] if missed else []
    for record, verdict in missed[:ROWS]:
        name = _code(shorten(title(record), 200))
        lines.append(f"- {name}: {_text(_valued(verdict))} {_text(verdict.text)}")
    if len(missed) > ROWS:
        lines.append(f"- … and {len(missed) - ROWS:,} more")
    return lines + [
        f"\n{_text(line[0].upper() + line[1:])}." for line in gate_lines(records, baseline)
    ]


def _markdown_table(
    records: Sequence[EvaluationRecord], room: int, everywhere: Set[str]
) -> list[str]:
    if not records:
        return []
    lines = ["", "| test | outcome | metrics | duration |", "| --- | --- | --- | ---: |"]
    for index, record in enumerate(records):
        row = _markdown_row(record, everywhere)
        room -= len(row) + 1
        if room < 0:
            return [*lines, "", f"… and {_plural(len(records) - index, 'more row')} cut here."]
        lines.append(row)
    return lines


def _markdown_row(record: EvaluationRecord, everywhere: Set[str]) -> str:
    name = _code(shorten(title(record, everywhere), 200), in_table=True)
    linked = f"[{name}]({record.url})" if record.url else name
    cells = (
        linked,
        record.outcome.value if record.outcome else "unknown",
        _text("".join(text for text, _ in metric_parts(record))).replace("  ", ", "),
        seconds(record.duration),
    )
    return f"| {' | '.join(cells)} |"


def _code(text: str, in_table: bool = False) -> str:
    """Text as a code span that nothing inside can end: not a backtick, not a table's ``|``."""
    text = printable(text)
    text = text.replace("|", "\\|") if in_table else text
    fence = "`"
    while fence in text:
        fence += "`"
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


# As HTML entities: a backslash is no escape everywhere in a table cell.
_ENTITIES = str.maketrans({c: f"&#{ord(c)};" for c in "&<>|`[]*_~\\!$@"})


def _text(text: str) -> str:
    """Text that Markdown takes literally, on one line, table cells included."""
    return printable(text).translate(_ENTITIES)


def outcome_counts(summary: Summary) -> dict[str, float]:
    """A session run's metrics: how many evaluations there were and how each ended."""
    summary = _of_all_jobs(summary)
    last = latest(summary.records)
    counts = {
        **count_outcomes(last),
        "not_run": summary.not_run,
        "gates_missed": len(_missed(last)),
    }
    names = (*(outcome.value for outcome in Outcome), "not_run", "gates_missed")
    every = {name: float(counts.get(name, 0)) for name in names}
    if summary.whole:  # another job may be at work
        every["running"] = float(sum(record.outcome is None for record in last))
    return {"evaluations": float(len(last) + summary.not_run), **every}
