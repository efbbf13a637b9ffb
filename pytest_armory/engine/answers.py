"""What a model answered to a batch, and the calls that failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any


@dataclass(slots=True)
class Batch:
    """One batch on its way: `index` counts from 0, targets are None where there are none.

    `given` are the inputs as the dataset has them, `inputs` the same on the model's device.
    """

    index: int
    given: Any
    inputs: Any
    perturbed: Any
    targets: Any
    count: int


@dataclass(slots=True)
class Answers:
    """A model's output for a batch, without the samples in `errors`.

    `errors` has the text of each failure by the sample's position in the batch.
    """

    output: Any
    errors: dict[int, str] = field(default_factory=dict)


def failure(error: BaseException) -> str:
    """A failed call in a line."""
    text = f"{type(error).__name__}: {error}"
    return shorten(text, 500, placeholder=" ...") or type(error).__name__
