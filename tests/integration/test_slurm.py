"""A real Slurm on this machine: an array of which a task is requeued is one whole session.

It runs as root where Debian's packages slurm-wlm and munge are installed; ``.ci/run`` does that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run

import pytest_armory

ROOT = Path(__file__).parents[2]
ONE_NODE = ROOT / "tests" / "slurm" / "one-node"
PATIENCE = 600.0

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("slurmctld") and shutil.which("munged")),
        reason="needs Debian's packages slurm-wlm and munge",
    ),
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
]

SUITE = """
    import os, time
    from pathlib import Path
    import pytest
    @pytest.mark.evaluation
    @pytest.mark.parametrize("i", range(6))
    def test_a(i):
        if i == 3:
            Path("process").write_text(str(os.getpid()))
        with open("bodies", "a") as bodies:
            print(i, file=bodies)
        end = time.monotonic() + 200
        while i == 3 and not Path("go").exists() and time.monotonic() < end:
            time.sleep(0.1)
"""


@pytest.fixture
def slurm(
    armory_home: Path,  # noqa: ARG001 - its environment, without Slurm's variables
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """The path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:
        subprocess.run([ONE_NODE, "start", folder], check=True, timeout=300)
        monkeypatch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
        try:
            yield
            subprocess.run(["scancel", "--user=root"], check=False, timeout=300)
        finally:
            subprocess.run([ONE_NODE, "stop", folder], check=True, timeout=300)


def call(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.strip()


def parent_of(process: str) -> str:
    (parent,) = re.findall(r"^PPid:\s*(\d+)", Path("/proc", process, "status").read_text(), re.M)
    return str(parent)


def wait_until(is_true: Callable[[], bool], log: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline, log()
        time.sleep(0.3)


def test_an_array_of_which_a_task_is_requeued(
    slurm: None,  # noqa: ARG001 - it works by being there
    pytester: pytest.Pytester,
    read_runs: Callable[[], list[Run]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scripts are those of the documentation."""
    pytester.makepyfile(test_it=SUITE)
    monkeypatch.setenv("PYTHONPATH", str(Path(pytest_armory.__file__).parents[1]))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("array.sbatch", "report.sbatch"):
        shutil.copy(ROOT / "docs" / "clusters" / name, pytester.path)
    args = ("test_it.py", "-p", "no:randomly", "-p", "no:cacheprovider")
    array = call("sbatch", "--parsable", "--array=0-2", "array.sbatch", *args)
    call("sbatch", f"--dependency=afterany:{array}", "report.sbatch", array)

    def bodies() -> list[str]:
        path = pytester.path / "bodies"
        return path.read_text().split() if path.exists() else []

    def log() -> str:
        slurms = Path(os.environ["SLURM_CONF"]).parent / "log"
        files = [*sorted(pytester.path.glob("*.log")), *slurms.glob("*d.log")]
        return call("squeue") + "".join(f"\n{path}:\n{path.read_text()}" for path in files)

    wait_until(lambda: "3" in bodies(), log)  # the second body of the second task
    process = Path("/proc", (pytester.path / "process").read_text())
    task = f"{array}_1"
    call("scontrol", "requeue", task)
    state = ("squeue", "--noheader", "--format=%T", f"--jobs={task}")
    # Slurm may say so before it has ended the process, which would go on and pass.
    wait_until(lambda: call(*state) == "PENDING" and not process.exists(), log)
    (pytester.path / "go").touch()
    # Else it waits two minutes. Within the second of the requeue its credential counts as revoked,
    # and Slurm takes the task from the queue without a word to it.
    call("scontrol", "update", f"JobId={task}", "StartTime=now+2")
    wait_until(lambda: not call("squeue", "--noheader"), log)

    assert sorted(bodies()) == ["0", "1", "2", "3", "3", "4", "5"], log()
    (session,) = [run for run in read_runs() if run.data.tags.get("armory.kind") == "session"]
    assert session.data.tags["armory.session"] == array
    assert session.info.status == "FINISHED"
    assert session.data.metrics["passed"] == session.data.metrics["evaluations"] == 6
    (report,) = pytester.path.glob("evals-report-*.log")
    text = report.read_text()
    assert "6 evaluations: 6 passed (1 earlier attempt)" in text, log()
    assert "warning" not in text
    assert (pytester.path / f"evals-{array}.md").read_text().startswith("## ✅ 6 evaluations")
    assert "resumed: 1 evaluation" in (pytester.path / f"evals-{array}_1.log").read_text()


def test_a_task_that_is_warned_ends_and_is_requeued(
    slurm: None,  # noqa: ARG001 - it works by being there
    pytester: pytest.Pytester,
    read_runs: Callable[[], list[Run]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The warning is that of `--signal`, which Slurm would send some time before the limit."""
    pytester.makepyfile(test_it=SUITE)
    monkeypatch.setenv("PYTHONPATH", str(Path(pytest_armory.__file__).parents[1]))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copy(ROOT / "docs" / "clusters" / "requeue.sbatch", pytester.path)
    args = ("test_it.py", "-v", "-p", "no:randomly", "-p", "no:cacheprovider")
    array = call("sbatch", "--parsable", "--array=0-0", "requeue.sbatch", *args)
    log_file = pytester.path / f"evals-{array}_0.log"

    def log() -> str:
        return call("squeue") + (log_file.read_text() if log_file.exists() else "")

    wait_until(lambda: "test_a[2] PASSED" in log() and (pytester.path / "process").exists(), log)
    script = parent_of((pytester.path / "process").read_text())
    step = Path("/proc", parent_of(script))  # Slurm's process that waits for the script
    call("scancel", "--batch", "--signal=USR1", f"{array}_0")
    state = ("squeue", "--noheader", "--format=%T", f"--jobs={array}_0")
    # Started again before that has reported its end, the job would be taken to have ended.
    wait_until(lambda: call(*state) == "PENDING" and not step.exists(), log)
    runs = {run.info.run_name: run for run in read_runs()}
    assert runs["test_a[3]"].data.tags["armory.outcome"] == "interrupted", log()
    assert {run.info.status for run in runs.values()} == {"FINISHED", "KILLED"}
    assert "6 evaluations: 3 passed, 1 interrupted, 2 not run" in log()
    (pytester.path / "go").touch()
    call("scontrol", "update", f"JobId={array}_0", "StartTime=now")  # else it waits two minutes
    wait_until(lambda: not call("squeue", "--noheader"), log)
    assert "3 evaluations: 3 passed" in log()
    assert "resumed: 3 evaluations passed before" in log()
    (session,) = [run for run in read_runs() if run.data.tags.get("armory.kind") == "session"]
    assert (session.info.status, session.data.metrics["passed"]) == ("FINISHED", 6)
