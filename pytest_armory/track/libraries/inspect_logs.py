"""Inspect's ``EvalLog``, and the path of one: a file ``.eval`` or ``.json``."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from textwrap import shorten
from typing import Any
from zipfile import BadZipFile, ZipFile

from pytest_armory.records import fields
from pytest_armory.records.fields import UnreadableError
from pytest_armory.track.libraries.result import (
    LibraryResult,
    ResultSamples,
    member,
    plain_columns,
    score_value,
    text_of,
)
from pytest_armory.values import Refused

_HEADERS = ("header.json", "_journal/start.json")
"""The file that says what was evaluated: of a finished log, and of one that was killed."""

_ZSTANDARD = 93
"""The number of Zstandard among the compressions of ZIP archives."""


def read(value: Any) -> LibraryResult | None:
    """The metrics of each scorer as ``{scorer}/{metric}``, ``samples``, ``errors``; its samples.

    A reducer of epochs that is not the mean is part of the name, ``{scorer}/{reducer}/{metric}``.
    A log that ended early has no metrics, and the samples that were done.
    """
    if isinstance(value, (str, PathLike)):
        value = _from_path(Path(value))
    if isinstance(value, Refused):
        return LibraryResult("Inspect", {"log": value})
    if not _is_log(value):
        return None
    evaluated, results = member(value, "eval"), member(value, "results")
    known = member(value, "samples")  # None of a log of which the header alone was read
    samples = list(known or [])
    is_partial = results is None and member(value, "status") != "success"
    measured = list(member(results, "scores") or [])
    scores = measured or _planned(evaluated, samples)  # no samples were scored
    counts = _counts(results, None if known is None else samples)
    metrics = {**_measured(measured), **counts}
    name = str(member(evaluated, "task"))
    dataset = member(member(evaluated, "dataset"), "name") or name
    parts = list(_samples(scores, samples, str(dataset)))
    return LibraryResult(name, metrics, parts, _note_of(value), is_partial)


def _note_of(log: Any) -> str:
    """How an evaluation ended that did not succeed: Inspect's ``eval()`` does not raise."""
    status = member(log, "status")
    reason = member(member(log, "error"), "message")
    why = f": {shorten(str(reason), 300, placeholder=' ...')}" if reason else ""
    return "" if status == "success" else f"its log has the status {status!r}{why}"


def _is_log(value: Any) -> bool:
    evaluated = member(value, "eval")
    return member(evaluated, "task") is not None and member(value, "status") in (
        *("started", "success", "cancelled", "error"),
    )


def _measured(scores: Iterable[Any]) -> dict[str, object]:
    metrics: dict[str, object] = {}
    for score in scores:
        for key, metric in (member(score, "metrics") or {}).items():
            metrics[f"{_name_of(score)}/{key}"] = member(metric, "value")
        for count in ("scored_samples", "unscored_samples"):
            if member(score, count) is not None:
                metrics[f"{_name_of(score)}/{count}"] = member(score, count)
    return metrics


def _planned(evaluated: Any, samples: Iterable[Any]) -> list[Any]:
    """What the results of a log without any would have had for scores, without their values."""
    known = member(evaluated, "scorers") or []
    planned = {str(member(scorer, "name")): member(scorer, "metrics") for scorer in known}
    found: dict[tuple[str, str], None] = {}
    for sample in samples:
        for scorer, score in (member(sample, "scores") or {}).items():
            value = member(score, "value")
            names = value if isinstance(value, Mapping) else [scorer]
            found |= dict.fromkeys((scorer, str(name)) for name in names)
    return [
        {
            "name": name,
            "scorer": scorer,
            "metrics": dict.fromkeys(
                _planned_metrics(
                    planned.get(scorer) or planned.get(scorer.rstrip("0123456789")),
                    "" if name == scorer else name,
                )
            ),
        }
        for scorer, name in found or dict.fromkeys((scorer, scorer) for scorer in planned)
    ]


def _planned_metrics(definitions: Any, part: str) -> Iterator[str]:
    """The names of a scorer's metrics, or those of one of the parts of its scores."""
    entries = [definitions] if isinstance(definitions, Mapping) else definitions or []
    for entry in entries:
        name = member(entry, "name")
        if isinstance(name, str):
            yield from [] if part else [name.rpartition("/")[2]]
        elif isinstance(entry, Mapping) and part:
            yield from _planned_metrics(entry.get(part, entry.get("*")), "")


def _counts(results: Any, samples: list[Any] | None) -> dict[str, object]:
    """``samples`` and ``errors``; nothing where neither results nor samples say them."""
    total, completed = (member(results, f"{word}_samples") for word in ("total", "completed"))
    if total is None:  # a log that was broken off has no results
        if samples is None:
            return {}
        total = len(samples)
        completed = sum(member(sample, "error") is None for sample in samples)
    return {"samples": completed, "errors": total - completed}


def _name_of(score: Any) -> str:
    """The name of a scorer's results, whatever other scorers there are."""
    name, scorer = str(member(score, "name")), str(member(score, "scorer") or "")
    is_part = scorer and name != scorer and not name.removeprefix(scorer).isdigit()
    reducer = member(score, "reducer")
    parts = [scorer] if is_part else []
    return "/".join([*parts, name, *([str(reducer)] if reducer not in (None, "mean") else [])])


def _samples(scores: list[Any], samples: list[Any], dataset: str) -> Iterable[ResultSamples]:
    """The rows of all samples with a value for each scorer."""
    if not samples:
        return
    named = {
        _score_name(score): [_value_of(sample, score) for sample in samples]
        for score in scores
        if member(score, "reducer") in (None, "mean")
    }
    errors = [member(member(sample, "error"), "message") for sample in samples]
    valued = {name: values for name, values in named.items() if any(v == v for v in values)}
    named = valued or (named if any(errors) else {})
    if not named:
        return
    ids = [str(member(sample, "id")) for sample in samples]
    epochs = [member(sample, "epoch") or 1 for sample in samples]
    has_epochs = len(set(epochs)) > 1
    yield ResultSamples(
        named,
        [f"{i} epoch {n}" for i, n in zip(ids, epochs, strict=True)] if has_epochs else ids,
        ids if has_epochs else None,
        plain_columns(
            input=[text_of(member(sample, "input")) for sample in samples],
            target=[text_of(member(sample, "target")) for sample in samples],
            prediction=[_answer_of(sample) for sample in samples],
            error=errors,
        ),
        dataset,
    )


def _score_name(score: Any) -> str:
    """The metric that is the mean of a scorer's values, or the scorer.

    ``all`` is that of ``grouped(accuracy(), …)``, beside those of the groups.
    """
    known = member(score, "metrics") or {}
    mean = next((f"/{name}" for name in ("accuracy", "mean", "all") if name in known), "")
    return f"{_name_of(score)}{mean}"


def _value_of(sample: Any, score: Any) -> float:
    found = member(sample, "scores") or {}
    name, scorer = member(score, "name"), member(score, "scorer")
    if name in found:
        return score_value(member(found[name], "value"))
    values = member(found.get(scorer), "value")
    return score_value(values.get(name)) if isinstance(values, Mapping) else math.nan


def _answer_of(sample: Any) -> str | None:
    answers = (member(score, "answer") for score in (member(sample, "scores") or {}).values())
    found = next((answer for answer in answers if answer is not None), None)
    if found is not None:
        return text_of(found)
    output = member(sample, "output")
    if not isinstance(output, Mapping):
        return text_of(member(output, "completion"))
    choices = output.get("choices") or [{}]
    return text_of(output.get("completion") or member(member(choices[0], "message"), "content"))


def _from_path(path: Path) -> Any:
    """The log at a path, as JSON has it; None for a path of anything else."""
    if path.suffix == ".eval":
        return _from_archive(path)
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        return fields.json_value(path.read_bytes())
    except ValueError:
        return None


def _from_archive(path: Path) -> Any:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            first = next((name for name in _HEADERS if name in names), None)
            if first is None:
                return Refused(f"{path.name} is no log of Inspect's")
            parts = [n for n in names if n.startswith("samples/") and n.endswith(".json")]
            header, *samples = (_read(_content(archive, name)) for name in (first, *parts))
            return {"status": "started", **header, "samples": samples}
    except FileNotFoundError:
        return Refused(f"there is no log at {path}")
    except (BadZipFile, UnreadableError):
        return Refused(f"{path.name} is no log of Inspect's")


def _read(content: bytes) -> dict[str, object]:
    return fields.mapping_of(fields.anything)(fields.json_value(content))


def _content(archive: ZipFile, name: str) -> bytes:
    """A file of an archive; Inspect writes them with Zstandard."""
    info = archive.getinfo(name)
    if info.compress_type != _ZSTANDARD or sys.version_info >= (3, 14):
        return archive.read(name)
    file = archive.fp
    assert file is not None  # it is open
    file.seek(info.header_offset + 26)  # where the lengths of the name and the extra field are
    lengths = file.read(4)
    file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), 1)
    from pytest_armory.tables.zstd import decompressed

    return decompressed(file.read(info.compress_size))
