"""The dataset as batches of (inputs, targets), in either of the two accepted forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from pytest_armory.engine.arrays import RefusedError, describe, length, made_by, rows, samples


def is_arrays(dataset: object) -> bool:
    """Whether it is one pair (inputs, targets): a tuple of two that are not both tuples."""
    return (
        isinstance(dataset, tuple)
        and len(dataset) == 2
        and not all(isinstance(item, tuple) for item in dataset)
    )


def is_table(dataset: object) -> bool:
    """Whether it is one of Hugging Face's datasets, which give rows and can give batches."""
    return made_by(dataset, "datasets") and callable(getattr(dataset, "iter", None))


def for_module(dataset: Any) -> Any:
    """The dataset as a module takes it: one of Hugging Face's that has no format gives tensors.

    An IterableDataset does not say whether it has one.
    """
    known = getattr(dataset, "format", None)
    has_format = isinstance(known, Mapping) and known.get("type") is not None
    return dataset.with_format("torch") if is_table(dataset) and not has_format else dataset


def is_collated(dataset: object) -> bool:
    """Whether each batch is torch's `default_collate` of samples: a list of each part's values."""
    collate = getattr(dataset, "collate_fn", None)
    return made_by(dataset, "torch") and getattr(collate, "__name__", "") == "default_collate"


def check_dataset(dataset: Any, batch_size: int | None) -> None:
    """Refuse what can be neither arrays nor batches, without reading any of the latter."""
    if is_arrays(dataset):
        check_lengths(*dataset)
        return
    if is_table(dataset):
        if batch_size is None and not hasattr(dataset, "__len__"):
            raise RefusedError(
                f"dataset is {describe(dataset)}, which has no length; write batch_size=..., the "
                "number of its rows that are a batch"
            )
        return
    if isinstance(dataset, Mapping):  # a DatasetDict is what load_dataset() gives without a split
        raise RefusedError(
            "dataset must be an iterable of (inputs, targets) batches or a tuple (inputs, targets) "
            f"of arrays, got {describe(dataset)}; of splits by name take one, as in "
            'dataset=splits["test"], and of a single batch make a list, dataset=[batch]'
        )
    unfit = isinstance(dataset, (str, bytes, type)) or hasattr(dataset, "shape")
    if unfit or not (hasattr(dataset, "__iter__") or hasattr(dataset, "__getitem__")):
        raise RefusedError(
            "dataset must be an iterable of (inputs, targets) batches or a tuple (inputs, targets) "
            f"of arrays, got {describe(dataset)}; write dataset=(inputs, targets)"
        )
    if batch_size is not None:
        raise RefusedError(
            f"batch_size={batch_size} cuts a tuple (inputs, targets) of arrays, but dataset is "
            f"{describe(dataset)}, which is read as batches already; leave batch_size out, or "
            "write dataset=(inputs, targets)"
        )


def check_lengths(inputs: Any, targets: Any) -> int:
    """The number of samples; none, or inputs and targets that differ, are refused.

    Targets may be None: there are none.
    """
    try:
        try:
            count = length(inputs)
            differs = targets is not None and count != length(targets)
        except TypeError:
            count = samples(inputs, "inputs")
            differs = count != samples(targets, "targets")
    except RefusedError as refusal:
        raise RefusedError(
            f"{refusal}; single samples become batches in torch's DataLoader(rows, batch_size=...) "
            "or datasets.Dataset.from_list(rows), or write dataset=(inputs, targets)"
        ) from None
    if differs:
        raise RefusedError(
            "inputs and targets must be equally long, "
            f"got inputs {describe(inputs)} and targets {describe(targets)}"
        )
    if not count:
        raise RefusedError(f"there must be at least one sample, got inputs {describe(inputs)}")
    return count


def batches(dataset: Any, batch_size: int | None, limit: int | None = None) -> Iterator[Any]:
    """The dataset's batches, the first `limit` of them alone; arrays are split here."""
    return islice(_all_batches(dataset, batch_size), limit)


def _all_batches(dataset: Any, batch_size: int | None) -> Iterator[Any]:
    if is_table(dataset):
        return iter(dataset.iter(batch_size or len(dataset)))
    if not is_arrays(dataset):
        return iter(dataset)
    inputs, targets = dataset
    count = samples(inputs, "inputs")
    size = batch_size or count
    return (
        (rows(inputs, start, start + size), rows(targets, start, start + size))
        for start in range(0, count, size)
    )


def batch_count(dataset: Any, batch_size: int | None, limit: int | None = None) -> int | None:
    """How many batches there will be, or None if the dataset does not know."""
    count = _batch_count(dataset, batch_size)
    return count if count is None or limit is None else min(count, limit)


def _batch_count(dataset: Any, batch_size: int | None) -> int | None:
    if is_arrays(dataset):
        count = samples(dataset[0], "inputs")
        return -(-count // (batch_size or count))
    try:
        count = len(dataset)
        return -(-count // (batch_size or count)) if is_table(dataset) else count
    except Exception:  # noqa: BLE001 - the user's __len__, asked for the display and nothing else
        return None


def most_samples(dataset: Any, total: int | None, largest: int) -> int | None:
    """How many samples there can be in so many batches of this size; None if it is not known."""
    if total is None:
        return None
    most = total * largest
    return min(most, samples(dataset[0], "inputs")) if is_arrays(dataset) else most
