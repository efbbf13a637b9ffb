"""The outcome of an attempt from its setup, call and teardown reports. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_armory.records import Outcome


@dataclass(frozen=True)
class Phase:
    """What pytest reported for one phase; a test with subtests has several ``call`` phases.

    ``when`` is ``setup``, ``call`` or ``teardown``; ``outcome`` pytest's ``passed``, ``failed`` or
    ``skipped``; ``expected_failure`` whether an ``xfail`` mark applied (pytest's ``wasxfail``).
    """

    when: str
    outcome: str
    expected_failure: bool = False


def outcome_of(phases: Sequence[Phase]) -> Outcome:
    """The outcome of an attempt whose phases have all been reported.

    A failure in setup or teardown is an ``error``, whatever the body did; a failed subtest fails
    its test; a skipped subtest does not skip it. An attempt without a teardown was interrupted.
    """
    if any(p.when != "call" and p.outcome == "failed" for p in phases):
        return Outcome.ERROR
    if any(p.outcome == "failed" for p in phases):
        return Outcome.FAILED
    if not any(p.when == "teardown" for p in phases):
        return Outcome.INTERRUPTED
    deciding = _deciding(phases)
    if deciding.outcome == "skipped":
        return Outcome.XFAILED if deciding.expected_failure else Outcome.SKIPPED
    return Outcome.XPASSED if deciding.expected_failure else Outcome.PASSED


def _deciding(phases: Sequence[Phase]) -> Phase:
    """The last call is the test's own, those before it are subtests; else setup ended it."""
    calls = [p for p in phases if p.when == "call"]
    if calls:
        return calls[-1]
    skipped = [p for p in phases if p.outcome == "skipped"]
    return skipped[0] if skipped else phases[-1]
