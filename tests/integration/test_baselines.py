"""Bounds, baselines, shared sessions, and what is shown of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Evals, text_of
from faults import Session
from mlflow import MlflowClient

from pytest_armory import provenance
from pytest_armory.cli import main as commands
from pytest_armory.store.database import sqlite_uri

BOUNDS = """
    import mlflow, pytest
    from pytest_armory import Engine, Evaluation, track_metrics
    pytestmark = pytest.mark.evaluation(at_least={"accuracy": 0.5})
    def test_good(): track_metrics({"accuracy": 0.5})
    def test_bad(): track_metrics({"accuracy": 0.4})
    @pytest.mark.evaluation(at_least={"f1": 0.9, "recal": 1}, at_most={"loss": 0.1})
    def test_several():
        track_metrics({"accuracy": 1, "f1": 0.8, "loss": 0.3, "recall": 1})
    def test_body():
        track_metrics({"accuracy": 0.1})
        assert 0, "its own reason"
    def test_skips():
        track_metrics({"accuracy": 0.1})
        pytest.skip("no data")
    @pytest.mark.xfail
    def test_expected(): track_metrics({"accuracy": 0.1})
    @pytest.mark.xfail(strict=True)
    def test_unexpected(): track_metrics({"accuracy": 1})
    def test_from_the_run(evaluation_run): evaluation_run.log_metrics({"accuracy": 1})
    @pytest.mark.evaluation(at_least={"own": 1, "accuracy": 0}, at_most={"duration_seconds": 60})
    def test_own():
        mlflow.log_metrics({"own": 2, "accuracy": 0})
    def test_from_the_engine():
        Engine(Evaluation(
            name="e", dataset=[([1, 0], [1, 1])], model=lambda x: x,
            metrics={"accuracy": lambda p, y: sum(a == b for a, b in zip(p, y)) / len(y)},
        )).run()
"""


def log_somewhere(evals: Evals) -> None:
    """Have the runs that MLflow opens for untracked tests in a database of the test's."""
    uri = sqlite_uri(evals.home / "mlruns" / "mlflow.db")
    evals.pytester.makeconftest(f"import mlflow\nmlflow.set_tracking_uri({uri!r})")


def test_bounds_of_what_mlflow_logs_in_its_own_threads(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    evals.write("""
        import mlflow, pytest
        @pytest.mark.evaluation(at_least={"accuracy": 0.5})
        def test_a(evaluation_run):
            mlflow.log_metric("accuracy", 0.9)
            evaluation_run.log_metrics({"own": 1})
            assert mlflow.get_run(evaluation_run.run_id).data.metrics["own"] == 1
    """)
    evals.run(subprocess=True).assert_outcomes(passed=1)
    assert evals.run_of("test_a").data.metrics["accuracy"] == 0.9


def test_bounds_where_mlflow_keeps_its_run_for_the_next_test(evals: Evals) -> None:
    """As it does untracked with one that it opened unasked."""
    evals.write("""
        import mlflow, pytest
        @pytest.mark.evaluation(at_least={"accuracy": 0.5})
        @pytest.mark.parametrize("value", [0.9, 0.8, 0])
        def test_a(value):
            if value: mlflow.log_metric("accuracy", value)
    """)
    log_somewhere(evals)
    result = evals.run("-p", "no:randomly", track=False)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*accuracy was never logged*"])


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_bounds(evals: Evals, each_way: Sequence[str], track: bool) -> None:
    """A missed bound is the test's own failure, tracked or not."""
    evals.write(BOUNDS)
    if not track:
        log_somewhere(evals)
    result = evals.run("-rf", *each_way, track=track)
    result.assert_outcomes(passed=4, failed=4, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines_random([
        "1 gate missed: accuracy 0.4 is below at_least 0.5 by 0.1",
        "3 gates missed: f1, recal, loss",
        "  f1     0.8  is below at_least 0.9 by 0.1",
        "  recal  was never logged; did you mean 'recall'?",
        "  loss   0.3  is above at_most 0.1 by 0.2",
        "*its own reason*",
        "FAILED *test_bad* - Failed: 1 gate missed: accuracy*",
    ])  # fmt: skip
    if track:
        outcomes = {n: r.data.tags["armory.outcome"] for n, r in evals.runs().items()}
        assert outcomes == {
            "test_good": "passed", "test_bad": "failed", "test_several": "failed",
            "test_body": "failed", "test_skips": "skipped", "test_expected": "xfailed",
            "test_unexpected": "failed", "test_from_the_run": "passed", "test_own": "passed",
            "test_from_the_engine": "passed",
        }  # fmt: skip
        assert "gate" in text_of(evals.run_of("test_bad"), "failure.txt")
        (session,) = evals.sessions()
        assert session.data.metrics["gates_missed"] == 4
        evals.check_invariant(result, attempts=10)


@pytest.mark.parametrize(
    ("mark", "reported"),
    [
        ("at_least={'a': '1'}", "*(at_least=…) must be a mapping of metric names to finite numb*"),
        ("at_most=3", "*(at_most=…) must be a mapping *got 3*"),
        ("at_leats={'a': 1}", "*no keyword 'at_leats'; did you mean 'at_least'?*"),
        ("baseline={'a': '2%'}", '*write "-2%" if lower is worse, "+2%" if higher is worse*'),
        ("baseline={'a': -0.1}", '*write "-0.1"*'),
        ("at_least={'a': 2}, at_most={'a': 1}", "*asks 'a' to be at least 2 and at most 1*"),
    ],
)
@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
def test_gates_that_cannot_be_used(
    evals: Evals, mark: str, reported: str, way: tuple[str, ...]
) -> None:
    if way and "at_most=3" not in mark:
        pytest.skip("one is enough")
    evals.write(f"import pytest\n@pytest.mark.evaluation({mark})\ndef test_a(): assert 0")
    result = evals.run(*way)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([reported])
    assert evals.read() == []


@pytest.mark.parametrize(
    ("args", "ini", "reported"),
    [
        (("--armory-baseline", "Latest"), "", "*--armory-baseline must be latest, branch:NAME*"),
        (("--armory-baseline", "commit:xyz"), "", "*--armory-baseline must be latest*"),
        ((), "armory_tolerances = accuracy: 2%", '*write "-2%" if lower is worse*'),
        ((), "armory_tolerances = accuracy", "*must be lines of `metric: tolerance`*"),
        (("--armory-session", "a b"), "", "*a session's ID must be 1 to 100 letters*"),
        (("--armory-session", "latest"), "", None),
        (("--armory-session", "Latest"), "", "*a session's ID must not be 'Latest'*"),
        (
            ("--armory-baseline", "brnch:main"),
            "",
            "*--armory-baseline must be latest, branch:NAME*",
        ),
    ],
)
def test_references_that_cannot_be_used(
    evals: Evals, args: tuple[str, ...], ini: str, reported: str | None
) -> None:
    evals.pytester.makeini(f"[pytest]\n{ini}")
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): assert 0")
    result = evals.run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([reported or "*a session's ID must not be 'latest'*"])
    assert evals.read() == []


def test_a_baseline_without_tracking_is_refused(evals: Evals) -> None:
    evals.write("def test_a(): pass")
    result = evals.run("--armory-baseline", "latest", track=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*nothing is tracked without --armory-track; add --armory-track"])


MODEL = """
    import json, pytest
    from pathlib import Path
    from pytest_armory import track_metrics
    METRICS = json.loads(Path(__file__).with_name("metrics.json").read_text())
    pytestmark = pytest.mark.evaluation(name="model", baseline={"accuracy": "-2%"})
    @pytest.mark.parametrize("eps", [0, 1])
    def test_pgd(eps): track_metrics({name: value - eps / 10 for name, value in METRICS.items()})
"""


def model(evals: Evals, **metrics: float) -> None:
    (evals.pytester.path / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.parametrize("way", [("-p", "no:xdist"), ("-n1",)], ids=["one", "n1"])
def test_a_worse_model_fails(evals: Evals, way: Sequence[str]) -> None:
    evals.write(MODEL)
    model(evals, accuracy=0.9, loss=0.2)
    first = evals.run("--armory-baseline=latest", "--armory-session=first")
    first.assert_outcomes(passed=2)
    first.stdout.fnmatch_lines([
        "baseline latest: no session that finished well is at *",
        "not judged: accuracy has no baseline run (test_pgd[[]0[]], test_pgd[[]1[]])",
    ])  # fmt: skip
    model(evals, accuracy=0.85, loss=0.3)
    junit = evals.pytester.path / "junit.xml"
    args = ("--armory-baseline=latest", f"--junitxml={junit}")
    worse = evals.run(*args, *way, "--armory-summary=summary.md", "--color=yes")
    worse.assert_outcomes(failed=2)
    text = worse.stdout.str()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)  # older versions of pytest colour inside the line
    assert '0.85 fell 5.6 % below the baseline\'s 0.9; "-2%" allows 0.882' in plain
    assert "accuracy 0.85 (\x1b[31m↓0.05\x1b[0m)  loss 0.3 (↑0.1)" in text
    assert "baseline latest: session first" in text
    markdown = (evals.pytester.path / "summary.md").read_text()
    assert markdown.index("2 gates missed") < markdown.index("| test |")
    assert "| failed | ❌ accuracy 0.85 (↓0.05), loss 0.3 (↑0.1) |" in markdown
    cases = ElementTree.parse(junit).iter("testcase")
    for case in cases:
        named = {p.get("name"): p.get("value") for p in case.iter("property")}
        assert set(named) == {"armory_run_id", "armory_metric_accuracy", "armory_metric_loss"}
    (latest,) = [run for run in evals.sessions() if run.data.tags["armory.session"] != "first"]
    assert "2 gates missed" in text_of(latest, "summary.md")
    # A session that failed is no measure: running it again does not pass.
    again = evals.run(*args)
    again.assert_outcomes(failed=2)
    model(evals, accuracy=0.95, loss=0.3)
    better = evals.run(*args)
    better.assert_outcomes(passed=2)
    better.stdout.fnmatch_lines(["*accuracy 0.95 (↑0.05)*"])


def test_what_a_baseline_is_named_by(
    evals: Evals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evals.write(MODEL)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    for args in (("init", "-q", "-b", "main"), ("commit", "-q", "--allow-empty", "-m", "one")):
        evals.pytester.run(*git, *args)
    model(evals, accuracy=0.9)
    evals.run("--armory-session", "on-main").assert_outcomes(passed=2)
    commit = evals.run_of("test_pgd[0]").data.tags["mlflow.source.git.commit"]
    evals.pytester.run(*git, "checkout", "-q", "-b", "it's/mine")
    evals.pytester.run(*git, "commit", "-q", "--allow-empty", "-m", "two")
    provenance.git_tags.cache_clear()  # as in another process
    model(evals, accuracy=0.5)
    evals.run("--armory-session", "worse").assert_outcomes(passed=2)
    for reference, failed in (
        ("branch:main", 2), (f"commit:{commit[:8]}", 2), ("on-main", 2), ("worse", 0),
        ("branch:it's/mine", 0), ("latest", 0), ("branch:nobody's", None), ("no-such", None),
    ):  # fmt: skip
        monkeypatch.setenv("ARMORY_BASELINE", reference)
        result = evals.run()
        result.assert_outcomes(failed=failed or 0, passed=2 - (failed or 0))
        if failed is None:
            result.stdout.fnmatch_lines([f"baseline {reference}: no passed evaluation of it *"])
    for at, reported in (
        (2, "branch:main: session on-main"),
        (-1, "no-such: no passed evaluation of it is at "),
    ):
        commands.main(["report", evals.sessions()[at].data.tags["armory.session"]])
        assert f"baseline {reported}" in capsys.readouterr().out


def test_sessions_of_other_experiments_are_no_baseline(evals: Evals) -> None:
    source = "import pytest\n@pytest.mark.evaluation(name='{}')\ndef test_a(): pass"
    for name in ("theirs", "ours", "theirs"):
        evals.write(source.format(name))
        evals.run(f"--armory-session={name}-{len(evals.sessions())}").assert_outcomes(passed=1)
    evals.write(source.format("ours"))
    evals.run("--armory-baseline=latest").stdout.fnmatch_lines(["baseline latest: session ours-1"])
    nothing = "no run of it is in the experiments of this session"
    result = evals.run("--armory-baseline=theirs-0")
    result.stdout.fnmatch_lines([f"baseline theirs-0: {nothing}"])


def test_what_a_session_was_compared_with_is_read_back(
    evals: Evals, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import pytest\n@pytest.mark.evaluation(name='{}')\ndef test_a(): pass"
    for name in ("ours", "theirs"):
        evals.write(source.format(name))
        evals.run(f"--armory-session={name}").assert_outcomes(passed=1)
    evals.write(source.format("ours"))
    evals.run("--armory-session=now", "--armory-baseline=latest")
    capsys.readouterr()
    assert commands.main(["report", "now"]) == 0
    assert "baseline latest: session ours\n" in capsys.readouterr().out


def test_a_pull_request_is_not_the_branch_it_is_for(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CI names a ref for it, which may be that of the branch."""
    evals.write(MODEL)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_REF_NAME", "main")
    model(evals, accuracy=0.3)
    evals.run().assert_outcomes(passed=2)
    result = evals.run("--armory-baseline=branch:main")
    result.stdout.fnmatch_lines(["baseline branch:main: no passed evaluation of it is at *"])


@pytest.mark.parametrize("leave", ["raise KeyboardInterrupt", "assert 0"])
def test_a_job_that_was_interrupted_stays_so(evals: Evals, leave: str) -> None:
    """Whatever a job of its session that ends later knows."""
    evals.write(f"""
        import pytest
        @pytest.mark.evaluation
        def test_a(): pass
        def test_plain(): {leave}
        @pytest.mark.evaluation
        def test_b(): pass
    """)
    evals.run("--armory-session=cut", "-x", "-p", "no:randomly")
    evals.pytester.makepyfile(
        test_other="import pytest\n@pytest.mark.evaluation\ndef test_c(): pass"
    )
    result = evals.run("--armory-session=cut", "test_other.py")
    whole = "3 evaluations: 2 passed, 1 not run"
    result.stdout.fnmatch_lines([f"session cut over all its jobs: {whole}"])
    (session,) = evals.sessions()
    interrupted = leave != "assert 0"
    assert session.info.status == ("KILLED" if interrupted else "FINISHED")
    assert session.data.metrics["session/not_run"] == 1
    sign = "🛑" if interrupted else "✅"
    assert text_of(session, "summary.md").startswith(f"## {sign} 3 evaluations: 2 passed, 1 not")
    evals.run("--armory-session=cut", "test_it.py", "-k", "not plain")  # the job is retried
    (session,) = evals.sessions()
    assert (session.info.status, session.data.metrics["session/not_run"]) == ("FINISHED", 0)


def test_a_body_that_failed_is_not_judged(evals: Evals) -> None:
    """That of a TestCase raises nothing that pytest's hooks see."""
    evals.write("""
        import pytest, unittest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(at_least={"accuracy": 0.9})
        class TestIt(unittest.TestCase):
            def test_it(self):
                track_metrics({"accuracy": 0.5})
                self.assertEqual(1, 2)
    """)
    result = evals.run()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*gate missed*")
    (session,) = evals.sessions()
    assert session.data.metrics["gates_missed"] == 0
    evals.check_invariant(result, attempts=1)


def test_what_runs_inside_is_compared_too(evals: Evals, tmp_path: Path) -> None:
    """And is a property in JUnit's file, as it was measured."""
    evals.write("""
        import mlflow, pytest
        from pathlib import Path
        @pytest.mark.evaluation(at_least={"accuracy": 0.1}, baseline={"accuracy": "-2%"})
        def test_a():
            with mlflow.start_run(): mlflow.log_metric("accuracy", float(Path("a").read_text()))
    """)
    (evals.pytester.path / "a").write_text("0.123456789")
    evals.run(f"--junitxml={tmp_path}/j.xml").assert_outcomes(passed=1)
    tree = ElementTree.parse(tmp_path / "j.xml")
    (found,) = tree.iterfind(".//property[@name='armory_metric_accuracy']")
    assert found.get("value") == "0.123456789"
    (evals.pytester.path / "a").write_text("0.11")
    result = evals.run("--armory-baseline=latest")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_a*failed*accuracy 0.11 (↓0.01346)*"])


def test_tolerances_of_the_session(evals: Evals) -> None:
    evals.pytester.makeini(
        "[pytest]\narmory_tolerances =\n  loss: +10%\n  accuracy: -1%\n  f1: -1%"
    )
    evals.write(MODEL)
    model(evals, accuracy=0.9, loss=0.2)
    evals.run().assert_outcomes(passed=2)
    model(evals, accuracy=0.89, loss=0.25)  # within the marker's own tolerance of accuracy
    result = evals.run("--armory-baseline", "latest")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["1 gate missed: loss 0.25 rose 25 % above *"])


def test_jobs_that_share_a_session(evals: Evals, start: Callable[..., Session]) -> None:
    """One session run with everybody's counts; a terminal shows its own part and the whole."""
    evals.write("""
        import pytest
        from pathlib import Path
        pytestmark = pytest.mark.evaluation
        def test_a(): pass
        def test_b(mark, stay):
            mark("b")
            while not Path("go").exists(): stay(0.05)
        def test_c(): assert 0
    """)
    slow = start("--armory-session=nightly", "-k", "test_b")
    slow.wait_for("b")
    evals.run("--armory-session=nightly", "-k", "test_a").assert_outcomes(passed=1)
    result = evals.run("--armory-session=nightly", "-k", "test_c", "-n1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 evaluation: 1 failed, tracked to *"])
    (evals.pytester.path / "go").touch()
    assert slow.wait() == 0
    assert "1 evaluation: 1 passed, tracked to" in slow.output
    assert "session nightly over all its jobs: 3 evaluations: 2 passed, 1 failed" in slow.output
    (session,) = evals.sessions()
    assert session.data.metrics["evaluations"] == 3
    assert session.data.metrics["failed"] == 1
    assert session.info.status == "FAILED"
    assert "3 evaluations: 2 passed, 1 failed" in text_of(session, "summary.md")
    parents = {run.data.tags["mlflow.parentRunId"] for run in evals.runs().values()}
    assert parents == {session.info.run_id}


def test_jobs_that_start_at_once(evals: Evals, start: Callable[..., Session]) -> None:
    evals.write(
        "import pytest\n@pytest.mark.evaluation\n@pytest.mark.parametrize('i', range(2))\n"
        "def test_a(i): pass"
    )
    unclear = ("pass", "fail")  # what they are judged by is the first one's, or they say so
    options = [("-k", f"test_a[{i}]", f"--armory-unclear={unclear[i]}") for i in range(2)]
    jobs = [start("--armory-session=s", *given) for given in options]
    assert [job.wait() for job in jobs] == [0, 0], [job.output for job in jobs]
    said = ("another job of the session began at once, with", "the session's first job decides:")
    outputs = [job.output for job in jobs]
    assert any(text in output for text in said for output in outputs), outputs
    (session,) = [run for run in evals.sessions() if run.info.lifecycle_stage == "active"]
    assert session.data.metrics["evaluations"] == 2
    parents = {run.data.tags["mlflow.parentRunId"] for run in evals.runs().values()}
    assert parents == {session.info.run_id}


HOOKS = """
    import json
    def pytest_armory_tags(item):
        return {"gpu": "none"}
    def pytest_armory_chief_metrics(item, metrics):
        return [name for name in metrics if name.endswith("f1")]
    def pytest_armory_baseline(item):
        path = item.path.with_suffix(".baseline.json")
        return json.loads(path.read_text()).get(item.name) if path.exists() else None
    def pytest_armory_summary(lines):
        lines.append("Ask #model-quality.")
"""


def test_hooks(evals: Evals, each_way: Sequence[str]) -> None:
    evals.pytester.makeconftest(HOOKS)
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(baseline={"accuracy": "-0.1"})
        def test_a(): track_metrics({"accuracy": 0.5, "cat/f1": 0.25})
    """)
    (evals.pytester.path / "test_it.baseline.json").write_text('{"test_a": {"accuracy": 0.9}}')
    result = evals.run(*each_way)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "*accuracy 0.5 fell 0.4 below the baseline's 0.9; \"-0.1\" allows 0.8*",
        "  test_a  failed   cat/f1 0.25 *",
    ])  # fmt: skip
    (session,) = evals.sessions()
    assert text_of(session, "summary.md").endswith("Ask #model-quality.\n")
    assert evals.run_of("test_a").data.tags["gpu"] == "none"


@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        ("chief_metrics(item, metrics)", "'a'"),
        ("chief_metrics(item, metrics)", "['b']"),
        ("baseline(item)", "[0.9]"),
        ("baseline(item)", "{'a': 'good'}"),
    ],
)
def test_hooks_whose_answer_cannot_be_used(evals: Evals, hook: str, answer: str) -> None:
    evals.pytester.makeconftest(f"def pytest_armory_{hook}: return {answer}")
    evals.write(
        "import pytest\n@pytest.mark.evaluation\n"
        "def test_a(evaluation_run): evaluation_run.log_metrics({'a': 1})"
    )
    result = evals.run()
    result.assert_outcomes(passed=1)
    reported = (
        f"warning: the hook pytest_armory_{hook.partition('(')[0]} must give a *, got *(test_a)"
    )
    result.stdout.fnmatch_lines([reported])


def test_hooks_that_raise_change_no_verdict(evals: Evals) -> None:
    names = ("chief_metrics(item)", "baseline(item)", "summary(lines)")
    evals.pytester.makeconftest(
        "\n".join(f"def pytest_armory_{name}: raise RuntimeError('no')" for name in names)
    )
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    result = evals.run()
    result.assert_outcomes(passed=1)
    for name in names:
        hook = name.partition("(")[0]
        result.stdout.fnmatch_lines([f"warning: the hook pytest_armory_{hook} raised *"])


def test_the_summary_of_github(
    evals: Evals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    evals.write(BOUNDS)
    evals.run()
    text = (tmp_path / "step.md").read_text()
    assert text.startswith("## ❌ 10 evaluations: ")
    assert text.index("; 4 gates missed") < text.index("| test |") < text.index("❌ acc")
    assert text.index("❌ acc") < text.index("**4 gates missed**") < text.index("<details>")


def test_compare_and_sessions(evals: Evals, capsys: pytest.CaptureFixture[str]) -> None:
    evals.write(MODEL)
    model(evals, accuracy=0.9, loss=0.2)
    evals.run("--armory-session", "first")
    model(evals, accuracy=0.85, loss=0.2)
    evals.run("--armory-session", "second")
    capsys.readouterr()
    path = evals.pytester.path / "compared.md"
    assert commands.main(["compare", "first", "latest", "--summary", str(path)]) == 1
    reported = capsys.readouterr().out
    assert "test_pgd[0]  passed   accuracy 0.85 (↓0.05)  loss 0.2 (=)" in reported
    assert "baseline: session first" in reported
    assert "accuracy 0.85 (↓0.05), loss 0.2 (=)" in path.read_text()
    assert commands.main(["compare", "first", "third"]) == 2
    assert "no evaluation of the session 'third'" in capsys.readouterr().err
    assert commands.main(["compare", "no-such", "second"]) == 0
    assert "baseline no-such: no passed evaluation" in capsys.readouterr().out
    assert commands.main(["compare", "first", "branch:main"]) == 2
    assert commands.main(["sessions"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["session", "second", "first"]
    assert "2 passed" in rows[1]


def test_a_missed_gate_is_rerun_and_counted_as_any_failure(evals: Evals) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(at_least={"accuracy": 0.5})
        TRIES = []
        def test_flaky():
            TRIES.append(1)
            track_metrics({"accuracy": 0.3 * len(TRIES)})
        def test_bad(): track_metrics({"accuracy": 0.1})
        def test_never(): pass
    """)
    result = evals.run("-p", "rerunfailures", "--reruns=2", "--maxfail=1")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["3 evaluations: 1 passed, 1 failed, 1 not run (3 earlier *"])


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_of_several_values_that_of_the_highest_step_counts(evals: Evals, track: bool) -> None:
    """As MLflow shows it, in whatever way they were logged, and after whichever test."""
    log_somewhere(evals)
    evals.write("""
        import mlflow, pytest
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(at_least={"a": 0.8})
        def test_higher(evaluation_run):
            evaluation_run.log_metrics({"a": 0.9}, step=5)
            evaluation_run.log_metrics({"a": 0.1})
        def test_lower(evaluation_run):
            evaluation_run.log_metrics({"a": 0.1}, step=5)
            evaluation_run.log_metrics({"a": 0.9}, step=1)
        def test_same(): [track_metrics({"a": a}) for a in (0.1, 0.9)]
        def test_history(): track_metrics({"a": [0.1, 0.9]})
        def test_steps(): [mlflow.log_metric("a", 0.9, step=step) for step in range(3)]
        def test_no_step(): mlflow.log_metric("a", 0.9)
    """)
    result = evals.run(track=track)
    result.assert_outcomes(passed=4, failed=2)  # a list has no one value to be judged
    result.stdout.fnmatch_lines(["FAILED *test_lower*", "FAILED *test_history*"])
    if track:
        evals.check_invariant(result, attempts=6)


def test_metrics_whose_name_mlflow_does_not_take(evals: Evals) -> None:
    evals.pytester.makeini("[pytest]\narmory_tolerances = top@3: -2%")
    evals.write("""
        import json, pytest
        from pathlib import Path
        from pytest_armory import track_metrics
        METRICS = json.loads(Path(__file__).with_name("metrics.json").read_text())
        @pytest.mark.evaluation(at_least={"accuracy@1": 0.4}, baseline={"top (5)": "-2%"})
        def test_a(): track_metrics({"accuracy@1": 0.5, "top@3": 1, "top (5)": 1, **METRICS})
    """)
    model(evals)
    evals.run("--armory-session=good").assert_outcomes(passed=1)
    model(evals, **{"accuracy@1": 0.3, "top@3": 0.9, "top (5)": 0.9})
    result = evals.run("--armory-baseline=good")
    result.stdout.fnmatch_lines(["FAILED *3 gates missed: accuracy_at_1, *"])


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "in memory"])
def test_several_engines_in_one_test(evals: Evals, track: bool) -> None:
    """The first keeps the name; what another measured is kept under its own; a gate says whose."""
    evals.write("""
        import warnings
        import pytest
        from pytest_armory import Engine, Evaluation, track_metrics
        from pytest_armory.errors import MetricWarning
        def score(name, value, metric="accuracy"):
            metrics = {metric: lambda targets, predictions: value}
            data = [([1], [1])]
            same = lambda inputs: inputs
            return Engine(Evaluation(name=name, dataset=data, model=same, metrics=metrics)).run()
        pytestmark = pytest.mark.evaluation(at_least={"accuracy": 0.5})
        def test_two(evaluation_run):
            score("clean", 0.9)
            with pytest.warns(MetricWarning, match="'clean' and 'pgd' of one run both") as caught:
                assert score("pgd", 0.1).metrics["accuracy"] == 0.1
            assert len(caught) == 1
            assert "stored as 'pgd/accuracy'; put the name of Eval" in str(caught[0].message)
            assert evaluation_run.metrics["accuracy"] == 0.9
            assert evaluation_run.metrics["pgd/accuracy"] == 0.1
            assert "pgd/samples_per_second" in evaluation_run.metrics
        def test_missed():
            score("clean", 0.1)
            with pytest.warns(MetricWarning):
                score("pgd", 0.9)
        def test_apart(evaluation_run):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                score("clean", 0.9)
                score("clean", 0.8)  # again: a new value of its own
                score("pgd", 0.1, "pgd accuracy")
            assert evaluation_run.metrics["accuracy"] == 0.8
        @pytest.mark.filterwarnings("ignore::pytest_armory.errors.MetricWarning")
        def test_names_that_others_have(evaluation_run):
            score("x", 0.7, "pgd/accuracy")
            score("clean", 0.9)
            score("pgd", 0.1)
            score("y", 0.6, "pgd/pgd/accuracy")
            with pytest.warns(MetricWarning, match="that of 'p#' is stored as 'p_/accuracy'"):
                score("p#", 0.2)
            score("p*", 0.3)
            names = ["pgd/accuracy", "pgd/pgd/accuracy", "y/pgd/pgd/accuracy", "p_/accuracy"]
            metrics = evaluation_run.metrics
            assert [metrics[name] for name in names] == [0.7, 0.1, 0.6, 0.2]
            assert metrics["p_/p_/accuracy"] == 0.3
        @pytest.mark.filterwarnings("ignore::pytest_armory.errors.MetricWarning")
        def test_own():
            score("clean", 0.9)
            score("pgd", 0.8)
            track_metrics({"accuracy": 0.2})
        @pytest.mark.filterwarnings("ignore::pytest_armory.errors.MetricWarning")
        def test_nan():
            score("clean", float("nan"))
            score("pgd", float("nan"))
    """)
    result = evals.run(track=track)
    result.assert_outcomes(passed=3, failed=3)
    result.stdout.fnmatch_lines(["*accuracy 0.1 is below * (of the evaluation 'clean', not 'pgd')"])
    own = "(which the test itself has logged after 'clean', 'pgd')"
    result.stdout.fnmatch_lines([f"*accuracy 0.2 is below at_least 0.5 by 0.3 {own}"])
    result.stdout.fnmatch_lines(["*accuracy nan misses * (of the evaluation 'clean', not 'pgd')"])
    if track:
        metrics = evals.run_of("test_two").data.metrics
        assert (metrics["accuracy"], metrics["pgd/accuracy"]) == (0.9, 0.1)
        assert "pgd/samples" not in result.stdout.str()
        evals.check_invariant(result, attempts=6)


def test_a_metric_that_mlflow_has_logged_after_several_engines(evals: Evals) -> None:
    """The verdict on it names no evaluation's: it is the value that MLflow shows."""
    evals.write("""
        import mlflow, pytest
        from pytest_armory import Engine, Evaluation
        @pytest.mark.evaluation(at_least={"accuracy": 0.5})
        @pytest.mark.filterwarnings("ignore::pytest_armory.errors.MetricWarning")
        def test_own():
            for name, value in {"clean": 0.9, "pgd": 0.8}.items():
                metrics = {"accuracy": lambda targets, predictions: value}
                data = [([1], [1])]
                same = lambda inputs: inputs
                Engine(Evaluation(name=name, dataset=data, model=same, metrics=metrics)).run()
            mlflow.log_metric("accuracy", 0.2, step=1)
    """)
    result = evals.run()
    result.assert_outcomes(failed=1)
    own = "(which the test itself has logged after 'clean', 'pgd')"
    result.stdout.fnmatch_lines([f"*accuracy 0.2 is below at_least 0.5 by 0.3 {own}"])
    evals.check_invariant(result, attempts=1)


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "in memory"])
def test_names_that_mlflow_would_make_one(evals: Evals, track: bool) -> None:
    """Two metrics stay two, whatever their names, or one is refused; a gate judges its own."""
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation
        @pytest.mark.evaluation(at_least={"pass@8": 0.5, "pass^8": 0.5})
        def test_hat(): track_metrics({"pass@8": 0.9, "pass^8": 0.1})
        @pytest.mark.evaluation(at_least={"a#b": 0.5})
        def test_one_mapping(): track_metrics({"a*b": 0.9, "a#b": 0.1})
        @pytest.mark.evaluation(at_least={"a*b": 0.5})
        def test_two_calls(evaluation_run):
            track_metrics({"a*b": 0.9})
            with pytest.warns(match="'a#b' would be the metric 'a_b', as 'a\\\\*b' is; name it"):
                evaluation_run.log_metrics({"a#b": 0.1})
            with pytest.warns(match="'a~b' would be the metric"):
                track_metrics({"a~b": [0.1, 0.2]})
            assert evaluation_run.metrics == {"a_b": 0.9}
        @pytest.mark.evaluation(at_most={"a#b": 0.5})
        def test_again_alone(evaluation_run):
            track_metrics({"a*b": 0.9, "a#b": 0.1})
            track_metrics({"a#b": 0.7})
            assert evaluation_run.metrics == {"a_asterisk_b": 0.9, "a_number_sign_b": 0.7}
        @pytest.mark.filterwarnings("ignore:the result 'a_b' is no metric")
        @pytest.mark.evaluation(at_least={"a#b": 0.5})
        def test_again_beside_its_name(evaluation_run):
            track_metrics({"a#b": 0.9})
            track_metrics({"a_b": 0.8, "a#b": 0.1})
            assert evaluation_run.metrics == {"a_b": 0.1}
        def test_by_step(evaluation_run):
            track_metrics({"a*b": [1, 2], "a#b": [3, 4]})
            assert evaluation_run.metrics == {"a_asterisk_b": 2, "a_number_sign_b": 4}
            with pytest.warns(match="the result 'a~b' is no metric .*'a~b' would be the metric"):
                track_metrics({"a^b": 0.9, "a+b": 5, "a~b": [6, 7]})
            assert evaluation_run.metrics["a_b"] == 5
        @pytest.mark.filterwarnings("ignore:the result")
        @pytest.mark.evaluation(at_least={"a#b": 0.5})
        def test_left_out():
            track_metrics({"a*b": 0.9})
            track_metrics({"a#b": 0.1})
        @pytest.mark.evaluation(at_least={"a#b": 0.5})
        def test_not_logged(): track_metrics({"a*b": 0.9})
        @pytest.mark.evaluation(at_least={"a_b": 0.5, "c d/e": 0.5})
        def test_as_mlflow_has_it(): track_metrics({"a*b": 0.9, "c d/e": 0.9})
    """)
    result = evals.run(track=track)
    result.assert_outcomes(passed=3, failed=6)
    result.stdout.fnmatch_lines([
        "FAILED *test_hat* - *1 gate missed: pass_hat_8 *",
        "FAILED *test_one_mapping* a_number_sign_b *",
        "FAILED *test_again_alone* a_number_sign_b *",
        "FAILED *test_again_beside_its_name* a_b *",
        "FAILED *test_left_out* - *: a#b (left out) was *",
        "FAILED *test_not_logged* - *: a#b was never log*",
    ])  # fmt: skip
    if track:
        metrics = evals.run_of("test_hat").data.metrics
        assert (metrics["pass_at_8"], metrics["pass_hat_8"]) == (0.9, 0.1)
        assert evals.run_of("test_two_calls").data.metrics["a_b"] == 0.9
        evals.check_invariant(result, attempts=9)


def test_names_that_mlflow_would_make_one_are_compared_whatever_their_order(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each metric is compared with itself, in whatever order they were logged."""
    evals.write("""
        import os, pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(baseline={"a*b": "-2%"})
        def test_it():
            metrics = [("a+b", 0.9), ("a*b", 0.5)]
            track_metrics(dict(metrics if "FIRST" in os.environ else metrics[::-1]))
    """)
    monkeypatch.setenv("FIRST", "1")
    evals.run().assert_outcomes(passed=1)
    monkeypatch.delenv("FIRST")
    evals.run("--armory-baseline=latest").assert_outcomes(passed=1)
    evals.check_accounted(2)


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ("at_least={'a*b': 0.5, 'a#b': 0.6}", "(at_least=…) names 'a*b' and 'a#b', and both are"),
        ("baseline={'a*b': '-1%', 'a_b': '-2%'}", "(baseline=…) names 'a*b' and 'a_b', and both"),
        ("at_least={'pass@8': 0.5}, at_most={'pass_at_8': 0.4}", "asks 'pass@8' to be at least"),
        ("at_least={'a*b': 0.5}, at_most={'a#b': 0.6}", " names 'a*b' and 'a#b', and both are"),
        ("at_most={'a*b': 0.5}, baseline={'a#b': '-1%'}", " names 'a*b' and 'a#b', and both are"),
    ],
)
def test_bounds_of_one_metric_are_refused(evals: Evals, marks: str, expected: str) -> None:
    evals.write(f"import pytest\n@pytest.mark.evaluation({marks})\ndef test_a(): pass\n")
    result = evals.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert expected in result.stderr.str()


def test_tolerances_of_one_metric_are_refused(evals: Evals) -> None:
    evals.pytester.makeini("[pytest]\narmory_tolerances =\n  a*b: -2%\n  a_b: -1%")
    evals.write("def test_a(): pass")
    result = evals.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "armory_tolerances names 'a*b' and 'a_b', and both are the metric" in result.stderr.str()


def test_what_latest_passes_by(evals: Evals, start: Callable[..., Session]) -> None:
    """Sessions in which nothing passed, and those of which a job is still at work."""
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(name="model", baseline={"accuracy": "-2%"})
        def test_a(request):
            if "skip" in request.config.option.armory_session: pytest.skip("no GPU")
            track_metrics({"accuracy": 0.9})
        def test_b(request, mark, stay):
            mark("b")
            stay()
    """)
    evals.run("--armory-session=good", "-k", "test_a").assert_outcomes(passed=1)
    evals.run("--armory-session=skips", "-k", "test_a").assert_outcomes(skipped=1)
    slow = start("--armory-session=working", "-k", "test_b")
    slow.wait_for("b")
    evals.run("--armory-session=working", "-k", "test_a").assert_outcomes(passed=1)
    result = evals.run("--armory-baseline=latest", "-k", "test_a")
    result.stdout.fnmatch_lines(["baseline latest: session good"])
    result = evals.run("--armory-baseline=main", "-k", "test_a")
    result.stdout.fnmatch_lines(["baseline main: *; for a branch write branch:main"])
    result = evals.run("--armory-baseline=lastest", "-k", "test_a")
    result.stdout.fnmatch_lines(["baseline lastest: *; did you mean latest[?]"])


def test_the_closest_marker_is_the_subclasss_and_the_cases(evals: Evals) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        mark = pytest.mark.evaluation
        @mark(name="base", at_least={"a": 0.9}, description="kept")
        class Base:
            def test_a(self): track_metrics({"a": 0.6})
        @mark(name="sub", at_least={"a": 0.5})
        class TestSub(Base): pass
        @mark(name="shared", at_least={"a": 0.8})
        @pytest.mark.parametrize("x", [
            pytest.param(1, marks=mark(name="special", at_least={"a": 0.4})), 2,
        ])
        def test_case(x): track_metrics({"a": 0.6})
    """)
    result = evals.run()
    result.assert_outcomes(passed=2, failed=1)
    notes = {name: run.data.tags.get("mlflow.note.content") for name, run in evals.runs().items()}
    assert notes == {"test_a": "kept", "test_case[1]": None, "test_case[2]": None}
    names = {run.info.run_name.split()[0] for run in evals.sessions()}
    assert len(evals.sessions()) == 3, names


def test_more_gates_than_a_tag_holds(evals: Evals) -> None:
    """Those of a job that ended before are all in the session's summary."""
    evals.write("""
        import pytest
        bounds = {f"metric-{i}": 1 for i in range(150)}
        @pytest.mark.evaluation(name="e", at_least=bounds)
        def test_a(): pass
        @pytest.mark.evaluation(name="e")
        def test_b(): pass
    """)
    evals.run("--armory-session=s", "-k", "test_a").assert_outcomes(failed=1)
    evals.run("--armory-session=s", "-k", "test_b").assert_outcomes(passed=1)
    (session,) = evals.sessions()
    assert session.data.metrics["gates_missed"] == 150
    assert "**150 gates missed**" in text_of(session, "summary.md")


def test_compare_judges_again(
    evals: Evals,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    leave = "    def test_exit():\n        if METRICS['accuracy'] < 0.6: pytest.exit('')"
    evals.write(MODEL + leave)
    model(evals, accuracy=0.9)
    evals.run("--armory-session=main").assert_outcomes(passed=3)
    model(evals, accuracy=0.5)
    evals.run("--armory-session=cut").assert_outcomes(passed=2)
    capsys.readouterr()
    summary = tmp_path / "step.md"
    summary.write_text("what stood there")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert commands.main(["compare", "main", "cut", "--summary", str(summary)]) == 1
    reported = capsys.readouterr().out
    assert (
        "missed: test_it.py::test_pgd[0]: accuracy 0.5 fell 44 % below the baseline's" in reported
    )
    written = summary.read_text()
    assert written.startswith("what stood there\n## 🛑 3 evaluations: 2 passed, 1 interrupted")
    assert "**2 gates missed**" in written
    assert commands.main(["compare", "branch:main", "main"]) == 0


def test_hooks_that_raise_or_answer_anything(evals: Evals) -> None:
    evals.pytester.makeconftest("""
        import pytest
        def pytest_armory_tags(item): pytest.importorskip("nope_nope")
        def pytest_armory_baseline(item): pytest.fail("no")
        def pytest_armory_chief_metrics(item, metrics): pytest.skip("no")
        def pytest_armory_summary(lines): lines.append(5)
    """)
    evals.write("""
        import pytest
        @pytest.mark.evaluation(baseline={"a": "-2%"})
        def test_a(): pass
    """)
    summary = evals.pytester.path / "s.md"
    result = evals.run(f"--armory-summary={summary}")
    result.assert_outcomes(passed=1)
    for hook in ("tags", "baseline", "chief_metrics"):
        assert f"warning: the hook pytest_armory_{hook} raised " in result.stdout.str()
    assert "warning: the hook pytest_armory_summary must leave a list" in result.stdout.str()
    assert summary.read_text().startswith("## ✅ 1 evaluation: 1 passed")
    evals.pytester.makeconftest("def pytest_armory_summary(lines): lines.append('\\\\ud800')")
    evals.run(f"--armory-summary={summary}").assert_outcomes(passed=1)
    assert summary.read_text().endswith("\\ud800\n")
    evals.check_accounted(2)


def test_what_cannot_be_read_of_a_baseline_is_named(evals: Evals) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_metrics
        @pytest.mark.evaluation(baseline={"a": "-2%"})
        def test_a(): track_metrics({"a": 1.0})
    """)
    evals.run("--armory-session=s")
    client = MlflowClient(sqlite_uri(evals.home / "mlruns" / "mlflow.db"))
    run = evals.run_of("test_a")
    for tag in ("armory.samples", "armory.data", "armory.repeats"):
        client.set_tag(run.info.run_id, tag, "five")
    result = evals.run("--armory-baseline=s")
    result.assert_outcomes(passed=1)
    what = f"warning: of the baseline's run {run.info.run_id}, the tag"
    result.stdout.fnmatch_lines([
        f"{what} armory.samples cannot be read: it is not JSON (test_a)",
        f"{what} armory.data cannot be read: it is not JSON (test_a)",
        f"{what} armory.repeats cannot be read: it is not a count (test_a)",
    ])  # fmt: skip
