"""Earlier runs of an evaluation -> its baseline's metrics, and its history."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest

from pytest_armory.gates.baselines import Baseline, baseline_from_wire
from pytest_armory.gates.past_runs import (
    PastEvaluation,
    PastRun,
    has_passed_body,
    has_unread_gate,
    of_one_data,
    past_run,
)
from pytest_armory.plugin.wire import WorkerInput
from pytest_armory.records import Verdict
from pytest_armory.records.judging_tag import Judging
from pytest_armory.session.identity import Identity
from pytest_armory.store import StoredRun


def run(session: str, start: int, value: float, **others: object) -> PastRun:
    return PastRun(f"{session}{start}", session, start, {"accuracy": value}, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], []),
        ([run("b", 2, 0.8), run("a", 1, 0.9)], [0.8, 0.9]),
        ([run("a", 1, 0.9), run("b", 2, 0.8)], [0.8, 0.9]),  # the newest first, whatever the order
        ([run("a", 3, 0.7), run("a", 1, 0.9)], [0.9]),  # a session's first attempt
        ([run("a", 3, 0.9), run("a", 1, 0.1, worse=["accuracy"])], [0.9]),  # that was not worse
        ([run("a", 1, 0.1, worse=["f1"])], [0.1]),
        ([run("a", 1, 0.9), run("b", 2, 0.8, repeats=5)], [0.9]),  # its mean scatters less
        ([run("a", 1, 0.9, digests={"accuracy": "other"})], []),
        ([run("a", 1, 0.9, digests={"accuracy": "same", "unknown": "x"})], [0.9]),
        ([run("a", 1, float("nan")), run("b", 1, float("inf")), run("c", 1, -1e200)], []),
    ],
)
def test_the_history_of_a_metric(runs: list[PastRun], expected: list[float]) -> None:
    assert PastEvaluation(history=runs).history_of("accuracy", {"accuracy": "same"}) == expected


def test_runs_of_another_version_are_neither_baseline_nor_history() -> None:
    runs = {"1": {"test": [run("b", 2, 0.8, version="2"), run("a", 1, 0.9)]}}
    past = Baseline("latest", runs=runs, history=runs).of("1", "test", "2")
    assert (past.metrics(), past.history_of("accuracy", {})) == ({"accuracy": 0.8}, [0.8])


def test_a_pool_is_the_mean_of_the_runs_that_have_a_metric() -> None:
    runs = [
        PastRun("1", "a", 1, {"accuracy": 0.9, "new": 1.0}),
        PastRun("2", "b", 2, {"accuracy": 0.8, "old": 2.0}),
    ]
    assert PastEvaluation(runs).metrics() == pytest.approx(
        {"accuracy": 0.85, "new": 1.0, "old": 2.0}
    )
    runs = [run("a", 1, 1.7e308), run("b", 2, 1.7e308)]
    assert PastEvaluation(runs).metrics() == {"accuracy": math.inf}


@pytest.mark.parametrize("sessions", [None, (), ("a", "b")])
def test_what_verdicts_depend_on_reaches_workers(sessions: tuple[str, ...] | None) -> None:
    """Also where the baseline's sessions are not known, as of a server that is down."""
    judging = Judging("latest", sessions, gates=3)
    identity = Identity("s", "shard", reproduce=[])
    given = WorkerInput(identity, Baseline("latest", problem="no answer"), judging=judging)
    assert WorkerInput.from_wire(given.to_wire()) == given


def test_a_baseline_there_and_back() -> None:
    found = {"1": {"test_it.py::test": [run("a", 1, 0.9, digests={"accuracy": "x"}, worse=["f1"])]}}
    baseline = Baseline("latest", {"a": ["1"]}, found, found)
    again = baseline_from_wire(json.loads(json.dumps(asdict(baseline))))
    assert again == baseline
    past = again.of("1", "test_it.py::test")
    assert past.metrics() == {"accuracy": 0.9}
    assert past.history_of("accuracy", {}) == [0.9]
    assert past.history_of("accuracy", {}, repeats=5) == []
    assert past.digests({}) == {"accuracy": "x"}
    assert again.of("1", "test_it.py::test", version="2") == PastEvaluation([], [])
    assert again.of("2", "test_it.py::test").metrics() is None
    assert again.of("2", "test_it.py::test").digests({}) == {}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"accuracy": "x"}, ["b2", "a1"]),
        ({"accuracy": "y"}, ["c3"]),
        ({"accuracy": "new"}, ["c3"]),  # of no pool mixes data
        ({"other": "z"}, ["c3", "b2", "a1"]),
        ({}, ["c3", "b2", "a1"]),
    ],
)
def test_a_pool_is_of_one_data(own: dict[str, str], expected: list[str]) -> None:
    runs = [
        run("c", 3, 0.7, digests={"accuracy": "y"}),
        run("b", 2, 0.8, digests={"accuracy": "x"}),
        run("a", 1, 0.9, digests={"accuracy": "x"}),
    ]
    assert [past.run_id for past in of_one_data(runs, own)] == expected


def test_a_score_keeps_its_pool_where_the_data_of_another_change() -> None:
    runs = [
        PastRun(s, s, i, {"right": i, "live": i, "seconds": i}, digests={"right": "x", "live": s})
        for i, s in ((3, "c"), (2, "b"), (1, "a"))
    ]
    past, own = PastEvaluation(runs, runs), {"right": "x", "live": "new"}
    assert past.metrics(own) == {"right": 2, "live": 3, "seconds": 3}
    assert past.digests(own) == {"right": "x", "live": "c"}
    assert past.history_of("right", own) == [3, 2, 1]
    assert past.history_of("live", own) == []
    assert past.history_of("seconds", own) == []


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"armory.outcome": "passed"}, True),
        ({"armory.outcome": "failed", "armory.gates": "[]"}, True),
        ({"armory.outcome": "error", "armory.gates": "[]"}, True),
        ({"armory.outcome": "xpassed"}, True),
        ({"armory.outcome": "xfailed", "armory.gates": "[]"}, True),
        ({"armory.outcome": "xfailed"}, False),
        ({"armory.outcome": "failed"}, False),
        ({"armory.outcome": "skipped", "armory.gates": "[]"}, False),
        ({}, False),
    ],
)
def test_gates_are_judged_where_the_body_has_passed(tags: dict[str, str], expected: bool) -> None:
    stored = StoredRun("1", "1", "", "FINISHED", 0, 0, 0, "", {}, {}, tags)
    assert has_passed_body(stored) == expected


def test_a_run_on_a_branch_that_could_not_be_judged_is_no_baseline_and_no_history() -> None:
    gate = Verdict("right", "baseline -2%", "unjudged", 0.6, 0.93, 0.95, "reading failed")
    for verdict, expected in ((gate, False), (replace(gate, unread=True), True)):
        tags = {"armory.gates": json.dumps([asdict(verdict)])}
        run = StoredRun("r", "0", "", "FINISHED", 0, None, 0, "", {}, {}, tags)
        assert has_unread_gate(run) is expected
        assert list(past_run(run).worse) == ["right"] * expected
