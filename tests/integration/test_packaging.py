"""What is in the wheel that people install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

import pytest_armory

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both distributions, built and checked as ``scripts/release`` does it."""
    pytest.importorskip("build")
    pytest.importorskip("twine")
    pytest.importorskip("setuptools", minversion="77")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "release.py", "--out", tmp_path_factory.mktemp("dist")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert {line.split()[0] for line in said} == {"ok", "built"}
    return [Path(line.split(maxsplit=1)[1]) for line in said if line.startswith("built")]


@pytest.fixture(scope="session")
def wheel(distributions: list[Path]) -> Path:
    """The wheel."""
    (built,) = (path for path in distributions if path.suffix == ".whl")
    return built


def test_the_wheel_holds_the_plugin_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        entry_points = ConfigParser()
        entry_points.read_string(archive.read(f"{info}/entry_points.txt").decode())
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert {name.partition("/")[0] for name in names} == {"pytest_armory", info}
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "pytest_armory").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert "pytest_armory/py.typed" in names
    assert "pytest_armory/report/templates/report.html.j2" in names
    assert any(name.startswith(f"{info}/") and name.endswith("/LICENSE") for name in names)
    assert dict(entry_points["pytest11"]) == {"armory": "pytest_armory.plugin"}
    assert dict(entry_points["console_scripts"]) == {
        "armory-mlflow-server": "pytest_armory.cli.server:main",
        "pytest-armory": "pytest_armory.cli.main:main",
    }
    assert metadata["Version"] == pytest_armory.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert "# pytest-armory" in metadata.get_payload()
    assert {"llm", "evals", "regression", "ci"} <= set(metadata["Keywords"].split(","))
    urls = dict(text.split(", ") for text in metadata.get_all("Project-URL"))
    assert urls["Homepage"] == "https://github.com/pytest-armory/pytest-armory"


STUB = """#!/bin/sh
case "$*" in
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "--version") echo "Python 3.99" ;;
    "-m pip"*) echo "Collecting mlflow" ;;
esac
"""


def test_the_first_installation_says_what_it_does(tmp_path: Path) -> None:
    """Pip works for minutes; the interpreter is a stand-in, for what it would install is not."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)

    def install() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tmp_path / "scripts" / "install", "examples"],
            env={**os.environ, "PYTHON": str(stub), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )

    first, second = install(), install()
    said = [line for line in first.stderr.splitlines() if line.startswith("scripts/install: ")]
    assert [line.split()[1] for line in said] == ["making", "installing", "importing"]
    assert "Collecting mlflow" in first.stderr
    assert first.stdout == second.stdout == ""
    assert "installing" not in second.stderr
