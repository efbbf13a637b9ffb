"""Where runs go: what a URI resolves to, what is refused, and the local database made safely."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.store import destination
from pytest_armory.store.database import sqlite_uri
from pytest_armory.store.destination import Destination, check_writable, resolve
from pytest_armory.store.new_database import prepare_database

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that forks")
HOMES = [
    "plain",
    "with space",
    "q?mark",
    "per%20cent",
    "100%",
    "ha#sh",
    "ünï-日本",
    "a&b=c;d",
    "user:pw@host",
]


# --- Which destination ---------------------------------------------------------------------------


def test_a_database_file_exists_or_not_and_what_a_server_has_only_it_knows(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    assert not destination.resolve(f"sqlite:///{file}").exists
    file.touch()
    assert destination.resolve(f"sqlite:///{file}").exists
    assert destination.resolve("http://127.0.0.1:5000").exists


@pytest.mark.parametrize("uri", [None, "local"])
def test_the_default_is_the_database_under_the_armory_home(uri: str | None, tmp_path: Path) -> None:
    where = resolve(uri, {"ARMORY_HOME": str(tmp_path)})
    assert where == Destination(None, tmp_path / "mlruns" / "mlflow.db", where.display_uri)
    assert where.artifacts == tmp_path / "mlruns" / "artifacts"
    assert not where.is_remote
    assert list(tmp_path.iterdir()) == []


def test_the_default_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert destination.armory_home({}) == tmp_path / ".armory"
    assert destination.armory_home({"ARMORY_HOME": ""}) == tmp_path / ".armory"
    assert destination.armory_home({"ARMORY_HOME": "~/else"}) == tmp_path / "else"
    assert destination.armory_home({"ARMORY_HOME": "relative"}) == tmp_path / "relative"
    assert resolve(None, {}).display_uri == "~/.armory/mlruns/mlflow.db"


def test_a_user_without_a_home_is_reported_to_name_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ArmoryUsageError, match="set ARMORY_HOME"):
        resolve(None, {})
    assert (
        resolve(None, {"ARMORY_HOME": str(tmp_path)}).display_uri == f"{tmp_path}/mlruns/mlflow.db"
    )


@pytest.mark.parametrize(
    ("uri", "display"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://mlflow.example.com/base", "https://mlflow.example.com/base"),
        ("http://user:secret@host:1", "http://[redacted]@host:1"),
        ("http://user:se@cret@host:1", "http://[redacted]@host:1"),
        ("postgresql://user:secret@host/db", "postgresql://[redacted]@host/db"),
        ("postgresql+psycopg2://u:sec/ret@host/db", "postgresql+psycopg2://[redacted]@host/db"),
        ("mysql+pymysql://user:secret@host/db", "mysql+pymysql://[redacted]@host/db"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
    ],
)
def test_servers_are_taken_as_they_are_and_displayed_redacted(uri: str, display: str) -> None:
    assert resolve(uri) == Destination(uri, None, display)
    assert resolve(uri).is_remote
    assert resolve(uri).artifacts is None


def test_blanks_around_a_uri_are_not_part_of_it() -> None:
    assert resolve(" http://host:1\n").uri == "http://host:1"


def test_a_scheme_of_an_mlflow_plugin_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArmoryUsageError):
        resolve("ours://somewhere")
    monkeypatch.setattr(destination, "_plugin_schemes", lambda: ("ours",))
    assert resolve("ours://somewhere").uri == "ours://somewhere"


@pytest.mark.parametrize("start", ["sqlite:///", "sqlite+pysqlite:///"])
@pytest.mark.parametrize("query", ["", "?timeout=5"])
def test_a_database_file_is_absolute(
    start: str, query: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    where = resolve(f"{start}runs.db{query}")
    assert where.uri == f"{start}{tmp_path}/runs.db{query}"
    assert where.database == tmp_path / "runs.db"
    assert resolve(str(where.uri)) == where


@pytest.mark.parametrize("name", HOMES)
def test_the_uri_of_a_file_means_that_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "mlflow.db"
    assert resolve(sqlite_uri(path)).database == path


@pytest.mark.parametrize(
    ("quotes", "path"), [(True, "/a b.db"), (False, "/a%20b.db")], ids=["2.1", "before"]
)
def test_percent_signs_are_what_the_installed_sqlalchemy_makes_of_them(
    quotes: bool, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination, "_sqlalchemy_quotes", lambda: quotes)
    assert resolve("sqlite:////a%20b.db").database == Path(path)


def test_a_home_that_an_old_sqlalchemy_cannot_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "_sqlalchemy_quotes", lambda: False)
    with pytest.raises(ArmoryUsageError, match="set ARMORY_HOME to another folder"):
        resolve(None, {"ARMORY_HOME": "/q?mark"})


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("file:///runs", "as in sqlite:////runs/mlflow.db"),
        ("file:runs", "as in sqlite:///{cwd}/runs/mlflow.db"),
        ("runs", "as in sqlite:///{cwd}/runs/mlflow.db"),
        ("my%20runs", "as in sqlite:///{cwd}/my runs/mlflow.db"),
        ("/runs", "as in sqlite:////runs/mlflow.db"),
        ("runs.db", "as in sqlite:///{cwd}/runs.db."),
        ("", "as in sqlite:///{cwd}/mlflow.db"),
        ("http://", "it names no host, as in http://127.0.0.1:5000"),
        ("http:/127.0.0.1:5000", "it names no host"),
        ("https://:5000", "it names no host"),
        ("http://user:secret@", "it names no host"),
        ("http://[::1", "its host and port cannot be read"),
        ("http://host:port", "its host and port cannot be read"),
        (r"https://evil.example\.cloud.mantik.ai", "its host and port cannot be read"),
        (r"https://evil.example\@mlflow.example.org", "its host and port cannot be read"),
        (r"https://user:se\cret@mlflow.example.org", "in a password as %XX"),
        ("http://user:secr#et@host", "in a password as %XX"),
        ("localhost:5000", "as in http://localhost:5000"),
        ("127.0.0.1:5000/base", "as in http://127.0.0.1:5000/base"),
        ("user:secret@host", "as in https://[redacted]@host"),
        ("user:secret@localhost", "as in http://[redacted]@localhost"),
        ("[::1]:5000", "as in http://[::1]:5000"),
        ("mlflow.example.org", "names no scheme, as in https://mlflow.example.org."),
        ("MLflow.example.ORG/team/", "as in https://MLflow.example.ORG/team/."),
        ("mlflow.internal", "as in https://mlflow.internal."),
        ("10.0.0.5/base", "as in https://10.0.0.5/base."),
        ("localhost", "as in http://localhost."),
        ("127.0.0.1", "as in http://127.0.0.1."),
        ("runs.db", "as in sqlite:///{cwd}/runs.db"),
        ("team.runs/mlflow.sqlite3", "as in sqlite:///{cwd}/team.runs/mlflow.sqlite3"),
        ("mlruns", "as in sqlite:///{cwd}/mlruns/mlflow.db"),
        ("lcoal", "it is no URI, and not quite `local`."),
        ("LOCAL", "it is no URI, and not quite `local`."),
        ("databrick", "it is no URI, and not quite `databricks`."),
        ("./mlflow.example.org", "as in sqlite:///{cwd}/mlflow.example.org/mlflow.db"),
        ("//user:secret@host/x", "as in sqlite:////x/mlflow.db"),
        ("ftp://user:secret@host", "its scheme is none of http, https, sqlite"),
        ("postgres://user:secret@host", "its scheme is none of"),
        ("s3://bucket", "its scheme is none of"),
        ("sqlite://", "it names no file, as in sqlite:////absolute/path/mlflow.db"),
        ("sqlite:///", "it names no file"),
        ("sqlite:///:memory:", "it names no file"),
        ("sqlite:///file:runs.db?uri=true", "it names no file"),
        ("sqlite://runs.db", "it names no file"),
    ],
)
def test_an_unusable_uri_says_what_to_type(
    uri: str, advice: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArmoryUsageError) as refused:
        resolve(uri)
    text = str(refused.value)
    assert advice.format(cwd=tmp_path) in text
    assert "--armory-tracking-uri (or MLFLOW_TRACKING_URI)" in text
    assert "sec" not in text
    assert refused.value.__cause__ is None


def test_a_folder_that_exists_is_refused_whatever_it_looks_like(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a:b", "mlflow.example.org"):
        Path(name).mkdir()
        with pytest.raises(ArmoryUsageError, match="no longer tracks to plain folders"):
            resolve(name)


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    with pytest.raises(ArmoryUsageError, match=r"home is a file, not a folder; set ARMORY_HOME"):
        check_writable(resolve(None, {"ARMORY_HOME": str(home)}))


def test_a_home_that_cannot_be_written_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(dir: Path) -> None:  # root may write almost anywhere
        assert dir == tmp_path
        raise OSError(errno.EROFS, "Read-only file system")

    where = resolve(None, {"ARMORY_HOME": str(tmp_path / "deep" / "home")})
    check_writable(where)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ArmoryUsageError, match=r"\(Read-only file system\); set ARMORY_HOME"):
        check_writable(where)
    assert list(tmp_path.iterdir()) == []


def test_a_server_has_no_folder_to_check() -> None:
    check_writable(resolve("http://127.0.0.1:1"))


# --- The local database --------------------------------------------------------------------------


def fill(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE made (by INTEGER)")
        connection.execute("INSERT INTO made VALUES (?)", [os.getpid()])
    connection.close()


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def is_ready(path: Path) -> bool:
    """Whole, in WAL mode, and with nothing beside it but the lock."""
    beside = {p.name for p in path.parent.iterdir()} - {f"{path.name}.lock", "artifacts"}
    return query(path, "PRAGMA journal_mode") == [("wal",)] and beside == {path.name}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new home" / "mlflow.db"


def test_a_missing_database_is_made_in_wal_mode(path: Path) -> None:
    prepare_database(path, fill)
    assert query(path, "SELECT count(*) FROM made") == [(1,)]
    assert is_ready(path)


def test_what_a_connection_left_open_has_written_is_in_it(path: Path) -> None:
    left: list[sqlite3.Connection] = []

    def migrate(path: Path) -> None:
        left.append(sqlite3.connect(path))  # whose journal would keep the temporary name
        left[0].execute("CREATE TABLE made (by INTEGER)")

    prepare_database(path, migrate)
    assert query(path, "SELECT count(*) FROM made") == [(0,)]
    left[0].close()


def test_a_database_that_is_there_is_left_alone(path: Path) -> None:
    prepare_database(path, fill)
    prepare_database(path, pytest.fail)


NO_LOCKS = "full: its file system has no locks, .* set ARMORY_HOME to a folder on another, or"


@pytest.mark.parametrize(
    ("error", "reported"),
    [(sqlite3.OperationalError("disk full"), "full$"), (OSError("disk full"), "full$"),
     (OSError(errno.ENOLCK, "full"), NO_LOCKS), (OSError(errno.EOPNOTSUPP, "full"), NO_LOCKS),
     (NotImplementedError("full"), NO_LOCKS)],
    ids=["sqlite", "os", "no-locks", "unsupported", "filelock"],
)  # fmt: skip
def test_a_database_that_cannot_be_made_is_not_there(
    path: Path, error: Exception, reported: str
) -> None:
    def migrate(_: Path) -> None:
        raise error

    with pytest.raises(TrackingError, match=rf"mlflow\.db cannot be made: .*{reported}"):
        prepare_database(path, migrate)
    assert not path.exists()
    prepare_database(path, fill)
    assert is_ready(path)


def test_waiting_for_another_process_ends(path: Path) -> None:
    path.parent.mkdir()
    with (
        FileLock(f"{path}.lock"),
        pytest.raises(TrackingError, match=r"for more than 0 s; .* remove mlflow.db.lock"),
    ):
        prepare_database(path, fill, timeout=0.01)


def fill_and_sign(path: Path) -> None:
    fill(path)
    with (path.parent.parent / "made by").open("a") as file:
        file.write(".")


def kill_oneself(path: Path) -> None:
    fill(path)
    os.kill(os.getpid(), signal.SIGKILL)


def processes(work: Callable[..., Any], *args: Any, count: int = 1) -> list[int | None]:
    """The exit codes of forked processes that all start at once."""
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(count)
    started = [fork.Process(target=_at_once, args=(barrier, work, *args)) for _ in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in started]


def _at_once(barrier: Any, work: Callable[..., Any], *args: Any) -> None:
    barrier.wait()
    work(*args)


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_killed_in_the_middle_leaves_the_next_one_a_clean_start(path: Path) -> None:
    assert processes(prepare_database, path, kill_oneself) == [-signal.SIGKILL]
    assert not path.exists()
    assert path.with_name("mlflow.db.new").exists()
    prepare_database(path, fill)
    assert query(path, "SELECT by FROM made") == [(os.getpid(),)]
    assert is_ready(path)


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_many_processes_one_makes_the_database(path: Path) -> None:
    assert processes(prepare_database, path, fill_and_sign, count=8) == [0] * 8
    assert len((path.parent.parent / "made by").read_text()) == 1
    assert is_ready(path)


def track_one(home: Path) -> None:
    from pytest_armory.track import track_evaluation, track_param

    os.environ["ARMORY_HOME"] = str(home)
    with track_evaluation("race"):
        track_param("pid", os.getpid())


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.usefixtures("clean_environment")
def test_many_processes_open_a_fresh_mlflow_database_at_once(tmp_path: Path) -> None:
    assert processes(track_one, tmp_path, count=8) == [0] * 8
    path = tmp_path / "mlruns" / "mlflow.db"
    runs = query(path, "SELECT count(*), count(DISTINCT experiment_id), min(status) FROM runs")
    assert runs == [(8, 1, "FINISHED")]
    assert is_ready(path)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, pytest_armory, pytest_armory.store.destination as d; "
        "d.resolve('sqlite:///x.db'); "
        "print({'mlflow', 'numpy', 'sqlalchemy', 'asyncio'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
