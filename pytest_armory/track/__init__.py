"""The tracking API, with Armory's names. It works in a script, without pytest.

::

    from pytest_armory.track import track_call, track_evaluation, track_metrics

    model = track_call(load_model, name="resnet50")
    with track_evaluation("my-experiment", description="baseline"):
        track_metrics(evaluate(model))
"""

from __future__ import annotations

from pytest_armory.track.calls import track_call, track_init_params, track_params
from pytest_armory.track.context import (
    Trackable,
    current_run,
    get_current_params,
    reset_params,
    track_param,
    trackable_context,
    tracking_context,
)
from pytest_armory.track.evaluation import track_evaluation
from pytest_armory.track.metrics import measure, track_metrics, track_system_metrics
from pytest_armory.track.per_sample import track_samples
from pytest_armory.track.reading import samples
from pytest_armory.track.results import convert_result
from pytest_armory.track.run import EvaluationRun
from pytest_armory.track.tracking_uri import init_tracking, init_tracking_uri
from pytest_armory.track.usage import track_usage

__all__ = [
    "EvaluationRun",
    "Trackable",
    "convert_result",
    "current_run",
    "get_current_params",
    "init_tracking",
    "init_tracking_uri",
    "measure",
    "reset_params",
    "samples",
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
