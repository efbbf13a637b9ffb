"""``--armory-devices``: what a process that a test starts sees of the GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Evals

from pytest_armory.session.devices import find_devices, place_of, share_of

SUITE = """
    import os, subprocess, sys, pytest
    ASK = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    @pytest.mark.evaluation
    @pytest.mark.parametrize("i", range(4))
    def test_a(i, request, evaluation_run):
        seen = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True).stdout
        import conftest
        assert conftest.AT_IMPORT == seen.strip()
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        with open(f"seen-{worker}", "w") as file:
            file.write(seen.strip())
"""
CONFTEST = "import os\nAT_IMPORT = os.environ.get('CUDA_VISIBLE_DEVICES', 'None')\n"


@pytest.fixture
def seen(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> Evals:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    for name in ("SLURM_LOCALID", "LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    evals.write(SUITE, conftest=CONFTEST)
    return evals


def read(evals: Evals) -> dict[str, str]:
    return {path.name[5:]: path.read_text() for path in evals.pytester.path.glob("seen-*")}


def fake_driver(evals: Evals, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder = evals.pytester.mkdir("bin")
    tool = Path(folder, "nvidia-smi")
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


WAYS = [
    (("-n2", "--dist=each"), {}, {"gw0": "5", "gw1": "7"}),
    (("--dist=each", "--tx=3*popen"), {}, {"gw0": "5", "gw1": "7", "gw2": "5"}),
    (("-n0",), {}, {"main": "5,7"}),
    (("-n0",), {"SLURM_LOCALID": "3", "SLURM_STEP_TASKS_PER_NODE": "4"}, {"main": "7"}),
    (("-n0",), {"SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}, {"main": "5,7"}),
    (("-n1",), {"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4"}, {"gw0": "7"}),
]


@pytest.mark.parametrize(("way", "environ", "expected"), WAYS)
def test_each_worker_gets_its_own(
    seen: Evals,
    way: Sequence[str],
    environ: dict[str, str],
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    result = seen.run("--armory-devices=5,7", *way)
    assert result.ret == 0
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert read(seen) == expected
    runs = [run for run in seen.read() if "armory.nodeid" in run.data.tags]
    tags = {run.data.tags["armory.worker"]: run.data.tags["armory.device"] for run in runs}
    assert tags == expected
    result.stdout.fnmatch_lines(["armory: GPUs 5, 7"])


def test_auto_asks_the_driver_and_works_untracked(
    seen: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_driver(seen, monkeypatch, "printf '0\\n1\\n'")
    seen.run("--armory-devices=auto", "-n1", track=False).assert_outcomes(passed=4)
    assert read(seen) == {"gw0": "0"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    seen.pytester.makeini("[pytest]\narmory_devices = auto")
    seen.run("-n1", track=False).assert_outcomes(passed=4)
    assert read(seen) == {"gw0": "3"}


def test_no_gpu(seen: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_driver(seen, monkeypatch, "exit 9")
    result = seen.run("--armory-devices=auto", "-n1")
    result.assert_outcomes(passed=4)
    assert result.stdout.str().count("no GPU is found") == 1
    assert read(seen) == {"gw0": "None"}
    assert not any("armory.device" in run.data.tags for run in seen.read())


def test_a_list_that_is_none(seen: Evals) -> None:
    result = seen.run("--armory-devices=all", track=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: armory: --armory-devices must be auto or a list *'all'*"])


def test_lists_and_places() -> None:
    assert find_devices("auto", {"CUDA_VISIBLE_DEVICES": ""}) == []
    assert find_devices("auto", {"CUDA_VISIBLE_DEVICES": "0,-1,2"}) == ["0"]
    assert find_devices("GPU-ab-1, MIG-cd/1/0", {}) == ["GPU-ab-1", "MIG-cd/1/0"]
    ranks = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert place_of({"SLURM_LOCALID": "2", "SLURM_STEP_TASKS_PER_NODE": "4", **ranks}) == 2
    # A rank of a launcher in a batch script, which is one process of a job of four tasks.
    assert place_of({"SLURM_LOCALID": "0", "SLURM_NTASKS": "4", **ranks}) == 1
    nodes = {"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1"}
    places = [place_of({**nodes, "SLURM_NODEID": str(node)}) for node in range(5)]
    assert places == [0, 0, 0, None, None]  # the fourth node has one task, and all of its GPUs
    assert place_of({"LOCAL_RANK": "x", "LOCAL_WORLD_SIZE": "2"}) is None
    shares = [share_of("abcd", i, 2, place) for place in (0, 1, 2) for i in (0, 1)]
    assert shares == ["a", "b", "c", "d", "a", "b"]
