"""A gate is not judged by the last value of a list: its test fails, and says what to log."""

from __future__ import annotations

import pytest
from conftest import Evals, verdicts

GATED = """
    import mlflow, numpy as np, pytest
    from pytest_armory import track_metrics
    @pytest.mark.evaluation(at_least={{"score": 0.5}})
    def test_a(evaluation_run):
        {body}
"""

MISSED = (
    "track_metrics({'score': [0, 0, 0, 1]})",
    "track_metrics({'score': (1.0,)})",
    "track_metrics({'score': [np.float32(1), np.int64(1)]})",
    "track_metrics({'score': 1}); track_metrics({'score': [0, 0, 1]})",
    "track_metrics({'score': [0, 0, 1]}); track_metrics({'score': 1}, step=1)",
    "track_metrics({'score': np.ones(3)})",
    "evaluation_run.log_metrics({'score': [1, 1]})",
    "track_metrics([{'score': 1}, {'score': 0}])",
    "evaluation_run.log_metrics([{'score': 1}, {'score': 0}, {'other': 0}])",
)

JUDGED = (
    "track_metrics({'score': np.mean([0, 1, 1])})",
    "[track_metrics({'score': value}, step=i) for i, value in enumerate([0, 0, 1])]",
    "track_metrics({'score': [0, 0, 1]}); track_metrics({'score': 1}, step=2)",
    "track_metrics({'score': np.zeros(3)}); track_metrics({'score': 1})",
    "track_metrics({'score': 1}); evaluation_run.log_metrics({'score': [0, 0]})",
    "track_metrics({'score': [0, 0]}); mlflow.log_metric('score', 1, step=9)",
    "track_metrics({'score': 1, 'loss': [3, 2, 1]})",
    "track_metrics([{'score': 1}]); track_metrics([{'a': 1}, {'b': 0}])",
    "track_metrics([{'score': 0}, {'score': 0}]); track_metrics({'score': 1})",
)


@pytest.mark.parametrize("body", MISSED)
def test_a_gate_on_a_list_is_missed(evals: Evals, body: str) -> None:
    evals.write(GATED.format(body=body))
    for track in (True, False):
        result = evals.run("-W", "ignore::pytest_armory.errors.MetricWarning", track=track)
        assert verdicts(result) == {"failed": 1}
        result.stdout.fnmatch_lines(
            ["*1 gate missed: score *list or an array*its mean*`step=`*`track_samples`*"]
        )


@pytest.mark.parametrize("body", JUDGED)
def test_a_gate_on_a_number_is_judged(evals: Evals, body: str) -> None:
    evals.write(GATED.format(body=body))
    tracked = evals.run("-W", "ignore::pytest_armory.errors.MetricWarning")
    assert verdicts(tracked) == {"passed": 1}


ROWS = """
    import pytest
    from pytest_armory import Engine, Evaluation, track_metrics
    def rows(targets, predictions): return [{"score": 1}, {"score": 0}]
    @pytest.mark.evaluation(at_least={"rows/score": 0.5})
    def test_engine():
        Engine(Evaluation(
            name="rows", dataset=([1], [1]), model=lambda x: x, metrics={"rows": rows},
        )).run()
    @pytest.mark.evaluation(at_least={"score": 0.5}, repeats=2)
    def test_repeats(): track_metrics([{"score": 1}, {"score": 1}])
    @pytest.mark.evaluation(at_least={"1/score": 0.5})
    def test_one_row(): track_metrics([{"score": 0}, {"score": 1}])
"""


def test_a_gate_on_rows_of_an_engine_or_of_repeats_is_missed(evals: Evals) -> None:
    evals.write(ROWS)
    result = evals.run("-W", "ignore::pytest_armory.errors.MetricWarning")
    assert verdicts(result) == {"failed": 2, "passed": 1}


def test_a_tolerance_of_the_ini_file_is_missed_too(evals: Evals) -> None:
    evals.pytester.makeini("[pytest]\narmory_tolerances =\n    loss: +10%")
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation
        def test_a(): track_metrics({"loss": [3, 2, 1]})
        @pytest.mark.evaluation
        def test_b(): track_metrics({"other": [3, 2, 1]})
    """)
    assert verdicts(evals.run()) == {"failed": 1, "passed": 1}
