"""Which earlier sessions an evaluation is compared with: those that are like it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

import pytest
from conftest import Evals, artifacts_of

from pytest_armory.cli import main as commands
from pytest_armory.errors import TrackingError
from pytest_armory.gates import baselines

LATEST = ("--armory-baseline", "latest")


def test_the_mean_of_repeats_is_no_history_of_a_single_run(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, each_way: Sequence[str]
) -> None:
    evals.write("""
        import os, pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(baseline={"score": "-noise"})
        def test_it(): track_metrics({"score": float(os.environ["SCORE"])})
    """)
    for score in ("0.9", "0.901", "0.899", "0.9", "0.901"):
        monkeypatch.setenv("SCORE", score)
        evals.run(*LATEST, "--armory-repeats", "20").assert_outcomes(passed=1)
    monkeypatch.setenv("SCORE", "0.88")
    evals.run(*LATEST, "--armory-repeats", "20").assert_outcomes(failed=1)
    result = evals.run(*LATEST, *each_way, "--armory-session", "single")
    result.assert_outcomes(passed=1)
    text = 'not judged: score has 0 earlier sessions; "-noise" needs 5 (test_it)'
    result.stdout.fnmatch_lines([text])
    assert commands.main(["compare", "latest", "single"]) == 0


def test_a_score_is_pooled_where_the_data_of_another_change(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, each_way: Sequence[str]
) -> None:
    evals.write("""
        import os, pytest
        from pytest_armory import track_samples
        @pytest.mark.evaluation(baseline={"right": "-2%"})
        def test_it():
            day = os.environ["DAY"]
            ids = [f"{'other' * (day == '3')}{i}" for i in range(100)]
            track_samples({"right": [i > 9 for i in range(100)]}, ids=ids)
            track_samples({"live": [True] * 9}, ids=[f"{day} {i}" for i in range(9)])
    """)
    for day in "1234":
        monkeypatch.setenv("DAY", day)
        arguments = ("--armory-session", f"day{day}", "-o", "armory_baseline_sessions=3")
        evals.run(*LATEST, *arguments, *(each_way if day == "4" else ())).assert_outcomes(passed=1)
    gates = [
        run.data.tags["armory.gates"] for run in evals.read() if "armory.gates" in run.data.tags
    ]
    (verdict,) = json.loads(gates[-1])
    assert verdict["method"] == "paired t, Tango"  # of days 1 and 2, not of one day alone


FALLING = """
    import os, pytest
    from pytest_armory import track_samples
    @pytest.mark.evaluation(baseline={"right": "-2%"})
    def test_it():
        right = int(os.environ["RIGHT"])
        track_samples({"right": [i < right for i in range(200)]})
"""


@pytest.mark.parametrize("reference", ["latest", "branch:main"])
def test_a_fall_that_could_not_be_judged_is_no_baseline(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    """But what the change alone passes is one, or samples that are lost would judge no more."""
    evals.write(FALLING)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    for args in (("init", "-q", "-b", "main"), ("commit", "-q", "--allow-empty", "-m", "one")):
        subprocess.run([*git, *args], cwd=evals.pytester.path, check=True)
    for session, right, baseline in (
        ("good", "190", None),
        ("bad", "120", "good"),
        ("as bad", "120", "good"),
        ("fine", "189", "good"),
        ("last", "120", "fine"),
    ):
        monkeypatch.setenv("RIGHT", right)
        name = session.replace(" ", "-")
        result = evals.run("--armory-baseline", reference, "--armory-session", name)
        result.assert_outcomes(**{"failed" if session == "last" else "passed": 1})
        if baseline:
            result.stdout.fnmatch_lines([f"baseline {reference}: session {baseline}"])
        if "bad" in session:
            result.stdout.fnmatch_lines(["*by the change alone it is missed; this session will *"])
        if session == "good":
            artifacts_of(evals.run_of("test_it"))["samples.parquet"].unlink()
    (bad,) = [run for run in evals.sessions() if run.data.tags["armory.session"] == "bad"]
    assert bad.data.metrics["gates_unread"] == 1


def test_what_could_not_be_judged_runs_again_where_a_session_is_resumed(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    evals.write(FALLING)
    monkeypatch.setenv("RIGHT", "190")
    evals.run("--armory-session", "good")
    kept = artifacts_of(evals.run_of("test_it"))["samples.parquet"]
    content = kept.read_bytes()
    monkeypatch.setenv("RIGHT", "120")
    resume = ("--armory-baseline", "good", "--armory-resume=bad")
    for broken, outcome in ((True, "passed"), (False, "failed")):
        kept.write_bytes(b"" if broken else content)
        evals.run(*resume).assert_outcomes(**{outcome: 1})
    monkeypatch.setenv("RIGHT", "190")
    evals.run(*resume).assert_outcomes(passed=1)
    evals.run(*resume).assert_outcomes(skipped=1)


def test_a_session_that_could_not_look_its_baseline_up_is_none(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, each_way: Sequence[str]
) -> None:
    """And it is a failure of tracking, which a strict session has not."""
    evals.write(FALLING)
    monkeypatch.setenv("RIGHT", "190")
    evals.run("--armory-session", "good")
    monkeypatch.setenv("RIGHT", "120")

    def fail(*_: object) -> None:
        raise TrackingError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(baselines, "_passed_runs", fail)
        result = evals.run(*LATEST, "--armory-strict", *each_way)
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines([
        "not judged: right has a baseline that cannot be looked up; this session will be no *",
        "warning: the baseline cannot be looked up: no answer",
    ])  # fmt: skip
    result = evals.run(*LATEST)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["baseline latest: session good"])


def test_a_job_with_more_gates_than_the_first_says_what_counts(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, each_way: Sequence[str]
) -> None:
    monkeypatch.setenv("RIGHT", "190")
    three = FALLING.replace("    def test_it():", "    @THREE\n    def test_it(i):")
    three = three.replace("@pytest", "THREE = pytest.mark.parametrize('i', range(3))\n    @pytest")
    evals.write(FALLING, test_others=three)
    evals.run("--armory-session", "a").assert_outcomes(passed=4)
    options = (*LATEST, "--armory-session", "b", *each_way)
    result = evals.run(*options, "test_it.py")
    result.stdout.no_fnmatch_line("*the session's first job*")
    result = evals.run(*options, "test_others.py")
    result.stdout.fnmatch_lines_random([
        "chance: *, these 3 gates, of which 1 was counted, fail a session at most 1 in 6 times",
        "the session's first job decides: 1 gate shares the chance of a false alarm, not 3",
    ])  # fmt: skip


def test_an_evaluation_without_samples_has_no_history_of_other_data(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, each_way: Sequence[str]
) -> None:
    evals.write("""
        import os, pytest
        from pytest_armory import Engine, Evaluation
        @pytest.mark.evaluation(baseline={"f1": "-noise"})
        def test_it():
            n, f1 = int(os.environ["SIZE"]), float(os.environ["F1"])
            Engine(Evaluation(
                name="e", dataset_name="d", dataset=(range(n), [1] * n), model=lambda x: x,
                metrics={"f1": lambda targets, predictions: f1},
            ), progress=False).run()
    """)
    monkeypatch.setenv("SIZE", "50")
    for f1 in ("0.9", "0.91", "0.89", "0.92", "0.9"):
        monkeypatch.setenv("F1", f1)
        evals.run()
    monkeypatch.setenv("F1", "0.7")
    for size, outcome in (("50", "failed"), ("60", "passed")):
        monkeypatch.setenv("SIZE", size)
        result = evals.run(*LATEST, *each_way, "--armory-session", size)
        result.assert_outcomes(**{outcome: 1})
    text = (
        "the data changed: e's data is of other samples or targets than in the baseline (test_it)"
    )
    result.stdout.fnmatch_lines_random([
        text, 'not judged: f1 has 0 earlier sessions; "-noise" needs 5 (test_it)'
    ])  # fmt: skip
    assert [commands.main(["compare", "latest", size]) for size in ("50", "60")] == [1, 0]
