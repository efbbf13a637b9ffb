"""The documentation site. `scripts/docs` builds it."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pytest_armory import __version__  # noqa: E402

HOME = "https://github.com/pytest-armory/pytest-armory"

project = "pytest-armory"
author = "The pytest-armory developers"
project_copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
default_role = "code"  # docstrings mark code as Markdown does

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"

html_theme = "furo"
html_title = f"pytest-armory {version}"
html_baseurl = "https://pytest-armory.github.io/pytest-armory/"
html_theme_options = {
    "source_repository": f"{HOME}/",
    "source_branch": "main",
    "source_directory": "docs/",
}


def link_to_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    """Pages link to files of the repository by their path, as GitHub shows them."""
    del app

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(docname), match[1]))
        return match[0] if path.startswith("docs/") else f"]({HOME}/blob/main/{path})"

    source[0] = re.sub(r"\]\((\.\./[^)\s]+)\)", replace, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    from pygments.lexers.special import TextLexer

    app.add_lexer("mermaid", TextLexer)  # GitHub draws it; here it is shown as text
    app.connect("source-read", link_to_repository)
