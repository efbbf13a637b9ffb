"""The rows of an evaluation's samples while they are added, and the table of all of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from threading import RLock
from typing import Any

from pytest_armory.tables.columns import Column, UnfitError, Values, as_numpy, labels, typed
from pytest_armory.tables.score import Score
from pytest_armory.tables.texts import kept_labels, kept_texts
from pytest_armory.values import REDACTED, clip, is_secret_key
from pytest_armory.values.totals import total

RESERVED = ("sample", "group", "repeat", "error")
"""The names of the table's own columns, which no score and no column of a user may have."""

TARGET, PREDICTION = "target", "prediction"

CHANGE = "/change"
DERIVED = ("/ci_low", "/ci_high", CHANGE)
"""What the names of a score's interval, and of its change in MLflow's table, end with."""


class SampleRows:
    """The rows of scores that were measured together, of one evaluation or by ``track_samples``.

    ``source`` is the name of the evaluation, ``dataset`` that of its data; ``higher_is_worse``
    names the scores that are errors. Rows are partial until ``is_complete`` is set.
    """

    def __init__(
        self, scores: Sequence[str], *, source: str = "", dataset: str = "", repeat: int = 0
    ) -> None:
        self.scores: dict[str, array[float]] = {name: array("d") for name in scores}
        self.columns: dict[str, Column] = {}
        self.source, self.dataset = source, dataset
        self.higher_is_worse: set[str] = set()
        self.count = 0
        self.is_complete = False
        self.ids: Column | None = None
        self.groups: Column | None = None
        self._starts = [0] * (repeat + 1)
        self._means = {name: _GrowingMean() for name in scores}
        self._last = -1
        self._seen: set[object] | None = None

    def add(
        self,
        scores: Mapping[str, array[float]],
        *,
        ids: Any = None,
        groups: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Add rows; ids are the positions, counted on, unless given. Raises :class:`UnfitError`.

        A column is kept as text where it is neither numbers nor booleans.
        """
        count = len(next(iter(scores.values())))
        own_ids = self._checked_ids(ids, count)
        own_groups = self._checked_groups(groups, count)
        new = {name: _kept(name, values, count) for name, values in (columns or {}).items()}
        if own_ids is not None:
            self._refuse_repeated(own_ids)  # last: it remembers them
        for name, values in scores.items():
            self.scores[name].extend(values)
        if own_ids is not None:
            self.ids = _extended(self.ids, own_ids)
        if own_groups is not None:
            self.groups = _extended(self.groups, own_groups)
        for name, column in new.items():
            known = self.columns.setdefault(name, Column([]))
            known.pad(self.count)
            known.extend(column)
        self.count += count

    def mean(self, name: str) -> float | None:
        """The mean of a score so far, without the rows that have no value; None without any."""
        return self._means[name].of(self.scores[name])

    def _checked_ids(self, ids: Any, count: int) -> array[int] | list[str] | None:
        if self.count and (ids is None) != (self.ids is None):
            raise UnfitError("ids must be given with all rows of the same scores, or with none")
        if ids is None:
            return None
        found = labels(ids, "ids")
        _check_length("ids", found, count)
        return kept_labels("sample", found) if isinstance(found, list) else found

    def _refuse_repeated(self, ids: array[int] | list[str]) -> None:
        if self._seen is None:
            # Ascending integers are distinct; a set of a million would take 60 MB.
            if isinstance(ids, array) and _are_ascending(ids, self._last):
                self._last = ids[-1] if ids else self._last
                return
            start = self._starts[-1]
            known: Values = self.ids.values[start:] if self.ids is not None else []
            self._seen = {*known}
        new: set[object] = set()
        for one in ids:
            if one in self._seen or one in new:
                shown = clip(one, 100) if isinstance(one, str) else one
                hidden = " (secrets are redacted)" if REDACTED in str(one) else ""
                raise UnfitError(
                    f"ids must differ, got {shown!r}{hidden} more than once; give each sample an "
                    "id of its own, and say with groups= which belong together"
                )
            new.add(one)
        if self._seen:
            self._seen |= new
        else:  # a second set of a million ids would take 60 MB
            self._seen = new

    def _checked_groups(self, groups: Any, count: int) -> array[int] | list[str] | None:
        if self.count and (groups is None) != (self.groups is None):
            raise UnfitError("groups must be given with all rows of the same scores, or with none")
        if groups is None:
            return None
        found = labels(groups, "groups")
        _check_length("groups", found, count)
        return kept_labels("group", found) if isinstance(found, list) else found

    def begin_repeat(self) -> None:
        """Begin another repeat: positions start anew, and ids may come again."""
        self._starts.append(self.count)
        self._seen, self._last = None, -1

    def restart(self) -> None:
        """Drop the rows of this repeat: the same evaluation is run again."""
        start = self._starts[-1]
        self.count, self.is_complete = start, False
        self._seen, self._last = None, -1
        for name, values in self.scores.items():
            del values[start:]
            self._means[name] = _GrowingMean()
        for column in (*self.columns.values(), self.ids, self.groups):
            if column is not None:
                column.truncate(start)

    def rename(self, names: Mapping[str, str]) -> None:
        """Give scores other names."""
        self.scores = {names.get(name, name): values for name, values in self.scores.items()}
        self._means = {names.get(name, name): mean for name, mean in self._means.items()}
        self.higher_is_worse = {names.get(name, name) for name in self.higher_is_worse}

    # As NumPy arrays

    def id_array(self) -> Any:
        """The id of each row: int64 or texts."""
        if self.ids is not None:
            return self.ids.array(self.count)
        numpy = import_module("numpy")
        if not self.has_repeats:
            return numpy.arange(self.count)
        return numpy.arange(self.count) - numpy.asarray(self._starts)[self.repeat_array()]

    def repeat_array(self) -> Any:
        """The repeat of each row, counted from 0."""
        numpy = import_module("numpy")
        ends = numpy.asarray([*self._starts[1:], self.count])
        return numpy.repeat(numpy.arange(len(ends)), ends - numpy.asarray(self._starts))

    def set_repeats(self, repeats: Any) -> None:
        """Say in which repeat each row was added: ascending numbers."""
        last = int(repeats[-1]) if len(repeats) else 0
        self._starts = [int(start) for start in repeats.searchsorted(range(last + 1))]

    @property
    def has_repeats(self) -> bool:
        """Whether it has rows of a second repeat."""
        return len(self._starts) > 1

    def score_array(self, name: str) -> Any:
        """The values of one of its scores: float64, NaN where there is none."""
        return as_numpy(self.scores[name], self.count)

    def score(self, name: str) -> Score:
        """One of its scores."""
        count = self.count

        def column(known: Column | None) -> Any:
            return None if known is None else known.array(count)

        for known in self.columns.values():
            known.pad(count)
        return Score(
            name,
            self.id_array(),
            self.score_array(name),
            column(self.groups),
            self.repeat_array() if self.has_repeats else None,
            column(self.columns.get(TARGET)),
            column(self.columns.get(PREDICTION)),
        )


@dataclass
class _GrowingMean:
    """The mean of values to which others are added, without those that are NaN."""

    rows: int = 0
    count: int = 0
    sums: list[float] = field(default_factory=list)

    def of(self, values: array[float]) -> float | None:
        """The mean of all values, of which only the new ones are added; None without any."""
        valid = [value for value in values[self.rows :] if value == value]
        self.rows, self.count = len(values), self.count + len(valid)
        self.sums.append(total(valid))
        if len(self.sums) > 1000:
            self.sums[:] = [total(self.sums)]
        return total(self.sums) / self.count if self.count else None


class SampleTable:
    """All samples of one evaluation: rows of scores that were measured together."""

    def __init__(self) -> None:
        self.parts: list[SampleRows] = []
        self.lock = RLock()
        """Held while rows are added or all are read: threads of one evaluation share its table."""
        self.is_interrupted = False
        """Whether the test was interrupted: then ``track_samples`` may not have had all rows."""
        self._repeat = 0
        self._checked: object = None
        """The names of scores that were checked last, and all there were."""

    def __bool__(self) -> bool:
        return any(part.count for part in self.parts)

    @property
    def count(self) -> int:
        """The number of rows of all parts."""
        return sum(part.count for part in self.parts)

    @property
    def is_partial(self) -> bool:
        """Whether rows may be missing: of an evaluation that has not ended, or was interrupted."""
        return any(
            not part.is_complete or (self.is_interrupted and not part.source)
            for part in self.parts
            if part.count
        )

    @property
    def names(self) -> list[str]:
        """The names of all scores."""
        return [name for part in self.parts if part.count for name in part.scores]

    def score(self, name: str) -> Score | None:
        """The score of that name, or None."""
        part = self.part_of(name)
        return None if part is None else part.score(name)

    def part_of(self, name: str) -> SampleRows | None:
        """The rows that have the score of that name, or None."""
        return next((part for part in self.parts if name in part.scores and part.count), None)

    def column(self, name: str) -> tuple[Any, Any] | None:
        """The ids and values of the rows that have a column of that name, or None."""
        parts = [part for part in self.parts if name in part.columns]
        if not parts:
            return None
        numpy = import_module("numpy")
        for part in parts:
            part.columns[name].pad(part.count)
        ids = [part.id_array() for part in parts]
        values = [part.columns[name].array(part.count) for part in parts]
        return numpy.concatenate(ids), numpy.concatenate(values)

    def rows_of(self, source: str, scores: Sequence[str], dataset: str = "") -> SampleRows:
        """The rows of an evaluation, dropped first if it was run before; or new ones.

        Rows of other scores are dropped too where it had some of these before.
        """
        found = None
        for part in [part for part in self.parts if part.source == source]:
            if part.scores.keys().isdisjoint(scores):
                continue
            part.restart()
            if list(part.scores) == list(scores):
                found = part
            elif not part.count:
                self.parts = [one for one in self.parts if one is not part]
        return found or self._opened(
            SampleRows(scores, source=source, dataset=dataset, repeat=self._repeat)
        )

    def rows_of_scores(self, scores: Sequence[str]) -> SampleRows:
        """The rows to which ``track_samples`` adds those of these scores.

        Raises :class:`UnfitError` where another one has some of these scores.
        """
        self.parts = [part for part in self.parts if part.count or part.source]  # refused ones
        for part in self.parts:
            shared = [name for name in scores if name in part.scores]
            if not part.source and shared and set(part.scores) == set(scores):
                return part
            if shared and part.source:
                raise UnfitError(
                    f"the score {shared[0]!r} is one of the evaluation {part.source!r}; take "
                    "another name"
                )
            if shared:
                raise UnfitError(
                    f"rows of the score {shared[0]!r} came with {_listed(part.scores)} before, and "
                    f"now with {_listed(scores)}; give the same scores with all rows"
                )
        return self._opened(SampleRows(scores, repeat=self._repeat))

    def check_scores(self, scores: Iterable[str]) -> None:
        """Refuse scores whose names columns or intervals have; raises :class:`UnfitError`."""
        scores = set(scores)
        every = {*scores, *(name for part in self.parts for name in part.scores)}
        if self._checked == (scores, every):  # by each batch
            return
        for name in sorted(scores & {*RESERVED, TARGET, PREDICTION}):
            raise UnfitError(f"a score must not be named {name!r}, as a column is; rename it")
        derived = {f"{name}{end}": name for name in every for end in DERIVED}
        for name in sorted(every & derived.keys()):
            raise UnfitError(
                f"the score {name!r} has the name of what is derived from {derived[name]!r}; take "
                "another name"
            )
        self._checked = (scores, every)

    def _opened(self, rows: SampleRows) -> SampleRows:
        self.parts.append(rows)
        return rows

    def begin_repeat(self) -> None:
        """Begin another repeat of the evaluation's body."""
        self._repeat += 1
        for part in self.parts:
            part.begin_repeat()

    def each_score(self) -> Iterator[tuple[SampleRows, str]]:
        """The name of each score, with the rows that have it."""
        yield from ((part, name) for part in self.parts if part.count for name in part.scores)


def _are_ascending(ids: array[int], after: int) -> bool:
    return not ids or (ids[0] > after and all(a < b for a, b in pairwise(ids)))


def _extended(column: Column | None, values: array[int] | list[str]) -> Column:
    if column is None:
        return Column(values)
    column.extend(values)
    if isinstance(column.values, list) and not isinstance(values, list):
        column.values = list(map(str, column.values))
    elif isinstance(column.values, list):
        column.values[:] = map(str, column.values)
    return column


def _kept(name: str, values: Any, count: int) -> Values:
    found = typed(values, f"the column {name!r}")
    _check_length(f"the column {name!r}", found, count)
    are_numbers = isinstance(found, array) or {*map(type, found)} <= {bool, type(None)}
    if are_numbers and not is_secret_key(name):
        return found
    return kept_texts(name, list(found))


def _check_length(what: str, values: Values, count: int) -> None:
    if len(values) != count:
        raise UnfitError(
            f"{what} must hold one value for each of {count:,} samples, got {len(values):,}"
        )


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(map(repr, names))
