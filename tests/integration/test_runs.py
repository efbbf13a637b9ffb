"""What a run holds: section 2 of the design, read back through MlflowClient."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from types import FrameType

import pytest
from conftest import Evals, artifacts_of, counts_of, text_of

import pytest_armory
from pytest_armory.plugin.attempt import Attempt
from pytest_armory.plugin.attempts import Attempts
from pytest_armory.report.note import as_note

OUTCOMES = """
import pytest

@pytest.fixture
def broken():
    raise RuntimeError("no data")

@pytest.fixture
def breaks_later():
    yield
    raise RuntimeError("cannot clean up")

@pytest.fixture
def needs_gpu():
    pytest.skip("no GPU")

pytestmark = pytest.mark.evaluation

def test_passed(): pass
def test_failed(): print("seen on stdout"); assert 1 == 2, "worse than chance"
def test_error_in_setup(broken): pass
def test_error_in_teardown(breaks_later): pass
@pytest.mark.skip(reason="later")
def test_skipped_by_mark(): pass
@pytest.mark.skipif(True, reason="later")
def test_skipped_by_condition(): pass
def test_skipped_in_body(): pytest.skip("no data today")
def test_skipped_by_fixture(needs_gpu): pass
@pytest.mark.xfail
def test_xfailed(): assert 0
@pytest.mark.xfail
def test_xpassed(): pass
@pytest.mark.xfail(strict=True)
def test_xpassed_strictly(): pass
@pytest.mark.xfail(run=False)
def test_not_run(): pass
def test_imperative_xfail(): pytest.xfail("known")
"""

EXPECTED = {
    "test_passed": ("FINISHED", "passed"),
    "test_failed": ("FAILED", "failed"),
    "test_error_in_setup": ("FAILED", "error"),
    "test_error_in_teardown": ("FAILED", "error"),
    "test_skipped_in_body": ("FINISHED", "skipped"),
    "test_skipped_by_fixture": ("FINISHED", "skipped"),
    "test_xfailed": ("FINISHED", "xfailed"),
    "test_xpassed": ("FINISHED", "xpassed"),
    "test_xpassed_strictly": ("FAILED", "failed"),
    "test_imperative_xfail": ("FINISHED", "xfailed"),
}


def test_every_outcome_has_its_status(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(OUTCOMES)
    result = evals.run(*each_way)
    found = {n: (r.info.status, r.data.tags["armory.outcome"]) for n, r in evals.runs().items()}
    assert found == EXPECTED
    assert all(run.data.metrics["duration_seconds"] >= 0 for run in evals.runs().values())
    evals.check_invariant(result, attempts=len(EXPECTED))


def test_the_session_run_is_the_parent_and_counts(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(OUTCOMES)
    evals.run(*each_way)
    (session,) = evals.sessions()
    assert {r.data.tags["mlflow.parentRunId"] for r in evals.runs().values()} == {
        session.info.run_id
    }
    assert session.info.status == "FAILED"
    assert counts_of(session) == {
        "evaluations": 10, "passed": 1, "failed": 2, "error": 2, "skipped": 2, "xfailed": 2,
        "xpassed": 1,
    }  # fmt: skip
    assert "test_error_in_setup" in text_of(session, "summary.md")
    assert session.data.tags["mlflow.note.content"] == as_note(text_of(session, "summary.md"), 8000)
    assert session.data.tags["armory.command"].startswith("pytest --armory-track")
    assert session.data.tags["mlflow.source.name"] == "pytest"
    (identity,) = {r.data.tags["armory.session"] for r in evals.read()}
    assert identity in session.info.run_name


def test_the_note_of_a_session_run_begins_with_its_own_experiment(evals: Evals) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation(name="one")
        def test_a(): pass
        @pytest.mark.evaluation(name="two")
        def test_b(): pass
    """)
    evals.run()
    names = {evals.run_of(name).info.experiment_id: name for name in ("test_a", "test_b")}
    sessions = evals.sessions()
    assert len(sessions) == 2
    for session in sessions:
        first = session.data.tags["mlflow.note.content"].partition("---: |\n")[2]
        assert first.startswith(f"| `test_it.py::{names[session.info.experiment_id]}`")


def test_a_failure_keeps_what_pytest_said(evals: Evals) -> None:
    evals.write(OUTCOMES)
    evals.run()
    failed = evals.run_of("test_failed")
    assert "worse than chance" in text_of(failed, "failure.txt")
    assert "seen on stdout" in text_of(failed, "captured.txt")
    assert "no data" in text_of(evals.run_of("test_error_in_setup"), "failure.txt")
    assert "cannot clean up" in text_of(evals.run_of("test_error_in_teardown"), "failure.txt")
    assert artifacts_of(evals.run_of("test_passed")) == {}


@pytest.mark.parametrize("leave", ["pytest.exit('enough')", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("where", ["body", "fixture"])
def test_leaving_the_session_interrupts_the_run(evals: Evals, leave: str, where: str) -> None:
    leave = f"time.sleep(0.2); {leave}"
    body, fixture = (leave, "pass") if where == "body" else ("pass", leave)
    evals.write(f"""
        import pytest, mlflow, time
        @pytest.fixture
        def data():
            mlflow.log_metric("seen", 1)
            {fixture}
        @pytest.mark.evaluation
        def test_done(): pass
        @pytest.mark.evaluation
        def test_left(data):
            {body}
        @pytest.mark.evaluation
        def test_never(): pass
    """)
    result = evals.run()
    runs = evals.runs()
    assert {name: run.info.status for name, run in runs.items()} == {
        "test_done": "FINISHED", "test_left": "KILLED",
    }  # fmt: skip
    assert runs["test_left"].data.tags["armory.outcome"] == "interrupted"
    assert runs["test_left"].data.metrics["seen"] == 1
    assert runs["test_left"].data.metrics["duration_seconds"] >= 0.2
    assert evals.sessions()[0].info.status == "KILLED"
    result.stdout.fnmatch_lines(["*3 evaluations: 1 passed, 1 interrupted, 1 not run*"])
    evals.check_invariant(result, attempts=2)


def test_tags_say_what_ran_and_where_it_comes_from(evals: Evals) -> None:
    evals.pytester.makepyfile(
        conftest="def pytest_armory_tags(item): return {'gpu': 0, 'password': 'hunter2'}"
    )
    evals.write("""
        import pytest
        @pytest.mark.evaluation(name="exp", description="a note", tags={"team": "vision"})
        class TestIt:
            @pytest.mark.evaluation(tags={"stage": 2})
            @pytest.mark.parametrize("eps", [0.1])
            def test_a(self, eps): pass
    """)
    evals.pytester.run("git", "init", "-q", "-b", "trunk")
    evals.pytester.run("git", "-c", "user.name=x", "-c", "user.email=x@x", "add", "test_it.py")
    evals.pytester.run("git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "one")
    evals.pytester.run("git", "remote", "add", "origin", "https://me:s3cret@example.org/r.git")
    commit = evals.pytester.run("git", "rev-parse", "HEAD").outlines[0]
    evals.run()
    tags = evals.run_of("test_a[0.1]").data.tags
    assert tags["armory.nodeid"] == "test_it.py::TestIt::test_a[0.1]"
    assert tags["mlflow.source.name"] == "test_it.py"
    assert tags["mlflow.note.content"] == "a note"
    assert (tags["team"], tags["stage"], tags["gpu"]) == ("vision", "2", "0")
    assert tags["password"] == "[redacted]"
    assert (tags["armory.attempt"], tags["armory.worker"]) == ("1", "main")
    assert tags["mlflow.source.git.commit"] == commit
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert tags["mlflow.source.git.repoURL"] == "https://[redacted]@example.org/r.git"
    assert tags["armory.git.dirty"] == "false"
    assert tags["armory.version"]


def test_a_tag_hook_that_raises_costs_its_tags_only(evals: Evals) -> None:
    evals.pytester.makepyfile(conftest="def pytest_armory_tags(item): raise KeyError('gpu')")
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    result = evals.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["warning: the hook pytest_armory_tags raised KeyError('gpu')*"])
    assert evals.run_of("test_a").info.status == "FINISHED"


def test_ci_tags(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_RUN_ID", "42")
    monkeypatch.setenv("GITHUB_REPOSITORY", "me/models")
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    evals.run()
    tags = evals.run_of("test_a").data.tags
    assert tags["armory.ci.provider"] == "github"
    assert tags["armory.ci.url"] == "https://github.com/me/models/actions/runs/42"


def test_values_are_stored_honestly(evals: Evals) -> None:
    evals.write("""
        import numpy as np, pytest
        class Opaque: pass
        @pytest.mark.evaluation
        @pytest.mark.parametrize("value, array, what, api_key, long", [
            (0.1, np.zeros((3, 2)), Opaque(), "sk-verysecret", "x" * 10_000)], ids=["one"])
        def test_a(value, array, what, api_key, long): pass
    """)
    result = evals.run()
    run = evals.run_of("test_a[one]")
    assert run.data.params["value"] == "0.1"
    assert run.data.params["array"] == "numpy.ndarray(shape=(3, 2), dtype=float64)"
    assert run.data.params["what"] == "<test_it.Opaque>"
    assert run.data.params["api_key"] == "[redacted]"
    assert len(run.data.params["long"]) <= 6000
    assert "x" * 10_000 in text_of(run, "params.json")
    evals.check_invariant(result, attempts=1)


def test_metrics_of_the_test_and_of_mlflow_land_in_the_run(
    evals: Evals, each_way: Sequence[str]
) -> None:
    evals.write(
        """
        import mlflow, numpy as np, pytest
        from pytest_armory import track_metrics
        class Report:
            score = 0.5
        @pytest.mark.evaluation
        def test_a(evaluation_run):
            assert mlflow.active_run().info.run_id == evaluation_run.run_id
            track_metrics({"accuracy": np.float32(0.5), "by class": {"a": 1}, "cm": np.eye(2)})
            track_metrics({"foreign": Report()})
            evaluation_run.log_metrics({"loss": 2.0}, step=7)
            evaluation_run.set_tags({"extra": 1})
            evaluation_run.log_dict({"a": [1, 2]}, "notes/it.json")
            mlflow.log_metric("own", 3)
            mlflow.log_text("hello", "own.txt")
        """,
        conftest="""
        def pytest_armory_metrics(result):
            if type(result).__name__ == "Report":
                return {"score": result.score}
        """,
    )
    result = evals.run(*each_way)
    result.assert_outcomes(passed=1)
    run = evals.run_of("test_a")
    metrics = {k: v for k, v in run.data.metrics.items() if k != "duration_seconds"}
    assert metrics == {
        "accuracy": 0.5, "by class/a": 1.0, "foreign/score": 0.5, "loss": 2.0, "own": 3.0,
    }  # fmt: skip
    assert run.data.tags["extra"] == "1"
    assert set(artifacts_of(run)) == {"metrics/cm.json", "notes/it.json", "own.txt"}


def test_one_refused_parameter_costs_no_other(evals: Evals) -> None:
    """MLflow refuses a whole batch for one parameter that already has another value."""
    evals.write("""
        import mlflow, pytest
        @pytest.fixture
        def data(): mlflow.log_param("eps", "mine")
        @pytest.mark.evaluation
        @pytest.mark.parametrize("eps, steps", [(0.1, 7)])
        def test_a(data, eps, steps): pass
    """)
    result = evals.run()
    result.assert_outcomes(passed=1)
    run = evals.run_of("test_a[0.1-7]")
    assert run.data.params == {"eps": "mine", "steps": "7"}
    reported = (
        "warning: the parameter 'eps' is only in the artifact params.json: *stored already (*)"
    )
    result.stdout.fnmatch_lines([reported])
    assert '"eps": "0.1"' in text_of(run, "params.json")


def test_a_plain_start_run_opens_a_child(evals: Evals, each_way: Sequence[str]) -> None:
    """As most tests have it that track by hand: what passes untracked passes tracked."""
    evals.write("""
        import mlflow, pytest
        @pytest.mark.evaluation(at_least={"accuracy": 0.5, "loss": 1})
        def test_two():
            for rate in (0.1, 0.2):
                with mlflow.start_run(run_name=f"rate {rate}"):
                    mlflow.log_param("rate", rate)
                    mlflow.log_metrics({"accuracy": rate * 4, "loss": 1})
        @pytest.mark.evaluation
        def test_begun_twice():
            mlflow.start_run()
            mlflow.start_run()
        @pytest.mark.evaluation
        @pytest.mark.parametrize("given", [{"bogus": 1}, {"nested": False}])
        def test_given(given):
            with mlflow.start_run(**given): pass
    """)
    result = evals.run(*each_way)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines_random(["*is already active*", "*unexpected keyword*'bogus'*"])
    two = evals.run_of("test_two").info.run_id
    inner = [run for run in evals.read() if (run.info.run_name or "").startswith("rate")]
    assert sorted(run.data.params["rate"] for run in inner) == ["0.1", "0.2"]
    assert {run.data.tags["mlflow.parentRunId"] for run in inner} == {two}
    evals.check_accounted(attempts=4)


def test_a_parameter_that_the_test_replaces_is_kept_whole(evals: Evals) -> None:
    """MLflow keeps the first value for ever; the last one is beside it."""
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.parametrize("eps", [0])
        def test_a(eps, evaluation_run):
            assert evaluation_run.params["eps"] == "0"
            evaluation_run.log_params({"eps": 1})
            with pytest.warns(match="eps"):
                evaluation_run.log_params({"eps": 2})
    """)
    evals.run().assert_outcomes(passed=1)
    run = evals.run_of("test_a[0]")
    assert run.data.params["eps"] == "1"
    assert run.data.tags["armory.replaced_params"] == "eps"
    assert '"eps": "2"' in text_of(run, "params.json")


@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
def test_runs_that_a_test_leaves_open_are_closed_and_reported(
    evals: Evals, way: tuple[str, ...]
) -> None:
    evals.write("""
        import mlflow, pytest
        pytestmark = pytest.mark.evaluation
        def test_ends_ours():
            mlflow.end_run()
            mlflow.log_metric("in a run of its own", 1)
        def test_opens_another():
            mlflow.start_run(nested=True)
            mlflow.log_metric("inner", 1)
        def test_closes_its_own():
            with mlflow.start_run(nested=True): pass
        def test_after(): mlflow.log_metric("here", 1)
        @pytest.fixture(scope="session")
        def spanning():
            with mlflow.start_run(nested=True, run_name="spanning"): yield
        def test_first(spanning): pass
        def test_second(spanning): pass
    """)
    result = evals.run(*way)
    result.assert_outcomes(passed=6)
    assert {run.info.status for run in evals.read()} == {"FINISHED"}
    left = [run for run in evals.read() if "armory.left_open_in" in run.data.tags]
    metrics = {name for run in left for name in run.data.metrics}
    assert metrics == {"in a run of its own", "inner"}
    assert evals.run_of("test_after").data.metrics["here"] == 1
    lines = [line for line in result.outlines if "was left open inside" in line]
    assert len(lines) == 2  # the fixture's is its own, and ended by it
    assert lines[0].endswith(" was left open inside test_it.py::test_ends_ours: closed")
    assert lines[1].endswith(" was left open inside test_it.py::test_opens_another: closed")
    assert not (evals.pytester.path / "mlflow.db").exists()


def test_mlflow_is_as_it_was_between_evaluations(evals: Evals) -> None:
    """A test that is no evaluation sees the tracking URI that its own code has set."""
    evals.write("""
        import mlflow, pathlib, pytest
        USERS = f"sqlite:///{pathlib.Path(__file__).parent}/user.db"
        mlflow.set_tracking_uri(USERS)
        @pytest.mark.evaluation
        def test_evaluation():
            assert mlflow.get_tracking_uri() != USERS
            assert mlflow.active_run() is not None
        def test_plain():
            assert mlflow.get_tracking_uri() == USERS
            assert mlflow.active_run() is None
    """)
    evals.run().assert_outcomes(passed=2)


@pytest.mark.parametrize("option", ["--setup-plan", "--setup-only", "--collect-only"])
def test_what_runs_no_test_tracks_none(evals: Evals, option: str) -> None:
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    evals.run(option)
    assert evals.read() == []


def outcomes(evals: Evals) -> dict[str, str]:
    return {name: run.data.tags["armory.outcome"] for name, run in evals.runs().items()}


def test_unittest_classes(evals: Evals) -> None:
    evals.write("""
        import unittest, pytest
        from pytest_armory import track_call, track_metrics
        def load(n): return n
        @pytest.mark.evaluation
        class TestOld(unittest.TestCase):
            def setUp(self): track_call(load, n=1)
            def test_one(self): track_metrics({"one": 1})
            def test_two(self): self.fail("no")
            def test_three(self): self.skipTest("no")
    """)
    evals.run().assert_outcomes(passed=1, failed=1, skipped=1)
    assert outcomes(evals) == {"test_one": "passed", "test_two": "failed", "test_three": "skipped"}
    assert evals.run_of("test_one").data.metrics["one"] == 1
    assert evals.run_of("test_one").data.params["load.n"] == "1"


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="the subtests fixture came with pytest 9")
@pytest.mark.parametrize("way", [(), ("-n2",)], ids=["one", "n2"])
def test_a_failed_subtest_fails_its_evaluation(evals: Evals, way: tuple[str, ...]) -> None:
    evals.write("""
        import unittest, pytest
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation
        def test_bad(subtests):
            for i in range(3):
                with subtests.test(i=i):
                    assert i != 1
            track_metrics({"after": 1})
        def test_good(subtests):
            with subtests.test(i=0):
                pytest.skip("that one")
        class TestOld(unittest.TestCase):
            def test_old(self):
                with self.subTest(i=1): self.fail("no")
    """)
    result = evals.run(*way)
    assert outcomes(evals) == {"test_bad": "failed", "test_good": "passed", "test_old": "failed"}
    assert evals.run_of("test_bad").data.metrics["after"] == 1
    evals.check_invariant(result, attempts=3)


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="the subtests fixture came with pytest 9")
@pytest.mark.parametrize("way", [(), ("-n1",)], ids=["one", "n1"])
def test_what_failed_subtests_print_and_report_is_stored(
    evals: Evals, way: tuple[str, ...]
) -> None:
    """Each by its name, without what good ones print, and in files that have an end."""
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        def test_it(subtests):
            print("own output")
            for i in range(3):
                with subtests.test(f"part {i}", api_key="hush"):
                    print("inside", i)
                    assert i == 1, f"report {i}"
        def test_many(subtests):
            for i in range(12):
                with subtests.test(f"part {i}"):
                    print("start" if i == 0 else "end" if i == 11 else "", "x" * 1_000_000)
                    pytest.fail(f"report {i}" + "y" * 1_000_000)
    """)
    result = evals.run("--show-capture=no", "--tb=line", *way)
    run = evals.run_of("test_it")
    captured, failure = text_of(run, "captured.txt"), text_of(run, "failure.txt")
    assert "own output" in captured
    assert captured.index("call, [part 0] ") < captured.index("inside 0")
    assert captured.index("call, [part 2] ") < captured.index("inside 2")
    assert "inside 1" not in captured
    assert failure.startswith("call, [part 0] (api_key=")
    assert "\ncall, [part 2] " in failure
    assert "hush" not in captured + failure.splitlines()[0]
    many = evals.run_of("test_many")
    for file in ("captured.txt", "failure.txt"):
        text = text_of(many, file)
        assert len(text) < 10_100_000
        assert "characters are left out here" in text
        assert "[part 0]" in text
        assert "[part 11]" in text
    evals.check_invariant(result, 2, "--show-capture=no", "--tb=line", *way)


ASYNC = """
    import asyncio, mlflow, pytest
    from pytest_armory import track_metrics
    @pytest.mark.evaluation
    @pytest.mark.{framework}
    async def test_async({fixture}):
        async def task(): track_metrics({{"task": 1}})
        await asyncio.gather(asyncio.create_task(task()))
        await asyncio.to_thread(track_metrics, {{"thread": 1}})
        mlflow.log_metric("own", 1)
    @pytest.fixture
    def anyio_backend(): return "asyncio"
"""


@pytest.mark.parametrize(
    ("framework", "fixture"),
    [("asyncio", ""), ("anyio", "anyio_backend")],
    ids=["asyncio", "anyio"],
)
def test_async_tests(evals: Evals, framework: str, fixture: str) -> None:
    evals.write(ASYNC.format(framework=framework, fixture=fixture))
    other = "asyncio" if framework == "anyio" else "anyio"
    args = ("-o", "asyncio_default_fixture_loop_scope=function") if other == "anyio" else ()
    evals.run("-p", f"no:{other}", *args).assert_outcomes(passed=1)
    assert evals.run_of("test_async").data.metrics.keys() >= {"task", "thread", "own"}


def test_tests_do_not_see_each_others_parameters(evals: Evals) -> None:
    evals.write("""
        import pytest
        from pytest_armory import get_current_params, track_call, track_param
        def load(n): return n
        MODEL = track_call(load, n=0)
        def test_unmarked(): track_param("stray", 1)
        @pytest.mark.evaluation
        def test_a(): track_param("a", 1)
        @pytest.mark.evaluation
        def test_b(): assert "a" not in get_current_params()
    """)
    evals.run().assert_outcomes(passed=3)
    of_module = {"load._func": "test_it.load", "load.n": "0"}
    assert evals.run_of("test_a").data.params == {"a": "1", **of_module}
    assert evals.run_of("test_b").data.params == of_module


def test_output_without_end_is_cut(evals: Evals) -> None:
    """Head and tail are kept, of every section, and a line says how much is not."""
    evals.write("""
        import sys, logging, pytest
        pytestmark = pytest.mark.evaluation
        def test_prints():
            print("first" + "x" * 3_000_000 + "last")
            print("short", file=sys.stderr)
            assert False
        def test_reports():
            pytest.fail("begin" + "y" * 3_000_000 + "end")
        @pytest.fixture
        def loud():
            yield
            print("torn" + "z" * 3_000_000 + "down")
        def test_teardown(loud): assert False
        def test_short():
            print("x" * 1000)
            assert False
    """)
    quiet = ("--show-capture=no", "--tb=line")
    result = evals.run(*quiet)
    result.assert_outcomes(failed=4)
    said = {}
    for name in ("test_prints", "test_reports", "test_teardown", "test_short"):
        run = evals.run_of(name)
        files = ("captured.txt", "failure.txt") if name != "test_reports" else ("failure.txt",)
        said[name] = "".join(text_of(run, file) for file in files)
        assert len(said[name]) < 1_100_000
    for name, start, end in (
        ("test_prints", "first", "last"), ("test_reports", "begin", "end"),
        ("test_teardown", "torn", "down"),
    ):  # fmt: skip
        assert start in said[name]
        assert end in said[name]
        assert "characters are left out here" in said[name]
    assert "short" in said["test_prints"]
    assert "left out" not in said["test_short"]
    assert "x" * 1000 in said["test_short"]
    evals.check_invariant(result, 4, *quiet)


def test_a_test_sees_its_own_entities_tracked_or_not(evals: Evals) -> None:
    evals.write("""
        import pytest
        from pytest_armory import track_param
        @pytest.mark.evaluation(tags={"team": "vision"})
        @pytest.mark.parametrize("n", [1])
        def test_a(evaluation_run, n):
            track_param("seed", 0)
            evaluation_run.set_tag("own", 2)
            data = evaluation_run.data
            assert data.params == {"n": "1", "seed": "0"}
            assert {"team": "vision", "own": "2"}.items() <= data.tags.items()
            assert evaluation_run.info.run_name == "test_a[1]"
    """)
    for track in (True, False):
        evals.run(track=track).assert_outcomes(passed=1)


OPENING = [
    "plugin/attempts.py",
    "plugin/opening.py",
    "track/evaluation.py",
    "store/client.py",
    "plugin/attempt.py",
    "track/context.py",
    "track/activation.py",
    "store/active_run.py",
]
"""What opens a run, in the order of docs/how-it-works.md."""


def test_opening_a_run_visits_each_file_once(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    package = f"{Path(pytest_armory.__file__).parent}/"
    visits: list[str] = []
    frames: set[FrameType] = set()

    def file_of(frame: FrameType | None) -> str:
        """Of the frame, or of the one of ours that it is called by: not contextlib's."""
        while frame is not None:
            if frame.f_code.co_filename.startswith(package):  # no Path: there are many frames
                return frame.f_code.co_filename.removeprefix(package)
            frame = frame.f_back
        return ""

    def visit(frame: FrameType, event: str, _: object) -> None:
        file = file_of(frame)
        if event == "call" and file != file_of(frame.f_back) and frame not in frames:
            frames.add(frame)  # a context that is left comes again
            visits.append(file)

    def traced(attempts: Attempts, item: pytest.Item) -> Attempt:
        visits[:] = OPENING[:1]  # it begins there; the first one has opened the session run, too
        sys.setprofile(visit)
        try:
            return opened(attempts, item)
        finally:
            sys.setprofile(None)
            frames.clear()

    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(2))
        def test_a(i): pass
    """)
    opened = Attempts.open
    monkeypatch.setattr(Attempts, "open", traced)
    evals.run().assert_outcomes(passed=2)
    opening = [file for file, _ in groupby(file for file in visits if file in OPENING)]
    assert opening == OPENING
    assert visits.count("store/client.py") == 1  # one request
