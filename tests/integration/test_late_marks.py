"""Marks that come late: what a test is, is decided when it runs; what can be refused earlier is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Evals, verdicts

TRYLAST = """
    import pytest
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(items):
        for item in items:
            item.add_marker(pytest.mark.evaluation({arguments}))
"""

WRAPPER = """
    import pytest
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(items):
        result = yield
        for item in items:
            item.add_marker(pytest.mark.evaluation({arguments}))
        return result
"""

FINISHED = """
    import pytest
    def pytest_collection_finish(session):
        for item in session.items:
            item.add_marker(pytest.mark.evaluation({arguments}))
"""

LATE = pytest.mark.parametrize(
    "conftest", [TRYLAST, WRAPPER, FINISHED], ids=["trylast", "wrapper", "finish"]
)

GATED = """
    from pytest_armory import track_metrics
    def test_good(): track_metrics({"accuracy": 0.9})
    def test_bad(): track_metrics({"accuracy": 0.1})
    def test_none(): pass
"""

SILENT = """
    def test_good(): pass
"""


@LATE
@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_gates_of_late_marks_are_judged(
    evals: Evals, conftest: str, track: bool, each_way: Sequence[str]
) -> None:
    evals.write(GATED, conftest=conftest.format(arguments='at_least={"accuracy": 0.5}'))
    result = evals.run(*each_way, track=track)
    assert verdicts(result) == {"passed": 1, "failed": 2}
    result.stdout.fnmatch_lines(["*accuracy*0.1*"])
    if track:
        assert set(evals.runs()) == {"test_good", "test_bad", "test_none"}


@LATE
def test_a_late_gate_fails_a_test_that_imports_nothing_of_ours(evals: Evals, conftest: str) -> None:
    """In a process of its own: in this one, and in those that it forks, all is imported."""
    evals.write(SILENT, conftest=conftest.format(arguments='at_least={"accuracy": 0.5}'))
    result = evals.pytester.runpytest_subprocess(*evals.arguments(track=False))
    assert verdicts(result) == {"failed": 1}


def test_a_gate_of_a_fixture_fails_a_test_that_imports_nothing_of_ours(evals: Evals) -> None:
    evals.write("""
        import pytest
        @pytest.fixture
        def gated(request):
            request.node.add_marker(pytest.mark.evaluation(at_least={"accuracy": 0.5}))
        def test_a(gated): pass
    """)
    result = evals.pytester.runpytest_subprocess(*evals.arguments(track=False))
    assert verdicts(result) == {"failed": 1}


@LATE
@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
@pytest.mark.parametrize("arguments", ["naem='x'", "at_least=3", "'x', name='y'", "name=1"])
def test_late_marks_that_cannot_be_used_are_refused(
    evals: Evals, conftest: str, track: bool, arguments: str
) -> None:
    evals.write(SILENT, conftest=conftest.format(arguments=arguments))
    result = evals.run(track=track)
    reported = "\n".join([*result.outlines, *result.errlines])
    assert result.ret != 0
    assert "evaluation" in reported
    assert "passed" not in verdicts(result)
    assert "INTERNALERROR" not in reported


@LATE
def test_a_worker_refuses_late_marks_too(evals: Evals, conftest: str) -> None:
    evals.write(SILENT, conftest=conftest.format(arguments="naem='x'"))
    for track in (True, False):
        result = evals.run("-n1", track=track)
        reported = "\n".join([*result.outlines, *result.errlines])
        assert result.ret != 0
        assert "naem" in reported
        assert "INTERNALERROR" not in reported


BY_FIXTURE = """
    import pytest
    from pytest_armory import track_metrics
    @pytest.fixture
    def gated(request):
        request.node.add_marker(pytest.mark.evaluation({arguments}))
    def test_good(gated): track_metrics({{"accuracy": 0.9}})
    def test_bad(gated): track_metrics({{"accuracy": 0.1}})
    def test_unmarked(): track_metrics({{"accuracy": 0.1}})
"""


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_a_fixture_may_mark_its_test(evals: Evals, track: bool, each_way: Sequence[str]) -> None:
    evals.write(BY_FIXTURE.format(arguments='at_least={"accuracy": 0.5}'))
    result = evals.run(*each_way, track=track)
    assert verdicts(result) == {"passed": 2, "failed": 1}


EARLIER = """
    import pytest
    from pytest_armory import track_metrics
    @pytest.fixture
    def marked(request, evaluation_run):
        evaluation_run.log_metrics({"before": 1})
        request.node.add_marker(pytest.mark.evaluation(at_least={"accuracy": 0.5, "before": 1}))
        return evaluation_run
    def test_good(marked, evaluation_run):
        evaluation_run.log_metrics({"accuracy": 0.9})
        assert evaluation_run is marked and evaluation_run.metrics["before"] == 1
    def test_bad(marked, evaluation_run): evaluation_run.log_metrics({"accuracy": 0.1})
    def test_by_function(marked): track_metrics({"accuracy": 0.9})
    def test_unmarked(evaluation_run): evaluation_run.log_metrics({"accuracy": 0.1})
"""


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_a_run_that_a_fixture_had_before_the_mark(
    evals: Evals, track: bool, each_way: Sequence[str]
) -> None:
    evals.write(EARLIER)
    assert verdicts(evals.run(*each_way, track=track)) == {"passed": 3, "failed": 1}
    stored = {name: dict(run.data.metrics) for name, run in evals.runs().items()} if track else {}
    kept = {name: (found["before"], found["accuracy"]) for name, found in stored.items()}
    expected = {"test_good": (1, 0.9), "test_bad": (1, 0.1), "test_by_function": (1, 0.9)}
    assert kept == (expected if track else {})
    evals.check_accounted(3 if track else 0)


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_what_a_fixture_misspells_fails_its_test(
    evals: Evals, track: bool, each_way: Sequence[str]
) -> None:
    evals.write(BY_FIXTURE.format(arguments="at_laest={'accuracy': 0.5}"))
    result = evals.run(*each_way, track=track)
    counts = verdicts(result)
    assert counts.pop("passed") == 1
    assert sum(counts.values()) == 2
    result.stdout.fnmatch_lines(["*at_laest*"])


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_a_body_may_raise_its_own_gate(evals: Evals, track: bool) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation
        def test_a(request):
            request.node.add_marker(pytest.mark.evaluation(at_least={"accuracy": 0.5}))
            track_metrics({"accuracy": 0.1})
    """)
    assert verdicts(evals.run(track=track)) == {"failed": 1}


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_a_mark_beside_a_late_one(evals: Evals, track: bool) -> None:
    """Markers add up, whenever they came."""
    evals.write(
        """
        import pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(at_least={"accuracy": 0.5})
        def test_a(): track_metrics({"accuracy": 0.9, "loss": 2})
        """,
        conftest=TRYLAST.format(arguments='at_most={"loss": 1}'),
    )
    result = evals.run(track=track)
    assert verdicts(result) == {"failed": 1}
    result.stdout.fnmatch_lines(["*loss*"])


def test_a_mark_taken_off_late(evals: Evals) -> None:
    evals.write(
        """
        import pytest
        @pytest.mark.evaluation(at_least={"accuracy": 0.5})
        def test_a(): pass
        """,
        conftest="""
        import pytest
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(items):
            for item in items:
                item.own_markers[:] = [m for m in item.own_markers if m.name != "evaluation"]
        """,
    )
    assert verdicts(evals.run()) == {"passed": 1}
    assert evals.runs() == {}
    assert verdicts(evals.run(track=False)) == {"passed": 1}


def test_an_early_refusal_stays_early(evals: Evals) -> None:
    """No test runs where a marker that is there at collection cannot be used."""
    evals.write("""
        import pytest
        def test_first(): print("it went on")
        @pytest.mark.evaluation(naem="x")
        def test_a(): print("it went on")
    """)
    for track in (True, False):
        result = evals.run("-s", track=track)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stdout.no_fnmatch_line("*it went on*")


@LATE
def test_what_a_late_mark_makes_an_evaluation_is_resumed(evals: Evals, conftest: str) -> None:
    evals.write(SILENT, conftest=conftest.format(arguments=""))
    evals.run("--armory-session=s")
    result = evals.run("--armory-resume=s")
    result.assert_outcomes(skipped=1)


def test_what_a_fixture_marks_runs_again_which_is_said(evals: Evals) -> None:
    """By what it is judged is known when its fixtures run."""
    evals.write("""
        import pytest
        @pytest.fixture
        def late(request): request.node.add_marker(pytest.mark.evaluation)
        def test_good(late): pass
        @pytest.mark.evaluation
        def test_marked(): pass
    """)
    evals.run("--armory-session=s")
    result = evals.run("--armory-resume=s")
    result.assert_outcomes(passed=1, skipped=1)
    why = "passed before, and runs again: it is not marked when it is collected (test_good)"
    result.stdout.fnmatch_lines([why])
