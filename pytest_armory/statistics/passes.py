"""Repeated answers that are right or wrong: all of k right, or one at least."""

from __future__ import annotations

from math import comb


def pass_hat(right: int, n: int, k: int) -> float:
    """pass^k: the chance that k answers are all right, unbiased, from ``right`` of n.

    ``C(right, k) / C(n, k)``. Raises :class:`ValueError` unless ``1 <= k <= n`` and
    ``0 <= right <= n``.

    Source: S. Yao et al., "τ-bench", arXiv 2406.12045, 2024.

    >>> pass_hat(3, 5, 2)
    0.3
    """
    _check(right, n, k)
    return comb(right, k) / comb(n, k)


def pass_at(right: int, n: int, k: int) -> float:
    """pass@k: the chance that of k answers one at least is right, unbiased, from ``right`` of n.

    ``1 - C(n - right, k) / C(n, k)``. Raises as :func:`pass_hat`.

    Source: M. Chen et al., "Evaluating large language models trained on code", 2021.

    >>> pass_at(3, 5, 2)
    0.9
    """
    _check(right, n, k)
    return 1 - comb(n - right, k) / comb(n, k)


def _check(right: int, n: int, k: int) -> None:
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"{right} right of {n}, and k = {k}")
