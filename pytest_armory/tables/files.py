"""A table of samples as the two files that are stored with a run."""

from __future__ import annotations

import io
import math
from importlib import import_module
from json import dumps, loads
from pathlib import Path
from typing import Any

from pytest_armory.tables.arrow import ABOUT, SAMPLE, from_arrow, taken, to_arrow
from pytest_armory.tables.table import SampleTable

PARQUET, JSON = "samples.parquet", "samples.json"
"""Their paths in the run's artifacts."""

MOST = 1_000
"""How many rows MLflow's table has at most: the worst ones."""


def sample_files(table: SampleTable, *, is_partial: bool = False) -> dict[str, str | bytes]:
    """All samples as Parquet, and the worst of them in the form of ``mlflow.log_table``.

    ``is_partial`` says that more rows are to come.
    """
    found = to_arrow(table, is_partial=is_partial)
    return {PARQUET: write_parquet(found), JSON: table_json(worst(found, MOST))}


def write_parquet(found: Any) -> bytes:
    """An Arrow table as the bytes of a Parquet file, compressed by zstd.

    Integers and floats are encoded by what they have in common with the value before.
    """
    parquet = import_module("pyarrow.parquet")
    encodings = {name: found[name].type for name in found.column_names}
    scores = loads(found.schema.metadata[ABOUT])["scores"]
    own = {
        **{name: "BYTE_STREAM_SPLIT" for name in scores if not _is_binary(found[name])},
        **({SAMPLE: "DELTA_BINARY_PACKED"} if str(encodings[SAMPLE]) == "int64" else {}),
    }
    buffer = io.BytesIO()
    parquet.write_table(
        found,
        buffer,
        compression="zstd",
        use_dictionary=[name for name in found.column_names if name not in own] or False,
        column_encoding=own or None,
    )
    return buffer.getvalue()


def _is_binary(values: Any) -> bool:
    found = values.to_numpy()
    return bool(((found == 0) | (found == 1) | (found != found)).all())


def preload() -> None:
    """Import what reading and writing take, in time that is nobody's."""
    import_module("pyarrow.parquet")


def read_parquet(content: bytes) -> SampleTable:
    """The samples of a stored ``samples.parquet``; raises :class:`ValueError` for another file."""
    pyarrow = import_module("pyarrow")
    parquet = import_module("pyarrow.parquet")
    try:
        # Arrow's threads may abort a process that ends soon after.
        return from_arrow(parquet.ParquetFile(io.BytesIO(content)).read(use_threads=False))
    except (pyarrow.ArrowException, KeyError) as error:
        raise ValueError(f"it is no file of samples: {error}") from None


def worst(found: Any, most: int) -> Any:
    """The worst rows of an Arrow table, the worst first.

    By its first score, then by the next: rows without a value, then the lowest values; of a score
    that is an error the highest.
    """
    numpy = import_module("numpy")
    about = loads(found.schema.metadata[ABOUT])
    keys = []
    for name in about["scores"]:
        values = found[name].to_numpy()
        key = -values if name in about["higher_is_worse"] else values.copy()
        key[values != values] = -math.inf
        key[found[name].is_null().to_numpy()] = math.inf
        keys.append(key)
    rows = numpy.arange(found.num_rows)
    if len(rows) > most:  # sorting a million takes a second
        first = numpy.partition(keys[0], most - 1)[most - 1]
        rows = numpy.nonzero(keys[0] <= first)[0]
    order = numpy.lexsort([key[rows] for key in reversed(keys)])
    return taken(found, rows[order[:most]])


def table_json(found: Any) -> str:
    """An Arrow table in the form of ``mlflow.log_table``; whole numbers without a fraction."""
    columns = [_cells(found[name]) for name in found.column_names]
    rows = [list(cells) for cells in zip(*columns, strict=True)]
    return dumps({"columns": found.column_names, "data": rows}, ensure_ascii=False)


def _cells(column: Any) -> list[Any]:
    """The values of a column as JSON has them: NaN as null, infinities as texts."""
    if str(column.type) != "double":
        return list(column.to_pylist())
    values = column.to_numpy()
    if (values == values.round()).all() and (abs(values) < 2**53).all():
        return list(values.astype("int64").tolist())
    return [value if math.isfinite(value) else _infinite(value) for value in values.tolist()]


def _infinite(value: float) -> str | None:
    return None if value != value else str(value)


def worst_rows(table: SampleTable, most: int) -> list[list[Any]]:
    """The names of the columns, then the cells of the worst rows."""
    found = worst(to_arrow(table), most)
    columns = [found[name].to_pylist() for name in found.column_names]
    return [found.column_names, *(list(cells) for cells in zip(*columns, strict=True))]


def write_csv(table: SampleTable, path: Path) -> None:
    """All rows as a CSV file; raises :class:`OSError`."""
    import_module("pyarrow.csv").write_csv(to_arrow(table), str(path))
