"""The pages for contributors agree with the source: paths, and the diagram of the layers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_imports import BASE, LAYERS, PACKAGE

ROOT = Path(__file__).parents[2]
HOW_IT_WORKS = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_spans(text: str) -> set[str]:
    """What stands between backticks, outside of fenced blocks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`\n]+)`", prose))


def allowed(text: str) -> dict[str, set[str]]:
    """What each folder of a Mermaid flowchart may import, by its arrows.

    A solid arrow allows its target and everything that this may import, a dotted one only the
    target.
    """
    (block,) = re.findall(r"^```mermaid\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    arrows = re.findall(r"^ *(\w+) (-->|-\.->) (\w+)$", block, re.MULTILINE)
    nodes = re.findall(r"^ *(\w+)\[", block, re.MULTILINE)

    def below(node: str) -> set[str]:
        found: set[str] = set()
        for source, arrow, target in arrows:
            if source == node:
                found |= {target} | (below(target) if arrow == "-->" else set())
        return found - {"base"}

    return {node: below(node) for node in nodes if node != "base"}


def test_the_diagram_of_the_layers_is_the_table_of_imports() -> None:
    assert allowed(HOW_IT_WORKS) == {name: set(below.split()) for name, below in LAYERS.items()}


def test_the_bottom_of_the_diagram_is_what_all_may_import() -> None:
    (label,) = re.findall(r'^ *base\["(.*)"\]$', HOW_IT_WORKS, re.MULTILINE)
    assert {name.strip(" /") for name in label.split(",")} == set(BASE)


def test_solid_arrows_go_on_and_dotted_ones_end() -> None:
    chart = "```mermaid\nflowchart TD\n a[A]\n b[B]\n c[C]\n a --> b\n b --> c\n{}```"
    assert allowed(chart.format(" d[D]\n d -.-> b\n")) == {
        "a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"b"},
    }  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    spans = code_spans(page.read_text(encoding="utf-8"))
    paths = {span for span in spans if re.fullmatch(r"[\w./-]+\.(?:py|md|yml|toml)", span)}
    ours = {p for p in paths if p.startswith(("pytest_armory/", "tests/", "docs/", "benchmarks/"))}
    assert {path for path in ours if not (ROOT / path).exists()} == set()


def test_the_files_that_the_walk_of_an_evaluation_names_exist() -> None:
    spans = {span for span in code_spans(HOW_IT_WORKS) if span.endswith(".py")}
    paths = {span for span in spans if not span.startswith(("tests/", "conftest"))}
    assert {"plugin/hooks.py", "store/client.py", "report/terminal.py"} <= paths
    assert {path for path in paths if not (PACKAGE / path).exists()} == set()


def test_contributing_names_every_file() -> None:
    """But the folder of libraries, whose files are named after what they read."""
    named = {span for span in code_spans(CONTRIBUTING) if span.startswith("pytest_armory/")}
    files = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    unnamed = {file for file in files - named if not file.endswith("__init__.py")}
    folders = tuple(span for span in named if span.endswith("/"))
    assert {file for file in unnamed if not file.startswith(folders)} == set()


def guarantees(page: str) -> list[tuple[str, set[str]]]:
    """Each line of a page with the tests it names, as ``file::test``, or the file or folder alone.

    Without a file, a test is in the one that was named before, of a row in that of its table.
    """
    found, table, file = [], "", ""
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        is_head = line.startswith("|") and "| checked by" in line
        file = table if line.startswith("|") and not is_head else file
        named = set()
        for span in re.findall(r"`([^`]+)`", line):
            match = re.fullmatch(
                r"([\w/]+\.py|(?:tests|benchmarks)[\w/]*/)?(?:::)?(test_\w+)?", span
            )
            if match and any(match.groups()) and not (match[1] or "").startswith("pytest_armory"):
                file = match[1] or file
                named.add(f"{file}::{match[2]}" if match[2] else file)
        table = file if is_head else table if line.startswith("|") else ""
        found.append((line, named))
    return found


def missing_tests(named: set[str], sources: dict[str, str]) -> set[str]:
    """Those of the tests that are in no file of that name."""

    def is_there(one: str) -> bool:
        file, _, test = one.partition("::")
        if test:
            return f"def {test}(" in sources.get(file.rpartition("/")[2], "")
        return file.rpartition("/")[2] in sources or (ROOT / file).is_dir()

    return {one for one in named if not is_there(one)}


@pytest.mark.parametrize("page", ["reliability.md", "security.md"])
def test_what_is_guaranteed_is_checked_by_tests_that_exist(page: str) -> None:
    """Every row of the tables names one, but for a row that is checked as the one before."""
    sources = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py")}
    lines = guarantees(page)
    assert missing_tests(set().union(*(named for _, named in lines)), sources) == set()
    rows = [(line, named) for line, named in lines if re.match(r"\| (?!fault|credential)", line)]
    assert len(rows) > 3
    unchecked = [line for line, named in rows if not named and "| the same" not in line]
    assert unchecked == []


def test_a_test_that_a_page_names_may_be_missing() -> None:
    sources = {"test_faults.py": "def test_ctrl_c(): pass", "test_sync.py": ""}
    there = {"test_faults.py::test_ctrl_c", "tests/integration/test_sync.py", "tests/unit/values/"}
    gone = {"test_faults.py::test_ctrl", "test_none.py", "tests/none/", "::test_ctrl_c"}
    assert missing_tests(there | gone, sources) == gone


def test_the_tests_that_a_page_names_exist() -> None:
    sources = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py")}
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", text))
    assert ("test_faults.py", "test_ctrl_c") in named
    examples = set(re.findall(r"^# (test_\w+\.py)$", text, re.MULTILINE))
    missing = {
        f"{file}::{name}"
        for file, name in named
        if file not in examples and f"def {name}" not in sources.get(file, "")
    }
    assert missing == set()
