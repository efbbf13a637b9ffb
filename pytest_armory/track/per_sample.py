"""Scores of single samples, for evaluations that have no engine."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from typing import Any

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.tables import RESERVED, UnfitError
from pytest_armory.tables.columns import described, numbers
from pytest_armory.track.context import current_run
from pytest_armory.track.kept_samples import KeptSamples, warn_of_missing
from pytest_armory.track.logged_metrics import LoggedMetrics
from pytest_armory.values.describe import Refused, pairs_of


def track_samples(
    samples: Any,
    /,
    *,
    scores: str | Sequence[str] | None = None,
    ids: Any = None,
    groups: Any = None,
    **columns: Any,
) -> None:
    """Keep one row for each sample with the current run, and log the scores' means as metrics.

    ``samples`` are scores by name, one number or boolean for each sample: arrays, tensors, lists,
    Series. Or rows: a DataFrame, a list of dictionaries, dataclasses or models; then ``scores``
    names the columns that are scores, and ``ids`` and ``groups`` may name columns. ``ids`` are
    integers or texts, all different, the position unless given; ``groups`` says which samples
    belong together. Other columns are kept for reading; ``target`` and ``prediction`` have a
    meaning. A further call with the same scores adds rows, one with others adds scores.

    None and NaN are no value: the row is kept, and left out of the mean, with a
    :class:`MetricWarning`. Raises :class:`ArmoryUsageError` for columns of different lengths,
    repeated ids and reserved names. Outside every evaluation nothing is kept.
    """
    run = current_run()
    # Checked without a run too: a test must not depend on being tracked.
    kept = run.writer.samples if run is not None else KeptSamples(LoggedMetrics())
    try:
        if _is_rows(samples, scores):
            given, ids, groups, columns = _from_rows(samples, scores, ids, groups, columns)
        else:
            given = samples
        found = _checked(given, ids, groups, columns)
        kept.add(found, ids=ids, groups=groups, columns=columns)
    except UnfitError as error:
        raise ArmoryUsageError(f"track_samples: {error}") from None
    if run is not None:
        run.writer.was_used = True
        run.writer.store_samples_on_the_way()
    warn_of_missing(found)


def _checked(
    scores: Mapping[str, Any], ids: Any, groups: Any, columns: Mapping[str, Any]
) -> dict[str, array[float]]:
    """The scores as floats, all of one length; reserved names are refused."""
    if not scores:
        raise UnfitError(
            "got no score; give at least one, as in track_samples({'accuracy': right})"
        )
    for name in scores:
        if not isinstance(name, str) or not name:
            raise UnfitError(f"the name of a score must be a text, got {name!r}")
        if name in (*RESERVED, "target", "prediction"):
            raise UnfitError(f"a score must not be named {name!r}, as a column is; rename it")
    for name in columns:
        if name in (*RESERVED, *scores):
            raise UnfitError(
                f"a column must not be named {name!r}, which the table has already; rename it"
            )
    for name, value in (("ids", ids), ("groups", groups)):
        if isinstance(value, str):
            raise UnfitError(
                f"{name}={value!r} names a column, but there are no rows; give one for each sample"
            )
    found = {name: numbers(values, f"the score {name!r}") for name, values in scores.items()}
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name!r} {length:,}" for name, length in lengths.items())
        raise UnfitError(f"all scores must have one value for each sample, got {each}")
    return found


# Rows


def _is_rows(samples: Any, scores: object) -> bool:
    """Whether it is rows, or columns of which ``scores`` names some, and not scores by name."""
    if isinstance(samples, Mapping):
        return scores is not None
    return True


def _from_rows(
    samples: Any,
    scores: str | Sequence[str] | None,
    ids: Any,
    groups: Any,
    columns: Mapping[str, Any],
) -> tuple[dict[str, Any], Any, Any, dict[str, Any]]:
    """Scores, ids, groups and other columns of rows."""
    found = _columns_of(samples)
    if scores is None:
        raise UnfitError(
            f"got rows with the columns {_listed(found)}; say which of them are scores, as in "
            f"track_samples(rows, scores=[{_likely_score(found)!r}])"
        )
    names = [scores] if isinstance(scores, str) else list(scores)
    used = {*names, *(name for name in (ids, groups) if isinstance(name, str))}
    for name in used:
        if name not in found:
            near = get_close_matches(str(name), found, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnfitError(f"rows have no column {name!r}, but {_listed(found)}{hint}")
    return (
        {name: found[name] for name in names},
        found[ids] if isinstance(ids, str) else ids,
        found[groups] if isinstance(groups, str) else groups,
        {**{name: values for name, values in found.items() if name not in used}, **columns},
    )


def _likely_score(columns: Mapping[str, Any]) -> str:
    """The last of the columns that begin with a number: ids come before scores."""
    found = [name for name, values in columns.items() if _begins_with_number(values)]
    return (found or [*columns, "right"])[-1]


def _begins_with_number(values: Any) -> bool:
    first = next(iter(values), None)
    return isinstance(first, Real) or type(first).__name__ == "bool_"


def _columns_of(samples: Any) -> dict[str, Any]:
    """The columns of a mapping, a frame, or rows of named members."""
    if isinstance(samples, Mapping):
        return {str(name): values for name, values in samples.items()}
    if hasattr(type(samples), "columns") and hasattr(type(samples), "to_dict"):
        return {str(name): samples[name] for name in samples.columns}
    members = [pairs_of(row) for row in samples] if isinstance(samples, Iterable) else []
    rows = [
        {name: value for name, value in pairs if type(value) is not Refused}  # which is no value
        for pairs in members
        if pairs is not None
    ]
    if not rows or len(rows) < len(members):
        raise UnfitError(
            f"got {described(samples)}; give scores by name, as in track_samples({{'accuracy': "
            "right}), or rows: a DataFrame, a list of dictionaries, dataclasses or models"
        )
    names = dict.fromkeys(name for row in rows for name in row)
    return {str(name): [row.get(name) for row in rows] for name in names}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
