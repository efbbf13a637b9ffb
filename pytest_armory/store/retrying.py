"""Try again what may go well the next time."""

from __future__ import annotations

from collections.abc import Callable
from random import uniform
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")


def retried(
    work: Callable[[], T],
    is_temporary: Callable[[Exception], bool],
    budget: float,
    pause: tuple[float, float],
) -> T:
    """Do work again for ``budget`` seconds, as long as what it raises may be gone the next time.

    Between two tries are ``pause`` seconds, at random from the first to the second.
    """
    deadline = monotonic() + budget
    while True:
        try:
            return work()
        except Exception as error:
            if not is_temporary(error) or monotonic() > deadline:
                raise
        sleep(uniform(*pause))
