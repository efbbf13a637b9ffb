"""The results dictionary of lm-evaluation-harness, with its ``samples`` where it has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from pytest_armory.track.libraries.result import (
    LibraryResult,
    ResultSamples,
    plain_columns,
    score_value,
    text_of,
)


def read(value: Any) -> LibraryResult | None:
    """The metrics of each task and group as ``{task}/{metric}``, with ``{task}/samples``.

    A filter other than ``none`` is part of the name: ``{task}/{metric}/{filter}``. Standard errors
    are ``{task}/{metric}_stderr``.
    """
    if not isinstance(value, Mapping) or not _is_results(value):
        return None
    metrics: dict[str, object] = {}
    for task, results in value["results"].items():
        for key, number in results.items():
            metric, comma, filtering = str(key).partition(",")
            if comma and not isinstance(number, str):  # "N/A" is no standard error
                metrics[_name(task, metric, filtering)] = number
    for task, counts in (value.get("n-samples") or {}).items():
        metrics[f"{task}/samples"] = counts["effective"]
    samples = value.get("samples") or {}
    better = value.get("higher_is_better") or {}
    parts = [
        part
        for task, rows in samples.items()
        for part in _samples(str(task), rows, better.get(task) or {})
    ]
    return LibraryResult("lm-eval", metrics, parts)


def _is_results(value: Mapping[Any, Any]) -> bool:
    results = value.get("results")
    is_theirs = "n-shot" in value or "configs" in value
    return (
        is_theirs
        and isinstance(results, Mapping)
        and all(isinstance(metrics, Mapping) for metrics in results.values())
    )


def _name(task: object, metric: str, filtering: str) -> str:
    return "/".join([str(task), metric, *([] if filtering in ("", "none") else [filtering])])


def _samples(
    task: str, rows: Sequence[Mapping[str, Any]], better: Mapping[str, bool | None]
) -> Iterator[ResultSamples]:
    """The samples of a task, for each filter apart: each has a row of its own for a document."""
    for filtering in dict.fromkeys(str(row.get("filter", "none")) for row in rows):
        chosen = [row for row in rows if str(row.get("filter", "none")) == filtering]
        names = dict.fromkeys(name for row in chosen for name in row.get("metrics") or ())
        scores = {
            _name(task, name, filtering): [score_value(row.get(name)) for row in chosen]
            for name in names
            if any(isinstance(row.get(name), Real) for row in chosen)
        }
        if scores:
            yield ResultSamples(
                scores,
                [row["doc_id"] for row in chosen],
                columns=plain_columns(
                    input=[text_of(row.get("doc")) for row in chosen],
                    target=[text_of(row.get("target")) for row in chosen],
                    prediction=[_answer(row.get("filtered_resps")) for row in chosen],
                ),
                dataset=task,
                higher_is_worse=[
                    known
                    for name in names
                    if better.get(name) is False
                    and (known := _name(task, name, filtering)) in scores
                ],
            )


def _answer(responses: Any) -> str | None:
    """The only answer to a document; several choices' log likelihoods are none."""
    while isinstance(responses, (list, tuple)) and len(responses) == 1:
        responses = responses[0]
    return responses if isinstance(responses, str) else None
