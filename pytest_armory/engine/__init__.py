"""The evaluation engine: dataset, perturbations, model, metrics, and the loop over the dataset.

It needs neither pytest nor a tracked run, and imports no array library that is not in use.
"""

from __future__ import annotations

from pytest_armory.engine.evaluation import Evaluation
from pytest_armory.engine.norms import l0, l2, linf, norm
from pytest_armory.engine.progress import Progress
from pytest_armory.engine.run import Engine, EvaluationResults
from pytest_armory.engine.scores import absolute_error, correct, squared_error

__all__ = [
    "Engine",
    "Evaluation",
    "EvaluationResults",
    "Progress",
    "absolute_error",
    "correct",
    "l0",
    "l2",
    "linf",
    "norm",
    "squared_error",
]
