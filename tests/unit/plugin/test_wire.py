"""What a controller and its workers send each other comes back the same, through execnet."""

from __future__ import annotations

import execnet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_armory.gates.baselines import Baseline
from pytest_armory.gates.past_runs import PastRun
from pytest_armory.plugin.redacted import display_id
from pytest_armory.plugin.wire import (
    WorkerInput,
    attach_record,
    detach,
    plan_from_wire,
    plan_to_wire,
)
from pytest_armory.records import EvaluationRecord
from pytest_armory.records.judging_tag import Judging
from pytest_armory.records.shard_note import ShardNote
from pytest_armory.session.identity import Identity
from pytest_armory.session.plan import Plan
from pytest_armory.session.resume import DoneBefore, PassedRun

text = st.text(max_size=10)
texts = st.lists(text, max_size=3).map(tuple)
identities = st.builds(
    Identity,
    session=text,
    shard=text,
    shared=st.booleans(),
    tags=st.dictionaries(text, text, max_size=2),
    job_run=st.none() | text,
    reproduce=st.lists(text, max_size=3),
)
judgings = st.builds(
    Judging,
    reference=text,
    sessions=st.none() | texts,  # None where the baseline could not be read
    confidence=st.floats(0.5, 0.999),
    gates=st.integers(0, 10**6),
)


@given(identities, judgings, text, st.booleans())
def test_the_input_of_a_worker(
    identity: Identity, judging: Judging, reason: str, is_agreed: bool
) -> None:
    given = WorkerInput(identity, None, reason, None, judging, is_agreed)
    sent = execnet.loads(execnet.dumps(given.to_wire()))
    assert WorkerInput.from_wire(sent) == given


def test_what_the_controller_has_looked_up() -> None:
    run = PastRun("r", "s", 1, {"m": 0.5}, worse=["n"])
    baseline = Baseline("latest", {"s": ["1"]}, {"1": {"n": [run]}})
    done = DoneBefore("s", {"n": PassedRun("r", {"file": "f"})}, {"o": ["q"]})
    found = WorkerInput.from_wire(WorkerInput(Identity("s"), baseline, done=done).to_wire())
    assert found is not None
    assert found.baseline == baseline
    assert found.done == done


def test_a_worker_of_a_session_that_is_not_tracked() -> None:
    assert WorkerInput.from_wire({"workerid": "gw0"}) is None


@pytest.mark.parametrize("note", [None, ShardNote(1, 2, "d", 3, 2)])
def test_a_plan(note: ShardNote | None) -> None:
    plan = Plan(["n"], note, "experiment", None, ["p"], [["why", "q"]], 3)
    assert plan_from_wire(plan_to_wire(plan)) == plan


def test_what_a_controller_keeps_of_its_evaluations_once() -> None:
    """Of thousands: pytest keeps the properties of reports, and the session its records."""
    names = ["test_a.py::test_it[1]", "test_a.py::test_it[2]"]
    sent = [(name, [("armory_metric_m", "1"), ("m", name), ["odd"]]) for name in names]
    plan = plan_from_wire(plan_to_wire(Plan(names)))
    records, properties = [], []
    for name, items in execnet.loads(execnet.dumps(sent)):
        report = pytest.TestReport(name, (name, 1, name), {}, "passed", None, "teardown")
        report.user_properties = items
        reported = EvaluationRecord(name, 1, "gw0", name, "7", "p" * 32, experiment="bench")
        attach_record(report, reported)
        _, record = detach(report)
        assert record == reported
        records.append(record)
        properties.append(report.user_properties)
        assert report.user_properties == items
    (first, second), (own, others) = records, properties
    for field in ("worker", "experiment_id", "parent_id", "experiment"):
        assert getattr(first, field) is getattr(second, field)
    assert own[0][0] is others[0][0]
    for record, planned, name in zip(records, plan.evaluations, names, strict=True):
        assert record.nodeid is planned is display_id(f"{name[:5]}{name[5:]}")
