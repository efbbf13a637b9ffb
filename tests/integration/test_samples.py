"""Samples of evaluations: stored with the run, in the summary, and read back."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Evals, artifacts_of, text_of
from mlflow import MlflowClient
from mlflow.entities import Run
from outages import reset
from servers import Proxy

from pytest_armory import samples, track_samples
from pytest_armory.cli.main import main
from pytest_armory.engine import Engine, Evaluation, correct
from pytest_armory.errors import ArmoryUsageError, TrackingWarning
from pytest_armory.store import open_store
from pytest_armory.store.circuit import _circuits
from pytest_armory.track import kept_samples, track_evaluation

SOURCE = """
import numpy as np, pytest
from pytest_armory import Engine, Evaluation, correct, linf, track_samples

INPUTS = np.arange(400.0).reshape(200, 2)
TARGETS = np.arange(200) % 2

@pytest.mark.evaluation(name="it", at_least={"accuracy": 0.9}, baseline={"accuracy": "-2%"})
def test_engine():
    wrong = {7, 11}
    Engine(Evaluation(
        name="digits", dataset=(INPUTS, TARGETS), batch_size=64, dataset_name="mine",
        model=lambda x: np.array([(i // 2 % 2) ^ (i // 2 in wrong) for i in x[:, 0].astype(int)]),
        perturbations={"up": lambda x, y: x + 0.25},
        sample_metrics={"accuracy": correct}, perturbation_metrics={"linf": linf},
    )).run()

@pytest.mark.evaluation(name="it", at_least={"judge": 0.5}, at_most={"words": 4})
def test_judge():
    for start in (0, 2):
        track_samples(
            {"judge": [1.0, 0.5], "words": [3, 2 + start]}, ids=[f"q{start}", f"q{start + 1}"],
            groups=["a", "b"], question=["api_key=abcdefgh", "why"],
        )

@pytest.mark.evaluation(name="it")
def test_without():
    pass
"""


WITHOUT_SCORES = """
@pytest.mark.evaluation(name="it")
def test_data():
    for _ in range(2):
        Engine(Evaluation(
            name="named", dataset=(np.arange(200.0), np.arange(200) % 2), batch_size=50,
            model=lambda x: (x % 2).astype(int), metrics={"n": lambda targets, _: len(targets)},
            dataset_name="mine",
        )).run()
"""


def inputs_of(run: Run) -> dict[str, tuple[str, str]]:
    """The profile and digest of each dataset of a run, by name."""
    datasets = [one.dataset for one in run.inputs.dataset_inputs]
    return {one.name: (one.profile, one.digest) for one in datasets}


def test_samples_of_a_session(
    evals: Evals, each_way: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    evals.write(SOURCE + WITHOUT_SCORES)
    result = evals.run(*each_way, "--junitxml=report.xml", "--armory-summary=summary.md")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "  test_engine *accuracy 0.99 ±0.016  linf 0.25*",
            "  test_judge *judge 0.75 ±3.2  words 3 *",
        ]
    )
    run = evals.run_of("test_engine")
    metrics = run.data.metrics
    assert (metrics["accuracy"], metrics["linf"], metrics["linf_max"]) == (0.99, 0.25, 0.25)
    assert round(metrics["accuracy/ci_low"], 6) == 0.964278
    assert metrics["linf/ci_low"] == metrics["linf/ci_high"] == 0.25
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "samples.json", "type": "table"}
    ]
    assert artifacts_of(run).keys() == {"samples.json", "samples.parquet"}
    table = json.loads(text_of(run, "samples.json"))
    assert table["columns"] == ["sample", "accuracy", "linf", "target", "prediction"]
    assert table["data"][:3] == [[7, 0, 0.25, 1, 0], [11, 0, 0.25, 1, 0], [0, 1, 0.25, 0, 0]]
    frame = samples(run.info.run_id)
    assert (len(frame), frame["accuracy"].mean(), frame.attrs["partial"]) == (200, 0.99, False)
    about = json.loads(run.data.tags["armory.samples"])
    (digest,) = about["data"]
    assert about == {"rows": 200, "partial": False, "data": {digest: ["accuracy", "linf"]}}
    assert inputs_of(run) == {"mine": ('{"num_rows": 200}', digest)}
    same = evals.run_of("test_data")
    assert (inputs_of(same), artifacts_of(same)) == (inputs_of(run), {})
    assert "armory.samples" not in same.data.tags
    other = evals.run_of("test_judge")
    assert inputs_of(other).keys() == {"test_judge"}
    assert {n: other.data.metrics[n] for n in ("judge", "words")} == {"judge": 0.75, "words": 3}
    kept = samples(other.info.run_id)
    assert kept["question"].tolist()[:2] == ["api_key=[redacted]", "why"]
    assert kept["group"].tolist() == ["a", "b"] * 2
    assert json.loads(other.data.tags["armory.samples"])["rows"] == len(kept) == 4
    plain = evals.run_of("test_without")
    assert (artifacts_of(plain), plain.inputs.dataset_inputs) == ({}, [])
    assert "armory.samples" not in plain.data.tags
    text = Path("report.xml").read_text()
    assert 'name="armory_ci_accuracy" value="0.964278 0.997253"' in text
    assert "accuracy 0.99 ±0.016" in Path("summary.md").read_text()
    _check_command(evals, run, capsys)


def _check_command(evals: Evals, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for name in (
        [run.info.run_id],
        ["test_engine", "--session", "latest"],
        ["test_it.py::test_engine", "--session", run.data.tags["armory.session"]],
    ):
        assert main(["samples", *name, "--worst", "2", "--csv", "all.csv"]) == 0
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        assert printed.err == ""
        assert lines[0] == "test_it.py::test_engine: 200 samples; accuracy 0.99, linf 0.25"
        assert [line.split() for line in lines[1:]] == [
            ["sample", "accuracy", "linf", "target", "prediction"],
            ["7", "0", "0.25", "1", "0"],
            ["11", "0", "0.25", "1", "0"],
        ]
    assert len(Path("all.csv").read_text().splitlines()) == 201
    for words, text in (
        (["0" * 32], "no run '00000"),
        (["test_engin"], "did you mean 'test_it.py::test_engine'?"),
        (["test_without"], "has no samples; give an evaluation sample_metrics"),
        (["test_engine", "--session", "x"], "the session 'x' has no evaluation"),
        (["test_engine", "--csv", "/no/such/folder.csv"], "cannot be written"),
    ):
        assert main(["samples", *words]) == 2
        assert text in capsys.readouterr().err
    assert evals.home.exists()


def test_data_that_changed(evals: Evals) -> None:
    evals.write(SOURCE)
    evals.run("-n0").assert_outcomes(passed=3)
    evals.write(
        SOURCE.replace("TARGETS = np.arange(200) % 2", "TARGETS = np.arange(200) % 2 * 1.0")
    )
    same = evals.run("-n0", "--armory-baseline=latest")
    same.stdout.no_fnmatch_line("*the data changed*")
    evals.write(SOURCE.replace("np.arange(400.0)", "np.arange(404.0)[:400]").replace("q{", "r{"))
    changed = evals.run("-n0", "--armory-baseline=latest", "--armory-session=third")
    line = "the data changed: {} is of other samples or targets than in the baseline (test_judge)"
    changed.stdout.fnmatch_lines([line.format("judge"), line.format("words")])
    changed.stdout.no_fnmatch_line("*accuracy is of other*")
    evals.write(SOURCE.replace("% 2\n", "// 2 % 2\n", 1).replace("0.9", "0.1", 1))
    last = evals.run("-n0", "--armory-baseline=third", "--armory-session=fourth")
    last.stdout.fnmatch_lines(["the data changed: accuracy is of other *(test_engine)"])
    evals.check_accounted(12)


CHANGED = """
import pytest
from pytest_armory import track_samples

@pytest.mark.evaluation(name="it", baseline={"right": "-1"})
def test_it():
    right = [1, 1, 0, 1] * 5
    right[7], right[2] = 1, 0
    track_samples({"right": right})
"""


def test_samples_that_got_worse_come_first(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write(CHANGED)
    evals.run(*each_way).assert_outcomes(passed=1)
    evals.write(CHANGED.replace("= 1, 0", "= 0, 1"))
    evals.run(*each_way, "--armory-baseline=latest").assert_outcomes(passed=1)
    *_, run = (run for run in evals.read() if run.info.run_name == "test_it")
    reported = json.loads(text_of(run, "samples.json"))
    assert reported["columns"] == ["sample", "right", "right/change"]
    assert reported["data"][:2] == [[7, 0, -1], [6, 0, 0]]
    assert [2, 1, 1] in reported["data"]
    assert "right/change" not in samples(run.info.run_id)


@pytest.mark.parametrize("track", [True, False])
def test_a_gate_on_the_end_of_an_interval(evals: Evals, track: bool) -> None:
    """Of 0.99 the lower end is 0.9642 at 95 %, 0.9505 at 99 %."""
    evals.write(SOURCE.replace('at_least={"accuracy": 0.9}', 'at_least={"accuracy/ci_low": 0.96}'))
    for confidence, failed in (("95", 0), ("99", 1)):
        options = ("-o", f"armory_confidence={confidence}", "-k", "engine")
        result = evals.run(*options, track=track)
        assert result.parseoutcomes().get("failed", 0) == failed


@pytest.mark.parametrize("confidence", ["99", "0.95", "100", "x"])
def test_the_confidence(evals: Evals, confidence: str) -> None:
    evals.write(SOURCE)
    evals.pytester.makeini(f"[pytest]\narmory_confidence = {confidence}")
    result = evals.run("-n0", "-k", "engine")
    if confidence == "99":
        low = evals.run_of("test_engine").data.metrics["accuracy/ci_low"]
        assert round(low, 4) == 0.9505
        return
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"*armory_confidence must be percent, at least 50 and below 100, got '{confidence}'*"]
    )


@pytest.mark.parametrize("name", ["words", "words/ci_high"])
def test_gates_judge_samples_without_tracking(evals: Evals, name: str) -> None:
    evals.write(SOURCE.replace('{"words": 4}', f'{{"{name}": 1}}'))
    result = evals.run("-p", "no:xdist", track=False)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"*{name} 3 is above at_most 1*"])
    assert evals.read() == []


UNUSED = """
import sys, pytest
from pytest_armory import Engine, Evaluation, track_metrics

@pytest.mark.evaluation(name="it")
def test_one():
    Engine(Evaluation(name="e", dataset=([1, 2], [1, 2]), model=lambda x: x,
                      metrics={"a": lambda t, p: 1.0})).run()
    track_metrics({"b": 0.5})

def test_modules():
    found = {name.partition(".")[0] for name in sys.modules}
    assert not found & {"pyarrow", "scipy", "pandas"}, found & {"pyarrow", "scipy", "pandas"}
"""


@pytest.mark.parametrize("track", [True, False])
def test_nothing_is_imported_where_no_samples_are_recorded(
    evals: Evals, track: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    evals.write(UNUSED)
    for name in list(sys.modules):
        if name.partition(".")[0] in ("pyarrow", "scipy", "pandas"):
            monkeypatch.delitem(sys.modules, name)
    known = {*sys.modules}
    evals.run("-p", "no:xdist", track=track).assert_outcomes(passed=2)
    new = {name.partition(".")[0] for name in {*sys.modules} - known}
    assert not new & {"pyarrow", "scipy", "pandas"}


def _scored(count: int = 3) -> None:
    track_samples({"a": [1] * count}, ids=list(range(count)))


def test_a_script(armory_home: Path) -> None:
    with track_evaluation("it") as run:
        _scored()
        run.log_table({"x": [1]}, "mine.json")
        frame = samples(run)
        assert (len(frame), frame.attrs["scores"]) == (3, ["a"])
    assert samples(run.run_id or "")["sample"].tolist() == [0, 1, 2]
    tables = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert [one["path"] for one in tables] == ["mine.json", "samples.json"]
    with track_evaluation("it") as empty:
        pass
    assert armory_home.exists()
    for given, text in (
        (empty.run_id, "has no samples"),
        ("x", "no run 'x' is at"),
        (5, "got int"),
    ):
        with pytest.raises(ArmoryUsageError, match=text):
            samples(given)  # type: ignore[arg-type]


@pytest.mark.usefixtures("armory_home")
def test_a_file_of_the_name_of_ours_is_not_replaced_without_a_word() -> None:
    def script() -> str:
        with track_evaluation("it") as run:
            _scored()
            run.log_table({"x": [1]}, "samples.json")
        return run.run_id or ""

    with pytest.warns(TrackingWarning, match="samples.json that the evaluation logged is repl"):
        run_id = script()
    assert samples(run_id)["sample"].tolist() == [0, 1, 2]


def test_mlflows_own_tables_stay_listed(armory_home: Path) -> None:
    import mlflow

    with track_evaluation("it") as run:
        mlflow.log_table({"x": [1]}, "theirs.json")
        _scored()
    assert armory_home.exists()
    tables = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert [one["path"] for one in tables] == ["theirs.json", "samples.json"]


class Clock:
    """A clock that goes on by 31 seconds whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 31
        return self.now


@pytest.fixture
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_samples, "monotonic", Clock())


@pytest.mark.usefixtures("fast_clock")
def test_a_walk_that_takes_long_is_stored_on_the_way(
    read_runs: Callable[..., list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_armory.engine.progress.LOG_SECONDS", 0.0)
    seen: list[tuple[int, Any]] = []

    def batches() -> Any:
        for batch in range(20):
            (run,) = read_runs()
            if "samples.parquet" in artifacts_of(run):
                frame = samples(run.info.run_id)
                about = json.loads(run.data.tags["armory.samples"])
                seen.append((len(frame), (frame.attrs["partial"], about["partial"])))
            yield [1] * 10, [batch] * 10
            if batch == 15:
                raise RuntimeError("the end")

    evaluation = Evaluation(
        name="it", dataset=batches(), model=lambda x: x, sample_metrics={"accuracy": correct}
    )
    with pytest.raises(ValueError, match="the end"), track_evaluation("it") as run:
        Engine(evaluation).run()
    assert [count for count, _ in seen] == sorted(count for count, _ in seen)
    assert 5 < len({count for count, _ in seen}) < 15  # only when they grew by a tenth
    assert {partial for _, partial in seen} == {(True, True)}
    assert len(samples(run.run_id or "")) == 160
    assert json.loads(run.data.tags["armory.samples"])["partial"]
    assert "accuracy" not in run.data.metrics


@pytest.mark.usefixtures("fast_clock", "armory_home")
def test_rows_of_a_loop_are_stored_on_the_way() -> None:
    with track_evaluation("it") as run:
        for batch in range(3):
            track_samples({"a": [1, 0]}, note=[f"{batch}", "x"])
        assert samples(run)["sample"].tolist() == [0, 1, 2, 3, 4, 5]
        stored = samples(run.run_id or "")
        assert (len(stored) >= 4, stored.attrs["partial"]) == (True, True)
    assert samples(run.run_id or "").attrs["partial"] is False


KILLED = """
import itertools, os, signal
import pytest
from pytest_armory import Engine, Evaluation, correct
from pytest_armory.engine import progress
from pytest_armory.track import kept_samples

progress.LOG_SECONDS = 0.0
kept_samples.monotonic = itertools.count(step=31).__next__

def batches():
    for batch in range(20):
        if batch == 15:
            os.kill(os.getpid(), signal.SIGKILL)
        yield [1] * 10, [batch] * 10

@pytest.mark.evaluation(name="it")
def test_it():
    Engine(
        Evaluation(
            name="it", dataset=batches(), model=lambda x: x, sample_metrics={"a": correct}
        )
    ).run()
"""


def test_a_killed_evaluation_keeps_the_rows_it_had(evals: Evals) -> None:
    evals.write(KILLED)
    evals.check_invariant(evals.run("-n1"), 1, "-n1")
    run = evals.run_of("test_it")
    frame = samples(run.info.run_id)
    assert run.data.tags["armory.outcome"] == "crashed"
    assert (100 <= len(frame) <= 150, frame["a"].sum(), frame.attrs["partial"]) == (True, 10, True)
    assert json.loads(run.data.tags["armory.samples"])["partial"]
    assert "a" not in run.data.metrics


REMOTE = """
import pytest
from pytest_armory import track_samples

@pytest.mark.evaluation(name="samples {salt}")
@pytest.mark.parametrize("i", range(2))
def test_it(i):
    track_samples({{"a": [1, 0, i]}}, ids=["x", "y", "z"], target=[1, 2, 3])
"""


def check_remote(server: str, salt: int) -> None:
    """Both runs have all that belongs to their samples."""
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(f"samples {salt}")
    found = client.search_runs([experiment.experiment_id], "tags.`armory.kind` = 'evaluation'")
    runs = {run.info.run_name: run for run in found}
    assert runs.keys() == {"test_it[0]", "test_it[1]"}
    for i, run in enumerate(runs[name] for name in sorted(runs)):
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "samples.json",
            "samples.parquet",
        }
        assert run.data.metrics["a"] == (1 + i) / 3
        assert 0 < run.data.metrics["a/ci_low"] < run.data.metrics["a/ci_high"] < 1
        assert "samples.json" in run.data.tags["mlflow.loggedArtifacts"]
        read = client.get_run(run.info.run_id)
        assert inputs_of(read).keys() == {f"test_it[{i}]"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", server)
            assert samples(run.info.run_id)["a"].tolist() == [1, 0, i]


def test_over_http_files_and_data_are_sent_off_the_tests_way(
    evals: Evals, proxy: Proxy, mlflow_server: str
) -> None:
    salt = time.monotonic_ns()
    evals.write(REMOTE.format(salt=salt))
    result = evals.run("--armory-tracking-uri", proxy.url)
    result.assert_outcomes(passed=2)
    check_remote(mlflow_server, salt)
    files = [one for one in proxy.seen if one.startswith("PUT") and "/samples." in one]
    assert len(files) == 4
    assert proxy.count("runs/log-inputs") == 2
    # One with the outcome, and one that lists the table for MLflow's page.
    assert proxy.count("runs/log-batch") - 1 == 2 * 2


def test_an_outage_while_samples_are_stored(
    evals: Evals, proxy: Proxy, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    down: list[str] = []

    def goes_down(_: Proxy, handler: Any) -> bool:
        if handler.command == "PUT" and "samples.json" in handler.path:
            down.append(handler.path)
        return bool(down) and reset(proxy, handler)

    proxy.fault = goes_down
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    salt = time.monotonic_ns()
    evals.write(REMOTE.format(salt=salt))
    result = evals.run("--armory-tracking-uri", proxy.url)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["waiting for *"])
    open_store.cache_clear()
    _circuits.clear()
    proxy.fault = None
    assert main(["sync", "--to", proxy.url]) == 0
    check_remote(mlflow_server, salt)
