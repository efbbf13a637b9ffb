"""A table of samples as the two files that are stored with a run."""

from __future__ import annotations

import io
import math
from collections.abc import Container, Iterable, Mapping
from importlib import import_module
from json import JSONEncoder
from pathlib import Path
from typing import Any

from pytest_armory.tables.arrow import SAMPLE, about_of, from_arrow, taken, to_arrow
from pytest_armory.tables.table import CHANGE, SampleTable

PARQUET, JSON = "samples.parquet", "samples.json"
"""Their paths in the run's artifacts."""

MOST = 1_000
"""How many rows MLflow's table has at most: the worst ones."""


Changes = Mapping[str, Mapping[object, float]]
"""By how much a score changed against a baseline, by score and by the sample's id."""


def sample_files(
    table: SampleTable, *, is_partial: bool = False, changes: Changes | None = None
) -> dict[str, str | bytes]:
    """All samples as Parquet, and the worst of them in the form of ``mlflow.log_table``.

    ``is_partial`` says that more rows are to come. Where scores changed, the samples that lost come
    first in the latter, and a column ``{score}/change`` says how much.
    """
    found = to_arrow(table, is_partial=is_partial)
    known = {name: changed for name, changed in (changes or {}).items() if changed}
    first = worst(found, MOST, known)
    return {PARQUET: write_parquet(found), JSON: table_json(_with_changes(first, known))}


def _with_changes(found: Any, changes: Changes) -> Any:
    pyarrow = import_module("pyarrow")
    for name, values in _changes_of_rows(found, changes).items():
        after = found.column_names.index(name) + 1
        missing = found[name].is_null().to_numpy()
        found = found.add_column(after, f"{name}{CHANGE}", pyarrow.array(values, mask=missing))
    return found


def write_parquet(found: Any) -> bytes:
    """An Arrow table as the bytes of a Parquet file, compressed by zstd unless it is small.

    Integers and floats are encoded by what they have in common with the value before.
    """
    pyarrow = import_module("pyarrow")
    parquet = import_module("pyarrow.parquet")
    scores = about_of(found)["scores"]
    own = {
        **{name: "BYTE_STREAM_SPLIT" for name in scores if not _is_binary(found[name])},
        **({SAMPLE: "DELTA_BINARY_PACKED"} if str(found[SAMPLE].type) == "int64" else {}),
    }
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(
        found,
        buffer,
        compression="zstd" if found.nbytes > _SMALL else "none",
        use_dictionary=[name for name in found.column_names if name not in own] or False,
        column_encoding=own or None,
    )
    content: bytes = buffer.getvalue().to_pybytes()
    return content


_SMALL = 2**16
"""So many bytes of a table take longer to compress than to store."""


def _is_binary(values: Any) -> bool:
    found = values.to_numpy()
    return bool(((found == 0) | (found == 1) | (found != found)).all())


def preload() -> None:
    """Import what reading and writing take, before the first test."""
    import_module("pyarrow.parquet")


def read_parquet(content: bytes) -> SampleTable:
    """The samples of a stored ``samples.parquet``; raises :class:`ValueError` for another file."""
    pyarrow = import_module("pyarrow")
    parquet = import_module("pyarrow.parquet")
    try:
        # Arrow's threads may abort a process that ends soon after.
        return from_arrow(parquet.ParquetFile(io.BytesIO(content)).read(use_threads=False))
    except (pyarrow.ArrowException, KeyError, TypeError) as error:
        raise ValueError(f"it is no file of samples: {error}") from None


def worst(found: Any, most: int, changes: Changes | None = None) -> Any:
    """The worst rows of an Arrow table, the worst first.

    Those whose scores got worse, if any; then by its first score, then by the next: rows without a
    value, then the lowest values; of a score that is an error the highest.
    """
    numpy = import_module("numpy")
    about = about_of(found)
    lost = _losses(found, changes or {}, about["higher_is_worse"])
    keys = []
    for name in about["scores"]:
        values = found[name].to_numpy()
        key = -values if name in about["higher_is_worse"] else values.copy()
        key[values != values] = -math.inf
        if found[name].null_count:
            key[found[name].is_null().to_numpy()] = math.inf
        keys.append(key)
    rows = numpy.arange(found.num_rows)
    if len(rows) > most:  # sorting a million takes a second
        limit = numpy.partition(keys[0], most - 1)[most - 1]
        rows = numpy.nonzero((keys[0] <= limit) | (lost < 0))[0]
    order = numpy.lexsort([key[rows] for key in (*reversed(keys), lost)])
    return taken(found, rows[order[:most]])


def _losses(found: Any, changes: Changes, higher_is_worse: Container[str]) -> Any:
    """How much each row's scores have lost at most, a number of 0 or below."""
    numpy = import_module("numpy")
    losses = numpy.zeros(found.num_rows)
    for name, change in _changes_of_rows(found, changes).items():
        numpy.minimum(losses, -change if name in higher_is_worse else change, out=losses)
    return losses


def _changes_of_rows(found: Any, changes: Changes) -> dict[str, Any]:
    """By how much each row's scores changed: arrays with 0 where one did not."""
    numpy = import_module("numpy")
    ids = found[SAMPLE].to_pylist() if changes else []
    are_texts = bool(ids) and isinstance(ids[0], str)  # so may be numbers beside other scores' ids
    of_rows = {}
    for name, changed in changes.items():
        known = {str(key): value for key, value in changed.items()} if are_texts else changed
        of_rows[name] = numpy.array([known.get(key, 0.0) for key in ids])
    return of_rows


def table_json(found: Any) -> str:
    """An Arrow table in the form of ``mlflow.log_table``; whole numbers without a fraction."""
    # A list for each row would have the garbage collector run over all objects there are.
    columns = [_cells(found[name]) for name in found.column_names]
    rows = "], [".join(map(", ".join, zip(*columns, strict=True)))
    data = f"[[{rows}]]" if found.num_rows else "[]"
    return f'{{"columns": {_json(found.column_names)}, "data": {data}}}'


_json = JSONEncoder(ensure_ascii=False).encode
_CONSTANTS = {None: "null", True: "true", False: "false"}


def _cells(column: Any) -> Iterable[str]:
    """The values of a column as JSON texts: NaN as null, infinities as texts."""
    if str(column.type) == "int64" and not column.null_count:
        return map(repr, column.to_numpy().tolist())  # several times as fast
    if str(column.type) != "double":
        return map(_cell, column.to_pylist())
    values = column.to_numpy()
    if (values == values.round()).all() and (abs(values) < 2**53).all():
        return map(repr, values.astype("int64").tolist())
    return map(_number, values.tolist())


def _cell(value: Any) -> str:
    if value is None or type(value) is bool:
        return _CONSTANTS[value]
    return repr(value) if type(value) is int else _json(value)


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "null" if value != value else f'"{value}"'


def worst_rows(table: SampleTable, most: int) -> list[list[Any]]:
    """The names of the columns, then the cells of the worst rows."""
    found = worst(to_arrow(table), most)
    columns = [found[name].to_pylist() for name in found.column_names]
    return [found.column_names, *(list(cells) for cells in zip(*columns, strict=True))]


def write_csv(table: SampleTable, path: Path) -> None:
    """All rows as a CSV file; raises :class:`OSError`."""
    import_module("pyarrow.csv").write_csv(to_arrow(table), str(path))
