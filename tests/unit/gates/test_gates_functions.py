"""Functions of all predictions: what is resampled, what it may take, and what is said of it."""

from __future__ import annotations

import logging
import random
import sys
from array import array
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

from pytest_armory.gates import functions, known
from pytest_armory.gates.functions import MetricFunction, UnfitError, resampled
from pytest_armory.gates.known import Sources
from pytest_armory.gates.parse import parse_tolerance
from pytest_armory.gates.past_runs import PastRun
from pytest_armory.statistics.bootstrap import bootstrap
from pytest_armory.tables import SampleRows, SampleTable
from pytest_armory.track.context import Scope, current_run, entered, track_param, unrecorded
from pytest_armory.track.run import EvaluationRun

N = 60
Metric = Callable[[Any, Any], float]


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(functions, "perf_counter", clock)
    monkeypatch.setattr(functions, "bootstrap", partial(bootstrap, clock=clock))
    monkeypatch.setattr(known, "perf_counter", clock)
    return clock


def rows_of(wrong: int, others: int = 0) -> SampleRows:
    """Sixty samples of two classes; so many of the first are wrong. Some more are other data."""
    targets = np.arange(N) % 2
    answers = np.where(np.arange(N) < wrong, 1 - targets, targets)
    rows = SampleRows(["right"], source="e")
    right = np.append((targets == answers).astype(float), [1.0] * others)
    more = [1] * others
    columns = {"target": [*targets.tolist(), *more], "prediction": [*answers.tolist(), *more]}
    rows.add({"right": array("d", right)}, columns=columns)
    rows.is_complete = True
    return rows


def share(targets: Any, predictions: Any) -> float:
    """The share of right answers."""
    return float((np.asarray(targets) == np.asarray(predictions)).mean())


def compared(function: Metric, seconds: float = 10.0, **given: Any) -> Any:
    metric = MetricFunction("e", function, "f", "f")
    sides = [(rows_of(wrong), (N - wrong) / N) for wrong in (12, 2)]
    return resampled(
        metric, sides[0], sides[1:], higher_is_worse=False, alpha=0.05, seconds=seconds, **given
    )


def test_a_function_that_logs_is_called_once() -> None:
    logged: list[float] = []

    def logging(targets: Any, predictions: Any) -> float:
        logged.append(share(targets, predictions))
        return logged[-1]

    with pytest.raises(UnfitError, match="it logs something whenever it is called"):
        compared(logging, written=lambda: len(logged))
    assert logged == [0.8]  # this run's own value once more


@pytest.mark.parametrize("pooled", [1, 2])
def test_other_data_are_resampled_by_themselves(pooled: int) -> None:
    """The scatter is that of both sides; sessions of one data are resampled alike."""
    metric = MetricFunction("e", share, "f", "f")
    own, base = (rows_of(12), 48 / 60), (rows_of(2, others=60), 118 / 120)
    found, text = resampled(
        metric, own, [base] * pooled, higher_is_worse=False, alpha=0.05, seconds=10.0
    )
    assert found.method == "bootstrap, 1000 resamples, other samples"
    assert text == "the data changed, so other samples are compared"
    assert found.gain == pytest.approx(48 / 60 - 118 / 120)
    variance = 0.2 * 0.8 / 60 + (2 / 120) * (118 / 120) / 120
    assert found.variance / found.n == pytest.approx(variance, rel=0.1)
    assert found.p < 0.005


def test_sessions_of_several_data_are_not_pooled() -> None:
    metric = MetricFunction("e", share, "f", "f")
    bases = [(rows_of(2, others), (58 + others) / (60 + others)) for others in (0, 9)]
    with pytest.raises(UnfitError, match="of several data, so the change alone decides"):
        resampled(
            metric, (rows_of(12), 0.8), bases, higher_is_worse=False, alpha=0.05, seconds=10.0
        )


def test_a_slow_function_is_called_once(time: Clock) -> None:
    calls: list[int] = []

    def slow(targets: Any, predictions: Any) -> float:
        calls.append(1)
        time.sleep(0.15)
        return share(targets, predictions)

    with pytest.raises(
        UnfitError, match="200 resamples of it take longer than the 5 s that it has"
    ):
        compared(slow, seconds=5)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("which", "enough"), [({0}, True), ({3, 4}, True), ({*range(1, 99)}, False)]
)
def test_a_call_that_takes_long_by_chance_says_nothing(
    time: Clock, which: set[int], enough: bool
) -> None:
    """On a busy machine; 200 resamples of two such calls would take 20 s."""
    calls = count()

    def uneven(targets: Any, predictions: Any) -> float:
        time.sleep(0.05 * (next(calls) in which))
        return share(targets, predictions)

    if enough:
        assert "1000 resamples" in compared(uneven, seconds=5)[0].method
    else:
        with pytest.raises(UnfitError, match="take longer than the 5 s that it has"):
            compared(uneven, seconds=5)
        assert next(calls) < 20


def test_resamples_that_cannot_be_computed_are_left_out() -> None:
    def picky(targets: Any, predictions: Any) -> float:
        if (np.asarray(targets) == 1).sum() < 25:
            raise ValueError("too few of class 1")
        return share(targets, predictions)

    found, remark = compared(picky)
    assert found.gain == pytest.approx(-1 / 6)
    assert remark.startswith("only ")
    assert (
        "of 1,000 resamples were computed, it raised ValueError('too few of class 1') of" in remark
    )


def test_what_is_called_again_is_neither_seen_nor_felt(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It prints, logs, draws numbers, changes its arguments, and fails where a class is rare."""

    def loud(targets: Any, predictions: Any) -> float:
        sys.stdout.write("called")
        logging.getLogger(__name__).error("called")
        random.random(), np.random.random(), torch.rand(1)
        targets -= 1
        predictions -= 1
        if (targets == 0).sum() < 25:
            pytest.fail("too few of class 1")
        return share(targets, predictions) if targets.max() == 0 else np.nan

    torch = pytest.importorskip("torch")
    drawn = []
    for is_called in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        if is_called:
            found, remark = compared(loud)
            assert found.gain == pytest.approx(-1 / 6)
            assert "it raised Failed('too few of class 1') of" in remark
        drawn.append((random.random(), np.random.random(), float(torch.rand(1))))
    assert drawn[0] == drawn[1]
    assert (capsys.readouterr(), caplog.records) == (("", ""), [])
    logging.getLogger(__name__).error("afterwards")
    assert len(caplog.records) == 1


def test_ctrl_c_ends_the_resamples() -> None:
    def interrupted(targets: Any, predictions: Any) -> float:
        if list(targets) != (np.arange(N) % 2).tolist():
            raise KeyboardInterrupt
        return share(targets, predictions)

    with pytest.raises(KeyboardInterrupt):
        compared(interrupted)


def refusing(targets: Any, predictions: Any) -> float:
    """A metric of the data in their order, and of nothing else."""
    if list(targets) != (np.arange(N) % 2).tolist():
        raise RuntimeError("no")
    return share(targets, predictions)


def test_a_function_of_no_resample_is_not_judged_by_them() -> None:
    with pytest.raises(UnfitError, match=r"it raised RuntimeError\('no'\) of resamples"):
        compared(refusing)
    with pytest.raises(UnfitError, match="it is NaN of resamples"):
        compared(lambda t, p: share(t, p) if list(t) == (np.arange(N) % 2).tolist() else np.nan)


def test_gates_share_the_seconds_of_their_evaluation(
    time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    def recording(*_: object, seconds: float, **__: object) -> None:
        given.append(seconds)
        time.sleep(0.01)
        raise UnfitError("none")

    monkeypatch.setattr(known, "resampled", recording)
    table = SampleTable()
    table.parts.append(rows_of(2))
    names = ("a", "b", "c")
    sources = Sources(
        table,
        [PastRun("r", "s", 1, dict.fromkeys(names, 0.9), has_samples=True)],
        lambda _: table,
        functions={name: MetricFunction("e", share, name, name) for name in names},
    )
    tolerances = {name: parse_tolerance("-2%") for name in ("other", *names)}
    found = sources.of(tolerances, dict.fromkeys(tolerances, 0.8))
    assert [one.remark for one in found.values()] == ["", "none", "none", "none"]
    # What one leaves is the others'; what it takes is not, whether or not it is of use.
    assert given == pytest.approx([10 / 3, (10 - 0.01) / 2, 10 - 0.02])


def test_what_is_called_again_records_nothing() -> None:
    run = EvaluationRun()
    with entered(Scope(run=run)) as scope:
        with unrecorded():
            track_param("again", 1)
            assert current_run() is None
        assert current_run() is run
        assert scope.params == {}
