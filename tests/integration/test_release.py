"""A release: all that names its version and its home agrees, and hosts accept its YAML."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
HOME = "https://github.com/pytest-armory/pytest-armory/blob/main/"
FILES = ("CHANGELOG.md", "CITATION.cff", "README.md", "pyproject.toml", "pytest_armory/__init__.py")


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """``scripts/release.py`` as a module."""
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(release: ModuleType, tmp_path: Path) -> Path:
    """A project with the files that are checked, committed, ready to be tagged."""
    for name in {*FILES, *release.WORDS}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", dirs_exist_ok=True)
    shutil.copy(ROOT / "CONTRIBUTING.md", tmp_path)
    changelog = (tmp_path / "CHANGELOG.md").read_text()
    dated = changelog.replace("## [Unreleased]", "## [0.2.0] - 2026-12-01\n")
    (tmp_path / "CHANGELOG.md").write_text(dated)
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "all"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def wrong(release: ModuleType, root: Path, tag: str) -> list[str]:
    """Every sentence of every check."""
    return [text for check in release.CHECKS for text in check(root, tag)]


def test_the_checkout_is_in_order(release: ModuleType) -> None:
    assert wrong(release, ROOT, "") == []
    assert "`pytest --armory-track`" in release.notes(ROOT)


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace a text in a file of the project."""

    def apply(root: Path) -> None:
        path = root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return apply


BROKEN = [
    ("v0.2.1", None, "the tag is v0.2.1, pytest_armory/__init__.py has 0.2.0"),
    ("v0.2.0", replaced("CITATION.cff", "0.2.0", "0.1.0"), "CITATION.cff has the version 0.1.0"),
    ("", replaced("docs/xdist-and-ci.md", "@v0.2.0", "@v0.1.0"), "has v0.1.0 of the Action"),
    ("", replaced("pytest_armory/__init__.py", "0.2.0", "0.2-x"), "must be like 1.2.3"),
    (
        "v0.2.0",
        replaced("CHANGELOG.md", "[0.2.0] - 2026-12-01", "[Unreleased]"),
        "has no section `## [0.2.0] - date`",
    ),
    (
        "v0.2.0",
        replaced("CHANGELOG.md", "## [0.2.0]", "## [Unreleased]\n\n- more\n\n## [0.2.0]"),
        "under [Unreleased]",
    ),
    ("", replaced("CHANGELOG.md", "- 2026-12-01", "- soon"), "must be `[1.2.3] - 2026-01-31`"),
    ("", replaced("CHANGELOG.md", "### Added", "### News"), "`### News` is none of"),
    (
        "",
        replaced("CHANGELOG.md", "## [0.2.0]", "## [0.1.0] - 2026-01-01\n\n## [0.2.0]"),
        "the newest release must come first",
    ),
    ("", replaced("README.md", "main/docs/gates.md", "main/docs/goats.md"), "no such file"),
    ("", replaced("README.md", f"]({HOME}", "]("),
     "which PyPI does not have"),
    ("", replaced("pyproject.toml", "Homepage = ", "Home = "), "must have the Homepage"),
    ("", lambda root: (root / "SECURITY.md").unlink(), "SECURITY.md is missing"),
    ("", replaced("pyproject.toml", '    "llm",\n', ""), """must have '"llm",'"""),
    ("", replaced(".github/workflows/release.yml", "id-token: write", "id-token: none"),
     "release.yml must have 'id-token: write'"),
    ("", replaced("docs/public-api.md", "**A deprecation**", "A change"), "**A deprecation**"),
    ("v0.2.0", replaced("README.md", "# pytest-armory", "# "), "files differ from the commit"),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "change", "expected"), BROKEN, ids=[case[2] for case in BROKEN])
def test_what_disagrees_is_named(
    release: ModuleType,
    project: Path,
    tag: str,
    change: Callable[[Path], None] | None,
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert wrong(release, project, "v0.2.0") == []
    if change is not None:
        change(project)
    assert any(expected in text for text in wrong(release, project, tag))
    assert release.main(["--tag", tag, "--out", str(project / "out")], root=project) == 1
    assert expected in capsys.readouterr().err
    assert not (project / "out").exists()


SCHEMAS = {
    "vendor.github-workflows": [".github/workflows/*.yml"],
    "vendor.github-actions": ["action.yml"],
    "vendor.github-issue-forms": [".github/ISSUE_TEMPLATE/[!c]*.yml"],
    "vendor.github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.citation-file-format": ["CITATION.cff"],
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_for_hosts_are_valid_by_their_published_schemas(schema: str) -> None:
    pytest.importorskip("check_jsonschema")
    files = [str(path) for pattern in SCHEMAS[schema] for path in ROOT.glob(pattern)]
    assert files
    command = ["check_jsonschema", "--builtin-schema", schema, "--default-filetype", "yaml", *files]
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_only_the_job_that_publishes_may_ask_for_a_token() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    jobs = re.split(r"^  (\w+):$", text.partition("jobs:")[2], flags=re.M)
    may = {name for name, job in zip(jobs[1::2], jobs[2::2], strict=True) if "id-token" in job}
    assert may == {"publish"}
    assert "secrets." not in text
