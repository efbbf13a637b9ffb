"""What is missing of a session as a whole."""

from __future__ import annotations

import pytest

from pytest_armory.records import JobEnd
from pytest_armory.records.tags import KEY
from pytest_armory.session.whole_session import _waiting
from pytest_armory.store import StoredRun
from pytest_armory.values import short_hash


def end(host: str, *run_ids: str) -> JobEnd:
    """The end of a job at 1,000 ms, of which the attempts at `test_a` with these runs waited."""
    runs = "".join(short_hash("test_a") + short_hash(f"key of {one}") for one in run_ids)
    return JobEnd(waiting=runs, host=host, ended=1000)


def attempt(run_id: str, start: int = 500) -> StoredRun:
    return StoredRun(
        run_id=run_id,
        experiment_id="1",
        name="test_a",
        status="FINISHED",
        start=start,
        end=start,
        seen=start,
        artifact_uri="",
        tags={"armory.nodeid": "test_a", KEY: f"key of {run_id}"},
        metrics={},
        params={},
    )


@pytest.mark.parametrize(
    ("attempts", "counts"),
    [
        ([], [2, 1]),
        ([attempt("first")], [2, 1]),  # an attempt before it
        ([attempt("mine")], [1, 1]),  # uploaded, or the store that it waits in
        ([attempt("again", start=2000)], []),  # another job has run it again
    ],
)
def test_what_waited_when_a_job_ended(attempts: list[StoredRun], counts: list[int]) -> None:
    ends = [end("here", "mine", "second"), end("there", "third"), JobEnd()]
    found = list(_waiting([*ends, ends[0]], attempts))
    assert [int(text.split()[0]) for text in found] == counts
    assert all("run `pytest-armory sync` there" in text for text in found)
    if counts:
        assert "waited on here" in found[0]
        assert "waited on there" in found[1]
