"""Evaluations of a model that fails at times: what a tracked test keeps of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Evals

SOURCE = """
    import pytest
    from pytest_armory import Engine, Evaluation, correct

    async def model(sample):
        if sample % 30 == 29:
            raise ConnectionError("429")
        if sample == INTERRUPTS:
            raise KeyboardInterrupt
        return sample

    @pytest.mark.evaluation(at_least={"accuracy": 1}, at_most={"errors": 3})
    def test_it():
        Engine(Evaluation(
            name="it", dataset=(list(range(100)), list(range(100))), model=model, concurrency=7,
            max_errors=ALLOWED, sample_metrics={"accuracy": correct},
        )).run()
"""


@pytest.mark.parametrize(
    ("allowed", "interrupts", "outcome", "metrics"),
    [
        ("0.03", "None", "passed", {"errors": 3, "accuracy": 1, "samples": 100}),
        ("0.02", "None", "failed", {"errors": 3}),
        ("0.03", "70", "interrupted", {"errors": 2}),
    ],
)
def test_failed_calls_are_rows(
    evals: Evals,
    each_way: Sequence[str],
    allowed: str,
    interrupts: str,
    outcome: str,
    metrics: dict[str, float],
) -> None:
    if outcome == "interrupted" and each_way != ("-n0",):
        pytest.skip("Ctrl-C of a test itself is the same in one process, and ends a worker")
    evals.write(SOURCE.replace("ALLOWED", allowed).replace("INTERRUPTS", interrupts))
    result = evals.run(*each_way)
    run = evals.run_of("test_it")
    assert run.data.tags["armory.outcome"] == outcome
    found = {k: v for k, v in run.data.metrics.items() if k in ("errors", "accuracy", "samples")}
    assert found == metrics
    if outcome != "interrupted":
        evals.check_invariant(result, 1, *each_way)
