"""What is taken of another library's result, and how its values are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_armory.records.fields import dumps
from pytest_armory.values.totals import total


@dataclass(frozen=True)
class ResultSamples:
    """Samples that were scored together: one value of each score for each of them, NaN for none."""

    scores: Mapping[str, Sequence[float]]
    ids: Sequence[Any] | None = None
    groups: Sequence[Any] | None = None
    columns: Mapping[str, Sequence[Any]] | None = None
    dataset: str = ""
    higher_is_worse: Sequence[str] = ()

    def renamed(self, names: Mapping[str, str]) -> ResultSamples:
        """The same with other names for some scores."""
        return replace(
            self,
            scores={names.get(name, name): values for name, values in self.scores.items()},
            higher_is_worse=[names.get(name, name) for name in self.higher_is_worse],
        )


@dataclass(frozen=True)
class LibraryResult:
    """The metrics of a result, as :func:`track_metrics` takes them, and its samples.

    ``source`` names what was measured, as an ``Evaluation``'s name does: a second result of that
    source replaces the first, one of another source does not. ``note`` is what its user has to
    know of it, a sentence without its end. ``is_partial`` says that it ended early: the means of
    its samples are no metrics.
    """

    source: str
    metrics: Mapping[str, object]
    samples: Sequence[ResultSamples] = ()
    note: str = ""
    is_partial: bool = False

    def prefixed(self, prefix: str) -> LibraryResult:
        """The same with a prefix for every name."""
        return replace(
            self,
            source=f"{prefix}/{self.source}",
            metrics={f"{prefix}/{name}": value for name, value in self.metrics.items()},
            samples=[
                part.renamed({n: f"{prefix}/{n}" for n in part.scores}) for part in self.samples
            ],
        )


def member(value: Any, name: str) -> Any:
    """An attribute of an object, or a key of a mapping: logs are read as JSON too; or None."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


_WORDS = {
    **dict(zip("CIPN", (1.0, 0.0, 0.5, 0.0), strict=True)),
    **dict.fromkeys(("yes", "true", "pass"), 1.0),
    **dict.fromkeys(("no", "false", "fail"), 0.0),
}
"""What graders say: Inspect's letters, its and MLflow's words, those of ragas' discrete metrics."""


def score_value(value: Any) -> float:
    """A grade as a number, NaN for what is none."""
    if isinstance(value, str):
        return _WORDS.get(value, _WORDS.get(value.lower(), math.nan))
    return float(plain(value)) if is_number(value) else math.nan


def is_number(value: Any) -> bool:
    """Whether it is a number or boolean, NaN too, of Python or of an array library."""
    return isinstance(plain(value), (int, float))


def plain(value: Any) -> Any:
    """A scalar of an array library as Python's; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "shape", ()) == () else value


def mean(values: Iterable[float]) -> float:
    """The mean of the values that are numbers, NaN without any."""
    known = [value for value in values if value == value]
    return total(known) / len(known) if known else math.nan


def text_of(value: Any) -> str | None:
    """A text or number as it is, a mapping or list as JSON; None for everything else and NaN."""
    if isinstance(value, (Mapping, list)):
        return dumps(value, ensure_ascii=False, default=str)
    return str(value) if isinstance(value, (str, int, float)) and value == value else None


def joined_texts(named: Mapping[str, Any]) -> str | None:
    """Texts by name in a line, as of what several metrics raised; None without any."""
    return "; ".join(f"{name}: {v}" for name, v in named.items() if isinstance(v, str)) or None


def plain_columns(**columns: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """The columns that have a value in some row."""
    return {
        name: values
        for name, values in columns.items()
        if any(value is not None for value in values)
    }
