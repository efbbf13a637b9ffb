"""A tracked session says what a forgotten marker kept from being tracked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Evals

NOTHING = "armory: warning: no test that ran is marked `evaluation`, so nothing was tracked*"
NOT_STORED = "armory: warning: what is logged through evaluation_run*is not stored*({})"

PLAIN = """
    import pytest
    def test_a(): pass
    @pytest.mark.evaluation
    def test_b(): pass
    @pytest.mark.evaluation
    @pytest.mark.skip
    def test_c(): pass
"""


def said(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("armory: warning:")]


def test_a_session_without_a_marked_test_says_so(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(PLAIN)
    result = evals.run(*each_way, "-k", "test_a")
    result.assert_outcomes(passed=1, deselected=int("-n1" not in each_way) * 2)
    result.stdout.fnmatch_lines([NOTHING])
    assert len(said(result)) == 1


def test_so_does_one_that_selects_none(evals: Evals) -> None:
    evals.write(PLAIN)
    evals.run("-m", "not evaluation").stdout.fnmatch_lines([NOTHING])


def test_where_no_test_runs_no_marker_is_asked_for(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(PLAIN)
    (line,) = said(evals.run(*each_way, "-k", "nothing"))
    assert line.startswith("armory: warning: no test ran, so nothing was tracked; `pytest --coll")


@pytest.mark.parametrize(
    "arguments",
    [
        *(("-k", "test_b"), ("-k", "test_c"), ("--collect-only",), ("--setup-plan",)),
        *(("--fixtures",), ("--fixtures-per-test",)),
    ],
)
def test_nothing_is_said_where_one_is_marked_or_none_is_run(
    evals: Evals, arguments: Sequence[str]
) -> None:
    evals.write(PLAIN)
    assert said(evals.run(*arguments)) == []
    assert said(evals.run(*arguments, track=False)) == []


def test_nothing_is_said_after_an_error_of_the_collection(
    evals: Evals, each_way: Sequence[str]
) -> None:
    evals.write("import nothing_of_that_name")
    result = evals.run(*each_way)
    assert result.ret in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED)
    assert said(result) == []


LOGGING = """
    import pytest
    @pytest.fixture
    def metrics(evaluation_run): return evaluation_run.log_metrics
    @pytest.mark.parametrize("n", [1, 2])
    def test_metrics(metrics, n): metrics({"loss": n})
    def test_artifact(evaluation_run): evaluation_run.log_dict({}, "x.json")
    def test_tags(evaluation_run):
        evaluation_run.set_tags({"a": 1})
        assert 0
    def test_silent(evaluation_run): pass
    @pytest.mark.evaluation
    def test_marked(evaluation_run): evaluation_run.log_metrics({"loss": 1})
"""


def test_a_test_that_logs_without_the_marker_is_named_once(
    evals: Evals, each_way: Sequence[str]
) -> None:
    evals.write(LOGGING)
    result = evals.run(*each_way)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines([NOT_STORED.format("test_metrics, test_artifact, test_tags")])
    assert len(said(result)) == 1
    assert said(evals.run(*each_way, track=False)) == []
