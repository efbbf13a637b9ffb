"""Check that everything says the same of a release, and build it. Nothing is published.

``--tag`` is the tag that is about to be released; without one the changelog's section may still be
*Unreleased*. ``--notes`` prints the section instead, for the release's page.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

HOME = "https://github.com/pytest-armory/pytest-armory"
NOT_COPIED = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "mlruns", "*.db", "_build"
)


def read(root: Path, name: str) -> str:
    """The text of a file of the project."""
    return (root / name).read_text(encoding="utf-8")


def version(root: Path) -> str:
    """The version, of the one place that has it."""
    (found,) = re.findall(r'^__version__ = "(.+)"$', read(root, "pytest_armory/__init__.py"), re.M)
    return str(found)


def sections(root: Path) -> dict[str, str]:
    """The changelog's sections: their text by their heading, without brackets."""
    parts = re.split(r"^## (.+)\n", read(root, "CHANGELOG.md"), flags=re.M)
    titles = [re.sub(r"[\[\]]", "", title) for title in parts[1::2]]
    texts = [re.split(r"^\[.+\]: ", text, flags=re.M)[0].strip() for text in parts[2::2]]
    return dict(zip(titles, texts, strict=True))


def notes(root: Path) -> str:
    """The changelog's section of this version, else what is unreleased."""
    found = sections(root)
    own = [text for title, text in found.items() if title.split(" ")[0] == version(root)]
    return own[0] if own else found.get("Unreleased", "")


# Checks: each yields a sentence for everything that is wrong


def check_version(root: Path, tag: str) -> Iterator[str]:
    """The package, the citation, the tag and the examples of the Action have one version."""
    own = version(root)
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", own):
        yield f"pytest_armory/__init__.py has {own!r}; it must be like 1.2.3 or 1.2.3rc1"
    (cited,) = re.findall(r"^version: (.+)$", read(root, "CITATION.cff"), re.M)
    if cited != own:
        yield f"CITATION.cff has the version {cited}, pytest_armory/__init__.py {own}"
    examples = re.findall(rf"{HOME[19:]}[@/]v(\d[\w.]*)", read(root, "docs/xdist-and-ci.md"))
    if other := sorted({*examples} - {own}):
        yield f"docs/xdist-and-ci.md has v{other[0]} of the Action, the package is {own}"
    if tag and tag != f"v{own}":
        yield f"the tag is {tag}, pytest_armory/__init__.py has {own}: tag it v{own}"


def check_changelog(root: Path, tag: str) -> Iterator[str]:
    """Keep a Changelog: known headings, dates, the newest first; a tag's section is dated."""
    found = sections(root)
    dates = []
    for title, text in found.items():
        if title != "Unreleased":
            match = re.fullmatch(r"\S+ - (\d{4}-\d\d-\d\d)", title)
            if match is None:
                yield f"CHANGELOG.md: `{title}` must be `[1.2.3] - 2026-01-31` or [Unreleased]"
            else:
                dates.append(datetime.date.fromisoformat(match[1]))
        unknown = set(re.findall(r"^### (.+)$", text, re.M)) - KINDS
        if unknown:
            yield f"CHANGELOG.md: `### {min(unknown)}` is none of {', '.join(sorted(KINDS))}"
    if dates != sorted(dates, reverse=True):
        yield "CHANGELOG.md: the newest release must come first"
    own = version(root)
    if tag and not any(title.startswith(f"{own} - ") for title in found):
        yield f"CHANGELOG.md has no section `## [{own}] - date`: rename [Unreleased]"
    if tag and found.get("Unreleased"):
        yield "CHANGELOG.md has lines under [Unreleased] that are in this release"
    if not notes(root):
        yield "CHANGELOG.md says nothing of this release"


KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def check_links(root: Path, tag: str) -> Iterator[str]:
    """The project's home is the same everywhere; the README's links work on PyPI."""
    del tag
    if f'Homepage = "{HOME}"' not in read(root, "pyproject.toml"):
        yield f"pyproject.toml: [project.urls] must have the Homepage {HOME}"
    text = read(root, "README.md")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        inside = re.fullmatch(
            rf"(?:{HOME}/blob|https://raw.githubusercontent.com/{HOME[19:]})/?(?:/main)/(\S+)",
            target,
        )
        if "://" not in target:
            yield f"README.md links to {target}, which PyPI does not have: use {HOME}/blob/main/"
        elif inside and not (root / inside[1].partition("#")[0]).exists():
            yield f"README.md links to {target}, and there is no such file"


WORDS = {
    "pyproject.toml": (
        *(f"\n{name} = " for name in ("Documentation", "Changelog", "Issues", "Source")),
        *(f'\n    "{keyword}",\n' for keyword in ("llm", "evals", "regression", "ci")),
    ),
    "LICENSE": ("MIT License",),
    "SECURITY.md": ("vulnerability",),
    "CODE_OF_CONDUCT.md": ("conduct",),
    "CITATION.cff": ("cff-version: ",),
    ".github/pull_request_template.md": (),
    ".github/ISSUE_TEMPLATE/bug.yml": ("body:",),
    ".github/ISSUE_TEMPLATE/feature.yml": ("body:",),
    ".github/workflows/release.yml": (
        "scripts/release.py",
        "id-token: write",
        "actions/attest-build-provenance@",
        "pypa/gh-action-pypi-publish@",
        "attestations: true",
    ),
    "docs/public-api.md": ("**A deprecation**",),
}
"""What files that a release needs must have."""


def check_files(root: Path, tag: str) -> Iterator[str]:
    """What makes a project fit to be adopted is there, and the workflow that publishes it."""
    del tag
    for name, words in WORDS.items():
        if not (root / name).is_file():
            yield f"{name} is missing"
            continue
        text = read(root, name)
        yield from (f"{name} must have {word.strip()!r}" for word in words if word not in text)


def check_tree(root: Path, tag: str) -> Iterator[str]:
    """What is tagged is what is built."""
    if tag:
        status = ["git", "status", "--porcelain", "--untracked-files=no"]
        found = subprocess.run(status, cwd=root, capture_output=True, text=True, check=True).stdout
        if found:
            yield f"files differ from the commit: {', '.join(found.split()[1::2])}"


CHECKS: tuple[Callable[[Path, str], Iterator[str]], ...] = (
    check_version,
    check_changelog,
    check_links,
    check_files,
    check_tree,
)


# Building


def build(root: Path, out: Path) -> list[Path]:
    """Build both distributions from a copy, so that no earlier build gets in, and check them.

    Raises CalledProcessError, whose ``stdout`` has the reason.
    """
    with TemporaryDirectory() as folder:
        source = Path(folder, "source")
        shutil.copytree(root, source, ignore=NOT_COPIED)
        _run("-m", "build", "--no-isolation", "--outdir", str(out.absolute()), str(source))
    built = sorted(path for path in out.iterdir() if path.suffix in (".whl", ".gz"))
    _run("-m", "twine", "check", "--strict", *map(str, built))
    return built


def _run(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def main(argv: list[str] | None = None, root: Path = Path(__file__).parents[1]) -> int:
    """Check and build; 1 if anything is wrong, each with a line."""
    parser = argparse.ArgumentParser("scripts/release", description=__doc__)
    parser.add_argument("--tag", default="", help="the tag to be released, as v1.2.3")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="default: dist")
    parser.add_argument("--notes", action="store_true", help="print the release's notes, no more")
    arguments = parser.parse_args(argv)
    if arguments.notes:
        print(notes(root))
        return 0
    wrong = []
    for check in CHECKS:
        found = list(check(root, arguments.tag))
        wrong += found
        print(f"{'wrong' if found else 'ok':5}  {check.__doc__}")
    for sentence in wrong:
        print(f"scripts/release: {sentence}", file=sys.stderr)
    if wrong:
        return 1
    try:
        built = build(root, arguments.out)
    except subprocess.CalledProcessError as error:
        print(error.stdout, file=sys.stderr)
        return 1
    for path in built:
        print(f"built  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
