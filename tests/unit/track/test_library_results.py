"""Results of other libraries: their true shapes, as the libraries themselves made them."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pyarrow
import pytest
from mlflow.entities import Run

from pytest_armory.errors import MetricWarning
from pytest_armory.tables.arrow import to_arrow
from pytest_armory.track import EvaluationRun, track_evaluation, track_metrics
from pytest_armory.track.context import running
from pytest_armory.track.library_log import log_library_results
from pytest_armory.track.results import converting

pytestmark = pytest.mark.usefixtures("armory_home", "tracking_elsewhere")

nan = math.nan


def measured(result: Any) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The metrics that a result becomes in a run in memory, and its samples' scores."""
    run = EvaluationRun()
    rest = log_library_results(run.writer, result, None)
    assert rest == {}, "it was not known"
    parts = run.writer.samples.table.parts
    assert all(part.is_complete for part in parts)
    return run.metrics, {n: list(v) for part in parts for n, v in part.scores.items()}


def inspect_log(*, epochs: int = 1, scorers: int = 1, **changes: Any) -> dict[str, Any]:
    """A log of Inspect 0.3's as JSON: four samples, one of which the second scorer got wrong."""
    names = ["match", "includes"][:scorers]
    scores = {"match": [1, 0, 1, 1], "includes": [1, 1, 1, 0]}
    reducers = [None] if epochs == 1 else ["mean", "pass_at_2"]
    return {
        "version": 2,
        "status": "success",
        "eval": {"task": "sums", "dataset": {"name": "sums.csv"}, "model": "mockllm/model"},
        "results": {
            "total_samples": 4 * epochs,
            "completed_samples": 4 * epochs,
            "scores": [
                {
                    "name": name,
                    "scorer": name,
                    "reducer": reducer,
                    "scored_samples": 4,
                    "unscored_samples": 0,
                    "metrics": {
                        "accuracy": {"name": "accuracy", "value": sum(scores[name]) / 4},
                        "stderr": {"name": "stderr", "value": 0.25},
                    },
                }
                for name in names
                for reducer in reducers
            ],
        },
        "samples": [
            {
                "id": f"q{i}",
                "epoch": epoch,
                "input": f"{i} + 1?",
                "target": str(i + 1),
                "output": {"completion": str(i + 1)},
                "scores": {
                    name: {"value": "C" if scores[name][i] else "I", "answer": None}
                    for name in names
                },
                "error": None,
            }
            for epoch in range(1, epochs + 1)
            for i in range(4)
        ],
        **changes,
    }


def as_objects(value: Any) -> Any:
    """The same with attributes, as the library has it."""
    if isinstance(value, list):
        return [as_objects(one) for one in value]
    if not isinstance(value, dict):
        return value
    inner = {name: as_objects(one) for name, one in value.items()}
    keyed = set(value) & {"match", "includes", "accuracy", "parts"}
    return inner if keyed else SimpleNamespace(**inner)


HARNESS: dict[str, Any] = {
    "results": {
        "arc": {"alias": "arc", "sample_len": 2, "acc,none": 0.5, "acc_stderr,none": "N/A"},
        "gsm": {
            "exact_match,strict-match": np.float64(1.0),
            "exact_match_stderr,strict-match": 0.0,
            "exact_match,flexible-extract": 0.5,
            "exact_match_stderr,flexible-extract": 0.5,
        },
    },
    "configs": {},
    "n-shot": {},
    "higher_is_better": {"arc": {"acc": True}, "gsm": {"exact_match": True}},
    "n-samples": {"arc": {"original": 9, "effective": 2}, "gsm": {"original": 2, "effective": 2}},
    "samples": {
        "arc": [
            {"doc_id": i, "target": "1", "filter": "none", "metrics": ["acc"], "acc": float(i)}
            for i in range(2)
        ],
        "gsm": [
            {
                "doc_id": i,
                "target": "7",
                "filtered_resps": ["7"],
                "filter": name,
                "metrics": ["exact_match"],
                "exact_match": score,
            }
            for name, scores in (("strict-match", [1.0, 1.0]), ("flexible-extract", [1.0, 0.0]))
            for i, score in enumerate(scores)
        ],
    },
}

GENAI = SimpleNamespace(
    run_id="1" * 32,
    metrics={"exact/mean": 0.5, "words/mean": 1.0},
    result_df=pd.DataFrame(
        {
            "trace_id": ["tr-1", "tr-2"],
            "exact/value": [True, False],
            "words/value": ["yes", None],
            "words/error_message": [None, "judge down"],
            "note/value": ["fine", "good"],
            "request": [{"question": "1+1"}, {"question": "2+1"}],
            "response": ["2", "7"],
        }
    ),
)


class ModelsResult:
    """As ``mlflow.models.evaluate`` returns it."""

    metrics: Mapping[str, float] = {"len/v1/mean": 1.5, "exact_match/v1": 0.5}
    artifacts: Mapping[str, object] = {"eval_results_table": object()}

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        frame = {"inputs": ["a", "b"], "outputs": ["a", "bb"], "len/v1/score": [1.0, 2.0]}
        return {"eval_results_table": pd.DataFrame(frame)}


PredictionOutput = namedtuple("PredictionOutput", "predictions label_ids metrics")
TrainOutput = namedtuple("TrainOutput", "global_step training_loss metrics")
LOGITS = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
PREDICTED = PredictionOutput(
    LOGITS, np.array([1, 0, 1, 0]), {"test_loss": 0.5, "test_accuracy": 0.75}
)


def judged(number: int, score: float | None, error: str | None = None) -> SimpleNamespace:
    """A test result of deepeval's with one metric."""
    success = score is not None and score >= 0.5
    metric = SimpleNamespace(
        name="Length", success=success, score=score, error=error, evaluation_cost=0.25
    )
    return SimpleNamespace(
        name=f"test_case_{number}",
        success=success,
        metrics_data=[metric],
        input="q",
        actual_output="a",
        expected_output=None,
    )


TESTED = [judged(0, 1.0), judged(1, 0.25), judged(2, None, "judge down")]
OF_DEEPEVAL = {
    "samples": 3.0,
    "success": 1 / 3,
    "Length": 0.625,
    "Length/pass_rate": 1 / 3,
    "Length/errors": 1.0,
    "evaluation_cost": 0.75,
}
RAGAS = pd.DataFrame(
    {
        "user_input": ["q1", "q2", "q3"],
        "retrieved_contexts": [["c"], ["c"], ["c"]],
        "response": ["a1", "a2", "a3"],
        "faithfulness": [1.0, nan, 0.0],
        "relevancy": [0.5, 0.5, 0.5],
    }
)
OF_RAGAS = {
    "faithfulness": 0.5,
    "faithfulness/errors": 1.0,
    "relevancy": 0.5,
    "relevancy/errors": 0.0,
    "samples": 3.0,
}


@dataclasses.dataclass
class RagasResult:
    scores: list[dict[str, float]]
    dataset: Any

    def to_pandas(self) -> pd.DataFrame:
        return RAGAS


OF_MATCH = {
    "match/accuracy": 0.75,
    "match/stderr": 0.25,
    "match/scored_samples": 4.0,
    "match/unscored_samples": 0.0,
}
OF_SUMS = {**OF_MATCH, "samples": 4.0, "errors": 0.0}
MATCHES = [1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("result", "metrics", "scores"),
    [
        pytest.param(as_objects(inspect_log()), OF_SUMS, {"match/accuracy": MATCHES}, id="Inspect"),
        pytest.param(
            [as_objects(inspect_log())], OF_SUMS, {"match/accuracy": MATCHES}, id="Inspect's eval()"
        ),
        pytest.param(
            HARNESS,
            {
                "arc/acc": 0.5,
                "arc/samples": 2,
                "gsm/exact_match/strict-match": 1,
                "gsm/exact_match_stderr/strict-match": 0,
                "gsm/exact_match/flexible-extract": 0.5,
                "gsm/exact_match_stderr/flexible-extract": 0.5,
                "gsm/samples": 2,
            },
            {
                "arc/acc": [0.0, 1.0],
                "gsm/exact_match/strict-match": [1.0, 1.0],
                "gsm/exact_match/flexible-extract": [1.0, 0.0],
            },
            id="lm-eval",
        ),
        pytest.param(
            GENAI,
            {"exact/mean": 0.5, "words/mean": 1.0, "samples": 2, "words/errors": 1},
            {"exact/mean": [1.0, 0.0], "words/mean": [1.0, nan]},
            id="mlflow.genai",
        ),
        pytest.param(
            ModelsResult(),
            {"len/v1/mean": 1.5, "exact_match/v1": 0.5, "samples": 2},
            {"len/v1/mean": [1.0, 2.0]},
            id="mlflow.models",
        ),
        pytest.param(
            [{"acc/dataloader_idx_0": 0.5}, {"acc/dataloader_idx_1": 0.25}],
            {"acc": 0.5, "acc/dataloader_idx_1": 0.25},
            {},
            id="Lightning",
        ),
        pytest.param(
            PREDICTED,
            {"test_loss": 0.5, "test_accuracy": 0.75, "samples": 4},
            {"test_accuracy": [1.0, 1.0, 1.0, 0.0]},
            id="Trainer.predict",
        ),
        pytest.param(
            TrainOutput(7, 0.5, {"train_runtime": 2.0}),
            {"training_loss": 0.5, "train_runtime": 2.0},
            {},
            id="Trainer.train",
        ),
        pytest.param(
            SimpleNamespace(test_results=TESTED),
            OF_DEEPEVAL,
            {"success": [1.0, 0.0, 0.0], "Length": [1.0, 0.25, nan]},
            id="deepeval",
        ),
        pytest.param(
            TESTED,
            OF_DEEPEVAL,
            {"success": [1.0, 0.0, 0.0], "Length": [1.0, 0.25, nan]},
            id="deepeval list",
        ),
        pytest.param(
            TESTED[0],
            {
                "samples": 1.0,
                "success": 1.0,
                "Length": 1.0,
                "Length/pass_rate": 1.0,
                "Length/errors": 0.0,
                "evaluation_cost": 0.25,
            },
            {"success": [1.0], "Length": [1.0]},
            id="deepeval one",
        ),
        pytest.param(
            RAGAS,
            OF_RAGAS,
            {"faithfulness": [1.0, nan, 0.0], "relevancy": [0.5] * 3},
            id="ragas frame",
        ),
        pytest.param(
            RagasResult(RAGAS[["faithfulness", "relevancy"]].to_dict("records"), object()),
            OF_RAGAS,
            {"faithfulness": [1.0, nan, 0.0], "relevancy": [0.5] * 3},
            id="ragas",
        ),
    ],
)
def test_metrics_and_samples_of_each_library(
    result: Any, metrics: Mapping[str, float], scores: Mapping[str, list[float]]
) -> None:
    found, samples = measured(result)
    assert found == pytest.approx(dict(metrics))
    assert samples == {name: pytest.approx(v, nan_ok=True) for name, v in scores.items()}


def test_names_do_not_depend_on_how_many_scorers_loaders_or_reducers_there_are() -> None:
    alone = set(measured(as_objects(inspect_log()))[0])
    assert alone <= set(measured(as_objects(inspect_log(scorers=2)))[0])
    assert alone <= set(measured(as_objects(inspect_log(epochs=2)))[0])
    loaders = [{"acc/dataloader_idx_0": 0.5}, {"acc/dataloader_idx_1": 0.5}]
    assert set(tracked([{"acc": 0.5}]).metrics) <= set(measured(loaders)[0])
    of_all = [{**one, "acc": 0.75} for one in loaders]  # logged at the end of the epoch
    assert measured(of_all)[0] == {**of_all[0], **of_all[1]}


def tracked(*results: Any, step: int | None = None) -> EvaluationRun:
    """A run in memory that `track_metrics` is given results in."""
    run = EvaluationRun()
    with running(run):
        for result in results:
            track_metrics(result, step=step)
    return run


def archive(log: Mapping[str, Any], path: Path, *, zstandard: bool = True) -> Path:
    """A log as Inspect writes it: each file compressed with Zstandard."""
    header = {name: value for name, value in log.items() if name != "samples"}
    files = {f"samples/{s['id']}_epoch_{s['epoch']}.json": s for s in log["samples"]}
    with ZipFile(path, "w") as target:
        for name, content in {"header.json": header, **files}.items():
            text = json.dumps(content).encode()
            target.writestr(name, bytes(pyarrow.compress(text, "zstd")) if zstandard else text)
    if zstandard:  # the standard library cannot write them before Python 3.14
        with ZipFile(path) as source:
            infos, start = source.infolist(), source.start_dir
        data = bytearray(path.read_bytes())
        for info in infos:
            data[info.header_offset + 8] = 93
        for _ in infos:
            start = data.index(b"PK\x01\x02", start)
            data[start + 10] = 93
            start += 4
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["zstd", "stored", "json"])
def test_the_path_of_a_log_is_the_log(tmp_path: Path, kind: str) -> None:
    log = inspect_log(epochs=2, scorers=2)
    path = tmp_path / ("log.json" if kind == "json" else "log.eval")
    if kind == "json":
        path.write_text(json.dumps(log), encoding="utf-8")
    else:
        archive(log, path, zstandard=kind == "zstd")
    expected = measured(as_objects(log))
    assert measured(path) == measured(str(path)) == expected
    run = tracked({"first": path, "loss": 0.5})
    assert run.metrics["first/match/accuracy"] == 0.75
    assert run.metrics["loss"] == 0.5
    (part,) = run.writer.samples.table.parts
    assert list(part.scores) == ["first/match/accuracy", "first/includes/accuracy"]
    assert part.groups is not None
    assert list(part.groups.values) == ["q0", "q1", "q2", "q3"] * 2
    assert part.columns["prediction"].values[:2] == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("settings.json", b'{"eval": 1}', "a string"),
        ("settings.json", b"no JSON", "a string"),
        ("notes.txt", b"", "a string"),
        ("missing.eval", None, "there is no log"),
        ("page.eval", b"<html>", "is no log of Inspect's"),
    ],
)
def test_a_path_is_read_only_where_it_names_a_log(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.warns(MetricWarning, match=reason) as found:
        run = tracked({"where": str(tmp_path / name), "accuracy": 0.5})
    assert [warning.filename for warning in found] == [__file__]
    assert run.metrics == {"accuracy": 0.5}


def broken_log(**changes: Any) -> dict[str, Any]:
    """A log of Inspect's that ended with an error, after three of four samples."""
    log = inspect_log(status="error", error={"message": "boom"}, results=None, **changes)
    log["samples"][3] |= {"scores": None, "error": {"message": "429"}}
    definitions = [{"name": "inspect_ai/accuracy"}, {"name": "inspect_ai/stderr"}]
    log["eval"] = {**log["eval"], "scorers": [{"name": "match", "metrics": definitions}]}
    return log


def test_a_log_that_was_broken_off_keeps_counts_and_partial_samples() -> None:
    broken = as_objects(broken_log())
    with pytest.warns(MetricWarning, match="^'sums': its log has the status 'error': boom$"):
        run = tracked(broken)
    table = run.writer.samples.table
    (rows,) = table.parts
    assert run.metrics == {"samples": 3, "errors": 1}
    assert {n: list(v) for n, v in rows.scores.items()} == {
        "match/accuracy": pytest.approx([1, 0, 1, nan], nan_ok=True)
    }
    assert list(rows.columns["error"].values) == [None, None, None, "429"]
    assert table.is_partial
    assert not run.writer.samples.results().metrics
    with pytest.warns(MetricWarning, match="'error': boom"):
        run = tracked(broken, as_objects(inspect_log(eval={"task": "products"})))
    assert run.metrics["match/accuracy"] == 0.75
    assert run.writer.samples.table.names == ["sums/match/accuracy", "match/accuracy"]


def test_scores_whose_names_mlflow_would_make_one_are_the_metrics_of_theirs() -> None:
    task = {"alias": "a", "a*b,none": 0.5, "a+b,none": 0.25}
    rows = [{"doc_id": i, "filter": "none", "metrics": ["a*b"], "a*b": i} for i in range(2)]
    run = tracked({"results": {"arc": task}, "samples": {"arc": rows}, "configs": {"arc": {}}})
    assert run.metrics["arc/a_asterisk_b"] == 0.5
    assert run.metrics["arc/a_plus_sign_b"] == 0.25
    assert "arc/a_b" not in run.metrics
    assert run.writer.samples.table.names == ["arc/a_asterisk_b"]


def test_the_header_of_a_log_that_was_broken_off_says_no_counts() -> None:
    with pytest.warns(MetricWarning, match="'error': boom"):
        assert tracked({**broken_log(), "samples": None}).metrics == {}


@pytest.mark.parametrize(
    ("metrics", "value", "names"),
    [
        ([{"name": "custom/mean"}], "C", ["match/mean"]),
        ({"a": [{"name": "mean"}], "*": [{"name": "std"}]}, {"a": 1, "b": 0},
         ["match/a/mean", "match/b"]),
        ([{"name": "accuracy"}, {"a": [{"name": "mean"}]}], {"a": 1}, ["match/a/mean"]),
        (None, "C", ["match"]),
        ([{"name": "accuracy"}], None, ["match/accuracy"]),  # no sample was scored
    ],
)  # fmt: skip
def test_scores_of_a_log_without_results_have_the_names_that_results_give(
    metrics: Any, value: Any, names: list[str]
) -> None:
    log = broken_log()
    log["eval"]["scorers"] = [{"name": "match", "metrics": metrics}]
    for sample in log["samples"][:3]:
        sample["scores"] = {} if value is None else {"match": {"value": value}}
    with pytest.warns(MetricWarning, match="'error': boom"):
        run = tracked({"base": log})
    assert run.writer.samples.table.names == [f"base/{name}" for name in names]


def test_the_samples_of_a_log_in_which_all_failed() -> None:
    log = inspect_log()  # with eval(..., fail_on_error=False)
    log["eval"]["scorers"] = [{"name": "match", "metrics": [{"name": "inspect_ai/accuracy"}]}]
    log["results"] |= {"completed_samples": 0, "scores": []}
    for sample in log["samples"]:
        sample |= {"scores": None, "error": {"message": "429"}}
    run = tracked(log)
    (rows,) = run.writer.samples.table.parts
    assert run.metrics == {"samples": 0, "errors": 4}
    assert list(rows.scores) == ["match/accuracy"]
    assert list(rows.columns["error"].values) == ["429"] * 4


def test_the_archive_of_a_log_that_was_killed(tmp_path: Path) -> None:
    log = broken_log()
    path = tmp_path / "log.eval"
    with ZipFile(path, "w") as target:
        target.writestr("_journal/start.json", json.dumps({"version": 2, "eval": log["eval"]}))
        target.writestr("samples/q0_epoch_1.json", json.dumps(log["samples"][0]))
    with pytest.warns(MetricWarning, match="^'sums': its log has the status 'started'$"):
        run = tracked(path)
    assert run.metrics == {"samples": 1, "errors": 0}
    assert run.writer.samples.table.names == ["match/accuracy"]
    with ZipFile(path, "w") as target:
        target.writestr("summaries.json", "[]")
    with pytest.warns(MetricWarning, match="is no log of Inspect's"):
        assert tracked(path).metrics == {}


def test_tasks_whose_samples_have_equal_ids_and_targets_share_no_rows() -> None:
    rows = [{**row, "doc": {"question": "q"}} for row in HARNESS["samples"]["arc"]]
    results = dict.fromkeys(("arc", "arc2"), HARNESS["results"]["arc"])
    run = tracked({**HARNESS, "results": results, "samples": {"arc": rows, "arc2": rows}})
    found = to_arrow(run.writer.samples.table)
    assert found["arc/acc"].to_pylist() == [0, 1, None, None]
    assert found["arc2/acc"].to_pylist() == [None, None, 0, 1]
    assert found["input"].to_pylist() == ['{"question": "q"}'] * 4


def test_a_result_that_comes_again_replaces_and_another_ones_names_are_kept_apart() -> None:
    first = as_objects(inspect_log())
    run = tracked(first, first)
    assert run.writer.samples.table.count == 4
    other = as_objects(inspect_log(eval={"task": "products"}))
    with pytest.warns(MetricWarning, match="'sums' and 'products' of one run both measured"):
        run = tracked(first, other)
    assert run.metrics["match/accuracy"] == run.metrics["products/match/accuracy"] == 0.75
    names = [list(part.scores) for part in run.writer.samples.table.parts]
    assert names == [["match/accuracy"], ["products/match/accuracy"]]


def test_one_task_by_two_models_is_two_results() -> None:
    logs = [as_objects(inspect_log()), as_objects(inspect_log(eval={"task": "sums", "model": "b"}))]
    with pytest.warns(MetricWarning, match="'sums' and 'sums 2' of one run both measured"):
        run = tracked(logs)
    assert run.metrics["match/accuracy"] == run.metrics["sums 2/match/accuracy"] == 0.75


def test_two_metrics_of_one_name_and_those_that_could_not_be_measured() -> None:
    data = [SimpleNamespace(name="A", success=True, score=score) for score in (0.9, 0.1)]
    tests = [SimpleNamespace(name="t", success=True, metrics_data=data)]
    metrics, _ = measured(tests)
    assert (metrics["A"], metrics["A 2"]) == (0.9, 0.1)
    rows = [{"faithfulness": nan, "verdict": verdict} for verdict in ("pass", "fail")]
    metrics, scores = measured(RagasResult(rows, None))
    assert metrics == {"verdict": 0.5, "verdict/errors": 0, "faithfulness/errors": 2, "samples": 2}
    assert scores == {"verdict": [1.0, 0.0]}


def test_a_score_whose_mean_is_not_the_metric_has_another_name() -> None:
    log = inspect_log()
    log["results"]["scores"][0]["metrics"]["accuracy"]["value"] = 0.9  # weighted, say
    metrics, scores = measured(as_objects(log))
    assert metrics["match/accuracy"] == 0.9
    assert metrics["match/accuracy/per_sample"] == 0.75
    assert list(scores) == ["match/accuracy/per_sample"]


def test_a_mean_that_a_library_has_not_computed_is_a_metric_too() -> None:
    log = inspect_log()
    parts = {name: {"name": name, "value": value} for name, value in (("a", 1.0), ("b", 0.5))}
    log["results"]["scores"][0]["metrics"] = {"parts": {"value": 0.5}, **parts}
    metrics, scores = measured(log)
    assert (metrics["match/a"], metrics["match"]) == (1, 0.75)
    assert scores == {"match": MATCHES}
    log["results"]["scores"][0]["metrics"] = {**parts, "all": {"value": 0.75}}  # of grouped()
    assert measured(log)[1] == {"match/all": MATCHES}
    frame = pd.DataFrame({"long/value": [1.0, 3.0]})
    result = SimpleNamespace(metrics={"long/max": 3.0}, result_df=frame)
    assert measured(result)[0] == {"long/max": 3, "long/mean": 2, "samples": 2}


def test_what_failed_is_counted_and_its_text_kept() -> None:
    def column(result: Any, name: str) -> list[object]:
        run = EvaluationRun()
        log_library_results(run.writer, result, None)
        return list(run.writer.samples.table.parts[0].columns[name].values)

    assert column(GENAI, "error") == [None, "words: judge down"]
    assert column(TESTED, "error") == [None, None, "Length: judge down"]
    frame = GENAI.result_df.assign(state=["OK", "ERROR"], **{"expected_response/value": ["2", "3"]})
    failed = SimpleNamespace(metrics=GENAI.metrics, result_df=frame)
    assert measured(failed)[0]["errors"] == 1
    assert column(failed, "target") == ["2", "3"]
    assert column(failed, "error") == [None, "model: failed; words: judge down"]
    inner = {"parent_span_id": "1", "status": {"message": "inner"}}
    outer = {"parent_span_id": None, "status": {"message": "ValueError: 429"}}
    failed.result_df = frame.assign(spans=[[], [inner, outer]])
    assert column(failed, "error") == [None, "model: ValueError: 429; words: judge down"]
    failed.result_df = pd.DataFrame(  # as MLflow 3.4 makes it
        {
            "request_id": ["b", "a"],
            "inputs": [{"question": "1+1"}, {"question": "2+1"}],
            "outputs": ["2", nan],
            "expectations": [{"expected_response": "2"}, {"expected_response": "3"}],
            "error_message": [None, "429"],
            "exact/value": [True, False],
            "exact/error_message": [None, None],
        }
    )
    found = measured(failed)[0]
    assert {name: found[name] for name in ("errors", "exact/errors")} == {
        "errors": 1,
        "exact/errors": 0,
    }
    assert column(failed, "prediction") == ["2", None]
    assert column(failed, "target") == ["2", "3"]
    assert column(failed, "error") == [None, "model: 429"]
    run = tracked(failed)
    (rows,) = run.writer.samples.table.parts
    assert rows.ids is not None
    assert list(rows.ids.values) == ["b", "a"]
    failed.result_df = failed.result_df.drop(columns="error_message")
    assert measured(failed)[0]["errors"] == 0
    with pytest.warns(MetricWarning, match=r"^'mlflow\.genai\.evaluate': MLflow made no table"):
        found = measured(SimpleNamespace(metrics={"exact/mean": nan}, result_df=None))
    assert list(found[0]) == ["exact/mean"]


def test_the_columns_of_a_frame_of_ragas_that_are_metrics() -> None:
    texts = ["pass", "fail", "pass"]
    results = [SimpleNamespace(value=text, reason="r") for text in texts]
    odd = {"failed": [nan] * 3, "none": [None] * 3, "gold": ["yes", "no", "no"]}
    metrics, scores = measured(RAGAS.assign(verdict=texts, found=results, **odd))
    own = {"verdict": 2 / 3, "verdict/errors": 0, "found": 2 / 3, "found/errors": 0}
    assert metrics == pytest.approx({**OF_RAGAS, **own, "failed/errors": 3})
    assert scores["verdict"] == scores["found"] == [1, 0, 1]


class Experiment:
    """As ragas' decorator ``experiment`` returns it: rows in the order in which they ended."""

    data_model = None

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows

    def to_pandas(self) -> pd.DataFrame:
        return self.rows


def test_the_rows_of_an_experiment_of_ragas_are_named_by_their_questions() -> None:
    run = tracked(Experiment(RAGAS[::-1]))
    (rows,) = run.writer.samples.table.parts
    assert {name: run.metrics[name] for name in OF_RAGAS} == OF_RAGAS
    assert list(rows.ids.values) == RAGAS["user_input"].tolist()[::-1]
    run = tracked(Experiment(RAGAS.assign(user_input="the same")))
    assert run.writer.samples.table.parts[0].ids is None  # the position


def test_a_frame_of_ragas_that_has_conversations_alone() -> None:
    turns = [{"content": "hi", "type": "human"}, {"content": "hello", "type": "ai"}]
    frame = pd.DataFrame({"user_input": [turns, turns], "polite": [1.0, 0.0]})
    metrics, scores = measured(frame)
    assert metrics == {"polite": 0.5, "polite/errors": 0, "samples": 2}
    assert scores == {"polite": [1, 0]}


def test_test_cases_of_one_name_are_told_apart_by_their_number() -> None:
    tests = [SimpleNamespace(**{**vars(judged(0, 1.0)), "index": i}) for i in (1, 0)]
    run = EvaluationRun()
    log_library_results(run.writer, tests, None)
    assert list(run.writer.samples.table.parts[0].ids.values) == [1, 0]


def test_with_a_step_only_metrics_are_kept() -> None:
    run = tracked(HARNESS, step=3)
    assert run.metrics["arc/acc"] == 0.5
    assert not run.writer.samples.table


def test_the_hook_goes_first_and_may_give_a_librarys_result() -> None:
    class Report:
        log = as_objects(inspect_log())

    def convert(value: object) -> object:
        return {"mine": 1.0} if value is GENAI else getattr(value, "log", None)

    with converting(convert):
        run = tracked(Report(), GENAI)
    assert run.metrics == {**OF_SUMS, "mine": 1.0}
    assert run.writer.samples.table.count == 4


@pytest.mark.parametrize(
    "strange",
    [
        as_objects({**inspect_log(), "samples": [{"scores": ["match"]}]}),
        {**HARNESS, "n-samples": {"arc": 2}},
        {**HARNESS, "samples": {"arc": [{"doc_id": 1, "metrics": ["acc"], "acc": 1.0}] * 2}},
    ],
)
def test_what_cannot_be_read_is_a_warning_and_no_failure(strange: Any) -> None:
    with pytest.warns(MetricWarning):
        run = tracked({"it": strange, "accuracy": 0.5})
    assert run.metrics["accuracy"] == 0.5


def test_others_objects_are_not_taken_for_results() -> None:
    mock, frame = MagicMock(), pd.DataFrame({"user_input": ["q"], "x": [1.0]})
    for value in (mock, frame, {"results": {"a": 1.0}}, [{"acc": 0.5}], ("a", "b"), LOGITS):
        rest = log_library_results(EvaluationRun().writer, value, None)
        assert rest is value


def test_what_is_stored_of_a_result(only: Callable[..., Run]) -> None:
    with track_evaluation("sums") as run:
        run.log_metrics(as_objects(inspect_log()))
    assert only().data.metrics.items() >= OF_SUMS.items()


def test_no_library_is_imported_for_it() -> None:
    code = (
        "import sys; from pytest_armory.track import libraries; "
        "libraries.without_library_results({'a': [1, 2]}, lambda _: None); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'numpy', 'pandas', 'pyarrow', 'mlflow', 'torch', 'inspect_ai', 'lm_eval'}))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
