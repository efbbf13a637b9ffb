"""The arrows between the layers, read from the source: who may import whom, and what when."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pytest_armory

PACKAGE = Path(pytest_armory.__file__).parent

BASE = {
    "errors": "",
    "budget": "",
    "environment": "",
    "signals": "",
    "values": "",
    "records": "values",
    "provenance": "values",
}
"""What every layer may import.

``budget`` is here and not in ``store``, for ``store.tokens`` needs it. That and ``store.login``
import nothing else of ``store``: every ``import mlflow`` on the machine imports them.
"""

LAYERS = {
    "store": "",
    "statistics": "",
    "tables": "",
    "sync": "store",
    "gates": "store statistics tables",
    "report": "gates",
    "session": "report gates sync store",
    "track": "session report gates sync store statistics tables",
    "engine": "track",
    "cli": "engine track session report gates sync store statistics tables",
    "hookspecs": "store",
    "plugin": "hookspecs engine track session report gates sync store statistics tables",
}
"""Each folder and the folders below it that it may import, besides all of ``BASE``.

``engine`` imports ``track`` when it runs alone: an ``Evaluation`` can be described without it.
"""

ALLOWED = {
    **{layer: set(allowed.split()) for layer, allowed in BASE.items()},
    **{layer: {*allowed.split(), *BASE} for layer, allowed in LAYERS.items()},
}

PYTEST_LAYERS = {"plugin", "hookspecs"}
"""The only layers that know pytest."""

STORE_LIBRARIES = {"mlflow", "sqlalchemy"}
ARRAY_LIBRARIES = {"numpy", "torch", "pandas", "scipy", "pyarrow"}
ARRAY_LAYERS = {
    "engine": {"numpy", "torch", "pandas"},
    "statistics": {"numpy", "scipy"},
    "tables": {"numpy", "pyarrow"},
}
"""The layers that import libraries of arrays, inside functions; for types, anywhere there."""


@dataclass(frozen=True)
class Import:
    """One import. ``when`` is ``module``, ``function``, or ``typing``: for the type checker only.

    ``source`` is the layer of this package that it stands in, "" for the package's own
    ``__init__``; ``target`` is the dotted name of what is imported.
    """

    place: str
    source: str
    target: str
    when: str

    @property
    def library(self) -> str:
        """The top of what is imported."""
        return self.target.partition(".")[0]


def imports_of(package: Path) -> Iterator[Import]:
    """Every import of a package, by its text: nothing is run."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        place = "/".join(parts)
        source = "" if parts == ("__init__",) else parts[0]
        inside = (package.name, *parts[:-1])  # what a relative import starts from
        for target, when in _walk(ast.parse(path.read_text(encoding="utf-8")), inside, "module"):
            yield Import(place, source, target, when)


def _walk(node: ast.AST, inside: tuple[str, ...], when: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, when) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = inside[: len(inside) - child.level + 1] if child.level else ()
            start = ".".join([*above, *filter(None, [child.module])])
            yield from ((f"{start}.{alias.name}", when) for alias in child.names)
        elif isinstance(child, ast.Call) and _is_import_by_name(child):
            yield from ((str(name.value), when) for name in child.args[:1])  # type: ignore[attr-defined]
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, inside, "function")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _walk(ast.Module(child.body, []), inside, "typing")
            yield from _walk(ast.Module(child.orelse, []), inside, when)
        else:
            yield from _walk(child, inside, when)


def _is_import_by_name(call: ast.Call) -> bool:
    function = ast.unparse(call.func).rpartition(".")[2]
    name = call.args[0] if call.args else None
    is_module = isinstance(name, ast.Constant) and str(name.value).startswith(f"{PACKAGE.name}.")
    is_import = function in ("import_module", "__import__") and isinstance(name, ast.Constant)
    return is_module or is_import


def violations(package: Path) -> list[str]:
    """Every import of a package that breaks a rule, as a sentence."""
    found = [text for one in imports_of(package) for text in _broken(one, package)]
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        if place != "plugin/xdist.py" and "workerinput" in path.read_text(encoding="utf-8"):
            found.append(f"{place} says workerinput; only plugin/xdist.py does")
    return found


def _broken(one: Import, package: Path) -> Iterator[str]:
    if one.library == package.name:
        yield from _wrong_arrow(one)
    if one.source not in PYTEST_LAYERS and one.library in ("pytest", "_pytest", "xdist"):
        yield f"{one.place} imports {one.library}, but {one.source} knows no pytest"
    if one.library in STORE_LIBRARIES:
        if one.source != "store":
            yield f"{one.place} imports {one.library}; only store does"
        elif one.when != "function":
            yield f"{one.place} imports {one.library} outside a function"
    if one.library in ARRAY_LIBRARIES and (
        one.library not in ARRAY_LAYERS.get(one.source, ()) or one.when == "module"
    ):
        yield f"{one.place} imports {one.library} at {one.when} level"
    below_login = f"{package.name}.store.tokens."
    if one.place in ("store/login", "store/tokens") and (
        one.target.startswith(f"{package.name}.store")
        and not (one.place == "store/login" and one.target.startswith(below_login))
    ):
        yield f"{one.place} imports {one.target}; it may import nothing of store"


def _wrong_arrow(one: Import) -> Iterator[str]:
    _, *names = one.target.split(".")
    layer = names[0] if names and names[0] in ALLOWED else ""
    if layer in (one.source, "") and (layer or names == ["__version__"]):
        return
    if not one.source:  # the package's __init__ gives out the public names, when first used
        if one.when == "module" or layer not in ("engine", "track"):
            yield f"{one.place} imports {one.target} at {one.when} level"
    elif (one.source, layer, one.when) == ("engine", "track", "module"):
        yield f"{one.place} imports {one.target} at module level"
    elif layer not in ALLOWED.get(one.source, set()):
        yield f"{one.place} imports {one.target}, but {one.source} may not import {layer or 'it'}"


def files_imported(package: Path) -> dict[str, set[str]]:
    """Each file of a package and the files that it imports, at whatever time."""
    files = {
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
        for path in package.rglob("*.py")
    }
    graph: dict[str, set[str]] = {file: set() for file in files}
    for one in imports_of(package):
        source = f"{package.name}.{one.place.replace('/', '.')}"
        target = one.target
        while target and target not in files and f"{target}.__init__" not in files:
            target = target.rpartition(".")[0]
        if target:
            graph[source].add(target if target in files else f"{target}.__init__")
    top = f"{package.name}.__init__"  # which everybody may ask for the version
    return {file: targets - {file, top} for file, targets in graph.items()}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The places of one circle in a graph, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_arrows_point_one_way() -> None:
    assert violations(PACKAGE) == []


def test_every_layer_is_in_the_table() -> None:
    layers = {p.stem for p in PACKAGE.glob("*.py")} | {
        p.parent.name for p in PACKAGE.glob("*/*.py")
    }
    assert layers - {"__init__", PACKAGE.name} == ALLOWED.keys()


def test_the_table_has_no_circle() -> None:
    assert circle(ALLOWED) == []


def test_the_files_have_no_circle() -> None:
    assert circle(files_imported(PACKAGE)) == []


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE.name
    (package / "track").mkdir(parents=True)
    (package / "track" / "a.py").write_text("from pytest_armory.track.b import x\n")
    (package / "track" / "b.py").write_text(
        "if TYPE_CHECKING:\n    from pytest_armory.track.c import x\n"
    )
    (package / "track" / "c.py").write_text("def f():\n    from pytest_armory.track import a\n")
    assert {name.rpartition(".")[2] for name in circle(files_imported(package))} == {"a", "b", "c"}


PLANTED = [
    ("engine/walk.py", "import mlflow", "engine/walk imports mlflow; only store does"),
    ("engine/walk.py", "def f():\n    from mlflow import x", "engine/walk imports mlflow; only"),
    ("engine/walk.py", "import numpy", "engine/walk imports numpy at module level"),
    (
        "engine/walk.py",
        "from pytest_armory import track",
        "engine/walk imports pytest_armory.track at module level",
    ),
    ("values/params.py", "def f():\n    import numpy", "values/params imports numpy at function"),
    ("statistics/a.py", "import numpy", "statistics/a imports numpy at module level"),
    ("statistics/a.py", "def f():\n    import torch", "statistics/a imports torch at function"),
    ("statistics/a.py", "from pytest_armory.gates import x", "statistics may not import gates"),
    ("values/params.py", "import_module('torch')", "values/params imports torch at module level"),
    (
        "cli/a.py",
        "load('pytest_armory.plugin.marker')",
        "cli/a imports pytest_armory.plugin.marker",
    ),
    ("store/client.py", "import mlflow.entities", "store/client imports mlflow outside a function"),
    (
        "store/client.py",
        "class A:\n    import sqlalchemy",
        "store/client imports sqlalchemy outside",
    ),
    ("track/run.py", "def f():\n    from _pytest import x", "track/run imports _pytest, but track"),
    ("store/destination.py", "if TYPE_CHECKING:\n    import pytest", "imports pytest, but store"),
    ("records.py", "from pytest_armory.track import x", "records may not import track"),
    ("records.py", "from pytest_armory import track", "records may not import track"),
    ("records.py", "from . import session", "records may not import session"),
    ("track/run.py", "from ..engine import Engine", "track may not import engine"),
    ("store/client.py", "async def f():\n    import pytest_armory.plugin", "may not import plugin"),
    ("store/login.py", "from pytest_armory.store.circuit import x", "may import nothing of store"),
    ("store/tokens.py", "from pytest_armory.store.login import x", "may import nothing of store"),
    ("report/terminal.py", "from pytest_armory.session.ledger import x", "may not import session"),
    ("gates/parse.py", "if TYPE_CHECKING:\n    import pytest_armory.report", "not import report"),
    ("cli/sync.py", "from pytest_armory.plugin import options", "cli may not import plugin"),
    ("report/text.py", "from pytest_armory import Engine", "report may not import it"),
    ("utils.py", "from pytest_armory.errors import x", "utils may not import errors"),
    (
        "__init__.py",
        "from pytest_armory.engine import Engine",
        "__init__ imports pytest_armory.eng",
    ),
    ("plugin/hooks.py", "x.workerinput", "plugin/hooks.py says workerinput; only plugin/xdist.py"),
]


@pytest.mark.parametrize(("path", "source", "expected"), PLANTED)
def test_a_planted_violation_is_found(
    tmp_path: Path, path: str, source: str, expected: str
) -> None:
    file = tmp_path / PACKAGE.name / path
    file.parent.mkdir(parents=True)
    file.write_text(source, encoding="utf-8")
    (found,) = violations(tmp_path / PACKAGE.name)
    assert expected in found


def test_imports_are_told_apart_by_where_they_stand(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE.name
    (package / "store").mkdir(parents=True)
    (package / "store" / "it.py").write_text(
        "import a.b\nif TYPE_CHECKING:\n    import c\nelse:\n    import d\n"
        "def f():\n    from . import e\n    from .. import g as h\n    from i.j import k\n"
    )
    assert {(one.target, one.when) for one in imports_of(package)} == {
        ("a.b", "module"), ("c", "typing"), ("d", "module"), ("i.j.k", "function"),
        ("pytest_armory.store.e", "function"), ("pytest_armory.g", "function"),
    }  # fmt: skip


HEAVY = (
    "mlflow", "numpy", "scipy", "sqlalchemy", "filelock", "torch", "pandas", "xdist",
    "pytest_armory.track", "pytest_armory.store", "pytest_armory.engine", "pytest_armory.session",
    "pytest_armory.plugin.xdist",
)  # fmt: skip


def test_the_plugin_starts_without_what_only_a_tracked_session_needs() -> None:
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import pytest; import pytest_armory.plugin"],
        env={k: v for k, v in os.environ.items() if not k.startswith("COV")},
        capture_output=True,
        text=True,
        check=True,
    )
    names = {line.rpartition("|")[2].strip() for line in loaded.stderr.splitlines()}
    assert {"pytest", "pytest_armory.plugin", "pytest_armory.plugin.options"} <= names
    assert not names & set(HEAVY)
