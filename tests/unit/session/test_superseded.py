"""Failures that another job's verdict has replaced, which was no retry of them."""

from __future__ import annotations

import pytest

from pytest_armory.session.superseded import superseded
from pytest_armory.store import StoredRun


def attempt(
    job: str, start: int, end: int, outcome: str, experiment: str = "1", **tags: str
) -> StoredRun:
    own = {"armory.nodeid": "t.py::test_a", "armory.shard": job, "armory.outcome": outcome}
    return StoredRun(
        run_id=f"{job} {start}",
        experiment_id=experiment,
        name="test_a",
        status="FINISHED",
        start=start,
        end=end,
        seen=start,
        artifact_uri="",
        tags={**own, **{f"armory.{name}": value for name, value in tags.items()}},
        metrics={},
        params={},
    )


FAILED = attempt("a", 100, 300, "failed")


@pytest.mark.parametrize(
    ("attempts", "text"),
    [
        ([FAILED, attempt("b", 200, 400, "passed")], "at the same time"),
        ([FAILED, attempt("b", 300, 400, "passed")], ""),  # run again
        ([FAILED, attempt("b", 200, 400, "failed")], "at the same time"),
        ([FAILED, attempt("a", 300, 400, "passed", attempt="2")], ""),  # a retry in its job
        ([attempt("a", 100, 300, "interrupted"), attempt("b", 200, 400, "passed")], ""),
        ([attempt("a", 100, 300, "passed"), attempt("b", 200, 400, "failed")], ""),  # it counts
        ([FAILED, attempt("b", 500, 600, "passed", experiment="2")], "in another experiment"),
        (  # their notes tell it
            [
                attempt("a", 100, 300, "failed", part="1/2"),
                attempt("b", 200, 400, "passed", part="1/2"),
            ],
            "",
        ),
    ],
)
def test_what_is_said(attempts: list[StoredRun], text: str) -> None:
    found = superseded(attempts)
    assert len(found) == bool(text)
    assert all(text in one and one.endswith("(test_a)") for one in found)


def test_a_job_is_at_work_between_its_evaluations() -> None:
    other = attempt("a", 600, 700, "passed")
    other.tags["armory.nodeid"] = "t.py::test_b"
    assert superseded([FAILED, attempt("b", 400, 500, "passed"), other])
