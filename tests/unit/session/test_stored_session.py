"""The end of a session whose workers may not have ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_armory.errors import TrackingError
from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.session import leases, stored_session
from pytest_armory.session.identity import Identity
from pytest_armory.session.ledger import Ledger, begin_test
from pytest_armory.session.reported import ReportedAttempts
from pytest_armory.store import open_store
from pytest_armory.store.circuit import circuit_of
from pytest_armory.store.destination import lease_folder, resolve

OURS = {"armory.session": "s", "armory.shard": "job", "armory.process": "host:1:worker"}


@pytest.mark.parametrize(
    ("interrupted", "alive", "crashes", "expected"),
    [
        (True, [True, True, False], {}, "passed"),  # it ends while it is waited for
        (True, [True], {}, None),  # longer than it is waited for
        (True, [True], {"gw0": 1}, "interrupted"),  # for xdist it has ended
        (True, [False], {}, "interrupted"),
        (False, [], {}, "crashed"),
    ],
    ids=["ends", "stays", "given-up", "dead", "not-interrupted"],
)
def test_an_interrupted_worker_closes_its_own_run(
    armory_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted: bool,
    alive: Sequence[bool],
    crashes: dict[str, int],
    expected: str | None,
) -> None:
    """What it says of its evaluation is what the session counts, if it says so in time.

    Else it is left to the worker, which would write something else later.
    """
    assert armory_home.exists()
    store = open_store(resolve(None))
    experiment = store.experiments.id_of("e")
    ledger = Ledger(resolve(None), Identity("s", "job", tags=OURS))
    ledger.crashes.update(crashes)
    tags = {**OURS, "armory.kind": "evaluation", "armory.nodeid": "a", "armory.worker": "gw0"}
    run_id = store.create_run(experiment, "a", tags).run_id
    ledger.take(EvaluationRecord("a", run_id=run_id, experiment_id=experiment, worker="gw0"))
    answers = iter(alive)

    def survey(_: Path) -> tuple[dict[str, object], set[str]]:
        is_alive = next(answers)
        if not is_alive and len(alive) > 1:
            store.log_batch(run_id, tags={"armory.outcome": "passed"})
            store.close_run(run_id, "FINISHED")
        return {}, {"host:1:worker"} if is_alive else set()

    monkeypatch.setattr(stored_session.leases, "survey", survey)
    monkeypatch.setattr(stored_session, "sleep", lambda _: None)
    monkeypatch.setattr(stored_session, "WAIT", 60.0 if len(alive) > 1 else 0.0)
    summary = ledger.finish(interrupted)
    assert summary is not None
    assert [r.outcome for r in summary.records] == [Outcome(expected) if expected else None]
    assert ("still running in workers" in " ".join(summary.notes)) == (expected is None)
    (run,) = store.search.by_id([run_id], [experiment])
    assert run.tags.get("armory.outcome") == expected
    assert (run.status == "RUNNING") == (expected is None)
    assert list(answers) == []


@pytest.mark.parametrize("has_run", [True, False], ids=["next", "first"])
def test_a_worker_that_is_about_to_open_a_run_is_waited_for(
    armory_home: Path, monkeypatch: pytest.MonkeyPatch, has_run: bool
) -> None:
    """A signal has met it between two tests, or in the setup of its first."""
    assert armory_home.exists()
    store = open_store(resolve(None))
    ledger = Ledger(resolve(None), Identity("s", "job", tags=OURS))
    ledger.planned.update(("a", "b", "c"))

    def run(nodeid: str, process: str) -> None:
        experiment = store.experiments.id_of(f"experiment of {nodeid}")  # made with its first run
        tags = {**OURS, "armory.kind": "evaluation", "armory.nodeid": nodeid}
        tags |= {"armory.outcome": "passed", "armory.process": process}
        run_id = store.create_run(experiment, nodeid, tags).run_id
        store.close_run(run_id, "FINISHED")

    run("a", "host:1:worker" if has_run else "host:2:other")
    if not has_run:
        begin_test(ledger, "b")
    alive = iter([{"host:1:worker"}, {"host:1:worker"}, set()])

    def survey(_: Path) -> tuple[dict[str, object], set[str]]:
        if not (names := next(alive)):
            run("b", "host:1:worker")
        return {}, names

    monkeypatch.setattr(stored_session.leases, "survey", survey)
    monkeypatch.setattr(stored_session, "sleep", lambda _: None)
    monkeypatch.setattr(stored_session, "WAIT", 60.0)
    ledger.is_behind = True
    summary = ledger.finish(interrupted=True)
    assert summary is not None
    assert [record.nodeid for record in summary.records] == ["a", "b"]
    assert summary.not_run == 1
    assert list(alive) == []


def test_a_worker_whose_server_is_out_of_reach_closes_its_own_run(
    armory_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the local database, and the worker's lease where those of its server's are."""
    server, local = resolve("http://127.0.0.1:9"), resolve(None)
    ledger = Ledger(server, Identity("s", "job", tags=OURS), local=local)
    circuit_of(server.display_uri).trip("it is down")
    store = open_store(local)
    experiment = store.experiments.id_of("e")
    tags = {**OURS, "armory.kind": "evaluation", "armory.nodeid": "a"}
    tags |= {"armory.destination": server.display_uri}
    run_id = store.create_run(experiment, "a", tags).run_id
    known = {"run_id": run_id, "experiment_id": experiment, "experiment": "e"}
    ledger.take(EvaluationRecord("a", **known, waiting=True))
    monkeypatch.setattr(stored_session, "WAIT", 0.0)
    monkeypatch.setattr(leases, "process_name", lambda: "host:1:worker")
    lease = leases.hold(lease_folder(server))
    assert lease is not None
    assert armory_home in lease.path.parents
    monkeypatch.setattr(leases, "process_name", lambda: "host:2:controller")
    summary = ledger.finish(interrupted=True)
    lease.release()
    assert summary is not None
    assert [record.outcome for record in summary.records] == [None]
    assert store.search.by_id([run_id], [experiment])[0].status == "RUNNING"


def test_a_run_that_cannot_be_closed_is_not_said_to_run_on(
    armory_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker is at work: the summary says why it is open."""
    assert armory_home.exists()
    store = open_store(resolve(None))
    experiment = store.experiments.id_of("e")
    ledger = Ledger(resolve(None), Identity("s", "job", tags=OURS))
    tags = {**OURS, "armory.kind": "evaluation", "armory.nodeid": "a", "armory.worker": "gw0"}
    run_id = store.create_run(experiment, "a", tags).run_id
    known = {"run_id": run_id, "experiment_id": experiment, "worker": "gw0"}
    ledger.take(EvaluationRecord("a", **known, params={"seed": "0"}))
    ledger.crashes.update({"gw0": 1})
    log_batch = type(store).log_batch

    def refuse(self: object, run: str, *args: object, **kwargs: object) -> None:
        if kwargs.get("params"):
            raise TrackingError("refused")
        log_batch(self, run, *args, **kwargs)

    monkeypatch.setattr(type(store), "log_batch", refuse)
    summary = ledger.finish(interrupted=False)
    assert summary is not None
    assert [r.outcome for r in summary.records] == [Outcome.CRASHED]
    assert "still running" not in " ".join(summary.notes)
    assert "refused" in " ".join(summary.problems)


def test_what_is_known_has_what_the_end_has_of_a_worker_that_died_before_a_run(
    armory_home: Path,
) -> None:
    """Whether or not the store has answered: it is counted, and run again where that is resumed."""
    assert armory_home.exists()
    ledger = Ledger(resolve(None), Identity("s", "job", tags=OURS))
    ledger.planned.update(("a", "b"))
    ledger.reported.add("a")
    ledger.attempts.died.add(("a", "gw0"))
    ledger.crashes.update({"gw0": 1})
    known = ledger.known(interrupted=True)
    end, ledger.end = ledger.end, None
    finished = ledger.finish(interrupted=True)
    for summary in (known, finished):
        assert summary is not None
        found = [(record.nodeid, record.outcome) for record in summary.records]
        assert found == [("a", Outcome.CRASHED)]
        assert (summary.lost, summary.not_run) == (1, 1)
    assert end is not None
    assert ledger.end is not None
    assert len(end.not_run) == 2
    assert end.not_run == ledger.end.not_run


@pytest.mark.parametrize("each", [True, False])
def test_a_worker_that_died_before_a_run_where_each_runs_every_test(each: bool) -> None:
    """Then the run of another one says nothing of it; else that is a later attempt."""
    attempts = ReportedAttempts()
    attempts.add(EvaluationRecord("a", worker="gw0", run_id="1", outcome=Outcome.PASSED))
    attempts.died.update({("a", "gw1"), ("plain", "gw1")})
    died = [(record.nodeid, record.worker) for record in attempts.without_run({"a"}, (), each)]
    assert died == ([("a", "gw1")] if each else [])
