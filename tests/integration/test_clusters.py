"""The files beside ``docs/clusters.md``: valid, and their shards make up the whole collection."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Evals

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "clusters"
SCHEMAS = {
    "github-matrix.yml": ("--builtin-schema", "vendor.github-workflows"),
    "gitlab-matrix.yml": ("--builtin-schema", "vendor.gitlab-ci"),
    "kubernetes-job.yaml": ("--schemafile", str(ROOT / "tests/clusters/indexed-job.schema.json")),
}
SUITE = """
    import pytest
    @pytest.mark.evaluation
    @pytest.mark.parametrize("i", range(11))
    def test_a(i): pass
    def test_plain(): pass
"""


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_file_is_valid(name: str) -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", *SCHEMAS[name], str(FOLDER / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def loaded(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def kubernetes() -> list[tuple[dict[str, str], list[str]]]:
    spec = loaded("kubernetes-job.yaml")["spec"]
    container = spec["template"]["spec"]["containers"][0]
    (session,) = [one["value"] for one in container["env"] if one["name"] == "ARMORY_SESSION"]
    given = {"ARMORY_SESSION": session}
    indices = range(spec["completions"])
    return [({**given, "JOB_COMPLETION_INDEX": str(i)}, container["command"]) for i in indices]


def gitlab() -> list[tuple[dict[str, str], list[str]]]:
    job = loaded("gitlab-matrix.yml")["evaluate"]
    total, words = job["parallel"], shlex.split(job["script"][-1])
    common = {"CI_PIPELINE_ID": "nightly-42", "CI_NODE_TOTAL": str(total)}
    return [({**common, "CI_NODE_INDEX": str(i + 1)}, words) for i in range(total)]


def github() -> list[tuple[dict[str, str], list[str]]]:
    job = loaded("github-matrix.yml")["jobs"]["evaluate"]
    command = job["steps"][-1]["run"]
    shards = job["strategy"]["matrix"]["shard"]
    environ = {"GITHUB_RUN_ID": "nightly-42", "GITHUB_RUN_ATTEMPT": "1"}
    legs = [command.replace("${{ matrix.shard }}", str(shard)) for shard in shards]
    return [(environ, shlex.split(leg)) for leg in legs]


def slurm() -> list[tuple[dict[str, str], list[str]]]:
    text = (FOLDER / "array.sbatch").read_text(encoding="utf-8")
    (last,) = re.findall(r"--array=0-(\d+)", text)
    (command,) = re.findall(r'^exec (.*) "\$@"$', text, re.MULTILINE)
    count = int(last) + 1
    common = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": str(count)}
    common["SLURM_ARRAY_JOB_ID"] = "nightly-42"
    return [({**common, "SLURM_ARRAY_TASK_ID": str(i)}, shlex.split(command)) for i in range(count)]


def test_the_scripts_of_slurm_name_one_server() -> None:
    """The report's too: it would look for the session in the local database."""
    setting = re.compile(r"^# export MLFLOW_TRACKING_URI=(\S+)$", re.MULTILINE)
    scripts = sorted(FOLDER.glob("*.sbatch"))
    servers = [setting.findall(one.read_text(encoding="utf-8")) for one in scripts]
    assert [one.name for one in scripts] == ["array.sbatch", "report.sbatch", "requeue.sbatch"]
    assert servers == [["https://mlflow.example.org"]] * 3


@pytest.mark.parametrize("environment", [kubernetes, gitlab, github, slurm])
def test_the_jobs_of_an_environment_divide_the_collection(
    evals: Evals, environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evals.write(SUITE)
    found: list[str] = []
    for environ, (program, *args) in environment():
        assert program == "pytest"
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            # A path of the user's own may follow.
            result = evals.run(*args, "test_it.py", "--collect-only", "-q", track=False)
        header = result.stdout.str()
        assert result.ret == 0
        found += re.findall(r"^test_it\.py::(\S+)$", header, re.MULTILINE)
    assert found == [*(f"test_a[{i}]" for i in range(11)), "test_plain"]
    assert len(environment()) > 1
