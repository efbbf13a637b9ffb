"""A table of samples as one Arrow table: the rows of all scores, and how to tell them apart."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any

from pytest_armory.records import fields
from pytest_armory.records.fields import dumps
from pytest_armory.tables.columns import Column, typed
from pytest_armory.tables.table import CHANGE, PREDICTION, TARGET, SampleRows, SampleTable
from pytest_armory.values import redact_text

ABOUT = b"armory"
"""The key of the schema's metadata: a JSON object, see :func:`to_arrow`."""

SAMPLE, GROUP, REPEAT = "sample", "group", "repeat"


@dataclass
class Sheet:
    """Rows that lie side by side: those of scores that were measured on the same samples.

    ``dataset`` is the name of their data, empty where none was given.
    """

    count: int
    dataset: str
    labels: dict[str, Any]
    scores: dict[str, Any]
    columns: dict[str, Any] = field(default_factory=dict)

    def takes(self, other: Sheet) -> bool:
        """Whether another one's scores are of the same samples, with equal columns."""
        shared = self.columns.keys() & other.columns.keys()
        return (
            self.count == other.count
            and (not self.dataset or other.dataset in ("", self.dataset))
            and self.labels.keys() == other.labels.keys()
            and all(_are_equal(self.labels[name], other.labels[name]) for name in self.labels)
            and all(_are_equal(self.columns[name], other.columns[name]) for name in shared)
        )

    def join(self, other: Sheet) -> None:
        """Add another one's scores and columns."""
        self.dataset = self.dataset or other.dataset
        self.scores |= other.scores
        self.columns |= other.columns


def to_arrow(table: SampleTable, *, is_partial: bool = False) -> Any:
    """The samples as a ``pyarrow.Table``.

    Columns: ``sample``; ``group`` and ``repeat`` where there are any; a float for each score;
    ``target`` and ``prediction``; the user's own. Scores that were measured on the same samples
    lie side by side, others, and those of another dataset, below one another: there null says that
    a row has no such score, and NaN that the sample has no value. The schema's metadata says under
    ``armory`` which columns are scores, which of them are errors, of which evaluation they are,
    whether the evaluation had ended, and of which types a column's values were beside which score,
    if of several; without secrets.
    """
    pyarrow = import_module("pyarrow")
    sheets = _sheets(table)
    order = _column_names(sheets)
    chunks = {name: [_arrow_array(_column(sheet, name)) for sheet in sheets] for name in order}
    columns = [_stacked(chunks[name], sheets) for name in order]
    parts = [part for part in table.parts if part.count]
    about = {
        "types": {n: types for n in order if (types := _types_by_score(chunks[n], sheets))},
        "scores": table.names,
        "higher_is_worse": sorted({name for part in parts for name in part.higher_is_worse}),
        "sources": {name: redact_text(part.source) for part, name in table.each_score()},
        "datasets": {name: redact_text(part.dataset) for part, name in table.each_score()},
        "partial": is_partial or table.is_partial,
    }
    return pyarrow.Table.from_arrays(columns, order, metadata={ABOUT: dumps(about)})


def count_rows(table: SampleTable) -> int:
    """How many rows :func:`to_arrow` makes: scores of the same samples lie side by side."""
    if len(table.parts) < 2:
        return table.count
    return sum(sheet.count for sheet in _sheets(table))


def _sheets(table: SampleTable) -> list[Sheet]:
    found: list[Sheet] = []
    for part in table.parts:
        if not part.count:
            continue
        sheet = _sheet_of(part)
        home = next((one for one in found if one.takes(sheet)), None)
        if home is None:
            found.append(sheet)
        else:
            home.join(sheet)
    _rename_columns(found)
    return found


def _rename_columns(sheets: Sequence[Sheet]) -> None:
    """Give columns another name that are named as a score, or as its change.

    One is dropped that has the values of the score: a frame may be given twice.
    """
    scores = {name for sheet in sheets for name in sheet.scores}
    taken_names = scores | {f"{name}{CHANGE}" for name in scores}
    for sheet in sheets:
        for name in sorted(taken_names & sheet.columns.keys()):
            values = sheet.columns.pop(name)
            if name not in sheet.scores or not _are_values(values.tolist(), sheet.scores[name]):
                sheet.columns[f"{name} (column)"] = values


def _are_values(values: list[Any], score: Any) -> bool:
    try:
        numbers = array("d", [math.nan if value is None else value for value in values])
    except TypeError:  # texts are among them
        return False
    return _are_equal(import_module("numpy").asarray(numbers), score)


def _sheet_of(part: SampleRows) -> Sheet:
    labels = {SAMPLE: part.id_array()}
    if part.groups is not None:
        labels[GROUP] = part.groups.array(part.count)
    if part.has_repeats:
        labels[REPEAT] = part.repeat_array()
    columns: dict[str, Any] = {}
    for name, column in part.columns.items():
        column.pad(part.count)
        columns[name] = column.array(part.count)
    scores = {name: part.score_array(name) for name in part.scores}
    dataset = part.dataset if part.dataset != part.source else ""  # which stands for none
    return Sheet(part.count, dataset, labels, scores, columns)


def _are_equal(first: Any, second: Any) -> bool:
    if first.dtype != second.dtype:
        return False
    if first.dtype.kind == "f":
        return bool(import_module("numpy").array_equal(first, second, equal_nan=True))
    return bool((first == second).all())


def _column_names(sheets: Sequence[Sheet]) -> list[str]:
    scores = [name for sheet in sheets for name in sheet.scores]
    columns = {name: None for sheet in sheets for name in sheet.columns}
    own = [name for name in (SAMPLE, GROUP, REPEAT) if any(name in s.labels for s in sheets)]
    first = [name for name in (TARGET, PREDICTION) if name in columns]
    # A column may be named as another is that had to be renamed.
    return [*dict.fromkeys([*own, *scores, *first, *columns])]


def _column(sheet: Sheet, name: str) -> Any:
    for columns in (sheet.labels, sheet.scores, sheet.columns):
        if name in columns:
            return columns[name]
    return None


def _stacked(chunks: Sequence[Any], sheets: Sequence[Sheet]) -> Any:
    """Chunks of one column as one Arrow array; null where a sheet does not have it."""
    if len(chunks) == 1 and chunks[0] is not None:
        return chunks[0]
    pyarrow = import_module("pyarrow")
    kinds = {chunk.type for chunk in chunks if chunk is not None} or {pyarrow.null()}
    kind = next(iter(kinds))
    if len(kinds) > 1:
        chunks, kind = _of_one_type(chunks, kinds)
    return pyarrow.concat_arrays(
        pyarrow.nulls(sheet.count, kind) if chunk is None else chunk
        for chunk, sheet in zip(chunks, sheets, strict=True)
    )


def _types_by_score(chunks: Sequence[Any], sheets: Sequence[Sheet]) -> dict[str, str]:
    """The type of a column's values beside each score; empty where it is one."""
    types = {
        score: str(chunk.type)
        for chunk, sheet in zip(chunks, sheets, strict=True)
        if chunk is not None
        for score in sheet.scores
    }
    return types if len({*types.values()}) > 1 else {}


def _arrow_array(values: Any) -> Any:
    """A NumPy array as an Arrow array; None without one, or without a value."""
    pyarrow = import_module("pyarrow")
    if values is None:
        return None
    if values.dtype.kind != "O":
        return pyarrow.array(values)
    found = values.tolist()
    if all(value is None for value in found):
        return None
    try:
        return pyarrow.array(found)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):  # of several kinds
        return pyarrow.array(list(map(_text, found)), pyarrow.string())


def _text(value: object) -> str | None:
    if value is None or (isinstance(value, float) and value != value):
        return None
    return str(value).encode(errors="backslashreplace").decode()


def _of_one_type(chunks: Sequence[Any], kinds: Iterable[Any]) -> tuple[list[Any], Any]:
    """Arrow arrays of several types as floats where these hold all of them, or else as texts."""
    pyarrow = import_module("pyarrow")
    if {*map(str, kinds)} == {"int64", "double"}:
        kind = pyarrow.float64()
        with suppress(pyarrow.ArrowInvalid):  # an integer that no float is
            return [None if chunk is None else chunk.cast(kind) for chunk in chunks], kind
    kind = pyarrow.string()
    texts = [None if c is None else list(map(_text, c.to_pylist())) for c in chunks]
    return [None if text is None else pyarrow.array(text, kind) for text in texts], kind


def from_arrow(found: Any) -> SampleTable:
    """The samples that :func:`to_arrow` made a table of; raises :class:`ValueError` for others."""
    about = about_of(found)
    table = SampleTable()
    for names, rows in _by_presence(found, [n for n in about["scores"] if n in found.column_names]):
        part = SampleRows(names, source=about["sources"].get(names[0], ""))
        part.dataset = about["datasets"].get(names[0], "")
        part.higher_is_worse = {name for name in names if name in about["higher_is_worse"]}
        part.is_complete = not about["partial"]
        types = {column: each.get(names[0], "") for column, each in about["types"].items()}
        _fill(part, rows, set(about["scores"]), types)
        table.parts.append(part)
    return table


def about_of(found: Any) -> dict[str, Any]:
    """What the schema's metadata says of the scores; raises :class:`ValueError` if it does not."""
    about = _about_in((found.schema.metadata or {}).get(ABOUT, b""))
    if about is None:
        raise ValueError("it does not say which columns are scores")
    empty = {"higher_is_worse": (), "sources": {}, "datasets": {}, "types": {}, "partial": False}
    return {**empty, **about}


@lru_cache(maxsize=1)
def _about_in(text: bytes) -> dict[str, Any] | None:
    about, _ = fields.read_text(_read_about, text)
    return about


_read_about = fields.members_of(
    {
        "scores": fields.list_of(fields.string),
        "higher_is_worse": fields.list_of(fields.string),
        "sources": fields.mapping_of(fields.string),
        "datasets": fields.mapping_of(fields.string),
        "types": fields.mapping_of(fields.mapping_of(fields.string)),
        "partial": fields.boolean,
    },
    required=("scores",),
)


def _by_presence(found: Any, scores: Sequence[str]) -> list[tuple[list[str], Any]]:
    """The scores that the same rows have, each time with these rows."""
    groups: dict[bytes, tuple[list[str], Any]] = {}
    for name in scores:
        present = found[name].is_valid().combine_chunks()
        key = import_module("numpy").packbits(present.to_numpy(zero_copy_only=False)).tobytes()
        groups.setdefault(key, ([], present))[0].append(name)
    return [(names, _present(found, present)) for names, present in groups.values()]


def _present(found: Any, present: Any) -> Any:
    rows = present.to_numpy(zero_copy_only=False)
    return found if rows.all() else taken(found, rows.nonzero()[0])


def taken(found: Any, rows: Any) -> Any:
    """The rows of an Arrow table at these positions; its own `take` starts threads."""
    pyarrow = import_module("pyarrow")
    rows = pyarrow.array(rows)
    columns = [_one_chunk(found[name]).take(rows) for name in found.column_names]
    return pyarrow.table(columns, schema=found.schema)


def _one_chunk(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _fill(part: SampleRows, rows: Any, scores: set[str], types: Mapping[str, str]) -> None:
    part.count = rows.num_rows
    part.ids = _column_of(rows[SAMPLE], types.get(SAMPLE, ""))
    if GROUP in rows.column_names and not rows[GROUP].null_count:
        part.groups = _column_of(rows[GROUP], types.get(GROUP, ""))
    if REPEAT in rows.column_names and not rows[REPEAT].null_count:
        part.set_repeats(rows[REPEAT].to_numpy())
    for name in part.scores:
        part.scores[name] = array("d", rows[name].to_numpy().astype("float64").tobytes())
    for name in rows.column_names:
        if name not in (SAMPLE, GROUP, REPEAT, *scores) and rows[name].null_count < part.count:
            part.columns[name] = _column_of(rows[name], types.get(name, ""))


_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "int64": int,
    "double": float,
    "bool": "True".__eq__,
}


def _column_of(values: Any, before: str = "") -> Column:
    """A column of the type that its values had before others' were stacked with them."""
    kind = str(values.type)
    if kind == "string" and before in _FROM_TEXT:
        read = _FROM_TEXT[before]
        found = [None if text is None else read(text) for text in values.to_pylist()]
        return Column(typed(found))
    if kind == "double" and before == "int64":
        values, kind = values.cast(before), before
    if values.null_count or kind not in ("int64", "double"):
        return Column(values.to_pylist())
    code = "q" if kind == "int64" else "d"
    return Column(array(code, values.to_numpy().tobytes()))


def to_frame(table: SampleTable) -> Any:
    """The samples as a ``pandas.DataFrame``, with ``scores`` and ``partial`` in its ``attrs``."""
    frame = to_arrow(table).to_pandas(use_threads=False)
    frame.attrs.update(scores=table.names, partial=table.is_partial)
    return frame
