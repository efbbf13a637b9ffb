"""Nothing when off: no import, no file, no line; the fixtures and the API work in memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Evals

HEAVY = ("mlflow", "numpy", "sqlalchemy", "alembic")

SPY = f"""
    import os, sys
    def pytest_sessionfinish(session):
        with open(os.environ["SPY"], "a") as file:
            print(*[name for name in {HEAVY!r} if name in sys.modules], file=file)
"""


@pytest.mark.parametrize("track", [False, True], ids=["off", "nothing-selected"])
@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["one", "n2"])
def test_nothing_is_imported_written_or_printed(
    evals: Evals,
    track: bool,
    workers: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPY", str(tmp_path / "spy"))
    evals.pytester.makepyfile(conftest=SPY)
    evals.write("import pytest\ndef test_a(): pass\n@pytest.mark.evaluation\ndef test_b(): pass")
    shutil.rmtree(evals.home)
    before = files(evals)
    args = evals.arguments("-k", "test_a", "-p", "no:hypothesispytest", *workers, track=track)
    result = evals.pytester.runpytest_subprocess(*args)
    result.assert_outcomes(passed=1)
    assert files(evals) == before
    assert not evals.home.exists()
    assert (tmp_path / "spy").read_text() == "\n" * (3 if workers else 1)
    ours = [line for line in result.outlines if line.startswith("armory:")]
    assert len(ours) == (2 if track else 0)
    assert not track or "no test that ran is marked `evaluation`" in ours[1]
    assert "= evaluations =" not in result.stdout.str()


LOUD = """
    import pytest
    from pytest_armory import track_call, track_evaluation
    class Loud:
        def __init__(self): Loud.last = self
        def __repr__(self):
            with open("said", "a") as file: print(file=file)
            return "Loud()"
    def load(n, **more): return n
    ONE, TWO = Loud(), Loud()
    @pytest.fixture(scope="module")
    def wide(): return track_call(load, n=ONE, kept=len, text="x" * 30_000_000)
    @pytest.fixture
    def data(request): return track_call(load, n=request.param, prefix=None)
    @pytest.mark.evaluation
    @pytest.mark.parametrize("data", [pytest.param(TWO, id="two")], indirect=True)
    @pytest.mark.parametrize("text", [pytest.param("x" * 30_000_000, id="long")])
    def test_a(data, wide, text):
        track_call(load, n=TWO)
        with track_evaluation("inner"): pass
    @pytest.mark.evaluation
    def test_b(wide): pass
"""

READ = """
    @pytest.mark.evaluation
    def test_c(wide, evaluation_run):
        for _ in range(2):
            assert evaluation_run.params["load.n"] == "Loud()"
            assert evaluation_run.params["load.kept"] == "len"
            assert len(evaluation_run.params["load.text"]) == 1_000_000
"""


@pytest.mark.parametrize(("source", "off", "on"), [(LOUD, 0, 2), (LOUD + READ, 1, 2)],
                         ids=["unread", "read"])  # fmt: skip
def test_a_value_is_described_once_or_not_at_all(
    evals: Evals, each_way: Sequence[str], source: str, off: int, on: int
) -> None:
    """Where nothing is tracked, only what is read is, however long it is."""
    said = evals.pytester.path / "said"
    evals.write(source)
    for track, count in ((False, off), (True, on)):
        said.write_text("")
        result = evals.run(*each_way, track=track)
        result.assert_outcomes(passed=2 + ("test_c" in source))
        assert result.ret == 0
        assert said.read_text().count("\n") == count
    evals.check_accounted(3 + ("test_c" in source))


def files(evals: Evals) -> set[Path]:
    """Everything in the session's folder that is not pytester's own or compiled code."""
    own = ("__pycache__", "stdout", "stderr", "runpytest-0", "runpytest-current")
    return {p for p in evals.pytester.path.rglob("*") if not {*p.parts} & {*own}}


TRACKS = (
    *("engine", "sync", "session.ledger", "plugin.tracked", "plugin.mlflow_fixtures"),
    *(
        f"store.{name}"
        for name in ["client", "connection", "database", "circuit", "active_run", "tracing"]
    ),
)
"""What an untracked session with marked tests has no use for."""


def test_marked_tests_import_nothing_of_what_tracks(evals: Evals) -> None:
    seen = ("filelock", "mlflow", "sqlalchemy", "sqlite3")
    evals.write(
        f"""
        import sys
        import pytest
        @pytest.fixture(scope="module")
        def wide(): return 1
        @pytest.mark.evaluation(at_least={{"accuracy": 0.5}})
        @pytest.mark.parametrize("n", [1])
        def test_a(wide, n, evaluation_run): evaluation_run.log_metrics({{"accuracy": 1}})
        def test_z():
            print(*sorted(name for name in sys.modules if name.startswith("pytest_armory.")))
            print(*[name for name in {seen!r} if name in sys.modules], "end")
        """
    )
    args = evals.arguments("-s", "-q", "-p", "no:xdist", "-p", "no:asyncio", track=False)
    result = evals.pytester.runpytest_subprocess(*args)
    result.assert_outcomes(passed=2)
    (line,) = [line for line in result.outlines if "pytest_armory.plugin " in line]
    names = [name.removeprefix("pytest_armory.") for name in line.split()]
    assert [name for name in names if name.startswith(TRACKS)] == []
    assert "end" in result.outlines


def test_marked_tests_are_ordinary_tests_with_a_run_in_memory(evals: Evals) -> None:
    evals.write(
        """
        import pytest
        from pytest_armory import get_current_params, track_evaluation, track_metrics, track_param
        class Report:
            score = 0.5
        def load(n): return n
        @pytest.fixture
        def data(track_call): return track_call(load, n=1)
        @pytest.fixture
        def other(track_call): return track_call(load, n=2)
        @pytest.mark.evaluation
        def test_a(data, evaluation_run):
            track_metrics({"accuracy": 0.5})
            evaluation_run.log_metrics({"loss": 1})
            evaluation_run.log_params({"a": {"b": 1}})
            evaluation_run.set_tags({"x": 1})
            evaluation_run.log_dict({}, "x.json")
            assert evaluation_run.run_id is evaluation_run.url is None
            assert evaluation_run.experiment_id is None
            assert evaluation_run.metrics == {"accuracy": 0.5, "loss": 1.0}
            loaded = {"load._func": "test_it.load", "load.n": "1"}
            assert evaluation_run.params == {"a.b": "1", **loaded}
            track_param("late", 2)
            assert evaluation_run.params == {"a.b": "1", "late": "2", **loaded}
        @pytest.mark.evaluation
        @pytest.mark.parametrize("eps", [1])
        def test_b(data, other, eps, evaluation_run):
            assert evaluation_run.params["data.load.n"] == "1"
            assert evaluation_run.params["other.load.n"] == "2"
            assert evaluation_run.params["eps"] == "1"
            assert get_current_params() == {}
            track_metrics({"foreign": Report()})
            assert evaluation_run.metrics == {"foreign/score": 0.5}
            with track_evaluation("nested") as nested:
                assert nested.run_id is None
        def test_unmarked(data, evaluation_run):
            track_metrics({"accuracy": 0.5})
            assert evaluation_run.run_id is None
        """,
        conftest="def pytest_armory_metrics(result): return {'score': result.score}",
    )
    result = evals.run(track=False)
    result.assert_outcomes(passed=3)
    assert evals.read() == []
    assert "evaluations" not in result.stdout.str()


def test_telemetry_is_off_whoever_imports_mlflow_first(
    evals: Evals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow decides about it as it is imported: by a test's module, before a run is opened."""
    pytest.importorskip("mlflow.telemetry")
    by_ci = ("CI", "GITHUB_ACTIONS", "GITLAB_CI")  # by which MLflow knows where it would be off
    for name in ("MLFLOW_DISABLE_TELEMETRY", "PYTEST_CURRENT_TEST", "PYTEST_VERSION", *by_ci):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    evals.write("""
        import mlflow, pytest
        from mlflow.telemetry import get_telemetry_client
        @pytest.mark.evaluation
        def test_a(): assert get_telemetry_client() is None
    """)
    result = evals.pytester.runpytest_subprocess(*evals.arguments())
    result.assert_outcomes(passed=1)
    assert not (tmp_path / "config" / "mlflow").exists()
