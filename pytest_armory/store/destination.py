"""Where runs are stored: the Armory home, the tracking URI, and the file of the local database.

This module resolves and checks; it opens no store, and imports neither MLflow nor a database.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.values import REDACTED, conceal, redact_text

LOCAL = "local"
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_WITHOUT_SCHEME = ("databricks", "databricks-uc", "uc")

HTTP_LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Limits for MLflow's own calls in a session; with its defaults it retries for minutes."""

NEW_DATABASE_SIZE = 4 * 2**20
"""The bytes needed to create a new database."""


@dataclass(frozen=True)
class Destination:
    """Where this process tracks to.

    ``uri`` is MLflow's tracking URI, or None for the local database whose file ``database`` is.
    For a SQLite URI ``database`` is its file as well. ``display_uri`` has no secret in it.
    """

    uri: str | None
    database: Path | None
    display_uri: str

    @property
    def artifacts(self) -> Path | None:
        """The folder for artifacts of a database file: beside it, not in the working directory."""
        return self.database.parent / "artifacts" if self.database else None

    @property
    def exists(self) -> bool:
        """Whether a database file is there; True for anything else, which only its server knows."""
        return self.database is None or self.database.exists()

    @property
    def is_remote(self) -> bool:
        """Whether requests cross a network, so that doing them in the background saves time."""
        return self.database is None

    @property
    def is_server(self) -> bool:
        """Whether it is an HTTP server, which has a web page and may require a login."""
        return (self.uri or "").lower().startswith(("http://", "https://"))

    @property
    def is_database(self) -> bool:
        """Whether it is a database across a network."""
        return (self.uri or "").lower().startswith(("postgresql", "mysql", "mssql"))


def armory_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The Armory home: ``ARMORY_HOME``, else ``~/.armory``."""
    home = environ["ARMORY_HOME"] if "ARMORY_HOME" in environ else ""  # noqa: SIM401 - a mock
    try:
        return Path(home).expanduser().absolute() if home else Path.home() / ".armory"
    except RuntimeError:  # a container's user without a passwd entry and without HOME
        raise ArmoryUsageError(
            f"the home folder of {home or 'this user'} is not known; set ARMORY_HOME to a "
            "folder that can be written"
        ) from None


def lease_folder(destination: Destination) -> Path:
    """The folder for the leases of processes that track to a destination.

    It is beside a database, for all who open that; for a server, in the Armory home.
    """
    if destination.database is not None:
        return destination.database.parent / "leases"
    digest = hashlib.sha256(destination.display_uri.encode()).hexdigest()[:12]
    return armory_home() / "leases" / digest


def lease_folders(destination: Destination) -> list[Path]:
    """The folders for the leases of processes that may have runs in a destination, its own first.

    In the local database are also the runs of processes whose server is out of reach.
    """
    others: list[Path] = []
    if destination.database is not None and destination.database == resolve(None).database:
        others = sorted(path for path in armory_home().glob("leases/*") if path.is_dir())
    return [lease_folder(destination), *others]


def resolve(uri: str | None, environ: Mapping[str, str] = os.environ) -> Destination:
    """The destination a tracking URI names; ``None`` or ``local`` is the local database.

    Raises :class:`ArmoryUsageError` for a URI MLflow cannot use, with what to type instead.
    """
    if uri is None or uri == LOCAL:
        return _local_database(environ)
    uri = uri.strip()
    if "://" not in uri and re.match(rf"[^/]*@|{_HOST_WITH_PORT}(/|$)", uri):
        raise _without_scheme(uri)
    match = re.match(r"([A-Za-z][\w+.-]*):", uri)
    scheme = match[1].lower() if match else ""
    if scheme.split("+")[0] == "sqlite":
        return _file_database(uri)
    if uri in _WITHOUT_SCHEME or scheme.split("+")[0] in (*_SCHEMES, *_plugin_schemes()):
        if scheme in ("http", "https"):
            _check_server(uri)
            password = urlsplit(uri).password or ""
            conceal(password, unquote(password))
        return Destination(uri=uri, database=None, display_uri=redact_text(uri))
    if not scheme and _names_host(uri):
        raise _without_scheme(uri)
    if meant := _misspelt(uri):
        raise _unusable(uri, f"it is no URI, and not quite `{meant}`")
    if scheme in ("", "file") or os.path.exists(uri):
        raise _unusable(uri, _no_folders(uri))
    raise _unusable(uri, f"its scheme is none of {', '.join(_SCHEMES)}")


def _local_database(environ: Mapping[str, str]) -> Destination:
    path = armory_home(environ) / "mlruns" / "mlflow.db"
    if "?" in str(path) and not _sqlalchemy_quotes():
        raise ArmoryUsageError(
            f"the local database cannot be at {path}: SQLAlchemy before 2.1 opens no "
            "path with a question mark; set ARMORY_HOME to another folder"
        )
    return Destination(uri=None, database=path, display_uri=_shorten(path))


_HOST = re.compile(
    r"localhost|\d{1,3}(\.\d{1,3}){3}|([a-z\d]([a-z\d-]*[a-z\d])?\.)+[a-z]{2,}", re.I
)

_HOST_WITH_PORT = r"([\w.-]+|\[[\da-fA-F:]+\]):\d+"

_FILE_SUFFIXES = (".db", ".sqlite", ".sqlite3", ".db3")


def _names_host(uri: str) -> bool:
    """Whether a URI without scheme begins with the name of a host, and is no file or folder."""
    host, _, path = uri.partition("/")
    is_file = f"{host}{path}".lower().endswith(_FILE_SUFFIXES) or os.path.exists(host)
    return bool(_HOST.fullmatch(host)) and not is_file


def _misspelt(uri: str) -> str:
    """The word without a scheme that a URI nearly is, if it is no file or folder; else empty."""
    import difflib

    words = () if os.path.exists(uri) else (LOCAL, "databricks")
    return next(iter(difflib.get_close_matches(uri.lower(), words, n=1, cutoff=0.8)), "")


def _no_folders(uri: str) -> str:
    path = Path(unquote(urlsplit(uri).path) or ".").absolute()
    path = path if path.suffix.lower() in _FILE_SUFFIXES else path / "mlflow.db"
    return (
        "MLflow no longer tracks to plain folders; use a database file instead, as in "
        f"sqlite:///{path}"
    )


def without_login(destination: Destination) -> tuple[Destination, tuple[str, str] | None]:
    """The destination without the user name and password in its URI; and these, if it has both."""
    parts = urlsplit(str(destination.uri))
    if not destination.is_server or not parts.username or not parts.password:
        return destination, None
    host = parts.netloc.rpartition("@")[2]
    without = resolve(urlunsplit(parts._replace(netloc=host)))
    return without, (unquote(parts.username), unquote(parts.password))


def check_writable(destination: Destination) -> None:
    """Raise an error if the folder of a local database cannot be written; it is not created."""
    if destination.database is None:
        return
    folder = destination.database.parent
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir():
        raise ArmoryUsageError(
            f"the local database cannot be at {destination.database}: {existing} is a "
            "file, not a folder; set ARMORY_HOME to a folder that can be written"
        )
    try:
        # Permission bits are not enough: root has them in /proc, and any user on a full disk.
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(NEW_DATABASE_SIZE))
    except OSError as error:
        raise ArmoryUsageError(
            f"the local database cannot be at {destination.database}: {existing} cannot "
            f"be written ({error.strerror}); set ARMORY_HOME to a folder that can, or name a "
            "server with --armory-tracking-uri"
        ) from None


def _file_database(uri: str) -> Destination:
    """A SQLite database; its URI becomes absolute: a test may change the working directory."""
    match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^?]+)(\?.*)?", uri)
    if not match or match[2].startswith((":memory:", "file:")):
        raise _unusable(uri, "it names no file, as in sqlite:////absolute/path/mlflow.db")
    start, written, query = match.groups("")
    path = Path(unquote(written) if _sqlalchemy_quotes() else written)
    if not path.is_absolute():
        path = path.absolute()
        written = quoted(str(path))
    return Destination(f"{start}{written}{query}", path, display_uri=f"{start}{written}")


def quoted(path: str) -> str:
    """A database's path as SQLAlchemy expects it in a URI."""
    return quote(path) if _sqlalchemy_quotes() else path


def _sqlalchemy_quotes() -> bool:
    """Whether a database's path is percent-encoded in its URI: since SQLAlchemy 2.1."""
    major, minor = metadata.version("sqlalchemy").split(".")[:2]
    return (int(major), int(minor)) >= (2, 1)


def _check_server(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        host = parts.hostname
        parts.port  # noqa: B018 - reading it is the check
        # For MLflow's HTTP library a host ends there: it would ask another one than is named here.
        is_readable = "\\" not in parts.netloc
    except ValueError:  # whose text may hold a part of the password
        is_readable = False
    if not is_readable:
        raise _unusable(
            uri,
            r"its host and port cannot be read; write `#`, `/`, `?` and `\` in a password as %XX",
        )
    if not host:
        raise _unusable(uri, "it names no host, as in http://127.0.0.1:5000")


def _plugin_schemes() -> tuple[str, ...]:
    """Schemes that installed MLflow plugins register."""
    return tuple(point.name for point in metadata.entry_points(group="mlflow.tracking_store"))


def _shorten(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):  # not in the home, or there is none
        return str(path)


def _without_secrets(uri: str) -> str:
    return redact_text(uri) if "://" in uri else re.sub(r"^(/*)[^/]*@", rf"\1{REDACTED}@", uri)


def _without_scheme(uri: str) -> ArmoryUsageError:
    """The refusal of a server's name: HTTP is spoken on this machine, and at ports."""
    host = uri.partition("/")[0].rpartition("@")[2]
    is_plain = host.startswith(("localhost", "127.")) or re.fullmatch(_HOST_WITH_PORT, host)
    start = "http" if is_plain else "https"
    return _unusable(uri, f"it names no scheme, as in {start}://{_without_secrets(uri)}")


def _unusable(uri: str, rule: str) -> ArmoryUsageError:
    return ArmoryUsageError(
        f"the tracking URI {_without_secrets(uri)!r} cannot be used: {rule}. Give "
        "--armory-tracking-uri (or MLFLOW_TRACKING_URI) `local`, http(s)://…, sqlite:///…, "
        "postgresql://… or databricks"
    )
