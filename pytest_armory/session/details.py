"""A session as the store holds it, for a page: parameters, trends, pictures, environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_armory.errors import TrackingError
from pytest_armory.records import EvaluationRecord, Outcome, fields
from pytest_armory.report.details import Changed, Details, Entry, Matrix, Picture
from pytest_armory.report.summary import Summary, is_good, latest, missed_by
from pytest_armory.report.text import plural
from pytest_armory.report.trend import Trend
from pytest_armory.session.history import SessionAttempt, sessions_of, trend_of
from pytest_armory.session.reproduce import ENVIRONMENT
from pytest_armory.session.stored_records import is_attempt, is_session
from pytest_armory.values import redact_text

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun

TRENDS = 40
"""The most trends of a page; each is a search of the store."""

SPARE_RUNS = 500
"""How many runs before a session are looked through for each evaluation's last one, besides two
for each evaluation."""

SESSIONS = 20
RUNS_WITH_PICTURES = 24
FOLDERS = 4
FILE_LIMIT = 400_000
TOTAL_LIMIT = 4_000_000
"""Limits on the pictures of a page: runs that are looked at, folders of each, bytes of a file and
of all."""

FAILURE = "failure.txt"
FAILURES = 24
FAILURE_LIMIT = 8_000
"""The artifact with pytest's report, in how many runs it is read, and the most characters of it."""

_KINDS = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "svg": "image/svg+xml"}
_LARGEST_MATRIX = 20


def read_details(store: Store, summary: Summary) -> Details:
    """Everything that the page of a session shows. Raises :class:`TrackingError`."""
    runs = store.search.runs_of_session(summary.session, store.experiments.ids())
    attempts = {run.run_id: run for run in runs if is_attempt(run)}
    session_runs = [run for run in runs if is_session(run)]
    records = _ordered(latest(summary.all_records))
    last = [run for record in records if (run := attempts.get(record.run_id or "")) is not None]
    began = min((run.start for run in runs), default=0)
    before, is_complete = _runs_before(store, last, began)
    gated = [(r, m) for r in records for m in _gated_metrics(r) if r.run_id in attempts]
    files, unread = _files(store, records, attempts)
    failures = _failures(store, records, attempts)
    first = min(session_runs, key=lambda run: run.start, default=None)
    tags = first.tags if first is not None else {}
    return Details(
        summary=summary,
        entries=[
            _entry(record, attempts.get(record.run_id or ""), failures.get(record.run_id or "", ""))
            for record in records
        ],
        trends=_trends(store, [(attempts[r.run_id or ""], m) for r, m in gated[:TRENDS]]),
        more_trends=max(0, len(gated) - TRENDS),
        changed=[
            one
            for run in last
            if (key := _key(run)) in before
            for one in _changed(before[key], run)
        ],
        not_compared=0 if is_complete else len({*map(_key, last)} - before.keys()),
        pictures=[file for file in files if isinstance(file, Picture)],
        matrices=[file for file in files if isinstance(file, Matrix)],
        unread=unread,
        began=began,
        command=tags.get("armory.command", ""),
        job=tags.get("armory.ci.url", ""),
        environment=_environment(store, first),
    )


def _ordered(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """Those that failed first, then those with gates, in their order."""
    return sorted(records, key=lambda record: (is_good(record), not record.verdicts))


def _gated_metrics(record: EvaluationRecord) -> list[str]:
    states = ("failed", "unjudged", "passed")
    judged = sorted(record.verdicts, key=lambda verdict: states.index(verdict.state))
    return [name for name in dict.fromkeys(v.metric for v in judged) if name in record.metrics]


def _entry(record: EvaluationRecord, run: StoredRun | None, failure: str) -> Entry:
    if run is None:
        return Entry(record)
    return Entry(
        record,
        params=run.params,
        reproduce=run.tags.get("armory.reproduce", ""),
        description=run.tags.get("mlflow.note.content", ""),
        failure=failure,
    )


def _trends(store: Store, gated: Sequence[tuple[StoredRun, str]]) -> list[Trend]:
    """The trend of a metric of each run, up to that run."""
    ran: dict[tuple[str, str], list[SessionAttempt]] = {}
    for run, _ in gated:
        if _key(run) not in ran:
            ran[_key(run)] = sessions_of(
                store, _key(run)[1], run.experiment_id, SESSIONS, run.start
            )
    return [trend_of(_key(run)[1], metric, ran[_key(run)]) for run, metric in gated]


def _key(run: StoredRun) -> tuple[str, str]:
    return run.experiment_id, run.tags["armory.nodeid"]


def _runs_before(
    store: Store, runs: Sequence[StoredRun], began: int
) -> tuple[dict[tuple[str, str], StoredRun], bool]:
    """The last run of each evaluation before a session, and whether all runs were looked at."""
    missing = {*map(_key, runs)}
    most = 2 * len(missing) + SPARE_RUNS
    found: dict[tuple[str, str], StoredRun] = {}
    condition = f"tags.`armory.kind` = 'evaluation' AND attributes.start_time < {began}"
    ids = sorted({run.experiment_id for run in runs})
    count = 0
    for run in store.search.each(ids, condition, newest=True, most=most):
        count += 1
        if is_attempt(run) and _key(run) in missing:
            missing.remove(_key(run))
            found[_key(run)] = run
        if not missing:
            break
    return found, not missing or count < most


def _changed(before: StoredRun, now: StoredRun) -> Iterator[Changed]:
    """The parameters that differ between two runs of an evaluation."""
    for name in sorted(before.params.keys() | now.params.keys()):
        if before.params.get(name) != now.params.get(name):
            values = (before.params.get(name, ""), now.params.get(name, ""))
            yield Changed(now.tags["armory.nodeid"], name, *values)


# Files of runs


def _files(
    store: Store, records: Sequence[EvaluationRecord], attempts: Mapping[str, StoredRun]
) -> tuple[list[Picture | Matrix], list[str]]:
    """The small figures and confusion matrices of the first runs; sentences on what is unread."""
    found: list[Picture | Matrix] = []
    failed: dict[str, int] = {}
    left = TOTAL_LIMIT
    for record in records[:RUNS_WITH_PICTURES]:
        run = attempts.get(record.run_id or "")
        try:
            for path, size in [] if run is None else _listed(store, run):
                if run is not None and 0 < size <= min(FILE_LIMIT, left) and _is_shown(path):
                    left -= size
                    found += _read(record.nodeid, path, store.read_file(run.artifact_uri, path))
        except TrackingError as error:
            failed[str(error)] = failed.get(str(error), 0) + 1
    return found, [f"those of {plural(n, 'evaluation')}: {text}" for text, n in failed.items()]


def _is_shown(path: str) -> bool:
    return _kind(path) is not None or ("confusion" in path and path.endswith(".json"))


def _kind(path: str) -> str | None:
    return _KINDS.get(path.rpartition(".")[2].lower())


def _read(nodeid: str, path: str, content: bytes) -> Iterator[Picture | Matrix]:
    kind = _kind(path)
    if kind:
        yield Picture(nodeid, path, kind, content)
    elif rows := _square(content):
        yield Matrix(nodeid, path, rows)


def _listed(store: Store, run: StoredRun) -> list[tuple[str, int]]:
    """The files of a run and of its first folders, with their sizes."""
    found = store.list_files(run)
    folders = sorted((path for path, size in found if size is None), key=_is_not_ours)[:FOLDERS]
    inner = [one for folder in folders for one in store.list_files(run, folder)]
    return [(path, size) for path, size in (*found, *inner) if size is not None]


def _is_not_ours(folder: str) -> bool:
    return folder != "metrics"


def _square(content: bytes) -> list[list[float]]:
    """A square array of numbers, or nothing."""
    rows, _ = fields.read_text(fields.list_of(fields.list_of(fields.number)), content)
    if rows is None or not 2 <= len(rows) <= _LARGEST_MATRIX:
        return []
    return [list(row) for row in rows] if all(len(row) == len(rows) for row in rows) else []


def _failures(
    store: Store, records: Sequence[EvaluationRecord], attempts: Mapping[str, StoredRun]
) -> dict[str, str]:
    """What pytest reported of the first that failed, by the ids of their runs.

    Missed gates come last, which a page shows in any case. What cannot be read is left out.
    """
    failed = [record for record in records if record.outcome in (Outcome.FAILED, Outcome.ERROR)]
    found = {}
    for record in sorted(failed, key=lambda record: bool(missed_by(record)))[:FAILURES]:
        if run := attempts.get(record.run_id or ""):
            try:
                found[run.run_id] = _end_of(store.read_file(run.artifact_uri, FAILURE))
            except TrackingError:
                continue
    return found


def _end_of(report: bytes) -> str:
    """The end of a report, where the error stands, without what looks like a secret."""
    text = report.decode("utf-8", "replace")
    start = len(text) - FAILURE_LIMIT
    if start <= 0:
        return redact_text(text)
    end = redact_text(text[max(0, start - FAILURE_LIMIT) :])  # more, for a secret at the cut
    return f"… the whole is the artifact {FAILURE} of the run\n{end[-FAILURE_LIMIT:]}"


def _environment(store: Store, run: StoredRun | None) -> str:
    """The session run's description of its environment; a session may have none."""
    try:
        return (
            store.read_file(run.artifact_uri, ENVIRONMENT).decode("utf-8", "replace") if run else ""
        )
    except TrackingError:  # of an older version, or killed before it was written
        return ""
