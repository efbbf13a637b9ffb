"""``--armory-html`` and ``report --html``: the page of a session, from what is stored."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Evals, artifacts_of, text_of

from pytest_armory.cli.main import main
from pytest_armory.errors import StoreUnreachableError
from pytest_armory.session import details

SUITE = """
    import pytest
    @pytest.mark.evaluation(at_least={{"accuracy": 0.5}}, description="<b>bold</b>")
    @pytest.mark.parametrize("eps", [0.0, 0.1, 0.2])
    def test_a(eps, evaluation_run):
        evaluation_run.log_metrics({{"accuracy": {0} - eps}})
        evaluation_run.log_dict([[5, 1], [0, 4]], "metrics/confusion.json")
        evaluation_run.log_text("<svg xmlns='http://www.w3.org/2000/svg'/>", "roc.svg")
        evaluation_run.log_text("<svg xmlns='http://www.w3.org/2000/svg'/>", "figures/pr.svg")
        evaluation_run.log_params({{"C": {0}}})
"""


def test_the_page_at_the_end_of_a_session(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(SUITE.format(0.8))
    evals.run("-p", "no:xdist")
    evals.write(SUITE.format(0.6))
    result = evals.run(*each_way, "--armory-html", "new/report.html")
    result.assert_outcomes(passed=2, failed=1)
    page = (evals.pytester.path / "new" / "report.html").read_text("utf-8")
    session = evals.sessions()[-1]
    assert text_of(session, "report.html") == page
    holders = [run for run in evals.read() if "report.html" in artifacts_of(run)]
    assert [run.info.run_id for run in holders] == [session.info.run_id]
    for expected in (
        "3 evaluations: 2 passed, 1 failed", "accuracy 0.4 is below", "accuracy over eps",
        "accuracy of test_a[0.2]", "0.4 to 0.6, 2 sessions: missed", "metrics/confusion.json",
        'alt="roc.svg"', 'alt="figures/pr.svg"', "&lt;b&gt;bold&lt;/b&gt;",
        "python: CPython", "--armory-track",
        "<td>C</td><td>0.8</td><td><b>0.6</b></td>",
    ):  # fmt: skip
        assert expected in page.replace("&#34;", '"'), expected
    assert "warning" not in result.stdout.str()
    result.stdout.fnmatch_lines(["the report is written to new/report.html"])


def test_a_session_that_waits_for_its_server_has_its_page(evals: Evals, nobody: str) -> None:
    """For `sync` to bring it there with the session run's other artifacts."""
    evals.write(SUITE.format(0.8))
    evals.run("--armory-tracking-uri", nobody, "--armory-html", "report.html")
    page = (evals.pytester.path / "report.html").read_text("utf-8")
    assert "3 evaluations, recorded locally" in page
    (session,) = evals.sessions()
    assert text_of(session, "report.html") == page


def changes(page: str) -> str:
    """The table of parameters that differ."""
    return page.partition("<h2>Parameters that differ")[2].partition("<h2>")[0]


def test_the_page_of_a_stored_session(
    evals: Evals,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ungated = """
        @pytest.mark.evaluation
        def test_b(evaluation_run):
            evaluation_run.log_params({"D": %s})
    """
    for i, accuracy in enumerate((0.8, 0.9, 0.7)):
        evals.write(textwrap.dedent(SUITE.format(accuracy)) + textwrap.dedent(ungated % i))
        evals.run("--armory-session", f"s{i}")
        if i == 0:
            evals.write(textwrap.dedent(SUITE.format(0.55)))
            evals.run("--armory-experiment", "another project")
    target = tmp_path / "report.html"
    assert main(["report", "s1", "--html", str(target)]) == 0
    page = target.read_text("utf-8")
    assert capsys.readouterr().out.endswith(f"\nthe page is written to {target}\n")
    # Neither what came later, nor the same node ids of another experiment.
    assert "0.6 to 0.7, 2 sessions: kept" in page
    assert "::test_b</td><td>D</td><td>0</td><td><b>1</b></td>" in page
    monkeypatch.setattr(details, "TRENDS", 1)
    assert main(["report", "s1", "--html", str(target)]) == 0
    limited = target.read_text("utf-8")
    assert "2 more; <code>pytest-armory history</code>" in limited
    assert changes(limited) == changes(page)
    assert "not compared" not in page
    monkeypatch.setattr(details, "SPARE_RUNS", -7)
    assert main(["report", "s1", "--html", str(target)]) == 0
    assert "Not compared are those of 3 evaluations" in target.read_text("utf-8")
    assert main(["report", "s0", "--html", str(target)]) == 0
    assert "<h2>Trends" not in target.read_text("utf-8")  # what came later is not its trend
    assert main(["history", "test_a[0.1]", "--html", str(target)]) == 0
    assert "3 sessions: kept" in target.read_text("utf-8")
    assert "(experiment another project)" in target.read_text("utf-8")
    for command in (["report", "s1"], ["history", "test_a"]):
        assert main([*command, "--html", str(tmp_path)]) == 2
        assert "cannot be written: Is a directory" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_changes_no_verdict(evals: Evals) -> None:
    evals.write(SUITE.format(0.9))
    result = evals.run("--armory-html", ".")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["warning: the report could not be written to *Is a directory"])
    refused = evals.run("--armory-html", "x.html", track=False)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--armory-html x.html says where to write*add --armory-track"])


def test_the_trend_of_a_node_id_that_is_part_of_others(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(details, "SESSIONS", 2)  # of which twenty attempts are looked at
    evals.write("""
        import pytest
        @pytest.mark.evaluation(at_least={"a": 0.5})
        def test_a(evaluation_run): evaluation_run.log_metrics({"a": 1})
        @pytest.mark.evaluation(at_least={"a": 0.5})
        @pytest.mark.parametrize("i", range(21))
        def test_ab(i, evaluation_run): evaluation_run.log_metrics({"a": 1})
    """)
    for session in ("s0", "s1"):
        evals.run("--armory-session", session)
    target = tmp_path / "report.html"
    assert main(["report", "s1", "--html", str(target)]) == 0
    assert target.read_text("utf-8").count("1, 2 sessions: kept") == 22


def test_figures_that_cannot_be_read_are_named(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise StoreUnreachableError("the storage does not answer")

    monkeypatch.setattr("pytest_armory.store.client.list_files", unreadable)
    evals.write(SUITE.format(0.9))
    assert evals.run("--armory-html", "report.html").ret == 0
    page = (evals.pytester.path / "report.html").read_text("utf-8")
    assert "Not read are those of 3 evaluations: the storage does not answer" in page


def test_why_evaluations_failed_is_folded_under_them(
    evals: Evals, each_way: Sequence[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        @pytest.mark.evaluation(at_least={"a": 2})
        @pytest.mark.parametrize("i", range(2))
        def test_gate(i, evaluation_run): evaluation_run.log_metrics({"a": 1})
        def test_long(): assert 0, "x" * 9000 + " at the end </pre><script>"
        def test_secret(): raise ValueError("password=hunter2hunter2")
    """)
    evals.run(*each_way, "--armory-session=s", "--armory-html=page.html")
    page = (evals.pytester.path / "page.html").read_text("utf-8")
    assert page.count('<tr class="failure">') == 2
    assert "<summary>ValueError: password=[redacted]</summary>" in page
    assert "hunter2" not in page
    assert "at the end &lt;/pre&gt;&lt;script&gt;" in page
    assert "… the whole is the artifact failure.txt of the run\n" in page
    assert page.count("xxxx") < 2 * 8000 / 4
    assert "more evaluation" not in page
    monkeypatch.setattr(details, "FAILURES", 1)
    assert main(["report", "s", "--html", str(tmp_path / "p.html")]) == 1
    page = (tmp_path / "p.html").read_text("utf-8")
    assert page.count('<tr class="failure">') == 1
    assert "Why 1 more evaluation failed is in the artifact" in page


def test_a_page_elsewhere_that_pytest_takes_for_a_test(evals: Evals, tmp_path: Path) -> None:
    evals.write(SUITE.format(0.9))
    page = tmp_path / "elsewhere" / "page.html"
    said = f"pytest took {page}, which was there, for the path of a test, so the rootdir is "
    for args, is_said in (
        (["--armory-html", str(page)], False),
        ([f"--armory-html={page}"], False),
        (["--armory-html", str(page)], True),
        (["--armory-html", str(page), f"--rootdir={evals.pytester.path}"], False),
    ):
        result = evals.run(*args)
        assert result.ret == 0
        assert (said in result.stdout.str()) is is_said


@pytest.mark.parametrize("args", [[".."], ["-c", "../conf/pytest.ini"], ["../other"]], ids=str)
def test_a_page_elsewhere_that_moves_no_rootdir(
    evals: Evals, args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be the same without the page."""
    folder = evals.pytester.path
    for name in ("here", "other", "conf"):
        (folder / name).mkdir()
    (folder / "page.html").touch()
    (folder / "conf" / "pytest.ini").write_text("[pytest]\n")
    for name in ("here", "other"):
        (folder / name / f"test_{name}.py").write_text(textwrap.dedent(SUITE.format(0.9)))
    monkeypatch.chdir(folder / "here")
    result = evals.run(*args, "--armory-html", "../page.html")
    assert result.ret == 0
    assert "for the path of a test" not in result.stdout.str()
