"""The GitHub Action and the GitLab CI component: their steps, run by a shell as their hosts do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import FakeHost
from loopback import listening

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
SPEC, COMPONENT = yaml.safe_load_all((ROOT / "templates" / "evaluate.yml").read_text("utf-8"))

STUB = """#!/bin/sh
for word in {name} "$@"; do printf '%s\\n' "$word"; done >> "$LOG"
echo "uri $MLFLOW_TRACKING_URI session $ARMORY_SESSION" >> "$LOG"
exit ${{{status}:-0}}
"""


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which pip, pytest and pytest-armory only note what they are asked."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name, status in (("pip", "PIP"), ("pytest", "PYTEST"), ("pytest-armory", "REPORT")):
        (stubs / name).write_text(STUB.format(name=name, status=status))
        (stubs / name).chmod(0o755)
    files = {"GITHUB_OUTPUT": tmp_path / "output", "LOG": tmp_path / "log"}
    for path in files.values():
        path.touch()
    return {
        "PATH": f"{stubs}:{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RUNNER_TEMP": str(tmp_path),
        **{name: str(path) for name, path in files.items()},
    }


def expanded(text: str, values: Mapping[str, str], pattern: str) -> str:
    """A text whose expressions are replaced, as a host does it."""
    return re.sub(pattern, lambda match: values[match[1]], text)


def run_action(environ: Mapping[str, str], folder: Path, **given: str) -> int:
    """Run the steps of the action that are scripts; the exit status of the first that fails."""
    context = {"github.run_id": "5", "github.run_attempt": "1", "github.token": "t0ken"}
    context |= {"github.job": "evaluate", "strategy.job-index": "0"}
    expression = r"\$\{\{ ([\w.-]+) \}\}"
    for name, spec in ACTION["inputs"].items():
        default = expanded(spec["default"], context, expression)
        context[f"inputs.{name}"] = given.pop(name.replace("-", "_"), default)
    assert given == {}
    for step in ACTION["runs"]["steps"]:
        if "run" not in step:
            continue
        assert "${{" not in step["run"]
        output = dict(re.findall(r"(\w+)=(.*)", Path(environ["GITHUB_OUTPUT"]).read_text()))
        context["steps.evaluations.outputs.status"] = output.get("status", "")
        variables = {k: expanded(v, context, expression) for k, v in step["env"].items()}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, env={**environ, **variables}, cwd=folder, check=False)
        if done.returncode:
            return done.returncode
    return 0


def run_component(environ: Mapping[str, str], folder: Path, **given: str) -> int:
    """Run the script of the component's job."""
    inputs = {}
    for name, spec in SPEC["spec"]["inputs"].items():
        default = spec["default"]
        text = str(default).lower() if isinstance(default, bool) else default
        inputs[name] = given.pop(name, text)
    assert given == {}
    (job,) = COMPONENT.values()
    pattern = r"\$\[\[ inputs\.(\w+) \]\]"
    variables = {k: expanded(v, inputs, pattern) for k, v in job["variables"].items()}
    variables["ARMORY_SESSION"] = "gl-5"
    lines = [expanded(line, inputs, pattern) for line in job["script"]]
    command = ["sh", "-ec", "\n".join(lines)]
    return subprocess.run(command, env={**environ, **variables}, cwd=folder, check=False).returncode


RUNNERS: dict[str, Any] = {"github": run_action, "gitlab": run_component}

STATUSES = [
    ({}, 0),
    ({"PYTEST": "1", "REPORT": "1"}, 1),
    ({"PYTEST": "4", "REPORT": "2"}, 4),
    ({"PYTEST": "0", "REPORT": "1"}, 1),
    ({"PIP": "3"}, 3),
]


@pytest.mark.parametrize("host", RUNNERS)
@pytest.mark.parametrize(("statuses", "expected"), STATUSES)
def test_the_job_fails_as_pytest_or_the_report_does(
    shell: dict[str, str], tmp_path: Path, host: str, statuses: dict[str, str], expected: int
) -> None:
    assert RUNNERS[host]({**shell, **statuses}, tmp_path) == expected
    log = Path(shell["LOG"]).read_text().splitlines()
    assert ("report" in log) == ("PIP" not in statuses)


@pytest.mark.parametrize("host", RUNNERS)
def test_what_is_run_is_what_was_given_word_by_word(
    shell: dict[str, str], tmp_path: Path, host: str
) -> None:
    RUNNERS[host](
        shell,
        tmp_path,
        evaluations="evals 'my evals/test_a.py::test[a b]'",
        arguments="-k 'not $(touch broken)\nor b' --armory-baseline branch:main",
        install="-r requirements.txt 'torch<3'",
        comment="false",
    )
    log = Path(shell["LOG"]).read_text()
    assert "pip\ninstall\n-r\nrequirements.txt\ntorch<3\n" in log
    assert "-k\nnot $(touch broken)\nor b\n--armory-baseline\nbranch:main\nevals\n" in log
    assert "evals\nmy evals/test_a.py::test[a b]\n" in log
    assert "--comment" not in log
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize("host", RUNNERS)
@pytest.mark.parametrize("given", [{"arguments": "-k 'not"}, {"install": "'torch"}])
def test_an_open_quote_stops_the_job(
    shell: dict[str, str], tmp_path: Path, host: str, given: dict[str, str]
) -> None:
    assert RUNNERS[host](shell, tmp_path, **given) != 0
    assert "pytest\n" not in Path(shell["LOG"]).read_text()


def test_a_command_that_reads_its_input_does_not_end_the_component(
    shell: dict[str, str], tmp_path: Path
) -> None:
    for name in ("pip", "pytest"):
        stub = Path(shell["PATH"].partition(":")[0], name)
        stub.write_text(stub.read_text().replace("exit", "cat >> /dev/null\nexit"))
    assert run_component({**shell, "PYTEST": "1"}, tmp_path) == 1
    assert "report" in Path(shell["LOG"]).read_text().splitlines()


def test_an_image_without_git_is_enough(shell: dict[str, str], tmp_path: Path) -> None:
    shell = {**shell, "PATH": f"{shell['PATH'].partition(':')[0]}:{tmp_path / 'bin'}"}
    (tmp_path / "bin").mkdir()
    for name in ("sh", "bash", "mktemp"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    (tmp_path / "bin" / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    assert run_component({**shell, "CI_COMMIT_BRANCH": "main"}, tmp_path) == 0


def test_the_action_gives_uri_and_session(shell: dict[str, str], tmp_path: Path) -> None:
    run_action(shell, tmp_path, tracking_uri="http://h", install="")
    log = Path(shell["LOG"]).read_text()
    assert log.count("uri http://h session gh-5-1-evaluate-0") == 2
    assert "report\ngh-5-1-evaluate-0\n--comment\n--comment-name\n0\n" in log
    assert "pip" not in log


def test_jobs_that_share_a_session_leave_the_report_to_another(
    shell: dict[str, str], tmp_path: Path
) -> None:
    assert run_action({**shell, "REPORT": "1"}, tmp_path, report="false") == 0
    assert run_action({**shell, "PYTEST": "1"}, tmp_path, report="false") == 1
    assert "report" not in Path(shell["LOG"]).read_text()


def test_the_action_from_test_to_comment(
    shell: dict[str, str], tmp_path: Path, armory_home: Path
) -> None:
    """With pytest and pytest-armory as they are; only pip is not needed."""
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.evaluation(at_least={'accuracy': 0.9})\n"
        "def test_a(evaluation_run): evaluation_run.log_metrics({'accuracy': 0.5})\n"
    )
    (tmp_path / "event.json").write_text('{"pull_request": {"number": 7}}')
    host = FakeHost("github")
    with listening(host.respond) as url:
        environ = {
            **shell,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "ARMORY_HOME": str(armory_home),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": url,
            "GITHUB_REPOSITORY": "a/b",
            "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        }
        status = run_action(environ, tmp_path, evaluations="evals", install="", token=host.token)
    assert status == 1
    (comment,) = host.comments
    assert "accuracy 0.5 is below at_least 0.9" in comment["body"].replace("&#95;", "_")
    summary = (tmp_path / "summary.md").read_text()
    assert summary.count("1 evaluation") == 1


def test_the_component_is_valid_by_gitlabs_schema(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    documents = {"spec.yml": SPEC, "job.yml": COMPONENT}
    for name, document in documents.items():
        (tmp_path / name).write_text(yaml.safe_dump(document))
    command = ["check_jsonschema", "--builtin-schema", "vendor.gitlab-ci", "--data-transform"]
    files = [str(tmp_path / name) for name in documents]
    done = subprocess.run(
        [sys.executable, "-m", *command, "gitlab-ci", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
