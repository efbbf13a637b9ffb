"""What SQLAlchemy, MLflow and pytest do anew for each session, done once for all of a process."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock


def import_for_sessions() -> None:
    """What sessions import: pytester drops what one has imported, and forks share nothing."""
    for name in (
        "alembic.command",
        "matplotlib.backends.backend_svg",  # it reads all fonts where the home is new
        "matplotlib.figure",
        "mlflow.tracing.processor.base_mlflow",
        "mlflow.tracing.processor.otel",
        "pdb",
        "pyarrow.pandas_compat",
        "pyarrow.parquet",
        "pytest_armory.engine.run",
        "pytest_armory.gates.functions",
        "pytest_armory.hookspecs",
        "pytest_armory.plugin.in_memory",
        "pytest_armory.plugin.mlflow_fixtures",
        "pytest_armory.plugin.scopes",
        "pytest_armory.plugin.tracked",
        "pytest_armory.session.recovery",
        "pytest_armory.statistics.comparison",
        "pytest_armory.store.monitor",
        "pytest_armory.tables.files",
        "scipy.special",
        "sqlalchemy.dialects.sqlite",
        "xdist.dsession",
        "xdist.remote",
    ):
        importlib.import_module(name)
    for name in (
        "mlflow.store.tracking.sqlalchemy_workspace_store",
        "mlflow.tracking.request_header.registry",
    ):
        with suppress(ImportError):  # older MLflow has not all of them
            importlib.import_module(name)


def remember_revision() -> None:
    """Let MLflow look up its newest schema once: it reads fifty files for each store it opens."""
    from mlflow.store.db import utils

    utils._get_latest_schema_revision = lru_cache(utils._get_latest_schema_revision)


def compile_statements_once() -> None:
    """Let SQLAlchemy compile a statement once for all SQLite databases: each has its own engine."""
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite as Dialect
    from sqlalchemy.engine import Engine
    from sqlalchemy.util import LRUCache

    compiled: LRUCache[Any, Any] = LRUCache(2000)
    create = Engine.__init__

    def created(engine: Engine, pool: Any, dialect: Any, *args: Any, **options: Any) -> None:
        create(engine, pool, dialect, *args, **options)
        if type(dialect) is Dialect:
            engine._compiled_cache = compiled

    Engine.__init__ = created
    # What is compiled is found by the dialect too, of which each engine has its own.
    Dialect.__eq__ = lambda one, other: type(one) is type(other)
    Dialect.__hash__ = lambda _: hash(Dialect)


def parse_files_once() -> None:
    """Let pytest parse a file of tracebacks once: it does for each, and Ctrl-C shows dozens."""
    from _pytest._code import code

    parsed, original = lru_cache(64)(ast.parse), code.getstatementrange_ast

    def found(
        line: int, source: Any, assertion: bool = False, astnode: ast.AST | None = None
    ) -> Any:
        if astnode is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                astnode = parsed(str(source))
        return original(line, source, assertion, astnode)

    code.getstatementrange_ast = found


class Known:
    """An installed distribution with plugins of pytest, whose entry points have been read."""

    files: Sequence[Path] = ()  # pytest would mark each for rewriting, but all are imported already

    def __init__(self, found: importlib.metadata.Distribution) -> None:
        self.metadata, self.version = found.metadata, found.version
        self.entry_points = found.entry_points


def find_plugins_once() -> list[Known]:
    """Let pytest and pluggy read what is installed once, not for each session of a process."""
    from _pytest.config import Config
    from pluggy import PluginManager

    every = [Known(found) for found in importlib.metadata.distributions()]
    known = [one for one in every if any(point.group == "pytest11" for point in one.entry_points)]

    def with_known(original: Callable[..., Any]) -> Callable[..., Any]:
        def looked_up(*args: Any, **kwargs: Any) -> Any:
            with mock.patch.object(importlib.metadata, "distributions", return_value=known):
                return original(*args, **kwargs)

        return looked_up

    for owner, name in (
        (Config, "_mark_plugins_for_rewrite"),
        (PluginManager, "load_setuptools_entrypoints"),
    ):
        setattr(owner, name, with_known(getattr(owner, name)))
    return known


def search_plugins_once() -> None:
    """Let pytest and pluggy search a module for fixtures and hooks once, not for each session.

    That is for modules of pytest's own: what others have a test may patch.
    """
    from _pytest import fixtures
    from pluggy import _manager

    own = {module for name, module in sys.modules.items() if name.startswith("_pytest.")}
    marker = fixtures.getfixturemarker
    without = {one for one in own if not any(map(marker, list(vars(one).values())))}
    registered = fixtures.FixtureManager.pytest_plugin_registered

    def looked_at(self: fixtures.FixtureManager, plugin: object, plugin_name: str) -> None:
        if not isinstance(plugin, ModuleType) or plugin not in without:
            registered(self, plugin=plugin, plugin_name=plugin_name)

    fixtures.FixtureManager.pytest_plugin_registered = looked_at
    if hasattr(_manager, "_static_hook_attr"):  # older pluggy reads attributes quickly
        find = _manager._static_hook_attr
        found = lru_cache(None)(find)
        _manager._static_hook_attr = lambda plugin, name: (
            found(plugin, name)
            if isinstance(plugin, ModuleType) and plugin in own
            else find(plugin, name)
        )
