"""`track_usage`: tokens, cost and latency from the traces of a run, in gates and in the summary."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Evals

from pytest_armory.store.traces import TraceUsage
from pytest_armory.track.usage import percentile, summed

ASKING = """
    import mlflow, pytest
    from pytest_armory import track_usage

    # As MLflow's autolog functions trace a call: the tokens of the answer, and the model's name.
    def ask(tokens, model="gpt-4o-mini"):
        with mlflow.start_span("ask", span_type="CHAT_MODEL") as span:
            if tokens:
                usage = {"input_tokens": tokens, "output_tokens": 2, "total_tokens": tokens + 2}
                span.set_attribute("mlflow.chat.tokenUsage", usage)
                span.set_attribute("mlflow.llm.model", model)

    @pytest.mark.evaluation(name="e", at_most={"cost": 5, "tokens/total": 13, "latency/p95": 60})
    def test_known():
        ask(3); ask(4)
        track_usage()
        ask(1)
        track_usage()

    @pytest.mark.evaluation(name="e", at_most={"cost": 5})
    def test_unknown_price():
        ask(10, "nobody's model")
        track_usage()

    @pytest.mark.evaluation(name="e", at_most={"cost": 5, "tokens/total": 9})
    def test_no_traces():
        track_usage()

    @pytest.mark.evaluation(name="e", at_most={"cost": 5})
    def test_forgotten():
        ask(1)
"""


def test_usage_is_judged_where_it_is_known(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(ASKING)
    result = evals.run(*each_way, subprocess=True)
    result.assert_outcomes(passed=2, failed=2)  # too many tokens; and a metric never logged
    result.stdout.fnmatch_lines(["*cost was never logged; `track_usage()`, called after*"])
    known = evals.run_of("test_known").data.metrics
    assert (known["tokens/input"], known["tokens/output"]) == (8, 6)
    assert known["tokens/total"] == 14
    assert 0 < known["cost"] < 0.01
    assert 0 <= known["latency/p50"] <= known["latency/p95"] < 60
    assert (known["traces"], known["traces/without_tokens"]) == (3, 0)
    priceless = evals.run_of("test_unknown_price").data.metrics
    assert priceless["tokens/total"] == 12
    assert "cost" not in priceless
    assert "tokens/total" not in evals.run_of("test_no_traces").data.metrics
    said = result.stdout.str()
    assert "not judged: cost is unknown: 1 of 1 traces have tokens and no cost" in said
    assert "not judged: tokens/total is unknown: the run has no traces" in said
    assert "used: 26 tokens and unknown in 1 evaluation (18 input, 8 output), cost " in said
    assert "USD and unknown in 2 evaluations" in said
    (session,) = evals.sessions()
    assert session.data.metrics["tokens/total"] == 26
    assert session.data.metrics["cost"] == pytest.approx(known["cost"])


def test_untracked_gates_on_usage_are_said_not_to_be_judged(
    evals: Evals, each_way: Sequence[str]
) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_usage
        @pytest.mark.evaluation(at_most={"cost": 5, "latency/p95": 2})
        def test_a(): assert track_usage() == {}
        @pytest.mark.evaluation(at_most={"cost": 5})
        def test_forgotten(): pass
    """)
    result = evals.run(*each_way, track=False)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines("*not judged: cost is unknown*nothing is tracked (test_a)*")
    result.stdout.fnmatch_lines("*not judged: latency/p95 is unknown*(test_a)*")


def test_each_repeat_has_its_own_usage(evals: Evals) -> None:
    evals.write(
        ASKING.partition("@pytest")[0]
        + """
    @pytest.mark.evaluation(name="e", repeats=3, at_most={"tokens/total": 7})
    def test_a():
        ask(5)
        track_usage()
    """
    )
    result = evals.run("-p", "no:xdist", subprocess=True)
    result.assert_outcomes(passed=1)
    metrics = evals.run_of("test_a").data.metrics
    assert metrics["tokens/total"] == 7
    assert metrics["all_repeats/tokens/total"] == 21
    assert "used: 21 tokens (15 input, 6 output), cost " in result.stdout.str()


def test_what_becomes_unknown_is_no_longer_known(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(
        ASKING.partition("@pytest")[0]
        + """
    from pytest_armory import track_metrics
    models = iter(["gpt-4o-mini", "nobody's model", "gpt-4o-mini"])

    @pytest.mark.evaluation(name="e", at_most={"cost": 5})
    def test_later():
        ask(3)
        track_usage()
        ask(3, "nobody's model")
        track_usage()

    @pytest.mark.evaluation(
        name="e", repeats=3, at_most={"cost": 5, "all_repeats/cost": 5, "tokens/total": 5}
    )
    def test_in_a_repeat():
        ask(3, next(models))
        track_usage()

    @pytest.mark.evaluation(name="e", repeats=2, at_most={"cost": 5})
    def test_own():
        ask(3, "nobody's model")
        track_usage()
        track_metrics({"cost": 3})
    """
    )
    result = evals.run(*each_way, subprocess=True)
    result.assert_outcomes(passed=3)
    metrics = [evals.run_of(name).data.metrics for name in ("test_later", "test_in_a_repeat")]
    assert metrics[0]["cost"] != metrics[0]["cost"]
    assert metrics[1]["cost"] != metrics[1]["cost"]
    assert metrics[1]["all_repeats/cost"] != metrics[1]["all_repeats/cost"]
    assert metrics[1]["tokens/total"] == 5
    assert evals.run_of("test_own").data.metrics["cost"] == 3
    said = result.stdout.str()
    assert said.count("not judged: cost is unknown: 1 of ") == 2
    assert "not judged: all_repeats/cost is unknown: 1 of 3 traces have tokens and no cost" in said


def test_sums_and_percentiles() -> None:
    traces = [
        TraceUsage(0, 1, 3, 2, 5, 0.5),
        TraceUsage(0, 3, None, None, None, None),
        TraceUsage(0, None, 1, 0, 1, 0.25),
    ]
    assert summed(traces) == {
        "tokens/input": 4,
        "tokens/output": 2,
        "tokens/total": 6,
        "cost": 0.75,
        "latency/p50": 2,
        "latency/p95": 2.9,
        "traces": 3,
        "traces/without_tokens": 1,
    }
    assert "cost" not in summed([*traces, TraceUsage(0, 1, 1, 1, 2, None)])
    assert set(summed([])) == {"traces", "traces/without_tokens"}
    assert [percentile([7.0], share) for share in (0, 0.5, 1)] == [7, 7, 7]
