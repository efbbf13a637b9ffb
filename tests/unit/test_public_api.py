"""``docs/public-api.md`` lists what is public: no more and no less than the source has."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import pytest_armory
from pytest_armory import Engine, Evaluation, EvaluationResults, EvaluationRun, Trackable, errors
from pytest_armory import hookspecs as hooks
from pytest_armory.cli import main as commands
from pytest_armory.engine import Progress
from pytest_armory.plugin import hooks as plugin
from pytest_armory.plugin import marker, options
from pytest_armory.records import Verdict
from pytest_armory.records.tags import COUNTS, session_count

PACKAGE = Path(pytest_armory.__file__).parent
SOURCE = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
PAGE = (PACKAGE.parent / "docs" / "public-api.md").read_text(encoding="utf-8")

INTERNAL_MEMBERS = {"connection", "destination", "writer"}
"""What the plugin and the engine use of an ``EvaluationRun``."""

INTERNAL_VARIABLES = {"ARMORY_ACCESS_TOKENS"}
"""Set by the package for its own child processes."""


def section(title: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    (level, rest), *others = re.findall(
        rf"^(#+) `?{re.escape(title)}`?$\n(.*)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert not others
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def names(text: str, pattern: str = r"\w+") -> set[str]:
    """The code spans of a text that match a pattern as a whole."""
    return {span for span in re.findall(r"`([^`]+)`", text) if re.fullmatch(pattern, span)}


def row(text: str, first: str) -> str:
    """The rest of the row of a table that begins with a cell."""
    (found,) = re.findall(rf"^\| {re.escape(first)} \| (.*) \|$", text, re.MULTILINE)
    return str(found)


def public(holder: object) -> set[str]:
    """The attributes of an object whose names do not begin with an underscore."""
    return {name for name in dir(holder) if not name.startswith("_")}


def test_the_names_of_the_package() -> None:
    listed = names(section("pytest_armory"))
    assert listed == {*pytest_armory.__all__, "__version__"}


@pytest.mark.parametrize("name", ["track", "engine"])
def test_the_names_of_a_module(name: str) -> None:
    module = import_module(f"pytest_armory.{name}")
    listed = names(section(f"pytest_armory.{name}"))
    assert listed - {"pytest_armory_metrics"} == set(module.__all__)


def test_the_errors() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert names(section("pytest_armory.errors")) == classes


def test_the_folders_that_are_called_private_are_all_but_the_public_ones() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    preface = PAGE.partition("\n## ")[0]
    assert names(preface) == folders - {"track", "engine"}


MEMBERS: dict[type, set[str]] = {
    EvaluationRun: public(EvaluationRun()) - INTERNAL_MEMBERS,
    EvaluationResults: {*EvaluationResults.__dataclass_fields__},
    Progress: {*Progress.__dataclass_fields__, "samples_per_second"},
    Evaluation: {*Evaluation.__dataclass_fields__},
    Engine: {*Engine.__init__.__annotations__, "run", "arun"} - {"return"},
    Trackable: {"tracked_params"},
}


@pytest.mark.parametrize("kind", MEMBERS, ids=lambda kind: kind.__name__)
def test_the_members_of_an_object(kind: type) -> None:
    assert names(row(section("Members of objects"), f"`{kind.__name__}`")) == MEMBERS[kind]


def test_the_marker() -> None:
    assert names(section("Marker")) == {marker.MARKER, *marker._KEYWORDS}


def test_the_fixtures() -> None:
    kind = type(plugin.evaluation_run)
    fixtures = {name for name, value in vars(plugin).items() if type(value) is kind}
    if hasattr(kind, "__code__"):  # older versions of pytest have functions as fixtures
        fixtures = {
            name for name in fixtures if hasattr(vars(plugin)[name], "_pytestfixturefunction")
        }
    assert names(section("Fixtures")) == fixtures


def test_the_options() -> None:
    assert names(section("Options"), "--.*") == {flag for flag, *_ in options._OPTIONS}


def test_the_ini_keys() -> None:
    assert names(section("Ini keys")) == {key for key, *_ in options._INI_KEYS}


def test_the_hooks() -> None:
    assert names(section("Hooks")) == {n for n in vars(hooks) if n.startswith("pytest_armory_")}


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_options_of_a_command(name: str) -> None:
    parser: Any = argparse.ArgumentParser(add_help=False)
    commands.COMMANDS[name].add_arguments(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    listed = names(row(section("Commands"), f"`pytest-armory {name}`"), "--.*")
    assert listed == {flag for flag in flags if flag.startswith("--")}


def test_the_commands() -> None:
    listed = set(re.findall(r"^\| `(.*?)` \|", section("Commands"), re.MULTILINE))
    ours = {f"pytest-armory {name}" for name in commands.COMMANDS}
    assert listed == {*ours, "armory-mlflow-server"}


def test_the_environment_variables() -> None:
    listed = names(section("Environment variables"), "[A-Z_]+")
    read = set(re.findall(r'"((?:ARMORY|MANTIK)_[A-Z_]+)"', SOURCE)) - INTERNAL_VARIABLES
    assert {name for name in listed if name.startswith(("ARMORY_", "MANTIK_"))} == read
    mlflow = {name for name in listed if name.startswith("MLFLOW_TRACKING_")}
    others = {name for name in listed - read - mlflow if f'"{name}"' not in SOURCE}
    assert others == set()


def test_the_tags() -> None:
    written = set(re.findall(r'"(armory\.[a-z_]+(?:\.[a-z_]*)?)"?', SOURCE))
    written |= set(re.findall(r'f"(armory\.ci\.)', SOURCE))
    prefixes = {"armory.ci.", "armory.ended.", "armory.gates.", "armory.synced."}
    found = {next((p for p in prefixes if tag.startswith(p)), tag) for tag in written}
    listed = {tag.removesuffix("…") for tag in names(section("Tags"), r"armory\.\S+")}
    assert listed == found | prefixes


def test_the_metrics_of_a_session_run() -> None:
    listed = names(section("Metrics, parameters and artifacts"), r"[\w/]+")
    assert {*COUNTS, "session/", session_count("not_run")} <= listed


def test_the_page_of_options_explains_every_tag() -> None:
    text = (PACKAGE.parent / "docs" / "options.md").read_text(encoding="utf-8")
    tags = {tag.removesuffix("…") for tag in names(section("Tags"), r"armory\.\S+")}
    assert {tag for tag in tags if f"`{tag}" not in text} == set()


def test_the_fields_of_a_gate_in_its_tag_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "options.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("| `armory.gates`,")]
    assert {field.name for field in fields(Verdict)} <= {*re.findall("`([a-z_]+)`", row)}
