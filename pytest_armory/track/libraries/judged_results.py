"""deepeval's test results, and the results and frames of ragas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_armory.track.libraries.result import (
    LibraryResult,
    ResultSamples,
    is_number,
    joined_texts,
    mean,
    plain_columns,
    score_value,
    text_of,
)
from pytest_armory.values.totals import total

_QUESTIONS = ("user_input", "question")
_OF_RAGAS = (
    *_QUESTIONS,
    *("response", "answer", "reference", "ground_truth", "retrieved_contexts", "contexts"),
    *("reference_contexts", "rubrics", "rubric", "multi_responses", "reference_tool_calls"),
    *("retrieved_context_ids", "reference_context_ids", "persona_name", "query_style"),
)
"""Columns of ragas' samples, which are no metrics."""


def read(value: Any) -> LibraryResult | None:
    """The mean of each metric under its own name, ``samples``, and what is known of failures."""
    is_one = _is_test_result(value) and isinstance(value.metrics_data, list)  # no mock
    results = [value] if is_one else getattr(value, "test_results", value)
    if isinstance(results, list) and results and all(map(_is_test_result, results)):
        return _of_deepeval(results)
    scores = getattr(value, "scores", None)
    if isinstance(scores, list) and hasattr(type(value), "to_pandas") and _are_rows(scores):
        frame = value.to_pandas() if getattr(value, "dataset", None) is not None else None
        keys = dict.fromkeys(name for row in scores for name in row)
        return _of_ragas({key: _unwrapped(row.get(key) for row in scores) for key in keys}, frame)
    is_experiment = hasattr(type(value), "to_pandas") and hasattr(value, "data_model")
    if is_experiment:
        value = value.to_pandas()
    columns = getattr(value, "columns", None)
    if columns is None or not hasattr(type(value), "to_dict"):
        return None
    names = [str(name) for name in columns]
    if not set(_QUESTIONS) & set(names):
        return None
    if not set(_OF_RAGAS[2:]) & set(names) and not _are_conversations(value):
        return None
    measured = {name: _unwrapped(value[name]) for name in names if name not in _OF_RAGAS}
    grades = {n: v for n, v in measured.items() if _are_grades(v)}
    return _of_ragas(grades, value, is_ordered=not is_experiment)


def _are_conversations(frame: Any) -> bool:
    """Whether a frame's inputs are lists of messages, as ragas' samples of several turns have."""
    inputs = [*frame["user_input"]] if "user_input" in frame.columns else []
    return bool(inputs) and all(isinstance(turns, list) for turns in inputs)


def _is_test_result(value: Any) -> bool:
    return hasattr(value, "metrics_data") and hasattr(value, "success")


def _of_deepeval(results: Sequence[Any]) -> LibraryResult:
    """Of each metric the mean, the share that passed, and how many could not be measured."""
    by_test = [_by_name(result.metrics_data or ()) for result in results]
    metrics: dict[str, object] = {
        "samples": len(results),
        "success": mean(float(bool(result.success)) for result in results),
    }
    scores: dict[str, list[float]] = {}
    costs: list[float] = []
    for name in dict.fromkeys(name for known in by_test for name in known):
        found = [known[name] for known in by_test if name in known]
        values = [score_value(getattr(known.get(name), "score", None)) for known in by_test]
        metrics[f"{name}/pass_rate"] = mean(float(bool(one.success)) for one in found)
        metrics[f"{name}/errors"] = sum(getattr(one, "error", None) is not None for one in found)
        costs += [c for one in found if (c := getattr(one, "evaluation_cost", None)) is not None]
        if any(value == value for value in values):
            metrics[name], scores[name] = mean(values), values
    if costs:
        metrics["evaluation_cost"] = total(costs)
    success = [float(bool(result.success)) for result in results]
    names = [str(result.name) for result in results]
    numbers = [getattr(result, "index", None) for result in results]
    part = ResultSamples(
        {"success": success, **scores},
        next((ids for ids in (names, numbers) if _are_ids(ids)), None),
        columns=plain_columns(
            input=[text_of(getattr(result, "input", None)) for result in results],
            target=[text_of(getattr(result, "expected_output", None)) for result in results],
            prediction=[text_of(getattr(result, "actual_output", None)) for result in results],
            error=[
                joined_texts({n: getattr(one, "error", None) for n, one in known.items()})
                for known in by_test
            ],
        ),
        dataset="deepeval",
    )
    return LibraryResult("deepeval", metrics, [part])


def _are_ids(ids: Sequence[Any]) -> bool:
    return None not in ids and len(set(ids)) == len(ids)


def _by_name(measured: Iterable[Any]) -> dict[str, Any]:
    """The metrics of a test by name; the second one of a name is ``{name} 2``."""
    named: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for metric in measured:
        name = str(metric.name)
        counts[name] += 1
        named[name if counts[name] == 1 else f"{name} {counts[name]}"] = metric
    return named


def _are_rows(scores: list[Any]) -> bool:
    return bool(scores) and all(isinstance(row, Mapping) for row in scores)


def _unwrapped(values: Iterable[Any]) -> list[Any]:
    """Values without the MetricResult, of value and reason, in which ragas' own metrics give them.

    A column of a frame is read by its values, in the order of its rows.
    """
    return [getattr(one, "value", one) if hasattr(one, "reason") else one for one in values]


def _are_grades(values: list[Any]) -> bool:
    """Whether a column is numbers, or what ragas' discrete metrics say, and no other text.

    Of a metric that could be measured in no row, all are NaN.
    """
    texts = {value.lower() for value in values if isinstance(value, str)}
    return texts <= {"pass", "fail"} and (bool(texts) or any(map(is_number, values)))


def _of_ragas(
    measured: Mapping[str, Sequence[Any]], frame: Any, *, is_ordered: bool = True
) -> LibraryResult | None:
    """Rows without the dataset's order, those of an Experiment, have their questions for ids."""
    read = {str(name): [score_value(v) for v in values] for name, values in measured.items()}
    count = max((len(values) for values in measured.values()), default=0)
    missing = {f"{name}/errors": sum(v != v for v in values) for name, values in read.items()}
    scores = {name: values for name, values in read.items() if any(v == v for v in values)}
    metrics = {**{name: mean(values) for name, values in scores.items()}, "samples": count}
    if not scores:
        return LibraryResult("ragas", {**metrics, **missing}) if read else None

    def column(*names: str) -> list[str | None]:
        found = next((n for n in names if frame is not None and n in frame.columns), None)
        return [None] * count if found is None else list(map(text_of, frame[found]))

    questions = column(*_QUESTIONS)
    ids = None if is_ordered or not _are_ids(questions) else questions
    columns = plain_columns(
        input=questions,
        target=column("reference", "ground_truth"),
        prediction=column("response", "answer"),
    )
    part = ResultSamples(scores, ids, columns=columns, dataset="ragas")
    return LibraryResult("ragas", {**metrics, **missing}, [part])
