"""MLflow's own evaluation of language models in a tracked test: one run, its traces and models."""

from __future__ import annotations

from conftest import Evals, artifacts_of
from mlflow import MlflowClient

from pytest_armory.store.database import sqlite_uri

SOURCE = """
    import mlflow, pytest
    from mlflow.genai.scorers import scorer
    from pytest_armory import track_metrics

    @scorer
    def exact(outputs, expectations): return outputs == expectations["expected_response"]

    def answer(question):
        return "4" if question == "2 + 2" else "7"

    @pytest.mark.evaluation(name="genai", at_least={"exact/mean": 0.6})
    def test_genai(evaluation_run):
        expected = {"2 + 2": "4", "3 + 3": "6"}
        data = [
            {"inputs": {"question": q}, "expectations": {"expected_response": a}}
            for q, a in expected.items()
        ]
        result = mlflow.genai.evaluate(data=data, predict_fn=answer, scorers=[exact])
        assert result.run_id == evaluation_run.run_id
        track_metrics(result)

    @pytest.mark.evaluation(name="genai")
    def test_model(evaluation_run):
        model = mlflow.create_external_model(name="prompt-7")
        mlflow.set_active_model(model_id=model.model_id)
        with mlflow.start_span("ask"):
            pass
        assert model.source_run_id == evaluation_run.run_id

    @pytest.mark.evaluation(name="genai")
    def test_after():
        assert mlflow.get_active_model_id() is None
"""


def test_genai_evaluate_and_logged_models_in_tracked_tests(evals: Evals) -> None:
    evals.write(SOURCE)
    evals.run("-p", "no:xdist", "-W", "ignore", subprocess=True).assert_outcomes(passed=2, failed=1)
    runs = evals.runs()  # and no other of that experiment
    run = runs["test_genai"]
    assert run.data.metrics["exact/mean"] == 0.5
    assert run.data.metrics["exact/mean/ci_low"] < 0.5 < run.data.metrics["exact/mean/ci_high"]
    assert run.data.metrics["samples"] == 2
    assert "samples.parquet" in artifacts_of(run)
    client = MlflowClient(sqlite_uri(evals.home / "mlruns" / "mlflow.db"))
    traces = client.search_traces(locations=[run.info.experiment_id], include_spans=False)
    sources = [trace.info.trace_metadata["mlflow.sourceRun"] for trace in traces]
    assert sorted(map(sources.count, {*sources})) == [1, 2]
    assert {*sources} == {run.info.run_id, runs["test_model"].info.run_id}
    (model,) = client.search_logged_models([run.info.experiment_id])
    of_model = [t for t in traces if t.info.trace_metadata.get("mlflow.modelId") == model.model_id]
    assert [t.info.trace_metadata["mlflow.sourceRun"] for t in of_model] == [
        runs["test_model"].info.run_id
    ]
