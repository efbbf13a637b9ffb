"""Reports of one attempt -> its outcome: the whole table."""

from __future__ import annotations

import pytest

from pytest_armory.plugin.lifecycle import Phase, outcome_of
from pytest_armory.records import Outcome


def phases(text: str) -> list[Phase]:
    """``s+ c- t+``: phase and result; ``~`` skipped; ``x`` after it: an xfail mark had a say."""
    whens = {"s": "setup", "c": "call", "t": "teardown"}
    results = {"+": "passed", "-": "failed", "~": "skipped"}
    return [Phase(whens[w[0]], results[w[1]], w.endswith("x")) for w in text.split()]


TABLE = [
    ("s+ c+ t+", Outcome.PASSED, "FINISHED"),
    ("s+ c- t+", Outcome.FAILED, "FAILED"),
    ("s- t+", Outcome.ERROR, "FAILED"),
    ("s+ c+ t-", Outcome.ERROR, "FAILED"),
    ("s+ c- t-", Outcome.ERROR, "FAILED"),
    ("s~ t+", Outcome.SKIPPED, "FINISHED"),
    ("s+ c~ t+", Outcome.SKIPPED, "FINISHED"),
    ("s+ c~ t-", Outcome.ERROR, "FAILED"),
    ("s~x t+", Outcome.XFAILED, "FINISHED"),
    ("s+ c~x t+", Outcome.XFAILED, "FINISHED"),
    ("s+ c+x t+", Outcome.XPASSED, "FINISHED"),
    ("s+ c-x t+", Outcome.FAILED, "FAILED"),
    # Subtests come before their test's own call.
    ("s+ c+ c- c+ t+", Outcome.FAILED, "FAILED"),
    ("s+ c~ c+ t+", Outcome.PASSED, "FINISHED"),
    ("s+ c+ c~ t+", Outcome.SKIPPED, "FINISHED"),
    # No teardown: Ctrl-C, pytest.exit, or the end of the process.
    ("", Outcome.INTERRUPTED, "KILLED"),
    ("s+", Outcome.INTERRUPTED, "KILLED"),
    ("s+ c+", Outcome.INTERRUPTED, "KILLED"),
    ("s+ c-", Outcome.FAILED, "FAILED"),
]


@pytest.mark.parametrize(("text", "outcome", "status"), TABLE)
def test_outcome(text: str, outcome: Outcome, status: str) -> None:
    assert outcome_of(phases(text)) is outcome
    assert outcome.status == status
    assert outcome.is_good is (status == "FINISHED")
