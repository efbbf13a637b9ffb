"""What the terminal shows, and that nothing in an id or a value can break it."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET

import pytest
from conftest import Evals

from pytest_armory.cli.main import main

THREE = """
    import pytest
    from pytest_armory import track_metrics
    pytestmark = pytest.mark.evaluation(name="digits")
    @pytest.mark.parametrize("eps", [0.0, 0.1])
    def test_pgd(eps):
        track_metrics({"accuracy": 0.9 - eps, "time/predict_seconds": 1, "report": {"f1": 0.5}})
        assert eps < 0.1
    def test_plain(): pass
"""


def evaluations(result: pytest.RunResult) -> list[str]:
    """The lines of our section, up to the next one."""
    lines = result.outlines
    start = next(i for i, line in enumerate(lines) if re.fullmatch("=+ evaluations =+", line))
    rest = lines[start + 1 :]
    return rest[: next(i for i, line in enumerate(rest) if line.startswith("="))]


def test_the_table(evals: Evals) -> None:
    evals.write(THREE)
    result = evals.run()
    header, file, first, second, third, counts, see = evaluations(result)
    assert file == "test_it.py"
    assert header.split() == ["test", "outcome", "metrics", "duration"]
    assert re.fullmatch(
        r"  test_pgd\[0\.0\]  passed   accuracy 0\.9  report/f1 0\.5 +\d\.\d\d s", first
    )
    assert re.match(r"  test_pgd\[0\.1\]  failed   accuracy 0\.8 ", second)
    assert re.match(r"  test_plain +passed +\d", third)
    assert counts.startswith("3 evaluations: 2 passed, 1 failed, tracked to ")
    (session,) = evals.sessions()
    assert "`armory-mlflow-server` at http://127.0.0.1:5000/#/experiments/1/runs/" in see
    assert see.endswith(f"{session.info.run_id}?workflowType=machine_learning")
    assert [line for line in result.outlines if line.startswith("armory: tracking to ")]


def test_quiet_verbose_and_no_header(evals: Evals) -> None:
    evals.write(THREE)
    quiet = evals.run("-q")
    assert "armory: tracking" not in quiet.stdout.str()
    assert "3 evaluations: 2 passed, 1 failed" in quiet.stdout.str()
    assert "duration" not in quiet.stdout.str()
    assert "armory: tracking" not in evals.run("--no-header").stdout.str()
    assert len(evaluations(evals.run("-v"))) == 7


def test_colours_only_when_asked_for(evals: Evals) -> None:
    evals.write(THREE)
    assert "\x1b" not in evals.run("--color=no").stdout.str()
    coloured = evals.run("--color=yes").stdout.str()
    assert "\x1b[32mpassed" in coloured
    assert "\x1b[31mfailed" in coloured


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_narrow_terminal(evals: Evals, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    evals.write(THREE.replace("test_pgd", "test_projected_gradient_descent_with_a_long_name"))
    table = evaluations(evals.run())[:5]
    assert max(map(len, table)) <= max(width, 60)
    assert "name[0.0]" in table[2]
    assert "passed" in table[2]


def test_more_rows_than_a_screen(evals: Evals) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(100))
        def test_a(i): assert i != 77
    """)
    result = evals.run("-p", "no:terminalprogress")
    result.assert_outcomes(passed=99, failed=1)
    lines = evaluations(result)
    assert len(lines) == 1 + 1 + 40 + 1 + 2
    assert any("test_a[77]" in line and "failed" in line for line in lines)
    assert "… 60 more, all of them good; -v shows every one" in lines
    assert lines[-2].startswith("100 evaluations: 99 passed, 1 failed")
    evals.check_invariant(result, attempts=100)


HOSTILE = [
    "a|b`c`", "<script>alert(1)</script>", "::error::pwned", "\x1b[31mred", "new\nline", "‮rtl",
    "日本語" * 40, "\x00nul", "\ud800lone", "x" * 2000, "[[brackets]]", "a/b::c", "*bold* _it_",
]  # fmt: skip


def test_hostile_ids_and_values_break_nothing(evals: Evals) -> None:
    evals.write(f"""
        import pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(description="| `x` <b>")
        @pytest.mark.parametrize("value", {HOSTILE!r}, ids={HOSTILE!r})
        def test_a(value):
            track_metrics({{value[:50]: 1.0}})
    """)
    result = evals.run("--junitxml=junit.xml", "--armory-summary=summary.md", "-v")
    result.assert_outcomes(passed=len(HOSTILE))
    table = "\n".join(evaluations(result))
    assert "\x1b" not in table
    assert "\x00" not in table
    assert len(table.splitlines()) == 2 + len(HOSTILE) + 2
    summary = (evals.pytester.path / "summary.md").read_text()
    rows = [line for line in summary.splitlines() if line.startswith("| `")]
    assert len(rows) == len(HOSTILE)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    cases = ET.parse(evals.pytester.path / "junit.xml").findall(".//testcase")
    assert len(cases) == len(HOSTILE)
    stored = {run.data.tags["armory.nodeid"] for run in evals.runs().values()}
    assert len(stored) == len(HOSTILE)
    evals.check_invariant(result, len(HOSTILE), "-v")


@pytest.mark.parametrize("way", [(), ("-n2",)], ids=["one", "n2"])
def test_junit_properties(evals: Evals, way: tuple[str, ...]) -> None:
    evals.write(THREE)
    evals.run("--junitxml=junit.xml", *way)
    root = ET.parse(evals.pytester.path / "junit.xml").getroot()
    cases = {case.get("name"): case for case in root.iter("testcase")}
    for name, run in evals.runs().items():
        properties = {p.get("name"): p.get("value") for p in cases[name].iter("property")}
        assert properties["armory_run_id"] == run.info.run_id
        if "pgd" in name:
            assert properties["armory_metric_report/f1"] == "0.5"


@pytest.mark.parametrize("given", ["", "local", "sqlite:///{}/other.db"])
def test_the_next_step_finds_the_session_where_it_was_tracked_to(
    evals: Evals, given: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if given == "local":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{evals.pytester.path}/another.db")
    gated = THREE.replace("(name=", '(at_least={"accuracy": 0.85}, name=')
    evals.write(gated.replace("assert eps < 0.1", ""))
    uri = given.format(evals.pytester.path)
    result = evals.run("-k", "pgd", *(["--armory-tracking-uri", uri] if uri else []))
    commands = re.findall(r"^next: `pytest-armory (.+)` shows", result.stdout.str(), re.MULTILINE)
    assert len(commands) == 1
    capsys.readouterr()
    assert main(shlex.split(commands[0])) == 0
    assert "1 session" in capsys.readouterr().out
