"""The local SQLite database: its URI, the creation of its schema, and checks that it is usable.

MLflow upgrades a database that lacks one of its tables as soon as it opens it, without a message
and without a copy, and adds its tables to another program's database; so each is inspected first,
by ``sqlite3`` alone, which takes milliseconds where importing MLflow takes seconds.
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache, partial
from importlib import metadata, util
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.store._mlflow import (
    garbage_collector_paused,
    import_mlflow,
    importing,
    quietly,
)
from pytest_armory.store.circuit import Circuit
from pytest_armory.store.destination import Destination, check_writable, quoted
from pytest_armory.store.new_database import prepare_database
from pytest_armory.store.own_descriptors import (
    SUFFIXES,
    Descriptors,
    are_own,
    are_too_few,
    never_close,
    noting,
)
from pytest_armory.store.translation import translated


def sqlite_uri(path: Path) -> str:
    """The tracking URI of a database file, for any characters in its path."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def import_database_store() -> Any:
    """MLflow's class for databases, imported before a test runs, since it warns when imported."""
    with quietly(), importing():
        import_mlflow()
        from mlflow.store.tracking import sqlalchemy_store
    _make_no_folder_here(sqlalchemy_store)
    return sqlalchemy_store.SqlAlchemyStore


def _make_no_folder_here(module: ModuleType) -> None:
    """Open databases without the folder ``./mlruns``, which older MLflow makes for each.

    Its file store, which is in force there if no tracking URI is set, takes an empty folder for a
    store that has lost its experiments: the tests' own runs would fail.
    """
    mkdir = vars(module).get("mkdir")
    if mkdir is None or hasattr(mkdir, "by_armory"):
        return
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH

    def make(folder: str) -> None:
        if folder != DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH:
            mkdir(folder)

    make.by_armory = True  # type: ignore[attr-defined] # a mark
    vars(module)["mkdir"] = make


def check_database(uri: str) -> None:
    """Connect to a database across a network: MLflow would try again for three minutes."""
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def ensure_database(path: Path, artifacts: Path) -> None:
    """Create MLflow's database at ``path`` if it is missing; safe for many processes at once.

    Raises :class:`TrackingError` for one that MLflow cannot use as it is.
    """
    fault = fault_of(path)
    if fault:
        raise TrackingError(fault)
    prepare_database(path, partial(_migrate, artifacts=artifacts))


def _migrate(path: Path, *, artifacts: Path) -> None:
    database_store = import_database_store()
    explain_faults(path, final=path.with_suffix(""))
    with ExitStack() as stack, translated("making the local database", str(path)):
        for manager in (quietly(), garbage_collector_paused(), _unsynced(path)):
            stack.enter_context(manager)
        # The Default experiment keeps this artifact root: it must not be in the working folder.
        store = database_store(sqlite_uri(path), artifacts.as_uri())
        store.engine.dispose()


@contextmanager
def _unsynced(path: Path) -> Iterator[None]:
    """Do not sync a database that is being created: it is used only once it is complete."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def connected(connection: Any, record: Any) -> None:
        del record
        if isinstance(connection, sqlite3.Connection):  # not of another engine of this process
            files = [row[2] for row in connection.execute("PRAGMA database_list")]
            if str(path.resolve()) in files:
                connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


# Events of a database in use

FAULTS = {
    "database or disk is full": "its disk is full; make room",
    "disk I/O error": "its disk cannot be read or written; look after it",
    "attempt to write a readonly database": "it is read-only; make it writable",
    "unable to open database file": "it or its folder cannot be opened; make both writable",
    "database disk image is malformed": "it is damaged; put a copy in its place, or move it away",
    "file is not a database": "it is damaged; put a copy in its place, or move it away",
}
"""SQLite's messages, which alone distinguish its errors before Python 3.11, and what to do."""

_explained: dict[str, Path] = {}
_circuits: dict[str, Circuit] = {}


def explain_faults(path: Path, final: Path | None = None) -> None:
    """Raise a fault of the database's file as :class:`TrackingError`, in any operation.

    MLflow would log SQLAlchemy's traceback into the test's output and raise the whole statement.
    ``final`` is the path that the text names, for a file that is going to be renamed.
    """
    _explained[str(path)] = final or path
    _listen("handle_error", _explain)


def tune(path: Path, circuit: Circuit) -> None:
    """Limit the wait for a lock of the database to its circuit's budget, and sync less often.

    MLflow would wait for 20 seconds. With a write-ahead log, ``synchronous = NORMAL`` may lose the
    latest writes if the machine loses power, and none if a process is killed:
    https://www.sqlite.org/pragma.html#pragma_synchronous
    """
    _circuits[str(path)] = circuit
    _listen("do_connect", _connect)
    _listen("close", _forget)
    _listen("before_cursor_execute", _tune, retval=True)


_SYNCED_LESS = "armory_synced_less"
"""What a connection's ``info`` says for as long as it is open."""

_DESCRIPTORS = "armory_descriptors"
"""What a connection's ``info`` keeps SQLite's descriptors under."""

_records: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""SQLAlchemy's records of the connections that are noted, by their addresses."""

_lost: set[str] = set()
"""The databases of which a test has closed descriptors."""


def _listen(name: str, listener: Callable[..., object], **options: bool) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if not event.contains(Engine, name, listener):
        event.listen(Engine, name, listener, **options)


def _connect(dialect: Any, record: Any, arguments: Sequence[Any], options: Any) -> Any:
    """Connect to a database of ours, and note what SQLite opens; None leaves it to SQLAlchemy."""
    path = str(arguments[0]) if arguments else ""
    if path not in map(os.path.abspath, _circuits):
        return None
    _records[id(record)] = record
    with noting([path], record.info.setdefault(_DESCRIPTORS, {})):
        return dialect.connect(*arguments, **options)


def _forget(connection: Any, record: Any) -> None:
    """Forget what is noted of a connection that SQLAlchemy is about to close."""
    del connection
    record.info.pop(_DESCRIPTORS, None)


def _check_descriptors(connection: Any, path: str) -> None:
    """Use no database again whose descriptors may be other files by now, a user's among them."""
    if path not in _lost and _are_open(connection.info.get(_DESCRIPTORS, {})):
        return
    _lost.add(path)
    never_close(connection.connection.dbapi_connection)
    fault: Exception = _database_fault()(
        f"the local database {path}: a test has closed its file descriptors, so that this process "
        "leaves it alone from here on; `pytest-armory recover` closes what stays open in it"
    )
    raise fault


def _are_open(known: Descriptors) -> bool:
    """Whether a connection's descriptors are open, or at least as many as all have noted."""
    if are_own(known):
        return True
    records = filter(None, (reference() for reference in _records.valuerefs()))
    noted = [record.info.get(_DESCRIPTORS, {}) for record in records]
    return not are_too_few({*known.values()}, noted)


def _tune(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    """Replace MLflow's busy timeout, which begins each of its transactions, by our own."""
    del context, many
    if statement.startswith("PRAGMA busy_timeout"):
        path = str(connection.engine.url.database)
        circuit = _circuits.get(path)
        if circuit is not None:
            _check_descriptors(connection, path)
            if _SYNCED_LESS not in connection.info:
                files = [path + suffix for suffix in SUFFIXES]
                with noting(files, connection.info.setdefault(_DESCRIPTORS, {})):
                    (journal,) = cursor.execute("PRAGMA journal_mode").fetchone()
                if journal == "wal":  # as it stays meanwhile; any other could damage the file
                    cursor.execute("PRAGMA synchronous = NORMAL")
                    connection.info[_SYNCED_LESS] = True
            statement = f"PRAGMA busy_timeout = {circuit.time_limit * 1000:.0f}"
    return statement, parameters


def _explain(context: Any) -> Exception | None:
    """What to raise instead of an error, or None, as for other code's engines."""
    path = _explained.get(str(context.engine.url.database)) if context.engine else None
    message = str(context.original_exception)
    if path is None or message not in FAULTS:
        return None
    text = f"the local database {path}: {FAULTS[message]} ({message})"
    fault: Exception = _database_fault()(text)
    return fault


@lru_cache(maxsize=1)
def _database_fault() -> Any:
    """An exception class that is MLflow's, too: MLflow passes it on, and its users catch it."""
    from mlflow.exceptions import MlflowException

    return type("DatabaseFault", (TrackingError, MlflowException), {})


# Checks of a database


class Revisions(NamedTuple):
    """The versions of a database that the installed MLflow knows, and the one that it uses."""

    known: frozenset[str]
    head: str


def fault_of(path: Path) -> str:
    """Why MLflow cannot use the database at ``path`` as it is, and what to run; empty if it can.

    A missing or empty file is usable: the database will be created.
    """
    if not path.exists():
        return ""
    if not path.is_file():
        return f"the local database cannot be at {path}: it is not a file; move it away"
    if not path.stat().st_size:
        return ""
    if not os.access(path, os.R_OK):
        return f"the local database {path} cannot be read; give yourself the permission"
    try:
        tables, revision = _look_into(path)
    except sqlite3.OperationalError:  # locked, or its folder read-only: reported when it is used
        return ""
    except sqlite3.DatabaseError as error:
        aside = shlex.join(["mv", str(path), f"{path}.broken"])
        return (
            f"the local database {path} is damaged ({error}); put a copy in its place, or move it "
            f"away, as with `{aside}`, and a new one will be made"
        )
    if not tables:
        return ""
    if revision is None:
        return (
            f"the database {path} is no whole database of MLflow's ({_some(tables)}); name another "
            "file, or move this one away, and a new one will be made"
        )
    revisions = _revisions()
    return _outdated(path, revision, revisions) if revisions else ""


def check_usable(destination: Destination) -> None:
    """Raise an error for a local database that cannot be used, without importing MLflow.

    Raises :class:`ArmoryUsageError`.
    """
    check_writable(destination)
    if destination.database is not None:
        fault = fault_of(destination.database) or _unwritable(destination)
        if fault:
            raise ArmoryUsageError(fault)


def _unwritable(destination: Destination) -> str:
    """Why an existing database cannot be written; empty if it can, or does not exist."""
    path = destination.database
    # Opening and closing it would release the locks that SQLite has on it in this process.
    if path is None or not path.exists() or os.access(path, os.W_OK):
        return ""
    is_given = destination.uri is not None
    instead = "make it writable" if is_given else "set ARMORY_HOME to a folder that can be written"
    return (
        f"the local database {path} is read-only; {instead}, or name a server with "
        "--armory-tracking-uri"
    )


def _look_into(path: Path) -> tuple[list[str], str | None]:
    """The names of its tables, and its version as alembic keeps it."""
    # Not immutable: what another process is writing would look damaged.
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=1.0, uri=True)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = [name for (name,) in found]
        if "alembic_version" not in tables:
            return tables, None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return tables, str(row[0]) if row else None


def _outdated(path: Path, revision: str, revisions: Revisions) -> str:
    if revision == revisions.head:
        return ""
    installed = metadata.version("mlflow")
    if revision not in revisions.known:
        return (
            f"the local database {path} was written by a newer MLflow than the {installed} that is "
            f"installed (its version {revision} is not known); upgrade MLflow, with "
            "`pip install --upgrade mlflow`"
        )
    copy = shlex.join(["cp", str(path), f"{path}.{revision}"])
    upgrade = shlex.join(["mlflow", "db", "upgrade", f"sqlite:///{quoted(str(path))}"])
    return (
        f"the local database {path} was written by an older MLflow than the {installed} that is "
        f"installed (its version is {revision}, not {revisions.head}), and is not upgraded "
        f"unasked; copy it, with `{copy}`, then run `{upgrade}`"
    )


def _some(tables: list[str]) -> str:
    more = ", …" if len(tables) > 3 else ""
    return f"it has the tables {', '.join(sorted(tables)[:3])}{more}"


@lru_cache(maxsize=1)
def _revisions() -> Revisions | None:
    """Those of the installed MLflow, read from its migrations; None if they cannot be read."""
    spec = util.find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0], "store", "db_migrations", "versions")
    names: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for file in folder.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        for name, value in re.findall(r"^(revision|down_revision)\b[^=\n]*=(.*)$", text, re.M):
            names[name].update(re.findall(r"[\"'](\w+)[\"']", value))
    heads = names["revision"] - names["down_revision"]
    return Revisions(frozenset(names["revision"]), heads.pop()) if len(heads) == 1 else None
