"""A session as the store holds it, for a page: parameters, trends, pictures, environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_armory.errors import TrackingError
from pytest_armory.records import EvaluationRecord, fields
from pytest_armory.report.details import Changed, Details, Entry, Matrix, Picture
from pytest_armory.report.summary import Summary, is_good, latest
from pytest_armory.session.history import Ran, sessions_of, trend_of
from pytest_armory.session.reproduce import ENVIRONMENT
from pytest_armory.session.stored_records import is_attempt, is_session

if TYPE_CHECKING:
    from pytest_armory.store import Store, StoredRun

TRENDS = 40
"""The most trends of a page, and evaluations whose parameters are compared with those of the
session before; each is a search of the store."""

SESSIONS = 20
RUNS_WITH_PICTURES = 24
FILE_LIMIT = 400_000
TOTAL_LIMIT = 4_000_000
"""Limits on the pictures of a page: runs that are looked at, bytes of a file and of all."""

_KINDS = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "svg": "image/svg+xml"}
_LARGEST_MATRIX = 20


def read_details(store: Store, summary: Summary) -> Details:
    """Everything that the page of a session shows. Raises :class:`TrackingError`."""
    runs = store.search.runs_of_session(summary.session, store.experiments.ids())
    attempts = {run.run_id: run for run in runs if is_attempt(run)}
    session_runs = [run for run in runs if is_session(run)]
    records = _ordered(latest(summary.all_records))
    gated = [(r, metric) for r in records for metric in _gated_metrics(r)]
    began = {run.tags["armory.nodeid"]: run.start for run in attempts.values()}
    with_trends = [record for record, _ in gated[:TRENDS]]
    # Those without gates have no trend, but parameters that may differ.
    shown = [*dict.fromkeys(record.nodeid for record in (*with_trends, *records))][:TRENDS]
    earlier = {n: sessions_of(store, n, SESSIONS, began.get(n)) for n in shown}
    files = [*_files(store, records, attempts)]
    first = min(session_runs, key=lambda run: run.start, default=None)
    tags = first.tags if first is not None else {}
    return Details(
        summary=summary,
        entries=[_entry(record, attempts.get(record.run_id or "")) for record in records],
        trends=[trend_of(r.nodeid, metric, earlier[r.nodeid]) for r, metric in gated[:TRENDS]],
        more_trends=max(0, len(gated) - TRENDS),
        changed=[one for nodeid, ran in earlier.items() for one in _changed(nodeid, ran)],
        pictures=[file for file in files if isinstance(file, Picture)],
        matrices=[file for file in files if isinstance(file, Matrix)],
        began=min((run.start for run in runs), default=0),
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


def _entry(record: EvaluationRecord, run: StoredRun | None) -> Entry:
    if run is None:
        return Entry(record)
    return Entry(
        record,
        params=run.params,
        reproduce=run.tags.get("armory.reproduce", ""),
        description=run.tags.get("mlflow.note.content", ""),
    )


def _changed(nodeid: str, ran: Sequence[Ran]) -> Iterator[Changed]:
    """The parameters that differ between an evaluation's last two sessions."""
    if len(ran) < 2:
        return
    before, now = ran[-2].run.params, ran[-1].run.params
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield Changed(nodeid, name, before.get(name, ""), now.get(name, ""))


# Files of runs


def _files(
    store: Store, records: Sequence[EvaluationRecord], attempts: Mapping[str, StoredRun]
) -> Iterator[Picture | Matrix]:
    """The small figures and confusion matrices of the first runs."""
    left = TOTAL_LIMIT
    for record in records[:RUNS_WITH_PICTURES]:
        run = attempts.get(record.run_id or "")
        for path, size in [] if run is None else _listed(store, run):
            kind = _KINDS.get(path.rpartition(".")[2].lower())
            is_matrix = "confusion" in path and path.endswith(".json")
            if not (kind or is_matrix) or not size or size > min(FILE_LIMIT, left):
                continue
            left -= size
            content = store.read_file(run.artifact_uri, path) if run is not None else b""
            if kind:
                yield Picture(record.nodeid, path, kind, content)
            elif rows := _square(content):
                yield Matrix(record.nodeid, path, rows)


def _listed(store: Store, run: StoredRun) -> list[tuple[str, int]]:
    found = store.list_files(run)
    folders = [path for path, size in found if size is None and path == "metrics"]
    inner = [one for folder in folders for one in store.list_files(run, folder)]
    return [(path, size) for path, size in (*found, *inner) if size is not None]


def _square(content: bytes) -> list[list[float]]:
    """A square array of numbers, or nothing."""
    rows, _ = fields.read_text(fields.list_of(fields.list_of(fields.number)), content)
    if rows is None or not 2 <= len(rows) <= _LARGEST_MATRIX:
        return []
    return [list(row) for row in rows] if all(len(row) == len(rows) for row in rows) else []


def _environment(store: Store, run: StoredRun | None) -> str:
    """The session run's description of its environment; a session may have none."""
    try:
        return (
            store.read_file(run.artifact_uri, ENVIRONMENT).decode("utf-8", "replace") if run else ""
        )
    except TrackingError:  # of an older version, or killed before it was written
        return ""
