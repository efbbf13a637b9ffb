"""Tests and fixtures that break what a plugin stands on: files, clocks, modules, environment."""

from __future__ import annotations

from textwrap import dedent

import pytest
from conftest import Evals, text_of, verdicts

HEAD = """
    import os, resource, sys, tempfile, time
    from unittest import mock
    import pytest
    from pytest_armory import track_call, track_metrics
    pytestmark = pytest.mark.evaluation
"""

BREAK = {
    "no-temporary-files": """
        def test_a():
            tempfile.tempdir = "/nonexistent/x"
            assert 0
        def test_b(): tempfile.tempdir = None
    """,
    "no-file-descriptors": """
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        def test_a():
            few = len(os.listdir("/proc/self/fd")) - 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
        def test_b(): assert 0
        def test_c(): resource.setrlimit(resource.RLIMIT_NOFILE, before)
    """,
    "files-that-cannot-be-opened": """
        @pytest.fixture(scope="module", autouse=True)
        def broken():
            with mock.patch("os.mkdir", side_effect=OSError):
                with mock.patch("os.open", side_effect=OSError):
                    yield
        def test_a(): track_metrics({"array": [1, 2, [3]], "number": 1})
        def test_b(): pass
    """,
    "repr-that-fails-the-test": """
        class Forbidden:
            def __repr__(self): pytest.fail("nobody may look")
        class Leaving:
            def __repr__(self): raise SystemExit(3)
        class Skipping:
            def __repr__(self): pytest.skip("nobody may look")
        @pytest.mark.parametrize("x", [Forbidden(), Leaving()])
        def test_a(x): pass
        def load(model): pass
        def test_b(): track_call(load, model=Skipping())
    """,
    "clocks-that-run-out": """
        def test_a(monkeypatch):
            ticks = iter([1.0, 3.5])
            monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
            before = time.perf_counter()
            track_metrics({"x": 1})
            assert time.perf_counter() - before == 2.5
        @pytest.fixture
        def stopped():
            with mock.patch("time.time"), mock.patch("time.monotonic", side_effect=[]): yield
        @pytest.mark.evaluation(at_least={"x": 0})
        def test_b(stopped): track_metrics({"x": 1})
    """,
    "json-that-fails": """
        import json
        @pytest.fixture(autouse=True)
        def broken(request):
            names = ("json.dumps", "json.loads")
            with mock.patch(names[0], side_effect=ValueError), mock.patch(names[1]):
                yield
        def load(n): return n
        @pytest.mark.evaluation(at_least={"x": 0})
        @pytest.mark.parametrize("i", range(2))
        def test_a(i, evaluation_run):
            track_call(load, n=i)
            track_metrics({"x": 1, "array": [1, 2, [3]]})
            evaluation_run.log_table([{"a": 1}], "table.json")
        def test_b(): json.dumps = json.loads = None
        def test_c(monkeypatch): monkeypatch.setattr(json, "dumps", mock.Mock())
    """,
    "environment-that-is-a-mock": """
        @pytest.fixture(scope="module", autouse=True)
        def broken(request):
            with mock.patch.object(os.environ, "get", side_effect=ValueError) as seen: yield seen
        @pytest.mark.evaluation(at_least={"x": 0})
        def test_a(broken, evaluation_run):
            evaluation_run.log_text("text", "a.txt")
            track_metrics({"x": 1})
            evaluation_run.set_tags({"a": "b"})
            assert not broken.called
        @pytest.mark.evaluation(at_most={"x": 0})
        def test_b(): pass
        def test_c(broken): assert [call[0][0] for call in broken.call_args_list] == []
    """,
    "mocks-that-count": """
        @pytest.fixture(params=["time.time", "os.getpid", "threading.get_ident", "os.utime",
                                "os.open", "os.write", "time.monotonic", "os.environ.get"])
        def seen(request):
            with mock.patch(request.param) as seen: yield seen
        def test_a(seen): assert not seen.called
        @pytest.mark.evaluation(at_least={"x": 0})
        def test_b(seen):
            track_metrics({"x": 1})
            assert not seen.called
    """,
    "what-explains-an-error-fails-too": """
        @pytest.mark.evaluation(at_least={"x": 0})
        @pytest.mark.parametrize("name", ["re.match", "os.path.exists", "os.stat"])
        def test_a(name, evaluation_run):
            with mock.patch(name, side_effect=RuntimeError("password=hunter2")):
                track_metrics({"x": 1})
                evaluation_run.log_params({"p": {"q": 1}})
                evaluation_run.set_tags({"t": "u"})
                evaluation_run.log_dict({"d": 1}, "d.json")
    """,
    "names-that-are-not-random": """
        @pytest.fixture(scope="module", autouse=True)
        def same():
            with mock.patch("secrets.token_hex", return_value="ab"):
                with mock.patch("random.uniform", side_effect=ValueError):
                    with mock.patch("os.getpid", return_value=1):
                        yield
        def test_a(): pass
        def test_b(): assert 0
    """,
    "no-mlflow": """
        @pytest.fixture(scope="module", autouse=True)
        def missing():
            with mock.patch.dict(sys.modules, {"mlflow": None}):
                yield
        def test_a():
            with pytest.raises(ImportError):
                import mlflow
        def test_b(): track_metrics({"x": 1})
    """,
}


@pytest.mark.parametrize("source", BREAK.values(), ids=BREAK)
@pytest.mark.parametrize("way", [("-p", "no:xdist"), ("-n1",)], ids=["one", "n1"])
def test_verdicts_stand(evals: Evals, source: str, way: tuple[str, ...]) -> None:
    """What cannot be stored meanwhile is reported; nothing else is different."""
    evals.write(dedent(HEAD) + dedent(source))
    result = evals.run(*way, subprocess=True)
    attempts = sum(result.parseoutcomes().values())
    stored = len(evals.runs())
    assert stored == attempts or not any(word in source for word in ("json.", "get", "seen"))
    assert "INTERNALERROR" not in result.stdout.str()
    evals.check_invariant(result, attempts, *way, lost=attempts - stored, subprocess=True)
    assert stored == attempts or f"not stored: {attempts - stored} eval" in result.stdout.str()


def test_what_a_wide_fixture_sets_is_gone_with_it(evals: Evals) -> None:
    """It finds the variables that its first test was given, and restores these in the end."""
    evals.write(
        """
        import os, pytest
        pytestmark = pytest.mark.evaluation
        @pytest.fixture(scope="module", autouse=True)
        def mine(tmp_path_factory):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
                patch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
                yield
        def test_a(): assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///mine.db"
        def test_b(): assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///mine.db"
        """,
        test_later="""
        import os, pytest
        GIVEN = {name: os.environ.get(name) for name in os.environ if "MLFLOW" in name}
        def same():
            names = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_CONTEXT")
            return {name: os.environ.get(name) for name in names}
        def test_plain(): assert same() == {name: GIVEN.get(name) for name in same()}
        @pytest.mark.evaluation
        def test_marked(): assert os.environ.get("MLFLOW_TRACKING_URI") != "sqlite:///mine.db"
        def test_last(): test_plain()
        """,
    )
    result = evals.run()
    result.assert_outcomes(passed=5)
    evals.check_invariant(result, 3)


LEAVE = """
    import pytest
    def pytest_runtest_{when}(nodeid):
        if nodeid.endswith("{where}"): {how}
"""


@pytest.mark.parametrize("way", [("-p", "no:xdist"), ("-n1",)], ids=["one", "n1"])
@pytest.mark.parametrize(
    ("when", "how"),
    [("logstart", "pytest.exit('enough', 7)"), ("logstart", "pytest.exit('enough', 0)"),
     ("logfinish", "raise ValueError('a bug')")],
    ids=["exit-7", "exit-0", "bug"],
)  # fmt: skip
def test_a_session_that_broke_off_between_tests(
    evals: Evals, when: str, how: str, way: tuple[str, ...]
) -> None:
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        def test_a(): pass
        def test_b(): pass
        def test_c(): pass
    """)
    evals.pytester.makeconftest(LEAVE.format(when=when, where="test_b", how=how))
    result = evals.run(*way, subprocess=True)
    (session,) = evals.sessions()
    assert session.info.status == "KILLED"
    if way != ("-n1",):  # a worker may be ahead of who reports
        not_run = 2 if when == "logstart" else 1
        assert f", {not_run} not run" in result.stdout.str()
    assert text_of(session, "summary.md").startswith("## 🛑")
    assert result.stdout.str().count("= evaluations =") == 1
    evals.check_accounted(len(evals.runs()))
    off = evals.run(*way, track=False, subprocess=True)
    assert off.ret == result.ret
    assert verdicts(off) == verdicts(result) or way == ("-n1",)


def test_a_setup_that_fails_before_ours(evals: Evals) -> None:
    """In the hook of a folder's conftest, which pytest calls first."""
    folder = evals.pytester.mkpydir("sub")
    (folder / "conftest.py").write_text(
        "import pytest\n"
        "def pytest_runtest_setup(item):\n"
        "    if 'b' in item.name: pytest.fail('no GPU')\n"
        "@pytest.hookimpl(wrapper=True)\n"
        "def pytest_runtest_makereport(item, call):\n"
        "    report = yield\n"
        "    if item.name == 'test_c' and report.failed:\n"
        "        report.outcome, report.wasxfail = 'skipped', 'known'\n"
        "    return report\n"
    )
    (folder / "test_it.py").write_text(
        "import pytest\npytestmark = pytest.mark.evaluation\n"
        "def test_a(): pass\ndef test_b(): pass\ndef test_c(): assert 0\n"
    )
    result = evals.run()
    result.assert_outcomes(passed=1, errors=1, xfailed=1)
    result.stdout.fnmatch_lines(["3 evaluations: 1 passed, 1 error, 1 xfailed, tracked to *"])
    statuses = {name: run.info.status for name, run in evals.runs().items()}
    assert statuses == {"test_a": "FINISHED", "test_b": "FAILED", "test_c": "FINISHED"}
    evals.check_invariant(result, 3)


def test_a_home_that_is_removed(evals: Evals) -> None:
    evals.write("""
        import os, pytest, shutil
        pytestmark = pytest.mark.evaluation
        def test_a(): pass
        def test_b(): shutil.rmtree(os.environ["ARMORY_HOME"])
        def test_c(): pass
    """)
    result = evals.run(subprocess=True)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["not stored: 3 evaluations", "warning: * is gone: *"])
    evals.home.mkdir(exist_ok=True)
    off = evals.run(track=False, subprocess=True)
    assert (off.ret, verdicts(off)) == (result.ret, verdicts(result))


def test_a_file_name_that_is_no_text(evals: Evals) -> None:
    (evals.pytester.path / "test_\udcff.py").write_text(
        "import pytest\n@pytest.mark.evaluation\ndef test_a(): pass\n"
    )
    result = evals.run()
    result.assert_outcomes(passed=1)
    assert evals.run_of("test_a").data.tags["armory.nodeid"] == r"test_\udcff.py::test_a"
    result.stdout.fnmatch_lines(["1 evaluation: 1 passed, tracked to *"])


def test_a_home_that_a_fixture_replaces_during_an_outage(evals: Evals, nobody: str) -> None:
    """What waits for a server waits in the home of the session, all of it."""
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        @pytest.fixture(scope="session", autouse=True)
        def home(tmp_path_factory):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("ARMORY_HOME", str(tmp_path_factory.mktemp("home")))
                yield
        def test_a(): pass
        def test_b(): pass
    """)
    result = evals.run("--armory-tracking-uri", nobody)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["waiting for *: 2 evaluations, recorded locally"])
    evals.check_accounted(2)


def test_without_pytests_own_plugin_for_setup(evals: Evals) -> None:
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    evals.run("-p", "no:setuponly", "-p", "no:setupplan").assert_outcomes(passed=1)
    assert len(evals.runs()) == 1
