"""Models and perturbations of every accepted type as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_armory.engine.arrays import as_numpy, like, made_by


def predictor(model: Any) -> Callable[[Any], Any]:
    """`model.predict`, or else the model itself; ART's models are given NumPy arrays."""
    predict = getattr(model, "predict", None)
    call: Callable[[Any], Any] = predict if callable(predict) else model
    if made_by(model, "art"):
        return lambda inputs: call(as_numpy(inputs))
    return call


def perturber(perturbation: Any) -> Callable[[Any, Any], Any]:
    """The perturbation as `(inputs, targets) -> inputs`; ART's attacks are given NumPy arrays."""
    generate = getattr(perturbation, "generate", None)
    if not callable(generate):
        call: Callable[[Any, Any], Any] = perturbation
        return call
    if made_by(perturbation, "art"):
        return lambda inputs, targets: like(
            generate(x=as_numpy(inputs), y=as_numpy(targets)), inputs
        )
    return lambda inputs, targets: generate(x=inputs, y=targets)
