"""The norms against numpy.linalg.norm, for every kind and type of array."""

# ruff: noqa: ARG005 - stand-ins take whatever the engine gives them.

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_armory.engine import Engine, Evaluation, l0, l2, linf, norm
from pytest_armory.errors import EvaluationError

NORMS = [(l0, 0), (l2, 2), (linf, np.inf), *((norm(p), p) for p in (1, 3, 0.5, -1, -2.5, -np.inf))]


def expected(clean: np.ndarray, perturbed: np.ndarray, order: float) -> np.ndarray:
    moved = perturbed.astype(float) - clean.astype(float)
    with np.errstate(divide="ignore"):
        return np.linalg.norm(moved.reshape(len(moved), -1), ord=order, axis=1)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    dtype = draw(
        st.sampled_from(["uint8", "int8", "bool", "int32", "float16", "float32", "float64"])
    )
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    values = None if dtype in ("uint8", "int8", "bool") else st.integers(-1000, 1000)
    arrays = hnp.arrays(dtype, shape, elements=values)
    return draw(arrays), draw(arrays)


@settings(deadline=None)
@given(pairs())
def test_numpy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    for function, order in NORMS:
        np.testing.assert_allclose(function(*pair), expected(*pair, order), rtol=1e-5)


@settings(deadline=None)
@given(pairs())
def test_torch(pair: tuple[np.ndarray, np.ndarray]) -> None:
    tensors = [torch.as_tensor(array) for array in pair]
    for function, order in NORMS:
        got = function(*tensors)
        assert isinstance(got, torch.Tensor)
        np.testing.assert_allclose(got.numpy(), expected(*pair, order), rtol=1e-5)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_bytes_do_not_wrap(kind: Any) -> None:
    clean, perturbed = kind(np.array([[250, 0]], "uint8")), kind(np.array([[0, 5]], "uint8"))
    assert linf(clean, perturbed).tolist() == [250]
    assert l2(clean, perturbed).tolist() == pytest.approx([250.05], rel=1e-5)
    assert l0(clean, perturbed).tolist() == [2]


def test_half_precision_does_not_overflow() -> None:
    clean = torch.zeros((1, 4), dtype=torch.bfloat16)
    assert l2(clean, clean + 30000).item() == pytest.approx(60000, rel=1e-2)


def test_large_integers_are_exact() -> None:
    clean = np.array([[2**40]])
    assert linf(clean, clean + 1).tolist() == [1]


def test_lists_and_mixed_kinds() -> None:
    assert l2([[0, 0]], [[3, 4]]).tolist() == [5]
    assert l2(np.zeros((1, 2)), torch.tensor([[3.0, 4.0]], requires_grad=True)).tolist() == [5]


def test_a_broadcast_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clean \(2, 1\), perturbed \(2, 3\)"):
        l2(np.zeros((2, 1)), np.zeros((2, 3)))


def test_a_norm_of_a_named_order_is_that_function() -> None:
    assert [norm(0), norm(2.0), norm(np.float32("inf"))] == [l0, l2, linf]
    assert pickle.loads(pickle.dumps(norm(3)))([[0, 0]], [[1, 2]]).tolist() == [9 ** (1 / 3)]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_no_power_of_a_large_change_overflows(kind: Any) -> None:
    clean, perturbed = (
        kind(np.zeros((3, 2), "float32")),
        kind(np.float32([[3e4, 0], [0, 0], [2, 1]])),
    )
    assert norm(40)(clean, perturbed).tolist() == pytest.approx([3e4, 0, 2])
    assert norm(-40)(clean, perturbed).tolist() == pytest.approx([0, 0, 1])
    assert norm(3)(clean, perturbed + np.inf).tolist() == [np.inf] * 3


@pytest.mark.parametrize("order", ["fro", None, True, float("nan"), 1j, [1]])
def test_an_order_that_is_no_number_is_refused(order: Any) -> None:
    with pytest.raises(EvaluationError, match=r"norm: order must be a number, got .* write norm"):
        norm(order)


@settings(deadline=None)
@given(pairs(), st.integers(1, 5))
def test_the_engine_reports_mean_and_largest(pair: Any, size: int) -> None:
    clean, perturbed = pair
    made = iter([perturbed[start : start + size] for start in range(0, len(clean), size)])
    results = Engine(
        Evaluation(
            name="norms",
            dataset=(clean, np.zeros(len(clean))),
            batch_size=size,
            model=len_zeros,
            perturbations={"given": lambda x, y: next(made)},
            perturbation_metrics={"l0": l0, "l1": norm(1), "l2": l2, "linf": linf},
        )
    ).run()
    for name, order in (("l0", 0), ("l1", 1), ("l2", 2), ("linf", np.inf)):
        norms = expected(clean, perturbed, order)
        assert results.metrics[name] == pytest.approx(norms.mean(), rel=1e-5)
        assert results.metrics[f"{name}_max"] == pytest.approx(norms.max(), rel=1e-5)


def len_zeros(inputs: Any) -> np.ndarray:
    return np.zeros(len(inputs))


def test_without_perturbations_nothing_moved() -> None:
    results = Engine(
        Evaluation(
            name="clean",
            dataset=(np.ones((3, 2)), np.ones(3)),
            model=len_zeros,
            perturbation_metrics={"l2": l2},
        )
    ).run()
    assert results.metrics["l2"] == results.metrics["l2_max"] == 0
