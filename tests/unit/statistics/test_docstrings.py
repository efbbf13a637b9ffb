"""The examples in docstrings run, and every function of ``statistics`` has one."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import pytest_armory
from pytest_armory import statistics

PACKAGE = Path(pytest_armory.__path__[0])
WITH_EXAMPLES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
MODULES = [
    *(f"{statistics.__name__}.{module.name}" for module in iter_modules(statistics.__path__)),
    "pytest_armory.gates.evidence",
    "pytest_armory.gates.evidence_text",
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_run(name: str) -> None:
    failed, tried = doctest.testmod(import_module(name))
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_has_an_example(name: str) -> None:
    module = import_module(name)
    functions = inspect.getmembers(module, inspect.isfunction)
    own = [f for key, f in functions if f.__module__ == name and not key.startswith("_")]
    missing = [f.__name__ for f in own if ">>>" not in (f.__doc__ or "")]
    assert missing == ["floats"] * (name.endswith("numeric"))
