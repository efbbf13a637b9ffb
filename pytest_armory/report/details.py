"""What a report on a page has besides the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_armory.records import EvaluationRecord
from pytest_armory.report.summary import Summary
from pytest_armory.report.trend import Trend


@dataclass(frozen=True)
class Entry:
    """One evaluation: its last attempt, its parameters, and the tags that a page shows.

    ``failure`` is the end of what pytest reported of it, if it failed and that has been read.
    """

    record: EvaluationRecord
    params: Mapping[str, str] = field(default_factory=dict)
    reproduce: str = ""
    description: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure that a run holds: ``content`` is the file's, ``kind`` its media type."""

    nodeid: str
    path: str
    kind: str
    content: bytes


@dataclass(frozen=True)
class Matrix:
    """A square array that a run holds, as a confusion matrix: rows of numbers."""

    nodeid: str
    path: str
    rows: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Changed:
    """A parameter of an evaluation whose value is another than in the session before."""

    nodeid: str
    name: str
    before: str
    now: str


@dataclass(frozen=True)
class Details:
    """A session for a page: all that :class:`Summary` does not have.

    ``trends`` are those of gated metrics, ``more_trends`` how many were left out; ``changed`` are
    parameters, ``not_compared`` the evaluations whose last run is too long ago to be looked for;
    ``unread`` says whose figures could not be read.
    Times are in milliseconds since the epoch.
    """

    summary: Summary
    entries: Sequence[Entry]
    trends: Sequence[Trend] = ()
    more_trends: int = 0
    changed: Sequence[Changed] = ()
    not_compared: int = 0
    pictures: Sequence[Picture] = ()
    matrices: Sequence[Matrix] = ()
    unread: Sequence[str] = ()
    began: int = 0
    command: str = ""
    job: str = ""
    environment: str = ""
