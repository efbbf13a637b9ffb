"""Which earlier sessions an evaluation is compared with: those that are like it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from conftest import Evals

from pytest_armory.cli import main as commands

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
