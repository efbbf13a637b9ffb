"""The example evaluations do what their README says, read back through MlflowClient."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import FOREIGN, artifacts_of
from forked import Command
from mlflow import MlflowClient
from mlflow.entities import Run

from pytest_armory.store.database import sqlite_uri

EXAMPLES = Path(__file__).parents[2] / "example_evals"
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider")


class Place:
    """A folder to run the examples from, with an Armory home of its own."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        database = folder / "home" / "mlruns" / "mlflow.db"
        self.uri = sqlite_uri(database)
        if not database.exists():
            database.parent.mkdir(parents=True)
            shutil.copy(template, database)

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Neither the machine's variables nor those of the session that this test is in."""
        own = {
            "ARMORY_HOME": str(self.folder / "home"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUTF8": "1",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name in list(os.environ):
                if name.startswith((*FOREIGN, "PYTEST_")):
                    patch.delenv(name)
            for name, value in own.items():
                patch.setenv(name, value)
            yield

    def forked(self, fork_server: str, output: Path, *args: str) -> None:
        """Write what pytest prints, in a process that need not import MLflow; it has to succeed."""
        with output.open("w") as file, self.environment():
            files = (file.fileno(), file.fileno())
            command = ("pytest", *PYTEST[2:], *args)
            status = Command(fork_server, *command, folder=self.folder, files=files).wait(600)
        assert status == 0, output.read_text(encoding="utf-8")

    def python(self, *args: str, **variables: str) -> str:
        """What Python prints, given these arguments and variables; it has to succeed."""
        with self.environment():
            environment = dict(os.environ)
        done = subprocess.run(
            [sys.executable, *args],
            cwd=self.folder,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def runs(self) -> dict[str, Run]:
        """Every run by experiment and name, as ``experiment: name``."""
        client = MlflowClient(self.uri)
        names = {each.experiment_id: each.name for each in client.search_experiments()}
        found = client.search_runs(list(names))
        runs = {f"{names[run.info.experiment_id]}: {run.info.run_name}": run for run in found}
        assert len(runs) == len(found)
        return runs


class Tracked:
    """One tracked session of all the examples: what it printed and left in the store."""

    def __init__(self, said: str, place: Place) -> None:
        self.said = said
        self.uri = place.uri
        runs = place.runs()
        self.evaluations = of_kind("evaluation", runs)
        self.sessions = of_kind("session", runs)
        assert len(self.evaluations) + len(self.sessions) == len(runs)


def of_kind(kind: str, runs: dict[str, Run]) -> dict[str, Run]:
    return {name: run for name, run in runs.items() if run.data.tags.get("armory.kind") == kind}


@pytest.fixture(scope="module")
def make_place(
    tmp_path_factory: pytest.TempPathFactory, database_template: Path
) -> Callable[[], Place]:
    return lambda: Place(tmp_path_factory.mktemp("examples"), database_template)


@pytest.fixture(scope="module")
def tracked(make_place: Callable[[], Place], fork_server: Callable[[], str]) -> Tracked:
    place = make_place()
    output = place.folder / "output.txt"
    place.forked(fork_server(), output, "--armory-track", "-n1", str(EXAMPLES))
    return Tracked(output.read_text(encoding="utf-8"), place)


def test_every_evaluation_is_a_finished_run_below_its_experiments_session(tracked: Tracked) -> None:
    sessions = {run.info.experiment_id: run for run in tracked.sessions.values()}
    assert len(sessions) == len(tracked.sessions)
    experiments = {name.split(":")[0] for name in tracked.sessions}
    assert experiments == {
        *("digits-robustness", "digits-defence", "example_evals"),
        *("digits-network", "transformer", "arithmetic"),
    }
    for run in (*tracked.evaluations.values(), *sessions.values()):
        assert run.info.status == "FINISHED"
    for run in tracked.evaluations.values():
        parent = sessions[run.info.experiment_id]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["mlflow.note.content"]


def test_the_terminal_shows_every_evaluation_and_no_warning(tracked: Tracked) -> None:
    assert "= 26 passed, 1 xfailed in " in tracked.said
    assert len(tracked.evaluations) == 27
    assert "27 evaluations: 26 passed, 1 xfailed, tracked to" in tracked.said
    assert "warning" not in tracked.said.lower()


def test_parameters_of_session_fixtures_are_on_every_run_that_uses_them(tracked: Tracked) -> None:
    for name, run in tracked.evaluations.items():
        params = run.data.params
        assert not any("shape=" in value for value in params.values())  # data is no parameter
        if name.startswith("digits"):
            assert params["load_images.test_size"] == "0.25"
        if name.startswith("digits-robustness"):
            assert params["train_classifier.kind"] == params["classifier"]
            assert params["train_classifier.C"] == "0.1"
        if name.startswith("digits-defence"):
            assert params["FeatureSqueezing.bit_depth"] == "1"
            assert {"undefended.C", "defended.C", "defended.defence"} <= set(params)
            assert "undefended.defence" not in params
    tabular = tracked.evaluations["example_evals: test_diabetes[0.5]"].data.params
    assert tabular["error"] == "0.5"
    assert tabular["load_table.loader"].endswith("load_diabetes")
    assert tabular["Ridge.alpha"] == "0.1"


def test_what_the_engine_measured_is_on_the_runs(tracked: Tracked) -> None:
    runs = tracked.evaluations
    for name in ("test_pgd[svm-0.1]", "test_hop_skip_jump[logistic-3]"):
        attacked = runs[f"digits-robustness: {name}"]
        expected = {"accuracy", "l2", "l2_max", "linf", "linf_max", "time/predict_seconds"}
        assert expected <= set(attacked.data.metrics)
        assert "metrics/confusion.json" in artifacts_of(attacked)
    gallery = " ".join((EXAMPLES.parent / "docs" / "gallery.md").read_text("utf-8").split())
    said = re.search(
        r"gains about (\d+) points of accuracy at `eps` 0.1, and about (\d+) at", gallery
    )
    assert said is not None
    for eps, points in zip((0.1, 0.2), said.groups(), strict=True):
        defended = runs[f"digits-defence: test_gradients[{eps}]"].data.metrics
        gain = defended["defended/accuracy"] - defended["undefended/accuracy"]
        assert defended["gain"] == pytest.approx(gain)
        assert gain == pytest.approx(int(points) / 100, abs=0.03)  # scikit-learn's version matters
    assert runs["digits-defence: test_queries"].data.tags["armory.outcome"] == "xfailed"
    report = runs["example_evals: test_breast_cancer"].data.metrics
    assert {"report/malignant/recall", "report/macro avg/f1-score"} <= set(report)
    assert {"mae", "r2"} <= set(runs["example_evals: test_diabetes[0.0]"].data.metrics)


def test_networks_have_samples_and_two_attacks_of_one_size(tracked: Tracked) -> None:
    clean = tracked.evaluations["digits-network: test_clean"]
    attacked = [
        tracked.evaluations[f"digits-network: test_network_pgd[pgd_of_{of}]"].data.metrics
        for of in ("art", "torch")
    ]
    assert clean.data.params["train_network.epochs"] == "12"
    assert "samples.parquet" in artifacts_of(clean)
    assert "metrics/confusion.json" in artifacts_of(clean)
    for metrics in attacked:
        assert metrics["accuracy"] < clean.data.metrics["accuracy"] - 0.05
        assert metrics["linf_max"] <= 0.1 + 1e-6
    masked = tracked.evaluations["transformer: test_wanted_word[0.3]"]
    assert masked.data.params["train_transformer.layers"] == "1"
    assert {"accuracy", "time/perturb/mask_seconds"} <= set(masked.data.metrics)


def test_the_language_model_has_samples_failures_traces_repeats_and_a_cost(
    tracked: Tracked,
) -> None:
    run = tracked.evaluations["arithmetic: test_sums"]
    metrics = run.data.metrics
    assert run.data.tags["armory.repeats"] == "2"
    assert 0 < metrics["errors"] < 6
    assert metrics["exact/pass_hat_2"] < metrics["exact/pass_at_2"]
    assert metrics["tokens/total"] > 1000
    assert 0 < metrics["cost"] < 0.01
    assert 0 < metrics["latency/p50"] <= metrics["latency/p95"]
    assert "used: " in tracked.said
    client = MlflowClient(tracked.uri)
    traces = client.search_traces(
        locations=[run.info.experiment_id],
        run_id=run.info.run_id,
        max_results=500,
        include_spans=False,
    )
    assert len(traces) > 100


@pytest.mark.parametrize("kind", ["logistic", "svm"])
def test_the_robustness_curve_is_a_figure_and_steps(tracked: Tracked, kind: str) -> None:
    run = tracked.evaluations[f"digits-robustness: test_robustness_curve[{kind}]"]
    assert artifacts_of(run)["robustness.png"].read_bytes().startswith(b"\x89PNG")
    history = MlflowClient(tracked.uri).get_metric_history(run.info.run_id, "accuracy")
    assert [metric.step for metric in history] == list(range(7))


def test_untracked_they_pass_and_leave_nothing(make_place: Callable[[], Place]) -> None:
    place = make_place()
    home = place.folder / "untouched"
    some = ("-k", "price or tabular or curve")
    said = place.python(*PYTEST, str(EXAMPLES), *some, ARMORY_HOME=str(home))
    assert "= 6 passed, 21 deselected in " in said
    assert "armory: " not in said
    assert "warning" not in said.lower()
    assert not home.exists()
    assert place.runs() == {}


def test_the_script_says_where_its_run_is(make_place: Callable[[], Place]) -> None:
    place = make_place()
    said = place.python("-Werror::UserWarning", str(EXAMPLES / "script.py"))
    [run] = place.runs().values()
    assert f"in run {run.info.run_id}" in said
    assert f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?workflowType=" in said
    assert run.info.status == "FINISHED"
    assert run.data.params["load_images.seed"] == "0"
    assert run.data.params["Noise.sigma"] == "0.25"
    assert run.data.params["KNeighborsClassifier.n_neighbors"] == "3"
    assert run.data.metrics["accuracy"] > 0.9


def test_the_job_of_a_project_is_the_parent_of_its_session(
    make_place: Callable[[], Place],
) -> None:
    place = make_place()
    project = ("-m", "mlflow", "run", str(EXAMPLES), "--env-manager", "local")
    options = ("--experiment-name", "nightly", "-P", "select=price or breast_cancer")
    place.python(*project, *options, MLFLOW_TRACKING_URI=place.uri)
    runs = place.runs()
    sessions, evaluations = of_kind("session", runs), of_kind("evaluation", runs)
    [job] = (run for name, run in runs.items() if name not in {**sessions, **evaluations})
    assert job.info.status == "FINISHED"
    assert job.data.tags["mlflow.project.entryPoint"] == "main"
    # An evaluation that names no experiment goes to the job's.
    assert set(evaluations) == {"nightly: test_breast_cancer", "digits-defence: test_price"}
    parents = {run.info.experiment_id: run.info.run_id for run in sessions.values()}
    assert len(parents) == len(sessions) == 2
    for run in sessions.values():
        assert run.data.tags["mlflow.parentRunId"] == job.info.run_id
    for run in evaluations.values():
        assert run.data.tags["mlflow.parentRunId"] == parents[run.info.experiment_id]
