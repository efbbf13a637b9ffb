"""The end of a session whose store has confirmed its evaluations: what is read, and what is not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_armory.records import EvaluationRecord, Outcome, from_wire, to_wire
from pytest_armory.report.summary import Summary
from pytest_armory.session.identity import Identity
from pytest_armory.session.ledger import Ledger
from pytest_armory.store import Store, open_store
from pytest_armory.store.destination import resolve
from pytest_armory.store.search import RunSearch

NAMES = ("a", "b", "c")
OURS = {"armory.session": "s", "armory.shard": "job"}


class Session:
    """A session whose three evaluations have ended, and what its end reads."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.experiment = store.experiments.id_of("e")
        self.ledger = Ledger(resolve(None), Identity("s", "job", tags=OURS))
        self.parent = str(self.ledger.parent_of(self.experiment, False))
        self.records = [self.evaluation(name) for name in NAMES]
        self.read: list[Sequence[str]] = []
        self.read_all = 0
        by_id, every = RunSearch.by_id, RunSearch.runs_of_session

        def noting_ids(search: RunSearch, run_ids: Sequence[str], ids: Sequence[str]) -> object:
            self.read.append(run_ids)
            return by_id(search, run_ids, ids)

        def noting_all(search: RunSearch, *args: object) -> object:
            self.read_all += 1
            return every(search, *args)  # type: ignore[arg-type] # as it was called

        monkeypatch.setattr(RunSearch, "by_id", noting_ids)
        monkeypatch.setattr(RunSearch, "runs_of_session", noting_all)

    def evaluation(self, name: str, close: bool = True, **changes: object) -> EvaluationRecord:
        tags = {"armory.kind": "evaluation", "armory.nodeid": name, "mlflow.parentRunId": "p"}
        run = self.store.create_run(self.experiment, name, {**OURS, **tags})
        outcome = {"armory.outcome": "passed"}
        self.store.log_batch(run.run_id, metrics=[("m", 0.5, 0)], tags=outcome)
        if close:
            self.store.close_run(run.run_id, "FINISHED")
        record = EvaluationRecord(
            name,
            run_id=run.run_id,
            experiment_id=self.experiment,
            parent_id="p",
            outcome=Outcome.PASSED,
            metrics={"m": 0.5},
            confirmed=True,
        )
        return replace(record, **changes)  # type: ignore[arg-type] # fields of it

    def end(self) -> Summary:
        for record in self.records:
            self.ledger.take(record)
        summary = self.ledger.finish(interrupted=False)
        assert summary is not None
        (session,) = self.store.search.session_runs("s", self.experiment)
        assert session.status != "RUNNING"
        assert self.store.search.open_of_session("s", [self.experiment]) == []
        return summary


@pytest.fixture
def session(armory_home: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    assert armory_home.exists()
    return Session(open_store(resolve(None)), monkeypatch)


def test_what_was_confirmed_is_not_read(session: Session) -> None:
    summary = session.end()
    assert (session.read, session.read_all) == ([[]], 0)
    assert [(r.nodeid, r.metrics) for r in summary.records] == [(n, {"m": 0.5}) for n in NAMES]
    assert all(a is b for a, b in zip(summary.records, session.records, strict=True))
    assert (summary.lost, summary.problems) == (0, [])


def test_what_was_not_confirmed_is_read_in_its_place(session: Session) -> None:
    second = session.records[1] = replace(session.records[1], confirmed=False)
    session.store.log_batch(str(second.run_id), metrics=[("own", 1.0, 0)])
    summary = session.end()
    assert (session.read, session.read_all) == ([[second.run_id]], 0)
    assert [r.nodeid for r in summary.records] == list(NAMES)
    assert summary.records[1].metrics == {"m": 0.5, "own": 1.0}


def _deleted(session: Session) -> None:
    session.store.delete_run(str(session.records[0].run_id))


def _unconfirmed_and_deleted(session: Session) -> None:
    _deleted(session)
    session.records[0] = replace(session.records[0], confirmed=False)


def _of_another_store(session: Session) -> None:
    """As at a server that was restarted with another database."""
    for record in session.records:
        session.store.delete_run(str(record.run_id))
    session.store.delete_run(session.parent)
    session.ledger.runs._runs.clear()


@pytest.mark.parametrize(
    ("change", "lost"), [(_deleted, 1), (_unconfirmed_and_deleted, 1), (_of_another_store, 3)]
)
def test_what_is_gone_is_not_said_to_be_stored(
    session: Session, change: Callable[[Session], None], lost: int
) -> None:
    change(session)
    if lost == 3:
        session.ledger.parent_of(session.experiment, False)
    summary = session.end()
    assert session.read_all == 1
    assert summary.lost == lost


def test_what_is_still_open_is_closed(session: Session) -> None:
    session.records.append(session.evaluation("d", close=False))
    summary = session.end()
    assert session.read_all == 1
    assert [record.outcome for record in summary.records] == [Outcome.PASSED] * 4


def test_a_run_that_code_has_opened_inside_is_closed_and_reported(session: Session) -> None:
    tags = {**OURS, "armory.opened_in": str(session.records[0].run_id)}
    inner = session.store.create_run(session.experiment, "inner", tags)
    summary = session.end()
    assert session.read_all == 0
    assert [inner.run_id in problem for problem in summary.problems] == [True]
    found = session.store.search.find(inner.run_id)
    assert found is not None
    assert (found.status, found.tags["mlflow.parentRunId"]) == ("FINISHED", session.parent)


def test_attempts_of_several_workers_at_a_test_are_numbered(session: Session) -> None:
    session.records.append(session.evaluation("a", worker="gw1"))
    summary = session.end()
    assert session.read_all == 1
    assert [r.attempt for r in summary.records if r.nodeid == "a"] == [1, 2]


def test_a_store_that_fails_leaves_what_was_reported(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_armory.errors import TrackingError

    def fail(*_: object) -> None:
        raise TrackingError("no answer")

    monkeypatch.setattr(RunSearch, "has_deleted", fail)
    summary = session.end()
    assert [record.nodeid for record in summary.records] == list(NAMES)
    assert summary.problems == ["no answer"]
    assert not session.ledger.is_complete


def test_what_the_end_of_many_evaluations_needs(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under 4 kB each at its peak, the names that pytest's items have not counted.

    Other threads of this process may allocate meanwhile, but not each time.
    """
    peaks = (peak_of_many(Session(session.store, monkeypatch)) for _ in range(3))
    assert any(peak < 4096 for peak in peaks)


def peak_of_many(session: Session) -> float:
    """The bytes for each evaluation of 2,000 that are allocated at a time while they end."""
    count = 2000
    metrics = {f"m{i}": i / 7 for i in range(10)}
    texts = [
        to_wire(
            replace(session.records[0], nodeid=f"test_it.py::test_a[{i}]", run_id=f"{i:032}",
                    metrics=metrics)
        )
        for i in range(count)
    ]  # fmt: skip
    session.store.experiments.ids()
    session.store.search.session_runs("s", session.experiment)  # which imports and compiles
    tracemalloc.start()
    for text in texts:
        session.ledger.take(from_wire(text))
    summary = session.ledger.finish(interrupted=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert summary is not None
    assert len(summary.records) == count
    return peak / count
