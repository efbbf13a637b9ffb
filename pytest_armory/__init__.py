"""Evaluations as tests, tests as tracked MLflow runs.

Everything is imported when it is first used, so that pytest starts as fast as without the plugin.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from pytest_armory.engine import (
        Engine,
        Evaluation,
        EvaluationResults,
        absolute_error,
        correct,
        l0,
        l2,
        linf,
        norm,
        squared_error,
    )
    from pytest_armory.track import (
        EvaluationRun,
        Trackable,
        get_current_params,
        init_tracking,
        init_tracking_uri,
        measure,
        reset_params,
        samples,
        track_call,
        track_evaluation,
        track_init_params,
        track_metrics,
        track_param,
        track_params,
        track_samples,
        track_system_metrics,
        track_usage,
        trackable_context,
        tracking_context,
    )

__all__ = [
    "Engine",
    "Evaluation",
    "EvaluationResults",
    "EvaluationRun",
    "Trackable",
    "absolute_error",
    "correct",
    "get_current_params",
    "init_tracking",
    "init_tracking_uri",
    "l0",
    "l2",
    "linf",
    "measure",
    "norm",
    "reset_params",
    "samples",
    "squared_error",
    "track_call",
    "track_evaluation",
    "track_init_params",
    "track_metrics",
    "track_param",
    "track_params",
    "track_samples",
    "track_system_metrics",
    "track_usage",
    "trackable_context",
    "tracking_context",
]

_ENGINE = {
    "Engine",
    "Evaluation",
    "EvaluationResults",
    "absolute_error",
    "correct",
    "l0",
    "l2",
    "linf",
    "norm",
    "squared_error",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    folder = "engine" if name in _ENGINE else "track"
    return getattr(import_module(f"{__name__}.{folder}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
