"""From what a dataset gives to inputs and targets, and from a model's output to predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Number
from types import CoroutineType
from typing import Any

from pytest_armory.engine.arrays import (
    RefusedError,
    describe,
    detached,
    is_mapping,
    length,
    widened,
)

TARGETS = ("labels", "label")
"""The keys of a batch that hold its targets, as Hugging Face's collators and datasets name them."""

RECIPE = "say what is what with Evaluation(prepare_batch=lambda batch: (inputs, targets))"

WITHOUT_TARGETS = (
    "the dataset has no targets, which are the second item of a batch, or under 'labels' or "
    f"'label' in one that is a mapping; of other batches {RECIPE}"
)

TRANSFORM = "of another output take them with Evaluation(output_transform=lambda output: ...)"


def prepare_batch(batch: Any, *, is_known: bool = False) -> tuple[Any, Any]:
    """A batch as `(inputs, targets)`; targets are None where it has none.

    `(inputs, targets)`, `(inputs, targets, meta)`, of which the rest is passed over, `(inputs,)`,
    or a mapping: the targets are under `labels` or `label`, the inputs are all others. A list of
    pairs is refused, which may be samples, unless it `is_known` that batches are not.
    """
    if is_mapping(batch):
        key = next((key for key in TARGETS if key in batch), None)
        return {k: v for k, v in batch.items() if k != key}, None if key is None else batch[key]
    if not isinstance(batch, (tuple, list)) or not 1 <= len(batch) <= 3:
        raise RefusedError(
            "the dataset must give batches (inputs, targets), (inputs, targets, meta) or mappings "
            f"with 'labels', got {describe(batch)}; {RECIPE}, or give arrays as a whole in a "
            "tuple, dataset=(inputs, targets)"
        )
    rows = _rows_of(batch) if isinstance(batch, list) and not is_known else None
    if rows is not None:
        raise RefusedError(
            f"got a list of {len(batch)} {rows}, which may be samples or (inputs, targets); "
            f"{RECIPE}"
        )
    targets = batch[1] if len(batch) > 1 else None
    if isinstance(batch[0], (str, bytes)) or isinstance(targets, (str, bytes)):
        raise RefusedError(
            f"got {describe(batch)} with a text where a batch has one text for each sample; "
            "for texts without targets write Evaluation(prepare_batch=lambda batch: (batch, None))"
        )
    return batch[0], targets


def _rows_of(batch: list[Any]) -> str | None:
    found = next((name for name, are in _ROWS.items() if all(map(are, batch))), None)
    return None if found == "pairs" and _are_columns(batch) else found


def _are_columns(pairs: list[Any]) -> bool:
    """Whether each pair is of one type and not both of the same: two texts and two numbers, say."""
    types = [{Number if isinstance(v, Number) else type(v) for v in pair} for pair in pairs]
    return all(len(each) == 1 for each in types) and any(each != types[0] for each in types)


_ROWS: dict[str, Callable[[Any], bool]] = {
    "pairs": lambda row: isinstance(row, (tuple, list)) and len(row) == 2,
    "mappings": lambda row: isinstance(row, Mapping),
}
"""What single samples of a list may be."""


def no_tensor(inputs: Any) -> str:
    """What a module was given that is no tensor, and what to write; "" of tensors and texts."""
    named = inputs.items() if is_mapping(inputs) else [("", inputs)]
    for name, values in named:
        is_text = isinstance(values, (list, tuple)) and isinstance(next(iter(values), ""), str)
        if not (hasattr(values, "detach") or is_text):
            of_key = f" under {name!r}" if name else ""
            return f"; the module got {describe(values)}{of_key}, which is no tensor: {RECIPE}"
    return ""


def no_parameters(inputs: Mapping[Any, Any]) -> str:
    """What a model was given that has no parameters of the keys of a batch, and what to write."""
    keys = ", ".join(map(repr, list(inputs)[:5])) + (", ..." if len(inputs) > 5 else "")
    return f"; the model got a mapping of {keys}, which are not its parameters: {RECIPE}"


def pair_of(prepare: Callable[[Any], Any], batch: Any) -> tuple[Any, Any]:
    """What a user's `prepare_batch` returns, checked to be a pair."""
    prepared = prepare(batch)
    if isinstance(prepared, (tuple, list)) and len(prepared) == 2:
        return prepared[0], prepared[1]
    raise RefusedError(
        f"prepare_batch must return (inputs, targets), got {describe(prepared)}; return None for "
        "targets where there are none"
    )


def output_transform(output: Any) -> Any:
    """The predictions in a model's output: its `logits`, as Hugging Face's models name them."""
    if is_mapping(output):
        return output.get("logits", output)
    logits = getattr(output, "logits", None)
    return output if logits is None else logits


def check_predictions(predictions: Any, count: int) -> Any:
    """Predictions without their graph, `widened`; checked to be one for each sample."""
    if type(predictions) is CoroutineType:
        predictions.close()
        raise RefusedError(
            "must be `async def` itself, got a function that returns a coroutine; write "
            "`async def model(sample): return await ...`"
        )
    try:
        found = length(predictions)
    except TypeError:
        found = None
    if found != count:
        is_array = hasattr(predictions, "shape")
        raise RefusedError(
            f"predictions must be one for each of the batch's {count} samples, "
            f"got {describe(predictions)}; the first dimension counts samples"
            + ("" if is_array else f"; {TRANSFORM}")
        )
    return widened(detached(predictions))
