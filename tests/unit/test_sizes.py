"""Limits on files, classes, hooks and functions; names; which files parse JSON."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

import pytest_armory
from pytest_armory import engine, track

PACKAGE = Path(pytest_armory.__file__).parent
UNIT_TESTS = Path(__file__).parent

FILE_LINES = 400
CLASS_METHODS = 20
FACADES = {"EvaluationRun": 3}
"""Classes that may have more methods, if each delegates: it has at most so many statements, of
which one is the docstring."""
HOOK_LINES = 10
FUNCTION_LINES = 45
OF_THE_PACKAGE = {"imports", "sizes", "public_api", "contributor_docs"}
"""What tests beside the folders are about, besides the modules there."""

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def parsed(package: Path) -> Iterator[tuple[str, str, ast.Module]]:
    """The path of each file of a package, its text and its syntax tree."""
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield path.relative_to(package).as_posix(), text, ast.parse(text)


def code_lines(function: Function, text: str) -> int:
    """The lines of a function's body that hold code: no docstring, comment or blank line."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    lines = text.splitlines()[body[0].lineno - 1 : body[-1].end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def oversized(package: Path) -> list[str]:
    """A sentence for each file, class, hook and function that is over its limit."""
    found = []
    for path, text, tree in parsed(package):
        length = len(text.splitlines())
        if length > FILE_LINES:
            found.append(f"{path} has {length} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found += _oversized_class(path, node)
            elif isinstance(node, Function):
                found += _oversized_function(path, text, node)
    return found


def _oversized_class(path: str, node: ast.ClassDef) -> Iterator[str]:
    methods = [child for child in node.body if isinstance(child, Function)]
    if len(methods) > CLASS_METHODS and not _delegates(node, methods):
        yield f"{path}: the class {node.name} has {len(methods)} methods"


def _delegates(node: ast.ClassDef, methods: list[Function]) -> bool:
    most = FACADES.get(node.name, 0)
    statements = (sum(isinstance(n, ast.stmt) for n in ast.walk(m)) - 1 for m in methods)
    return max(statements) <= most


def _oversized_function(path: str, text: str, node: Function) -> Iterator[str]:
    lines = code_lines(node, text)
    if lines > FUNCTION_LINES:
        yield f"{path}: {node.name} has {lines} lines of code"
    is_hook = node.name.startswith("pytest_") and node.name != "pytest_addoption"
    if is_hook and path != "hookspecs.py" and lines > HOOK_LINES:
        yield f"{path}: the hook {node.name} has {lines} lines of code"


def folders(root: Path) -> set[str]:
    """The folders under a folder that hold Python files."""
    return {path.parent.name for path in root.glob("*/*.py")}


def public_functions() -> set[str]:
    """The functions that users may import, by name."""
    modules = (pytest_armory, track, engine)
    return {name for module in modules for name in module.__all__ if name.islower()}


def test_no_file_class_hook_or_function_is_over_its_limit() -> None:
    assert oversized(PACKAGE) == []


def test_no_module_is_named_like_a_public_function() -> None:
    modules = {path.stem for path in PACKAGE.rglob("*.py")}
    assert "track_call" in public_functions()
    assert modules & public_functions() == set()


def test_the_unit_tests_mirror_the_folders() -> None:
    assert folders(UNIT_TESTS) == folders(PACKAGE)
    beside = {path.stem.removeprefix("test_") for path in UNIT_TESTS.glob("test_*.py")}
    assert beside - OF_THE_PACKAGE <= {path.stem for path in PACKAGE.glob("*.py")}


PLANTED = [
    ("x = 1\n" * 401, "store/a.py has 401 lines"),
    (
        "class A:\n" + "".join(f"    def m{i}(self): ...\n" for i in range(21)),
        "store/a.py: the class A has 21 methods",
    ),
    ("def f():\n" + "    x = 1\n" * 46, "store/a.py: f has 46 lines of code"),
    (
        "def pytest_configure():\n" + "    x = 1\n" * 11,
        "store/a.py: the hook pytest_configure has 11 lines of code",
    ),
]


@pytest.mark.parametrize(("source", "expected"), PLANTED)
def test_a_planted_excess_is_found(tmp_path: Path, source: str, expected: str) -> None:
    file = tmp_path / "store" / "a.py"
    file.parent.mkdir()
    file.write_text(source, encoding="utf-8")
    assert oversized(tmp_path) == [expected]


def test_neither_docstring_nor_comment_counts_as_code() -> None:
    text = 'def f():\n    """One.\n\n    Two.\n    """\n    # three\n\n    return 1\n'
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    assert code_lines(function, text) == 1


PRIVATE_WORDS = {
    "courier", "adopt", "lend", "lent", "told", "bury", "die", "dying", "beat", "unheard",
    "unheeded", "unnoticed", "patiently", "said", "unsaid", "untold",
}  # fmt: skip
"""No terms of pytest, MLflow or SciPy: a name says in their words what it is."""


def defined_names(tree: ast.Module) -> set[str]:
    """What a module defines or binds, and the attributes it uses, by name."""
    nodes = list(ast.walk(tree))
    names = {n.name for n in nodes if isinstance(n, Function | ast.ClassDef)}
    names |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    return names | {n.id for n in nodes if isinstance(n, ast.Name)}


def test_names_have_no_private_words() -> None:
    names = set().union(*(defined_names(tree) for _, _, tree in parsed(PACKAGE)))
    words = {name: re.findall("[A-Z]?[a-z]+", name) for name in names}
    assert {n for n in names if PRIVATE_WORDS & {word.lower() for word in words[n]}} == set()


def test_a_fixture_that_patches_json_changes_nothing() -> None:
    """Its functions are bound when a module is imported."""
    found = [
        f"{path} imports json; write `from json import dumps`"
        for path, _, tree in parsed(PACKAGE)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and "json" in [name.name for name in node.names]
        if not path.startswith("cli/") and path != "store/own_requests.py"  # which stands for it
    ]
    assert found == []


PARSERS = {
    "records/fields.py",  # of what anyone may have written: stores, variables, files
    "plugin/wire.py",  # of what this version has sent itself, to and from its workers
    "cli/github.py", "cli/rest.py",  # of what a host answers to a command
}  # fmt: skip
"""The files that parse JSON, with the reason."""


def parses(tree: ast.Module) -> bool:
    """Whether a module parses JSON, by whatever name; or Python's literals, which is as much."""
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    used |= {name.name for node in imports for name in node.names}
    return bool(used & {"loads", "JSONDecoder", "literal_eval"})


def test_json_of_a_store_is_parsed_in_one_module() -> None:
    assert {path for path, _, tree in parsed(PACKAGE) if parses(tree)} == PARSERS


@pytest.mark.parametrize(
    "source",
    [
        "from json import loads as read",
        "import json as j\nj.loads(text)",
        "from json import JSONDecoder",
        "import json.decoder as d\nd.JSONDecoder().decode(text)",
        "from pytest_armory.records.fields import loads",
        "import ast\nast.literal_eval(text)",
    ],
)
def test_a_planted_parser_is_found(source: str) -> None:
    assert parses(ast.parse(source))
    assert not parses(ast.parse("from json import dumps"))
