"""What anyone may have written into a store, read at a session's end and by recovery."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run

from pytest_armory.errors import TrackingError
from pytest_armory.records import Outcome
from pytest_armory.report.note import as_note
from pytest_armory.session.identity import Identity
from pytest_armory.session.ledger import Ledger
from pytest_armory.session.recovery import notes_of, recover
from pytest_armory.store import Store, open_store
from pytest_armory.store.destination import lease_folder, resolve

BY_HAND = {
    "armory.gates": '[{"metric": "m", "rule": 1}]',
    "armory.gates.1": "[" * 7000,
    "armory.chief": "7",
    "armory.baseline": '{"m": "high"}',
    "armory.attempt": "²",
    "armory.worker": "\t",
}


@pytest.fixture
def store(armory_home: Path) -> Store:
    """The local store, in an Armory home of the test's own."""
    assert armory_home.exists()
    return open_store(resolve(None))


def opened(store: Store, session: str = "s", **tags: str) -> str:
    """An evaluation of a session that has been left open, with tags that somebody has set."""
    ours = {"armory.kind": "evaluation", "armory.nodeid": "test_it.py::test_a"}
    run = store.create_run(
        store.experiments.id_of("e"), "test_a", {**ours, "armory.session": session, **tags}
    )
    metrics = [("duration_seconds", math.nan, 0), ("m", 0.5, 0)]
    store.log_batch(run.run_id, tags=BY_HAND, metrics=metrics)
    return run.run_id


def opened_session(store: Store, **tags: str) -> str:
    """The session run of such a session."""
    ours = {"armory.kind": "session", "armory.session": "s", "armory.ended.x": '{"not_run": 5}'}
    run = store.create_run(store.experiments.id_of("e"), "session s", {**ours, **tags})
    store.log_batch(run.run_id, metrics=[("passed", math.nan, 0), ("not_run", -1e300, 0)])
    return run.run_id


def by_id(runs: list[Run]) -> dict[str, Run]:
    return {run.info.run_id: run for run in runs}


def test_recovery_closes_what_was_written_by_hand(
    store: Store, read_runs: Callable[..., list[Run]]
) -> None:
    session, evaluation = opened_session(store), opened(store)
    found = recover(store.destination, "s")
    assert [run.run_id for run in found.closed] == [evaluation, session]
    runs = by_id(read_runs())
    assert {run.info.status for run in runs.values()} == {"KILLED"}
    assert runs[evaluation].data.tags["armory.outcome"] == "interrupted"
    assert runs[session].data.metrics["interrupted"] == 1
    assert runs[session].data.metrics["passed"] == 0
    note = runs[session].data.tags["mlflow.note.content"]
    assert "1 evaluation: 1 interrupted" in note
    assert "test_a" in note
    (summary,) = Path(runs[session].info.artifact_uri.removeprefix("file://")).glob("summary.md")
    assert as_note(summary.read_text(encoding="utf-8"), 8000) == note
    for text in (
        "the tag armory.ended.x cannot be read: it has no field problems",
        "a verdict in the tag armory.gates cannot be read: it has no field state (test_a)",
        "the tag armory.gates.1 cannot be read: it is nested too deeply (test_a)",
        "the tag armory.chief cannot be read: it is not a list (test_a)",
        "the metric duration_seconds cannot be read: it is not a duration (test_a)",
    ):
        assert f"session s: {text}" in found.problems
    assert notes_of(found)[1:] == list(found.problems)


def test_recovery_closes_each_session_by_itself(
    store: Store, read_runs: Callable[..., list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What of one cannot be closed keeps its lease, and no other session open."""
    folder = lease_folder(store.destination)
    folder.mkdir(parents=True, exist_ok=True)
    runs = {}
    for name in ("a", "b", "c"):
        runs[name] = opened(store, session=name, **{"armory.process": f"dead:{name}:0"})
        (folder / f"dead%3A{name}%3A0.lease").write_text("{}", encoding="utf-8")
    close = Store.close_run
    errors = {runs["a"]: KeyError("odd"), runs["b"]: TrackingError("refused")}

    def fails(self: Store, run_id: str, *args: object) -> None:
        if run_id in errors:
            raise errors[run_id]
        close(self, run_id, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Store, "close_run", fails)
        found = recover(store.destination)
    assert [run.run_id for run in found.closed] == [runs["c"]]
    assert "session a: not all of it could be closed: KeyError: 'odd'" in found.problems
    assert "session b: not all of it could be closed: refused" in found.problems
    assert {run.info.run_id for run in read_runs() if run.info.status == "RUNNING"} == {*errors}
    assert {run.run_id for run in recover(store.destination).closed} == {*errors}
    assert {run.info.status for run in read_runs()} == {"KILLED"}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "journal",
    ['{"nodeid": "test_it.py::test_a", "run_id": "', "[" * 9000, "{}", '{"nodeid": 1}', "\x00"],
)
def test_recovery_reads_a_journal_that_is_cut_off(
    store: Store, read_runs: Callable[..., list[Run]], journal: str
) -> None:
    process = {"armory.process": "dead:1:0"}
    session, evaluation = opened_session(store, **process), opened(store, **process)
    path = lease_folder(store.destination) / "dead%3A1%3A0.lease"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(journal, encoding="utf-8")
    found = recover(store.destination)
    assert {run.run_id for run in found.closed} == {session, evaluation}
    assert not path.exists()
    (problem,) = [text for text in found.problems if "journal" in text]
    assert problem.startswith("session s: the journal cannot be read: it ")
    assert {run.info.status for run in read_runs()} == {"KILLED"}


def test_recovery_writes_no_parameter_that_a_store_refuses(
    store: Store, read_runs: Callable[..., list[Run]]
) -> None:
    evaluation = opened(store, **{"armory.process": "dead:1:0"})
    folder = lease_folder(store.destination)
    folder.mkdir(parents=True, exist_ok=True)
    params = f'{{"a[0]": "\\ud800", "b": "{"x" * 9000}"}}'
    journal = f'{{"nodeid": "n", "run_id": "{evaluation}", "params": {params}}}'
    (folder / "dead%3A1%3A0.lease").write_text(journal, encoding="utf-8")
    recover(store.destination)
    (run,) = read_runs()
    assert run.data.params["a_0_"] == "\\ud800"
    assert len(run.data.params["b"]) == 6000


def test_a_session_says_what_it_cannot_read(store: Store) -> None:
    identity = Identity("s", "own", shared=True)
    own, other = ({"armory.shard": name} for name in ("own", "other"))
    session = opened_session(store)
    opened(store, **own)
    opened(store, **other)
    ledger = Ledger(store.destination, identity)
    ledger.crashes["gw0"] = 1
    assert ledger.parent_of(store.experiments.id_of("e"), waiting=False) == session
    summary = ledger.finish(interrupted=False)
    assert summary is not None
    assert [record.outcome for record in summary.all_records] == [None, Outcome.CRASHED]
    assert "the tag armory.chief cannot be read: it is not a list (test_a)" in summary.problems
    assert "the tag armory.ended.x cannot be read: it has no field problems" in summary.problems
    assert ledger.end is not None
    assert not [text for text in ledger.end.problems if "cannot be read" in text]
    assert ledger.is_complete


def test_the_verdict_of_a_session_is_none_of_the_tags(store: Store) -> None:
    verdicts = []
    by_hand: dict[str, dict[str, str]] = {"plain": {}, "odd": BY_HAND}
    for session, tags in by_hand.items():
        run = store.create_run(
            store.experiments.id_of("e"),
            "test_a",
            {
                "armory.kind": "evaluation",
                "armory.nodeid": "n",
                "armory.session": session,
                "armory.shard": "p",
                "armory.outcome": "passed",
                **tags,
            },
        )
        store.close_run(run.run_id, "FINISHED")
        ledger = Ledger(store.destination, Identity(session, "p"))
        ledger.crashes["gw0"] = 1  # so that the store is searched
        summary = ledger.finish(interrupted=False)
        assert summary is not None
        verdicts.append(summary.verdict)
    assert verdicts[0] is verdicts[1]
