"""One score of an evaluation, as arrays; and the digest of the data that it is of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from pytest_armory.values.totals import differences, total

_NEAR = 1e-6
"""How far a metric may be from the mean of its samples, relatively: in float32 it is so far."""

DIGEST_LENGTH = 32
"""Hexadecimal digits; MLflow stores up to 36 characters of a dataset's digest."""


@dataclass(frozen=True)
class Score:
    """The samples of one score.

    All arrays have shape (n,): ``ids`` and ``groups`` int64 or texts (dtype object), ``values``
    float64 with NaN for a sample that had an error, ``repeats`` int64 counted from 0, ``targets``
    and ``predictions`` int64, float64 or objects.
    """

    name: str
    ids: Any
    values: Any
    groups: Any = None
    repeats: Any = None
    targets: Any = None
    predictions: Any = None

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def digest(self) -> str:
        """Which data it is: equal for equal pairs (id, target), in whatever order."""
        return digest(self.ids, self.targets)

    @cached_property
    def valid(self) -> Score:
        """The samples whose value is not NaN."""
        known = self.values == self.values
        return self if known.all() else self.selected(known)

    def selected(self, rows: Any) -> Score:
        """The samples of a mask, or of indices."""

        def of(values: Any) -> Any:
            return None if values is None else values[rows]

        return Score(
            self.name,
            self.ids[rows],
            self.values[rows],
            of(self.groups),
            of(self.repeats),
            of(self.targets),
            of(self.predictions),
        )

    def of_ids(self, ids: Any) -> Score:
        """The samples with one of these ids."""
        return self.selected(import_module("numpy").isin(self.ids, ids))

    @property
    def clusters(self) -> Any:
        """What belongs together: the groups; the ids, where samples repeat; else None."""
        return self.groups if self.groups is not None or self.repeats is None else self.ids

    @cached_property
    def mean(self) -> float | None:
        """The mean of the valid samples, or None without one."""
        values = self.valid.values
        return total(values.tolist()) / len(values) if len(values) else None

    @property
    def mean_of_repeats(self) -> float | None:
        """The mean of the repeats' means, another one where some have samples without a value."""
        valid = self.valid
        if valid.repeats is None:
            return self.mean
        each = [valid.values[valid.repeats == one] for one in sorted({*valid.repeats.tolist()})]
        means = [total(values.tolist()) / len(values) for values in each]
        return total(means) / len(means) if means else None

    def has_mean(self, value: float) -> bool:
        """Whether a value is the mean of the valid samples, or that of the repeats' means."""
        means = (self.mean, self.mean_of_repeats)
        return any(
            math.isclose(m, value, rel_tol=_NEAR, abs_tol=1e-12) or m != m != value != value
            for m in means
            if m is not None
        )

    @property
    def is_binary(self) -> bool:
        """Whether each valid value is 0 or 1."""
        values = self.valid.values
        return bool(((values == 0) | (values == 1)).all())


def digest(ids: Any, targets: Any = None) -> str:
    """A SHA-256 over the distinct pairs (id, target), sorted by id.

    Numbers count by their value: targets 1, 1.0 and True are the same.
    """
    numpy = import_module("numpy")
    if targets is not None and targets.dtype.kind == "O" and all(t is None for t in targets):
        targets = None  # as a file has it
    found = numpy.zeros(len(ids)) if targets is None else _as_floats(targets)
    if ids.dtype.kind != "i" or found is None:
        return _digest_of_texts(ids, targets)
    if not (ids[1:] > ids[:-1]).all():
        order = numpy.lexsort((found, ids))
        ids, found = ids[order], found[order]
    bits = (found + 0.0).view("int64")  # NaN equals itself, and 0.0 equals -0.0
    same = (ids[1:] == ids[:-1]) & (bits[1:] == bits[:-1])
    first = numpy.concatenate(([True], ~same)) if len(ids) else slice(None)
    content = ids[first].astype("<i8").tobytes() + bits[first].astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]


def _as_floats(values: Any) -> Any:
    """Numbers and booleans as float64; None if there is anything else among them."""
    if values.dtype.kind in "iuf":
        return values.astype("float64")
    if all(isinstance(value, (bool, int, float)) for value in values.tolist()):
        return values.astype("float64")
    return None


def _digest_of_texts(ids: Any, targets: Any) -> str:
    others = [""] * len(ids) if targets is None else _texts(targets.tolist())
    found = hashlib.sha256()
    for pair in sorted(set(zip(map(_text, ids.tolist()), others, strict=True))):
        for text in pair:
            encoded = text.encode(errors="surrogatepass")
            found.update(b"%d:%b" % (len(encoded), encoded))
    return found.hexdigest()[:DIGEST_LENGTH]


def _texts(values: list[Any]) -> Iterable[str]:
    """Values as texts; numbers that are beside texts are texts in a file, too."""
    return map(str if any(isinstance(value, str) for value in values) else _text, values)


def _text(value: object) -> str:
    return repr(float(value)) if isinstance(value, (bool, int, float)) else str(value)


def changes(run: Score, base: Score) -> tuple[Any, Any]:
    """The ids of the samples whose score changed, and by how much: two arrays of shape (n,).

    A sample that one of them has no value for is left out; of repeats the means are compared. The
    ids of both must be of one kind, as they are where their digests agree.
    """
    numpy = import_module("numpy")
    ids, new = _means(run.valid)
    others, old = _means(base.valid)
    if len(ids) != len(others) or not (ids == others).all():
        ids, here, there = numpy.intersect1d(ids, others, assume_unique=True, return_indices=True)
        new, old = new[here], old[there]
    with numpy.errstate(invalid="ignore"):  # of two infinite values no change is known
        gains = differences(new, old)
    has_changed = (gains < 0) | (gains > 0)
    return ids[has_changed], gains[has_changed]


def _means(score: Score) -> tuple[Any, Any]:
    """Each id once, sorted, with the mean of its values."""
    numpy = import_module("numpy")
    ids, positions = numpy.unique(score.ids, return_inverse=True)
    sums = numpy.bincount(positions, score.values, len(ids))
    return ids, sums / numpy.maximum(numpy.bincount(positions, minlength=len(ids)), 1)
