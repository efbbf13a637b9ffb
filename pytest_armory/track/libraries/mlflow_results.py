"""Results of ``mlflow.genai.evaluate`` and of ``mlflow.models.evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_armory.track.libraries.result import (
    LibraryResult,
    ResultSamples,
    joined_texts,
    member,
    plain_columns,
    score_value,
    text_of,
)

_GENAI, _MODELS = "mlflow.genai.evaluate", "mlflow.models.evaluate"
_EXPECTATIONS = ("expected_response", "expected_facts")
"""Expectations that are what a response is compared with, as MLflow's own scorers name them."""


def read(value: Any) -> LibraryResult | None:
    """The metrics by the names that MLflow gives them, ``{scorer}/mean``, and ``samples``."""
    metrics = getattr(value, "metrics", None)
    if not isinstance(metrics, Mapping):
        return None
    if hasattr(value, "result_df"):
        return _of_genai(metrics, value.result_df)
    if hasattr(value, "artifacts") and hasattr(type(value), "tables"):
        frame = value.tables.get("eval_results_table") if value.artifacts else None
        return _of_models(metrics, frame)
    return None


def _of_genai(metrics: Mapping[str, Any], frame: Any) -> LibraryResult:
    if frame is None:
        lost = "MLflow made no table of samples, so none are kept; a scorer returns None, not NaN"
        return LibraryResult(_GENAI, dict(metrics), note=lost if metrics else "")
    names = _scored(frame, "/value")
    measured = {name.rpartition("/")[0] for name in metrics}  # a column may be an expectation
    scores = {f"{n}/mean": frame[f"{n}/value"] for n in names if n in measured}
    target = next((n for n in names if n not in measured and n in _EXPECTATIONS), "")
    raised = {n: frame[f"{n}/error_message"] for n in _scored(frame, "/error_message")}
    own = {f"{name}/errors": sum(isinstance(v, str) for v in raised[name]) for name in raised}
    calls = _failed_calls(frame)
    if calls is not None:
        own["errors"] = sum(isinstance(call, str) for call in calls)
    texts = _texts(
        frame,
        input=("request", "inputs"),
        prediction=("response", "outputs"),
        trace_id=("trace_id",),
    )
    texts |= _texts(frame, target=(f"{target}/value",)) if target else _expected(frame)
    calls = calls or [None] * len(frame)
    texts["error"] = [
        joined_texts({"model": calls[row], **{name: raised[name].iloc[row] for name in raised}})
        for row in range(len(frame))
    ]
    return _result(_GENAI, {**metrics, **own}, frame, scores, texts, ids=_ids(frame))


def _ids(frame: Any) -> list[str] | None:
    """What names the rows of MLflow 3.4, which come in the order in which they ended."""
    known = list(map(str, frame["request_id"])) if "request_id" in frame else []
    return known if known and len(set(known)) == len(known) else None


def _expected(frame: Any) -> dict[str, list[str | None]]:
    """The targets of a frame as MLflow 3.4 makes it, with the expectations in one column."""
    if "expectations" not in frame.columns:
        return {}
    each = [
        [member(expected, name) for name in _EXPECTATIONS] for expected in frame["expectations"]
    ]
    found = [next((value for value in values if value is not None), None) for values in each]
    return {"target": list(map(text_of, found))}


def _failed_calls(frame: Any) -> list[str | None] | None:
    """What the model's call raised in each row, as the trace says; None of one that did not.

    MLflow 3.4 has it in ``error_message``, where a call failed, and no states. None of a frame that
    does not say it.
    """
    if "state" not in frame.columns:
        if "error_message" in frame:
            return list(map(text_of, frame["error_message"]))
        return [None] * len(frame) if "request_id" in frame else None
    traces = frame["spans"] if "spans" in frame.columns else [None] * len(frame)
    return [
        _raised(spans) if str(state) == "ERROR" else None
        for state, spans in zip(frame["state"], traces, strict=True)
    ]


def _raised(spans: Any) -> str:
    """What a trace's first span says of its end."""
    whole = [span for span in spans or () if not member(span, "parent_span_id")]
    message = member(member(whole[0], "status"), "message") if whole else None
    return str(message or "failed")


def _of_models(metrics: Mapping[str, Any], frame: Any) -> LibraryResult:
    if frame is None:
        return LibraryResult(_MODELS, dict(metrics))
    scores = {f"{name}/mean": frame[f"{name}/score"] for name in _scored(frame, "/score")}
    texts = _texts(
        frame,
        input=("inputs", "question"),
        target=("target", "ground_truth", "targets"),
        prediction=("outputs", "answer"),
    )
    return _result(_MODELS, metrics, frame, scores, texts)


def _result(
    source: str,
    metrics: Mapping[str, Any],
    frame: Any,
    columns: Mapping[str, Any],
    texts: Mapping[str, list[str | None]],
    ids: Sequence[str] | None = None,
) -> LibraryResult:
    if not len(frame):
        return LibraryResult(source, dict(metrics))
    scores = {name: [score_value(value) for value in values] for name, values in columns.items()}
    scores = {name: values for name, values in scores.items() if any(v == v for v in values)}
    parts = (
        [ResultSamples(scores, ids, columns=plain_columns(**texts), dataset=source)]
        if scores
        else []
    )
    return LibraryResult(source, {**metrics, "samples": len(frame)}, parts)


def _scored(frame: Any, ending: str) -> list[str]:
    """What the columns with this ending are of."""
    names = map(str, frame.columns)
    return [name.removesuffix(ending) for name in names if name.endswith(ending)]


def _texts(frame: Any, **names: Sequence[str]) -> dict[str, list[str | None]]:
    """Columns under other names: for each the first one of several that there is."""
    found = {name: [n for n in known if n in frame.columns] for name, known in names.items()}
    return {name: list(map(text_of, frame[known[0]])) for name, known in found.items() if known}
