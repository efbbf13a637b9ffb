"""What the functions share: quantiles, arrays without NaN, and sums by group."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


def preload() -> None:
    """Import before the first test what the functions import when they are called.

    >>> preload()
    """
    normal_quantile(0.5)


def floats(values: ArrayLike) -> Floats:
    """Values as a one-dimensional array of float64; raises :class:`ValueError` for others."""
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"values must have one dimension; got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError("values must not be NaN; leave such samples out, and say how many")
    return array


def quiet_overflow() -> AbstractContextManager[object]:
    """A context in which squares that are too large are infinite, without a warning.

    >>> import numpy as np
    >>> with quiet_overflow():
    ...     print(np.array([1e200, 0.0]).std())
    inf
    """
    import numpy as np

    return np.errstate(over="ignore", invalid="ignore")


def stacked_columns(columns: Sequence[ArrayLike]) -> Floats:
    """Columns of shape (n,) as one array of shape (n, columns).

    >>> stacked_columns([[1, 2], [3, 4]]).tolist()
    [[1.0, 3.0], [2.0, 4.0]]
    """
    import numpy as np

    return np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])


def normal_quantile(probability: float) -> float:
    """The standard normal distribution's quantile.

    >>> round(normal_quantile(0.975), 6)
    1.959964
    """
    from scipy.special import ndtri

    return float(ndtri(probability))


def t_quantile(probability: float, degrees: float) -> float:
    """Student's t distribution's quantile, for ``degrees`` of freedom above 0.

    >>> round(t_quantile(0.975, 9), 6)
    2.262157
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def group_sums(values: Floats, groups: ArrayLike) -> Floats:
    """The sum of the values of each group; ``groups`` has a label for each value.

    >>> import numpy as np
    >>> group_sums(np.array([1.0, 2.0, 4.0]), ["a", "b", "a"]).tolist()
    [5.0, 2.0]
    """
    import numpy as np

    labels = np.asarray(groups)
    if labels.shape != values.shape:
        raise ValueError(f"{len(values)} values, and groups of shape {labels.shape}")
    _, codes = np.unique(labels, return_inverse=True)
    return np.bincount(codes, weights=values).astype(np.float64)
