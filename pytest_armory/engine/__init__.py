"""Dataset x perturbations x model x metrics: what is evaluated, and the loop that measures it.

It needs neither pytest nor a tracked run, and imports no array library of its own accord.
"""

from __future__ import annotations

from pytest_armory.engine.evaluation import Evaluation
from pytest_armory.engine.norms import l0, l2, linf
from pytest_armory.engine.progress import Progress
from pytest_armory.engine.run import Engine, EvaluationResults

__all__ = ["Engine", "Evaluation", "EvaluationResults", "Progress", "l0", "l2", "linf"]
