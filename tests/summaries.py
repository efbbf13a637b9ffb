"""Records and summaries for the tests of reports."""

from __future__ import annotations

from hypothesis import strategies as st

from pytest_armory.records import EvaluationRecord, Outcome, Verdict
from pytest_armory.report.summary import Summary

anything = st.text(st.characters(), max_size=80)
outcomes = st.none() | st.sampled_from(Outcome)
records = st.lists(
    st.builds(
        EvaluationRecord,
        nodeid=anything,
        attempt=st.integers(1, 3),
        outcome=outcomes,
        duration=st.floats(0, 1e6),
        metrics=st.dictionaries(anything, st.floats(), max_size=5),
        url=st.none() | st.just("http://h/#/x"),
    ),
    max_size=8,
)


def summary(given: list[EvaluationRecord], **more: object) -> Summary:
    return Summary(session="s", where="here", records=given, **more)  # type: ignore[arg-type]


def many(count: int, bad: int = 0) -> list[EvaluationRecord]:
    return [
        EvaluationRecord(
            f"t.py::test[{i}]", outcome=Outcome.FAILED if i < bad else Outcome.PASSED, duration=1.0
        )
        for i in range(count)
    ]


def verdict(metric: str, state: str, higher_is_worse: bool = False, text: str = "") -> Verdict:
    return Verdict(metric, "", state, 1.0, 1.0, text=text, higher_is_worse=higher_is_worse)
