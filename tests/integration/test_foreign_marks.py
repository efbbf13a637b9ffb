"""A suite that never asked for this plugin: its own markers stop no session and no test."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Evals, verdicts

LEFT_ALONE = "armory: warning: @pytest.mark.{}*left alone*(test_a*"

GATED = """
    import pytest
    from pytest_armory import track_metrics
    @pytest.mark.{mark}
    def test_a(): track_metrics({{"accuracy": 0.1}})
    def test_b(): pass
"""

REGISTRATIONS = {
    "ini": ("[pytest]\nmarkers =\n    evaluation(level): how deep\n", ""),
    "conftest": (
        "[pytest]\n",
        "def pytest_configure(config):\n"
        "    config.addinivalue_line('markers', 'evaluation: how deep')",
    ),
}


def write(evals: Evals, mark: str, ini: str = "", conftest: str = "") -> None:
    evals.pytester.makeini(ini or "[pytest]")
    evals.write(GATED.format(mark=mark), conftest=conftest)


def run(evals: Evals, *args: str, track: bool = True) -> pytest.RunResult:
    """Run pytest, whose own warning of an unknown marker is an error in this suite."""
    return evals.run("-W", "ignore::pytest.PytestUnknownMarkWarning", *args, track=track)


def remarks(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("armory: warning:")]


@pytest.mark.parametrize(
    "mark", ["evaluate('x')", "eval", "evals", "Evaluation", "EVALUATION(level=3)", "evalution"]
)
def test_a_marker_of_a_like_name_is_left_alone(evals: Evals, mark: str) -> None:
    write(evals, mark)
    for track, workers in ((False, "-n0"), (True, "-n0"), (False, "-n1")):
        result = run(evals, workers, track=track)
        assert verdicts(result) == {"passed": 2}
        result.stdout.fnmatch_lines([LEFT_ALONE.format(mark.partition("(")[0])])
        assert "did you mean 'evaluation'?" in remarks(result)[0]
    assert evals.runs() == {}


@pytest.mark.parametrize(
    "mark",
    [
        "smoke",
        "value",
        "evidence",
        "validate(name='x')",
        "validation(name='x')",
        "evasion(tags={})",
    ],
)
def test_nothing_is_said_of_other_markers(evals: Evals, mark: str) -> None:
    write(evals, mark)
    result = run(evals, track=False)
    assert verdicts(result) == {"passed": 2}
    assert remarks(result) == []


@pytest.mark.parametrize(
    "mark",
    [
        "evaluate(at_least={'accuracy': 0.5})",
        "eval(baseline={'accuracy': '-2%'})",
        "Evaluation(at_most={'accuracy': 0.05})",
        "evalution(name='x')",
        "evals(at_laest={'accuracy': 0.5})",
        "evlauation(at_least={'accuracy': 0.5})",
    ],
)
@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_one_with_a_keyword_of_this_plugin_is_refused(evals: Evals, mark: str, track: bool) -> None:
    write(evals, mark)
    result = run(evals, track=track)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    keyword = mark.partition("(")[2].partition("=")[0]
    own = "did you mean 'evaluation'? If it is the project's own, register it *`markers`"
    result.stderr.fnmatch_lines([f"ERROR: armory: test_it.py::test_a: *'{keyword}'; {own}"])
    assert remarks(result) == []


def test_positional_arguments_are_anothers_where_nothing_is_tracked(
    evals: Evals, each_way: Sequence[str]
) -> None:
    write(evals, "evaluation('smoke')", "[pytest]\nfilterwarnings = error")
    result = run(evals, *each_way, track=False)
    assert verdicts(result) == {"passed": 2}
    (line,) = remarks(result)
    assert "left alone; an evaluation is marked as in @pytest.mark.evaluation(name=" in line
    assert "`armory_marker = true`" in line
    assert "(test_a)" in line
    tracked = run(evals, *each_way)
    assert tracked.ret == pytest.ExitCode.USAGE_ERROR
    tracked.stderr.fnmatch_lines(["*keywords only, got 'smoke'; write *(name='smoke')*"])


def test_many_uses_are_one_line(evals: Evals) -> None:
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation("nightly")
        @pytest.mark.evaluation("smoke", 3)
        @pytest.mark.parametrize("n", range(3))
        def test_a(n): pass
        def test_b(): pass
    """)
    result = run(evals, track=False)
    assert verdicts(result) == {"passed": 4}
    (line,) = remarks(result)
    assert line.endswith("(test_a, test_b)")


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
@pytest.mark.parametrize("mark", ["evaluation(level=3)", "evaluation('smoke', nmae='x')"])
def test_wrong_keywords_are_refused_tracked_or_not(evals: Evals, mark: str, track: bool) -> None:
    write(evals, mark)
    assert run(evals, track=track).ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("how", REGISTRATIONS)
def test_in_a_project_with_such_a_marker_what_is_not_valid_is_left_alone(
    evals: Evals, how: str, each_way: Sequence[str]
) -> None:
    write(evals, "evaluation(level=3)", *REGISTRATIONS[how])
    result = run(evals, *each_way, track=False)
    assert verdicts(result) == {"passed": 2}
    (line,) = remarks(result)
    assert "`armory_marker = false`" in line
    assert run(evals, *each_way).ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    "gate",
    ["at_laest={'accuracy': 0.5}", "at_least={'accuracy': '0.5'}", "baseline={'accuracy': 2}"],
)
def test_in_a_project_with_such_a_marker_a_wrong_gate_is_refused(evals: Evals, gate: str) -> None:
    write(evals, f"evaluation({gate})", *REGISTRATIONS["ini"])
    assert run(evals, track=False).ret == pytest.ExitCode.USAGE_ERROR


def test_in_a_project_with_such_a_marker_its_own_baseline_is_left_alone(evals: Evals) -> None:
    write(evals, "evaluation(baseline='v1')", *REGISTRATIONS["ini"])
    result = run(evals, track=False)
    assert verdicts(result) == {"passed": 2}
    assert len(remarks(result)) == 1


@pytest.mark.parametrize("how", REGISTRATIONS)
def test_in_a_project_with_such_a_marker_gates_judge(evals: Evals, how: str) -> None:
    write(evals, "evaluation(at_least={'accuracy': 0.5})", *REGISTRATIONS[how])
    for track in (True, False):
        result = run(evals, track=track)
        assert verdicts(result) == {"passed": 1, "failed": 1}
        assert not any("left alone" in line for line in remarks(result))


def test_a_valid_use_beside_one_that_is_not(evals: Evals) -> None:
    """The gate of a function's own marker judges, whatever its module's is."""
    ini, _ = REGISTRATIONS["ini"]
    write(evals, "evaluation(at_least={'accuracy': 0.5})", ini)
    source = (evals.pytester.path / "test_it.py").read_text()
    marked = source.replace(
        "import pytest\n", "import pytest\npytestmark = pytest.mark.evaluation(3)\n", 1
    )
    (evals.pytester.path / "test_it.py").write_text(marked)
    result = run(evals, track=False)
    assert verdicts(result) == {"passed": 1, "failed": 1}
    assert len(remarks(result)) == 1


@pytest.mark.parametrize("mark", ["evaluation('smoke')", "evaluation(level=3)"])
@pytest.mark.parametrize("how", [None, *REGISTRATIONS])
def test_the_ini_file_may_claim_every_use(evals: Evals, mark: str, how: str | None) -> None:
    ini, conftest = REGISTRATIONS[how] if how else ("[pytest]\n", "")
    write(evals, mark, f"{ini}armory_marker = true", conftest)
    assert run(evals, track=False).ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("mark", ["evaluation('smoke')", "evaluation(level=3)", "evaluation"])
@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_the_ini_file_may_give_the_marker_away(evals: Evals, mark: str, track: bool) -> None:
    write(evals, mark, "[pytest]\narmory_marker = false")
    result = run(evals, track=track)
    assert verdicts(result) == {"passed": 2}
    assert not any("left alone" in line for line in remarks(result))
    assert [("the project's own" in line) for line in remarks(result)] == [True] * track
    assert evals.runs() == {}


LATE = """
    import pytest
    @pytest.fixture(autouse=True)
    def marked(request):
        if request.node.name == "test_a":
            request.node.add_marker(pytest.mark.{mark})
"""


@pytest.mark.parametrize(
    ("mark", "track"),
    [
        ("evaluation('nightly')", False),
        ("evalution", False),
        ("evalution", True),
    ],
)
def test_a_late_mark_of_anothers(
    evals: Evals, mark: str, track: bool, each_way: Sequence[str]
) -> None:
    write(evals, "smoke", conftest=LATE.format(mark=mark))
    result = run(evals, *each_way, track=track)
    assert verdicts(result) == {"passed": 2}
    assert [line for line in remarks(result) if "left alone" in line and "(test_a)" in line]


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_a_late_gate_of_a_misspelt_marker_fails_its_test(evals: Evals, track: bool) -> None:
    write(evals, "smoke", conftest=LATE.format(mark="evalution(at_least={'accuracy': 0.5})"))
    result = run(evals, track=track)
    assert verdicts(result) == {"passed": 1, "failed": 1}
    result.stdout.fnmatch_lines(["*did you mean 'evaluation'?*"])
