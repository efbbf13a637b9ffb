"""Gates on samples and on earlier sessions: their verdicts, and what is shown of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import Evals, artifacts_of, sqlite_uri
from mlflow import MlflowClient
from mlflow.entities import Run

from pytest_armory.cli import main as commands
from pytest_armory.gates import baselines, known
from pytest_armory.statistics.intervals import wilson

FLIPS = """
    import os, pytest
    from pytest_armory import track_metrics, track_samples

    def answers(worse, better, n, right):
        found = [1] * right + [0] * (n - right)
        found[:worse] = [0] * worse
        found[right:right + better] = [1] * better
        return found

    WORSE = int(os.environ.get("WORSE", 0))

    @pytest.mark.evaluation(baseline={"accuracy": "-2%"}, at_least={"accuracy": 0.5})
    def test_large():
        track_samples({"accuracy": answers(WORSE, WORSE // 6, 797, 769)}, target=[1] * 797)

    @pytest.mark.evaluation(baseline={"accuracy": "-2%"})
    def test_small():
        track_samples({"accuracy": answers(WORSE // 6, WORSE // 12, 200, 193)})
"""
WORSE = "worse: of 797 samples 24 got worse, 4 better (p 0.00005); the fall is 1.5 to 3.7 points"
LATEST = ("--armory-baseline", "latest")

SetWorse = Callable[[int], None]


@pytest.fixture
def worse(monkeypatch: pytest.MonkeyPatch) -> SetWorse:
    """Set how many answers of the next session are worse."""
    return lambda count: monkeypatch.setenv("WORSE", str(count))


def compare(*args: str) -> int:
    """Run the command, and return its exit status."""
    return commands.main(["compare", *args])


def last_run(evals: Evals, name: str) -> Run:
    """The last run of a test."""
    found = [run for run in evals.read() if run.info.run_name == name]
    return max(found, key=lambda run: int(run.info.start_time))


def tolerance_of(evals: Evals, name: str) -> dict[str, Any]:
    """The verdict on the tolerance of the last run of a test."""
    gates = json.loads(last_run(evals, name).data.tags["armory.gates"])
    (gate,) = [gate for gate in gates if gate["rule"].startswith("baseline")]
    return dict(gate)


def test_a_fall_is_worse_or_unclear(
    evals: Evals,
    worse: SetWorse,
    each_way: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evals.write(FLIPS)
    evals.run("--armory-session", "a", *each_way).assert_outcomes(passed=2)
    worse(24)
    summary, junit = tmp_path / "s.md", tmp_path / "j.xml"
    files = ("--armory-summary", str(summary), "--junitxml", str(junit))
    result = evals.run(*LATEST, "--armory-session", "b", *files, *each_way)

    result.assert_outcomes(passed=1, failed=1)
    for line in (
        f"  {WORSE}",
        "  test_large  failed   accuracy 0.9398 ±0.017 (↓0.02509 worse) *",
        "  test_small  passed   accuracy 0.955 ±0.03 (↓0.01 unclear) *",
        "unclear: accuracy of test_small; 200 samples tell falls of * points and more, *",
        "chance: if nothing got worse, these 2 gates fail a session at most 1 in 20 times; "
        "not covered: 1 bound",
    ):
        result.stdout.fnmatch_lines([line])

    gate = tolerance_of(evals, "test_large")
    assert (gate["verdict"], gate["worse"], gate["better"]) == ("worse", 24, 4)
    assert gate["method"] == "McNemar mid-p, Tango"
    assert gate["p"] == pytest.approx(5.1858e-5, rel=1e-4)
    assert (gate["low"], gate["high"]) == pytest.approx((-0.0367, -0.0147), abs=0.001)
    assert gate["flips"][0] == "0  1 → 0  target 1"
    assert tolerance_of(evals, "test_small")["flips"][0] == "0  1 → 0"
    (session,) = [run for run in evals.sessions() if run.data.tags["armory.session"] == "b"]
    assert json.loads(session.data.tags["armory.judging"]) == {
        "reference": "latest", "sessions": ["a"], "confidence": 0.95, "unclear": "pass",
        "overrides": False, "pooled": 1, "gates": 2,
    }  # fmt: skip

    text = summary.read_text(encoding="utf-8")
    assert "| test | outcome | metrics | verdict | duration |" in text
    assert "accuracy worse" in text
    assert text.count(" 1 → 0  target 1") == 10
    found = ElementTree.parse(junit).iter("property")
    verdicts = [p.attrib["value"] for p in found if p.attrib["name"] == "armory_verdict_accuracy"]
    assert sorted(verdicts) == ["unclear", "worse"]
    assert compare("a", "b", "--samples") == 1
    out = capsys.readouterr().out
    assert WORSE in out
    assert "  0  1 → 0  target 1" in out
    assert compare("a", "b", "--exit-zero") == compare("b", "a") == 0


def test_what_unclear_does(evals: Evals, worse: SetWorse) -> None:
    evals.write(FLIPS)
    evals.run("--armory-session", "a")
    worse(12)
    for options, failed in (
        ((), 0),
        (("--armory-unclear", "fail"), 2),
        (("-o", "armory_unclear=fail"), 2),
        (("-o", "armory_unclear=fail", "--armory-unclear", "measured"), 0),
    ):
        result = evals.run("--armory-baseline", "a", *options)
        assert result.parseoutcomes().get("failed", 0) == failed, options
        if failed:
            result.stdout.fnmatch_lines(["*and whether it is worse is unclear", "  unclear: *"])
    evals.write(FLIPS.replace('{"accuracy": "-2%"})', '{"accuracy": "-2%"}, unclear="fail")'))
    result = evals.run("--armory-baseline", "a")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*not covered: 1 bound, 1 gate that unclear does not pass"])
    options = ("--armory-baseline", "a", "--armory-unclear", "pass")
    evals.run(*options).assert_outcomes(passed=2)


NOISE = """
    import os, pytest
    from pytest_armory import track_metrics
    @pytest.mark.evaluation(baseline={"score": "-noise"}, at_least={"score": 0.85})
    def test_it(): track_metrics({"score": float(os.environ["SCORE"])})
"""


def test_noise_is_what_earlier_sessions_scatter(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, each_way: Sequence[str]
) -> None:
    """A session that missed a bound is history, too; one that was worse is none, nor in its way."""
    monkeypatch.setattr(baselines, "MOST_SESSIONS", 5)
    evals.write(NOISE)
    for score, outcome in (("0.9", "passed"), ("0.91", "passed"), ("0.89", "passed"),
                           ("0.84", "failed"), ("0.92", "passed")):  # fmt: skip
        monkeypatch.setenv("SCORE", score)
        result = evals.run(*LATEST)
        result.assert_outcomes(**{outcome: 1})
    text = 'not judged: score has 4 earlier sessions; "-noise" needs 5 (test_it)'
    result.stdout.fnmatch_lines([text])
    monkeypatch.setenv("SCORE", "0.86")
    evals.run(*LATEST).assert_outcomes(passed=1)
    monkeypatch.setenv("SCORE", "0.70")
    for _ in range(3):
        result = evals.run(*LATEST, *each_way)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["    worse: 5 earlier sessions do not scatter as far (p *)"])
    monkeypatch.setenv("SCORE", "0.89")
    evals.run(*LATEST, *each_way).assert_outcomes(passed=1)


def test_a_gate_on_noise_that_is_new_knows_earlier_sessions(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a worker, too; also one of an ini file, and one that a fixture adds."""
    plain = NOISE.replace('baseline={"score": "-noise"}, ', "")
    evals.write(plain)
    for score in ("0.9", "0.91", "0.89", "0.92", "0.9"):
        monkeypatch.setenv("SCORE", score)
        evals.run()
    monkeypatch.setenv("SCORE", "0.86")
    late = """
    @pytest.fixture(autouse=True)
    def late(request):
        request.node.add_marker(pytest.mark.evaluation(baseline={"score": "-Noise"}))
    """
    line = ("-o", "armory_tolerances=score: -noise")
    for text, options in ((NOISE, ("-n1",)), (plain + late, ()), (plain, line)):
        evals.write(text)
        result = evals.run(*LATEST, *options)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*worse: 5 earlier sessions do not scatter as far (p *)"])


def test_another_version_has_neither_baseline_nor_history(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    evals.write(NOISE)
    monkeypatch.setenv("SCORE", "0.9")
    evals.run()
    monkeypatch.setenv("SCORE", "0.86")
    evals.write(NOISE.replace("at_least", "version=2, at_least").replace("-noise", "-0.01"))
    result = evals.run(*LATEST)
    result.stdout.fnmatch_lines(["not judged: score has no baseline run (test_it)"])
    monkeypatch.setenv("SCORE", "0.855")
    evals.run(*LATEST).assert_outcomes(passed=1)
    assert last_run(evals, "test_it").data.tags["armory.evaluation_version"] == "2"
    assert tolerance_of(evals, "test_it")["baseline"] == 0.86


def test_the_baseline_is_the_mean_of_several_sessions(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    evals.write(NOISE.replace("-noise", "-0.01"))
    for score in ("0.90", "0.94", "0.92"):
        monkeypatch.setenv("SCORE", score)
        evals.run()
    monkeypatch.setenv("SCORE", "0.915")
    result = evals.run(*LATEST, "-o", "armory_baseline_sessions=2")
    result.stdout.fnmatch_lines(
        ["*fell 0.015 below the baseline's 0.93; *allows 0.92", "baseline latest: sessions *, *"]
    )
    evals.run(*LATEST).assert_outcomes(passed=1)


def test_gates_are_counted_over_the_whole_collection(
    evals: Evals, worse: SetWorse, each_way: Sequence[str]
) -> None:
    evals.write(
        FLIPS
        + """
    @pytest.mark.evaluation(baseline={"a": "-1", "b": "-1"})
    @pytest.mark.parametrize("i", range(20))
    def test_others(i): ...
    """
    )
    lines = "    accuracy: -3%\n    duration_seconds: +9999%"
    evals.pytester.makeini(f"[pytest]\narmory_tolerances =\n{lines}")
    evals.run("-k", "large or small", *each_way)
    worse(24)
    result = evals.run("-k", "large", *LATEST, *each_way)
    # 2 and 40 of markers; duration_seconds of the two that the baseline holds.
    text = "*1 of the session's 44 gates fails a session at most 1 in 20 times; *"
    result.stdout.fnmatch_lines([text])


def test_the_first_job_decides_for_the_session(
    evals: Evals, worse: SetWorse, each_way: Sequence[str]
) -> None:
    """On the interval of a metric, too: a gate may be on one of its ends."""
    evals.write(FLIPS)
    evals.run("--armory-session", "a")
    worse(12)
    options = ("--armory-session", "b", "--armory-baseline", "a")
    evals.run(*options, "-k", "large").assert_outcomes(passed=1, deselected=1)
    others = ("--armory-unclear", "fail", "-o", "armory_confidence=99")
    result = evals.run(*options, *others, "-k", "small", *each_way)
    assert result.parseoutcomes()["passed"] == 1
    differs = "armory_confidence 95, not 99; --armory-unclear 'pass', not 'fail'"
    result.stdout.fnmatch_lines([f"the session's first job decides: {differs}"])
    metrics = last_run(evals, "test_small").data.metrics
    ends = (metrics["accuracy/ci_low"], metrics["accuracy/ci_high"])
    assert ends == pytest.approx(wilson(192, 200))
    gate = tolerance_of(evals, "test_small")
    assert (gate["verdict"], gate["unclear"], gate["state"]) == ("unclear", "", "passed")


def test_samples_that_cannot_be_read_are_not_judged(evals: Evals, worse: SetWorse) -> None:
    evals.write(FLIPS)
    evals.run()
    artifacts_of(evals.run_of("test_large"))["samples.parquet"].unlink()
    artifacts_of(evals.run_of("test_small"))["samples.parquet"].write_bytes(b"no Parquet")
    worse(24)
    result = evals.run(*LATEST, "--armory-strict")
    result.assert_outcomes(passed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines([
        "not judged: accuracy cannot be compared: the baseline's samples cannot be read (*",
        "warning: the baseline's samples cannot be read: *",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "failed", "line"),
    [
        ("of", 0, "not judged: accuracy cannot be compared: the comparison of its samples failed*"),
        ("changes", 1, "warning: changed samples are not shown: *NotImplementedError*"),
        ("flips", 1, "warning: changed samples are not shown: *NotImplementedError*"),
    ],
)
def test_an_error_of_ours_about_samples_takes_no_verdict_back(
    evals: Evals, worse: SetWorse, broken: str, failed: int, line: str
) -> None:
    evals.write(FLIPS)
    evals.run()
    conftest = f"""
        import pytest
        from pytest_armory.gates.known import Sources

        @pytest.fixture(autouse=True)
        def broken(monkeypatch):
            def fail(*args, **kwargs):
                raise NotImplementedError

            monkeypatch.setattr(Sources, {broken!r}, fail)
    """
    evals.write(FLIPS, conftest=conftest)
    worse(24)
    result = evals.run(*LATEST, subprocess=True)
    result.assert_outcomes(passed=2 - failed, failed=failed)
    result.stdout.fnmatch_lines([line])


def test_a_baseline_without_samples_is_judged_by_the_change_alone(
    evals: Evals, worse: SetWorse
) -> None:
    evals.write(
        FLIPS
        + """
    def track_samples(scores, **_):
        (values,) = scores.values()
        track_metrics({"accuracy": sum(values) / len(values)})
    """
    )
    evals.run().assert_outcomes(passed=2)
    evals.write(FLIPS)
    worse(24)
    result = evals.run(*LATEST)
    result.assert_outcomes(passed=1, failed=1)
    text = "accuracy: the baseline has no samples of it, so the change alone decides (*, *)"
    result.stdout.fnmatch_lines([text])


def test_other_data_are_compared_unpaired(evals: Evals, worse: SetWorse) -> None:
    evals.write(FLIPS)
    evals.run()
    evals.write(FLIPS.replace("target=[1] * 797", "target=[2] * 797"))
    worse(60)
    evals.run(*LATEST).assert_outcomes(failed=1, passed=1)
    gate = tolerance_of(evals, "test_large")
    assert gate["method"].startswith("pooled score test, Newcombe")
    assert "the data changed, so other samples are compared" in gate["evidence"]
    assert gate["worse"] is None
    assert gate["flips"] == []


FUNCTIONS = """
    import os
    import numpy as np, pytest
    from pytest_armory import Engine, Evaluation, track_metrics
    from pytest_armory.engine import correct

    WORSE = int(os.environ.get("WORSE", 0))
    random = np.random.default_rng(3)
    targets = (random.random(400) < 0.5).astype(int)
    right = np.where(random.random(400) < 0.9, targets, 1 - targets)

    def f1(targets, predictions):
        hits = ((targets == 1) & (predictions == 1)).sum()
        return {"f1": 2 * hits / ((targets == 1).sum() + (predictions == 1).sum())}

    def auc(targets, scores):
        above = scores[targets == 1, 1][:, None] > scores[targets == 0, 1]
        track_metrics({"positives": float(above.size)})
        return float(above.mean())

    def scores(x):
        answers = right.copy()
        answers[:WORSE] = 1 - answers[:WORSE]
        return np.stack([1 - answers, answers], axis=1) + random.random((400, 1)) / 10

    @pytest.mark.evaluation(baseline={"report/f1": "-0.004", "auc": "-0.001"})
    def test_it():
        Engine(Evaluation(
            name="e", dataset=(np.arange(400), targets), model=scores,
            metrics={"report": lambda t, p: f1(t, p.argmax(1)), "auc": auc},
            sample_metrics={"accuracy": correct},
        ), progress=False).run()
"""


def test_functions_of_all_predictions_are_resampled(
    evals: Evals,
    worse: SetWorse,
    armory_home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known, "SECONDS", 600.0)  # a busy machine may need more than 10
    evals.write(FUNCTIONS)
    client = MlflowClient(sqlite_uri(armory_home / "mlruns" / "mlflow.db"))
    evals.run("--armory-session", "0").assert_outcomes(passed=1)
    for count, outcome in ((2, "passed"), (60, "failed")):
        worse(count)
        result = evals.run("--armory-baseline", "0", "--armory-session", str(count))
        result.assert_outcomes(**{outcome: 1})
        gates = json.loads(last_run(evals, "test_it").data.tags["armory.gates"])
        assert [gate["method"] for gate in gates] == ["paired bootstrap, 1000 resamples"] * 2
        expected = {"passed": "unclear", "failed": "worse"}[outcome]
        assert {gate["verdict"] for gate in gates} == {expected}
        assert all(gate["value"] < gate["limit"] for gate in gates)
        run_id = last_run(evals, "test_it").info.run_id
        assert len(client.get_metric_history(run_id, "positives")) == 1  # of no resample
        # Only the test knows the functions: its own verdicts, but not against another baseline.
        assert compare("0", str(count)) == (outcome == "failed")
    capsys.readouterr()
    for a, b, status in (("2", "60", 1), ("2", "0", 0)):  # the test of 0 had no baseline
        assert compare(a, b) == status
        assert "only its test can draw resamples" in capsys.readouterr().out
    result.stdout.fnmatch_lines(["    worse: 400 samples (p *); the fall is 0.* to 0.*"])
