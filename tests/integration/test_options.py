"""Options, ini keys, environment and marker: what wins, and what is refused before any test."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Evals

from pytest_armory.store.database import sqlite_uri

ONE = "import pytest\n@pytest.mark.evaluation\ndef test_a(): pass\n"
PLAIN = "def test_a(): pass\n"


@pytest.fixture
def one(evals: Evals) -> Evals:
    evals.write(ONE)
    return evals


def experiment_names(evals: Evals) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(sqlite_uri(Path(evals.home, "mlruns", "mlflow.db")))
    return {client.get_experiment(r.info.experiment_id).name for r in evals.read()}


def test_nothing_is_tracked_unless_asked(one: Evals) -> None:
    one.run(track=False).assert_outcomes(passed=1)
    assert one.read() == []


def test_tracking_by_ini(one: Evals) -> None:
    one.pytester.makeini("[pytest]\narmory_track = true\narmory_experiment = from-ini")
    one.run(track=False).assert_outcomes(passed=1)
    assert experiment_names(one) == {"from-ini"}
    one.run("-o", "armory_track=false", track=False).assert_outcomes(passed=1)
    assert len(one.runs()) == 1


def test_experiment_precedence(one: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    one.run()
    assert experiment_names(one) == {one.pytester.path.name}
    one.pytester.makeini("[pytest]\narmory_experiment = from-ini")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from-environment")
    one.run()
    assert experiment_names(one) == {one.pytester.path.name, "from-environment"}
    one.run("--armory-experiment", "from-command-line")
    assert experiment_names(one) >= {"from-command-line"}
    one.write("import pytest\n@pytest.mark.evaluation(name='from-marker')\ndef test_b(): pass")
    one.run("--armory-experiment", "from-command-line")
    assert experiment_names(one) >= {"from-marker"}
    assert "from-ini" not in experiment_names(one)


def test_experiment_id_of_a_job(one: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    one.run()
    assert experiment_names(one) == {"Default"}


@pytest.mark.parametrize("how", ["option", "environment", "ini"])
def test_tracking_uri(one: Evals, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = sqlite_uri(one.pytester.path / "elsewhere" / "it.db")
    args: list[str] = []
    if how == "option":
        args = ["--armory-tracking-uri", uri]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
    elif how == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        one.pytester.makeini("[pytest]\narmory_tracking_uri = sqlite:////nowhere/mlflow.db")
    else:
        one.pytester.makeini(f"[pytest]\narmory_tracking_uri = {uri}")
    one.run(*args).assert_outcomes(passed=1)
    names = {run.info.run_name for run in one.read(uri)}
    assert "test_a" in names
    assert one.read() == []
    beside = (one.pytester.path / "elsewhere" / "artifacts").as_uri()
    assert all(run.info.artifact_uri.startswith(beside) for run in one.read(uri))


def test_local_by_option_wins_over_the_environment(
    one: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    one.run("--armory-tracking-uri", "local").assert_outcomes(passed=1)
    assert list(one.runs()) == ["test_a"]


def test_the_environment_is_left_as_it_was(one: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    import mlflow

    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    before = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    one.run()
    assert {name: value for name, value in os.environ.items() if "PYTEST" not in name} == before
    assert mlflow.active_run() is None


USAGE_ERRORS = [
    (["--armory-tracking-uri", "http://u:secret@h"], False, "*add --armory-track*"),
    (["--armory-tracking-uri", "ftp://u:secret@h/x"], True, "*'ftp://*@h/x' cannot be used*"),
    (["--armory-tracking-uri", "mlflow.example.org"], True, "*as in https://mlflow.example.org.*"),
    (["--armory-tracking-uri", "./mlruns"], True, "*plain folders*sqlite:///*mlruns/mlflow.db*"),
    (["--armory-tracking-uri", "http://"], True, "*names no host*"),
]


@pytest.mark.parametrize(("args", "track", "expected"), USAGE_ERRORS)
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_usage_errors_come_before_the_first_test(
    one: Evals, args: list[str], track: bool, expected: str, workers: str
) -> None:
    result = one.run(*args, workers, track=track)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: armory: {expected}"])
    text = result.stdout.str() + result.stderr.str()
    assert "secret" not in text
    assert "INTERNALERROR" not in text
    assert "test_it.py" not in text


@pytest.mark.parametrize(
    "key",
    [
        "armory_track",
        "armory_strict",
        "armory_marker",
        "armory_resume",
        "armory_patch",
        "armory_activate",
        "armory_redaction",
    ],
)
def test_an_ini_key_that_is_neither_true_nor_false_is_named(one: Evals, key: str) -> None:
    one.pytester.makeini(f"[pytest]\n{key} = maybe")
    result = one.run(track=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: armory: {key} must be true or false: *'maybe'*"])


def test_an_armory_home_that_is_a_file(one: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMORY_HOME", str(one.pytester.path / "test_it.py"))
    result = one.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: armory: *is a file, not a folder; set ARMORY_HOME*"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder nobody can write is needed")
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_an_armory_home_that_cannot_be_written(
    one: Evals, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("ARMORY_HOME", "/proc/armory")
    result = one.run(workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: armory: */proc cannot be written*; set ARMORY_HOME*"])


MARKERS = [
    (
        "nmae='x'",
        "*::test_a: @pytest.mark.evaluation takes *, and has no keyword 'nmae'; did you mean *",
    ),
    ("name=3", "*@pytest.mark.evaluation(name=…) must be a string*got 3"),
    ("name=''", "*@pytest.mark.evaluation(name=…) must be a string*got ''"),
    ("tags=['a']", "*@pytest.mark.evaluation(tags=…) must be a mapping*"),
    (
        "'digits', tags={}",
        "*takes keywords only, got 'digits'; write @pytest.mark.evaluation(name='digits')",
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), MARKERS)
@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_markers_that_cannot_be_used(
    evals: Evals, arguments: str, expected: str, track: bool
) -> None:
    evals.write(f"import pytest\n@pytest.mark.evaluation({arguments})\ndef test_a(): pass")
    result = evals.run(track=track)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([expected])
    assert evals.read() == []


def test_a_marker_that_cannot_be_used_with_workers(evals: Evals) -> None:
    evals.write("import pytest\n@pytest.mark.evaluation(nmae=1)\ndef test_a(): pass")
    result = evals.run("-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*has no keyword 'nmae'; did you mean 'name'?*"])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert evals.read() == []


def test_a_registered_marker_of_a_like_name_is_the_users_own(evals: Evals) -> None:
    evals.pytester.makeini("[pytest]\nmarkers =\n    evaluate: mine")
    evals.write("import pytest\n@pytest.mark.evaluate\ndef test_a(): pass")
    evals.run().assert_outcomes(passed=1)


def test_markers_merge_key_by_key(evals: Evals) -> None:
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation(name="module", tags={"a": 1, "b": 1})
        @pytest.mark.evaluation(description="of the class", tags={"b": 2, "c": 2})
        class TestIt:
            @pytest.mark.evaluation(name=None, tags={"c": 3})
            def test_a(self): pass
    """)
    evals.run().assert_outcomes(passed=1)
    tags = evals.run_of("test_a").data.tags
    assert (tags["a"], tags["b"], tags["c"]) == ("1", "2", "3")
    assert tags["mlflow.note.content"] == "of the class"
    assert experiment_names(evals) == {"module"}


def test_help_explains_in_its_own_words(evals: Evals) -> None:
    help_text = evals.run("--help", track=False).stdout.str()
    options = ("--armory-track", "--armory-tracking-uri=URI", "--armory-experiment=NAME")
    ini_keys = ("armory_track (bool)", "armory_experiment (string)", "armory_summary (string)")
    for words in (*options, "--armory-summary=PATH", *ini_keys):
        assert words in help_text
    assert "MLflow run" in evals.run("--markers", track=False).stdout.str()
    fixtures = evals.run("--fixtures", track=False).stdout.str()
    assert "Call a loader and record its keyword arguments" in fixtures
    assert "The test's own MLflow run" in fixtures


def test_summary_files(evals: Evals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): assert 0")
    evals.run("--armory-summary", "out/summary.md")
    text = (evals.pytester.path / "out" / "summary.md").read_text()
    assert text.startswith("## ❌ 1 evaluation: 1 failed")
    assert step.read_text() == f"before\n{text}"


def test_a_summary_that_cannot_be_written_is_said(one: Evals) -> None:
    result = one.run("--armory-summary", "test_it.py/summary.md")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["warning: the summary could not be written to *"])
