"""What the verdicts of a session depend on, agreed by its jobs: the first one's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_armory.records.judging_tag import Judging
from pytest_armory.report.text import plural
from pytest_armory.session.identity import Identity
from pytest_armory.session.plan import Plan
from pytest_armory.session.stored_records import recorded_judging
from pytest_armory.store.destination import Destination
from pytest_armory.sync.tags import waiting_for

if TYPE_CHECKING:
    from pytest_armory.store import StoredRun

_NAMES = {
    "reference": "the baseline",
    "confidence": "armory_confidence",
    "unclear": "--armory-unclear",
    "pooled": "armory_baseline_sessions",
}


def agreed(where: Destination, identity: Identity, own: Judging) -> tuple[Judging, bool, str]:
    """What counts in this job: what the session's first job has recorded, or else its own.

    Whether another job has recorded it, and a sentence if this job was given something else. Raises
    :class:`TrackingError` where the store cannot be read.
    """
    if not (identity.shared and where.exists):
        return own, False, ""
    from pytest_armory.store import open_store

    store = open_store(where)
    problems: list[str] = []
    runs = store.search.session_runs(identity.session, *store.experiments.ids())
    runs = waiting_for(runs, "")
    first = recorded_judging(runs, problems)
    if first is None:
        return own, False, "".join(f"{one}; what this job was given counts" for one in problems)
    return first, True, difference(first, own)


def note_of_differing(first_job: StoredRun | None, own: Judging) -> list[str]:
    """A sentence on what this job has judged by, if that is not what another one has recorded.

    So it is where they began at the same time: then there was nothing to agree on yet.
    """
    first = recorded_judging([first_job] if first_job is not None else [], [])
    differs = _differences(first, own) if first is not None else ""
    end = "this job's verdicts are by its own"
    return [f"another job of the session began at once, with {differs}; {end}"] if differs else []


def difference(first: Judging, own: Judging) -> str:
    """A sentence on what a job was given that is not the first job's; empty if there is nothing.

    >>> difference(Judging("latest", gates=3), Judging("branch:main", gates=2))
    "the session's first job decides: the baseline 'latest', not 'branch:main'"
    """
    differs = _differences(first, own)
    return f"the session's first job decides: {differs}" if differs else ""


def other_number(plan: Plan) -> str:
    """A sentence where the first job has counted another number of gates; empty for the same.

    A job without any has nothing to be judged by it.

    >>> other_number(Plan(gates=3, counted=12)), other_number(Plan(gates=3))
    ("the session's first job decides: 3 gates share the chance of a false alarm, not 12", '')
    """
    if plan.counted in (0, plan.gates):
        return ""
    shared = f"{plural(plan.gates, 'gate')} share{'s' * (plan.gates == 1)}"
    return (
        f"the session's first job decides: {shared} the chance of a false alarm, not {plan.counted}"
    )


def _differences(first: Judging, own: Judging) -> str:
    parts = [
        f"{text} {_as_given(getattr(first, name))}, not {_as_given(getattr(own, name))}"
        for name, text in _NAMES.items()
        if getattr(first, name) != getattr(own, name)
    ]
    return "; ".join(parts)


def _as_given(value: str | float) -> str:
    """A value as options have it: a confidence in percent, and no baseline as "none"."""
    if isinstance(value, float):
        return f"{value * 100:.10g}"
    return repr(value) if value != "" else "none"
