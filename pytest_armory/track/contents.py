"""The contents of artifacts: of files and folders, figures, images and tables."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.records import fields
from pytest_armory.records.fields import dumps
from pytest_armory.values import json_value

TABLES_TAG = "mlflow.loggedArtifacts"
"""The tag by which MLflow's page finds tables: a JSON list of objects with path and type."""


def json_text(value: object) -> str:
    """A JSON artifact's text."""
    return dumps(value, indent=2, ensure_ascii=False)


def files_at(path: Path, folder: str | None) -> dict[str, str | bytes | Path]:
    """A file, or all files under a folder, by their path in the run's folder ``folder``."""
    if not path.exists():
        raise ArmoryUsageError(f"log_artifact: there is no file or folder {str(path)!r}")
    prefix = f"{folder.strip('/')}/" if folder else ""
    if path.is_file():
        return {f"{prefix}{path.name}": path}
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {f"{prefix}{file.relative_to(path.parent).as_posix()}": file for file in files}


def figure_content(figure: Any, name: str, save_options: Mapping[str, Any]) -> str | bytes:
    """A Matplotlib figure in the format that a name ends with, or a Plotly figure as HTML."""
    suffix = _suffix(name)
    if hasattr(figure, "savefig"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, **save_options)
        return buffer.getvalue()
    if hasattr(figure, "to_html") and suffix == "html":
        return str(figure.to_html(**save_options))
    raise ArmoryUsageError(
        f"log_figure: got {type(figure).__name__} for {name!r}; give a Matplotlib "
        "figure with a name such as 'curve.png', or a Plotly figure with 'curve.html'"
    )


def image_content(image: Any, name: str) -> bytes:
    """A picture of Pillow's, an ``mlflow.Image`` or an array, in the format that a name ends with.

    The shape of an array is height, width and optionally 1, 3 or 4 channels; its values are bytes,
    booleans, integers from 0 to 255 or floats from 0 to 1.
    """
    picture = image.to_pil() if hasattr(image, "to_pil") else image
    if hasattr(picture, "astype"):
        picture = _picture_of(picture, name)
    if not hasattr(picture, "save"):
        raise ArmoryUsageError(
            f"log_image: got {type(image).__name__} for {name!r}; give a picture of Pillow's, an "
            "mlflow.Image or a NumPy array, as in log_image(array, 'sample.png')"
        )
    suffix = _suffix(name)
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format="jpeg" if suffix == "jpg" else suffix)
    except (KeyError, OSError, ValueError) as error:
        raise ArmoryUsageError(
            f"log_image: the picture cannot be written as {name!r} ({error}); name a format that "
            "has its colours, as in log_image(image, 'sample.png')"
        ) from None
    return buffer.getvalue()


def _picture_of(array: Any, name: str) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ArmoryUsageError(
            f"log_image: an array becomes a picture by Pillow, which is not installed, for "
            f"{name!r}; type `pip install pillow`"
        ) from None

    shape = tuple(array.shape)
    array = array[..., 0] if shape[2:] == (1,) else array
    kind = array.dtype.kind
    most = 1 if kind in "bf" else 255
    has_shape = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if not has_shape or 0 in shape or kind not in "biuf" or not _is_within(array, most):
        raise ArmoryUsageError(
            f"log_image: got an array of shape {shape} and type {array.dtype} for {name!r}; give "
            "height x width, or height x width x 1, 3 or 4 channels, with integers from 0 to 255 "
            "or floats from 0 to 1"
        )
    scaled = array.astype("float64") * (255 / most)
    return Image.fromarray(scaled.round().astype("uint8"))


def _is_within(array: Any, most: int) -> bool:
    return bool((array >= 0).all() and (array <= most).all())


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


class Tables:
    """The tables of one run, in the form of ``mlflow.log_table``; rows of one name add up."""

    def __init__(self) -> None:
        self._tables: dict[str, list[dict[str, Any]]] = {}
        self.tagged: set[str] = set()
        """The names that are in the tag."""

    def add(self, data: Any, name: str) -> str:
        """Add rows to a table; returns the whole as JSON."""
        if _suffix(name) != "json":
            raise ArmoryUsageError(
                f"log_table: got {name!r}; MLflow shows tables that are JSON, as in "
                "log_table(data, 'predictions.json')"
            )
        rows = self._tables[name] = [*self._tables.get(name, []), *_rows_of(data, name)]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        values = [[row.get(column) for column in columns] for row in rows]
        return dumps({"columns": columns, "data": values}, ensure_ascii=False)

    def tag(self, stored: str | None, problems: list[str], *names: str) -> str:
        """The value of :data:`TABLES_TAG`, after what is stored under it already.

        ``names`` are tables that were stored in another way. What cannot be read of it is left out,
        with a sentence in ``problems``: anyone may set it.
        """
        entries, why = fields.read_text(fields.list_of(fields.anything), stored or "[]")
        if entries is None:
            problems.append(f"the tag {TABLES_TAG} cannot be read: {why}; it is replaced")
        known = dict.fromkeys((*self._tables, *names))
        self.tagged.update(known)
        new = [{"path": name, "type": "table"} for name in known]
        kept = entries or ()
        return dumps([*kept, *(entry for entry in new if entry not in kept)])


def _rows_of(data: Any, name: str) -> list[dict[str, Any]]:
    """The rows of a frame, of columns by name, or of a list of rows by column."""
    if isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
        return [{str(key): json_value(cell) for key, cell in row.items()} for row in data]
    is_frame = hasattr(type(data), "columns") and hasattr(type(data), "to_dict")
    if not isinstance(data, Mapping) and not is_frame:
        raise ArmoryUsageError(
            f"log_table: got {type(data).__name__} for {name!r}; give a frame, lists by column or "
            'a list of rows, as in log_table({"question": […], "answer": […]}, '
            "'predictions.json')"
        )
    columns = {str(key): _cells(data[key]) for key in (data.columns if is_frame else data)}
    lengths = {key: len(cells) for key, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ArmoryUsageError(
            f"log_table: the columns of {name!r} have different lengths, {lengths}; give as many "
            "values for each"
        )
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _cells(column: Any) -> list[Any]:
    """The cells of a column; one for a single value."""
    if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__iter__"):
        return [json_value(column)]
    if hasattr(column, "shape") and tuple(column.shape) == ():
        return [json_value(column)]
    return [json_value(cell) for cell in column]
