"""What the verdicts of a session depend on: counted, recorded, and agreed by its jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_armory.gates.baselines import Baseline
from pytest_armory.gates.past_runs import PastRun
from pytest_armory.plugin.gate_count import number_of_gates
from pytest_armory.records.fields import UnreadableError
from pytest_armory.records.judging_tag import JUDGING, Judging, read_judging
from pytest_armory.session.judging import difference, note_of_differing, other_number
from pytest_armory.session.plan import Plan
from pytest_armory.session.stored_records import recorded_judging
from pytest_armory.store import StoredRun


def test_it_is_recorded_and_read() -> None:
    judging = Judging("latest", ("a", "b"), 0.9, "fail", True, 5, 40)
    assert read_judging(judging.to_tags()[JUDGING]) == judging


def test_too_many_sessions_are_left_out() -> None:
    judging = Judging("branch:main", tuple(f"session-{i}" for i in range(2000)), gates=3)
    assert read_judging(judging.to_tags()[JUDGING]) == Judging("branch:main", None, gates=3)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"unclear": "perhaps"}', '{"confidence": 2}', '{"pooled": 0}']
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        read_judging(text)


@pytest.mark.parametrize("text", ["{", "[" * 5000, '{"confidence": "x"}', '{"pooled": 1e400}'])
def test_what_cannot_be_read_of_a_session_run_is_named(text: str) -> None:
    problems: list[str] = []
    tags = {"armory.kind": "session", JUDGING: text}
    run = StoredRun("r", "0", "", "RUNNING", 0, None, 0, "", {}, {}, tags)
    assert recorded_judging([run], problems) is None
    (problem,) = problems
    assert problem.startswith(f"the tag {JUDGING} cannot be read: it ")


def test_what_a_job_was_given_besides_is_said() -> None:
    first = Judging("latest", ("a",), gates=3)
    assert difference(first, Judging("latest", gates=1)) == ""
    assert difference(first, Judging("", confidence=0.9, unclear="fail", pooled=5)) == (
        "the session's first job decides: the baseline 'latest', not none; armory_confidence 95, "
        "not 90; --armory-unclear 'pass', not 'fail'; armory_baseline_sessions 1, not 5"
    )


def test_that_the_first_job_counted_other_gates_is_said() -> None:
    text = "the session's first job decides: 1 gate shares the chance of a false alarm, not 6"
    assert other_number(Plan(gates=1, counted=6)) == text
    assert other_number(Plan(gates=6, counted=6)) == other_number(Plan(gates=6)) == ""


def test_a_job_that_began_at_once_says_what_it_has_judged_by() -> None:
    own = Judging("latest", ("a",), unclear="fail", gates=3)
    for other, expected in (
        (replace(own, gates=1), []),
        (replace(own, unclear="pass"), [
            "another job of the session began at once, with --armory-unclear 'pass', not 'fail'; "
            "this job's verdicts are by its own"
        ]),
    ):  # fmt: skip
        tags = {"armory.kind": "session", **other.to_tags()}
        run = StoredRun("r", "0", "", "RUNNING", 0, None, 0, "", {}, {}, tags)
        assert note_of_differing(run, own) == expected
    assert note_of_differing(None, own) == []


def test_gates_are_those_of_markers_and_of_lines_that_the_baseline_holds() -> None:
    runs = {"1": {"a": [PastRun("r", "s", 1, {"accuracy": 1, "loss": 1})], "b": []}}
    baseline = Baseline("latest", {}, runs)
    collected = [("a", frozenset({"accuracy", "f1"})), ("b", frozenset()), ("c", frozenset("x"))]
    assert number_of_gates(collected, {}, baseline) == 3
    assert number_of_gates(collected, {"accuracy": 0, "loss": 0, "new": 0}, baseline) == 4
    assert number_of_gates(collected, {"loss": 0}, Baseline("latest")) == 3
