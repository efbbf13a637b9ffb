"""Results of ``mlflow.genai.evaluate`` and of ``mlflow.models.evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_armory.track.libraries.result import (
    LibraryResult,
    ResultSamples,
    plain_columns,
    score_value,
    text_of,
)

_GENAI, _MODELS = "mlflow.genai.evaluate", "mlflow.models.evaluate"


def read(value: Any) -> LibraryResult | None:
    """The metrics by the names that MLflow gives them, ``{scorer}/mean``, and ``samples``."""
    metrics = getattr(value, "metrics", None)
    if not isinstance(metrics, Mapping):
        return None
    if hasattr(value, "result_df"):
        frame = value.result_df
        return _result(_GENAI, metrics, frame, "/value", ids="trace_id")
    if hasattr(value, "artifacts") and hasattr(type(value), "tables"):
        frame = value.tables.get("eval_results_table") if value.artifacts else None
        return _result(_MODELS, metrics, frame, "/score", ids=None)
    return None


def _result(
    source: str, metrics: Mapping[str, Any], frame: Any, ending: str, ids: str | None
) -> LibraryResult:
    if frame is None or not len(frame):
        return LibraryResult(source, dict(metrics))
    columns = [str(name) for name in frame.columns]
    measured = {name.rpartition("/")[0] for name in metrics}  # a column may be an expectation
    scores = {
        f"{name}/mean": [score_value(value) for value in frame[f"{name}{ending}"]]
        for name in (column.removesuffix(ending) for column in columns if column.endswith(ending))
        if name in measured
    }
    scores = {name: values for name, values in scores.items() if any(v == v for v in values)}
    own = {"samples": len(frame), **_errors(frame, columns)}
    if not scores:
        return LibraryResult(source, {**metrics, **own})
    texts = {
        "input": next((n for n in ("request", "inputs", "question") if n in columns), None),
        "target": next((n for n in ("target", "ground_truth", "targets") if n in columns), None),
        "prediction": next((n for n in ("response", "outputs", "answer") if n in columns), None),
    }
    part = ResultSamples(
        scores,
        None,
        columns=plain_columns(
            **{name: list(map(text_of, frame[column])) for name, column in texts.items() if column},
            **({ids: list(map(text_of, frame[ids]))} if ids in columns else {}),
        ),
        dataset=source,
    )
    return LibraryResult(source, {**metrics, **own}, [part])


def _errors(frame: Any, columns: list[str]) -> dict[str, int]:
    """How many rows of each scorer have an error, of those that can have one."""
    ending = "/error_message"
    return {
        f"{name.removesuffix(ending)}/errors": sum(isinstance(v, str) for v in frame[name])
        for name in columns
        if name.endswith(ending)
    }
