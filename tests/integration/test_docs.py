"""The documentation is run: every Python block of every page, in order, and what it says comes out.

Blocks that begin with ``# name.py`` are files; those with tests in them are run by pytest, tracked.
``<!-- expect: 1 failed, 2 passed -->`` before one says what becomes of them; without tracking it is
the same, unless it says ``tracked only``. Before a command it has the command run. The other blocks
of a page share one namespace, as in a script.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy  # noqa: F401 - kept from the inner sessions, which forget what they imported
import pytest
import yaml
from conftest import Evals, verdicts

import pytest_armory
from pytest_armory import engine, errors, hookspecs, plugin, track
from pytest_armory.plugin import marker, options

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS]}

HOME = "https://github.com/pytest-armory/pytest-armory/blob/main/"
"""What the README's links begin with."""

LIBRARIES = {
    "deep-learning": ("torch", "torchmetrics"),
    "engine": ("torch", "torchmetrics", "art.attacks.evasion", "art.estimators.classification"),
}
"""What a page needs that only the development extra installs."""

with suppress(ImportError):  # before the inner sessions, for it cannot be imported twice
    import_module("torch")

TWICE = ("README", "getting-started")
"""The pages that a newcomer may follow again, with the runs of the first time in the store."""

QUIET = ("-W", "error", "-p", "no:asyncio", "-p", "no:hypothesispytest")
"""The other plugins only cost time here: hypothesis imports itself anew each session."""

_BLOCK = re.compile(
    r"(?:<!-- expect: (?P<expect>.+?) -->\n)?^ *```(?P<language>\w+)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page; ``line`` is that of its first line of text."""

    language: str
    text: str
    line: int
    expect: str | None

    @property
    def file(self) -> str | None:
        """The file it says to be, if it does."""
        match = re.match(r"# (\w+\.py)\n", self.text)
        return match[1] if match else None

    @property
    def wanted(self) -> dict[str, int]:
        """How many tests are to have which outcome, as far as it says."""
        found = re.findall(r"(\d+) (\w+)", self.expect or "")
        return {name: int(count) for count, name in found}

    @property
    def is_test(self) -> bool:
        """Whether pytest runs it."""
        return self.language == "python" and "def test_" in self.text


def blocks(page: str, *languages: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = PAGES[page]
    for match in _BLOCK.finditer(text):
        if match["language"] in languages:
            line = text.count("\n", 0, match.start("text")) + 1
            yield Block(match["language"], match["text"], line, match["expect"])


@dataclass
class Reader:
    """Somebody who types a page's examples from top to bottom."""

    page: str
    evals: Evals
    names: dict[str, object] = field(default_factory=lambda: {"__name__": "__main__"})
    result: pytest.RunResult | None = None

    def read(self, block: Block) -> None:
        """Do what one block says."""
        if block.language == "console":
            self.command(block)
        elif block.is_test:
            self.test(block)
        elif block.file:
            self.write(block)
        else:
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, f"{self.page}.md", "exec"), self.names)

    def write(self, block: Block) -> Path:
        """Write a block's file where the page's tests run."""
        path = self.evals.pytester.path / (block.file or f"test_line_{block.line}.py")
        path.write_text(block.text, encoding="utf-8")
        return path

    def test(self, block: Block) -> None:
        """Run a block's tests; all pass unless it says otherwise."""
        path = str(self.write(block))
        self.result = self.evals.run(path, *QUIET)
        found = verdicts(self.result)
        wanted = block.wanted
        assert found == wanted or (not wanted and set(found) == {"passed"})
        if "tracked only" not in (block.expect or ""):
            assert verdicts(self.evals.run(path, *QUIET, track=False)) == found

    def command(self, block: Block) -> None:
        """What the page shows of pytest is what the command, or the tests before it, printed."""
        if block.expect:
            dollar, program, *args = shlex.split(block.text.splitlines()[0])
            assert (dollar, program) == ("$", "pytest")
            tracked = "--armory-track" in args
            args = [arg for arg in args if arg != "--armory-track"]
            self.result = self.evals.run(*args, *QUIET, track=tracked)
            assert verdicts(self.result) == block.wanted
        for title in ("FAILURES", "evaluations"):
            if f"= {title} =" in block.text:
                assert self.result is not None
                shown, printed = block.text, self.result.stdout.str()
                assert _section(title, shown) == _section(title, printed)


def _section(title: str, output: str) -> list[str]:
    """The lines of a part of the output, without what differs from one session to the next."""
    lines = output.partition(f"= {title} =")[2].splitlines()[1:]
    end = next((i for i, line in enumerate(lines) if line.startswith("=")), len(lines))
    table = []
    for line in lines[:end]:
        line = re.sub(r"tracked to \S+", "tracked to #", line)
        line = re.sub(r"experiments/\d+/runs/\w+\?\S+", "#", line)
        line = re.sub(r"[\d.]+ s$", "#", line)
        line = re.sub(r"\d{8}-\d{6}-\w{6}", "#", line)
        table.append(" ".join(line.split()))
    return table


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "python"))])
def test_the_examples_of_a_page_run(
    page: str, evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in LIBRARIES.get(page, ()):
        pytest.importorskip(library)
    for library in ("sklearn.datasets", "sklearn.linear_model", "sklearn.neighbors"):
        pytest.importorskip(library)  # here, for the inner sessions forget what they imported
    for _ in range(2 if page in TWICE else 1):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # set by a page's own Python
        reader = Reader(page, evals)
        for block in blocks(page, "python", "console"):
            reader.read(block)


@pytest.mark.parametrize("page", PAGES)
def test_yaml_blocks_are_yaml(page: str) -> None:
    for block in blocks(page, "yaml"):
        assert yaml.safe_load(block.text)


def test_options_page_names_every_option_ini_key_keyword_fixture_and_hook() -> None:
    source = inspect.getsource(options)
    names = {*re.findall(r'"(--armory-[a-z-]+)"', source)}
    assert len(names) >= 4
    names |= {value for name, value in vars(options).items() if name.startswith("INI_")}
    names |= set(re.findall(r'"((?:MLFLOW|ARMORY)_[A-Z_]+)"', source)) | {"ARMORY_HOME"}
    names |= set(marker._KEYWORDS)
    names |= {name for name in vars(plugin) if name in ("track_call", "evaluation_run")}
    names |= {name for name in vars(hookspecs) if name.startswith("pytest_armory_")}
    assert {name for name in names if f"`{name}" not in PAGES["options"]} == set()


def test_no_page_promises_an_option_that_is_not_there() -> None:
    known = {flag for flag, *_ in options._OPTIONS}
    for page, text in PAGES.items():
        prose = re.sub(r"\]\([^)]*\)", "", text)  # an anchor is made of a heading's options
        assert set(re.findall(r"--armory-[a-z-]+", prose)) <= known, page


def test_every_public_name_is_documented() -> None:
    text = "".join(PAGES.values())
    names = {*pytest_armory.__all__, *(n for n in vars(errors) if n.endswith(("Error", "Warning")))}
    assert {name for name in names if not re.search(rf"`{name}\b", text)} == set()


def test_the_reference_has_every_public_name() -> None:
    listed = set(re.findall(r"^\.\. auto(?:function|class):: (?:.*\.)?(\w+)$", PAGES["api"], re.M))
    public = {*pytest_armory.__all__, *engine.__all__, *track.__all__} - {"__version__"}
    assert public - listed == set()


def test_the_gallery_has_every_example_and_the_index_every_page() -> None:
    examples = {path.name for path in (ROOT / "example_evals").glob("*.py")}
    assert {name for name in examples if f"example_evals/{name}" not in PAGES["gallery"]} == set()
    listed = set(PAGES["index"].splitlines())
    assert {path.stem for path in DOCS} - {"index"} <= listed


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = ROOT if page == "README" else ROOT / "docs"
    assert page != "README" or HOME in PAGES[page]  # PyPI has no other file of it
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", PAGES[page]):
        target = target.removeprefix(HOME)
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = folder / file if file else folder / f"{page}.md"
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [_anchor(heading) for heading in headings], target


def _anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
