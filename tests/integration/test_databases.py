"""Local databases that cannot be used: full, read-only, damaged, older, newer, somebody else's."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from conftest import Evals, verdicts
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import create_engine

from pytest_armory.store.database import _revisions, fault_of, sqlite_uri

EVALUATIONS = """
    import pytest
    from pytest_armory import track_metrics
    @pytest.mark.evaluation
    def test_good(): track_metrics({"a": 1})
    @pytest.mark.evaluation
    def test_bad(): assert False
"""


def previous() -> str:
    """The version that the installed MLflow would upgrade from with its last migration."""
    script = ScriptDirectory.from_config(_get_alembic_config(""))
    found = script.get_revision(_get_latest_schema_revision()).down_revision
    assert isinstance(found, str)
    return found


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def scramble(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(100_000))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def make_older(path: Path) -> None:
    write(path, f"UPDATE alembic_version SET version_num = '{previous()}'")


def make_newer(path: Path) -> None:
    write(path, "UPDATE alembic_version SET version_num = 'f00000000000'")


def half_migrate(path: Path) -> None:
    write(path, "DELETE FROM alembic_version")


def make_foreign(path: Path) -> None:
    path.unlink()
    write(path, *(f"CREATE TABLE mine{i} (a INTEGER)" for i in range(5)))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


UNUSABLE: list[tuple[Callable[[Path], None], str]] = [
    (scramble, r"is damaged \(file is not a database\); .* as with `mv \S+ \S+\.broken`, and a"),
    (truncate, r"is damaged \(database disk image is malformed\); put a copy in its place, or"),
    (make_older, r"by an older MLflow .* copy it, with `cp .*`, then run `mlflow db upgrade sqli"),
    (make_newer, r"by a newer MLflow than the [\d.]+ .* with `pip install --upgrade mlflow`"),
    (half_migrate, r"no whole database of MLflow's \(it has the tables .*, …\); name another file"),
    (make_foreign, r"no whole database of MLflow's \(it has the tables mine0, mine1, mine2, …\);"),
    (make_folder, r"is not a file; move it away"),
]
unusable = pytest.mark.parametrize(("spoil", "says"), UNUSABLE)


def database_of(evals: Evals) -> Path:
    return evals.home / "mlruns" / "mlflow.db"


def content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def reported(text: str) -> list[str]:
    return [line for line in text.splitlines() if "database" in line or "Traceback" in line]


@pytest.mark.parametrize("how", ["-n0", "-n1"])
@unusable
def test_refused_before_the_first_test(
    evals: Evals, spoil: Callable[[Path], None], says: str, how: str
) -> None:
    database = database_of(evals)
    spoil(database)
    before = content(database)
    evals.write(EVALUATIONS)
    result = evals.run(how)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = reported(result.stderr.str())
    assert line.startswith("ERROR: armory: ")
    assert str(database) in line
    assert re.search(says, line), line
    assert result.stdout.str() == ""
    assert content(database) == before
    assert not database.with_name("leases").exists()


COMMANDS = [
    *((program, *UNUSABLE[2]) for program in ("sessions", "recover", "sync", "serve")),
    *((program, *UNUSABLE[i]) for i in (0, 3) for program in ("sessions", "serve")),
]


@pytest.mark.parametrize(("program", "spoil", "says"), COMMANDS)
def test_commands_say_the_same(
    evals: Evals, spoil: Callable[[Path], None], says: str, program: str
) -> None:
    database = database_of(evals)
    spoil(database)
    before = content(database)
    serve = ["-m", "pytest_armory.cli.server", "--port", "1"]
    pytest_armory = ["-c", "from pytest_armory.cli.main import main; raise SystemExit(main())"]
    done = run(*(serve if program == "serve" else [*pytest_armory, program]))
    assert done.returncode == (1 if program == "sync" else 2)
    (line,) = done.stderr.splitlines()
    assert re.search(says, line), line
    assert done.stdout == ""
    assert content(database) == before


def run(*args: str, **limits: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, timeout=300, check=False, **limits
    )  # type: ignore[call-overload,no-any-return]


def test_an_older_database_is_upgraded_by_the_command_it_is_refused_with(evals: Evals) -> None:
    """A real one, which MLflow would upgrade without a word for the tables it lacks."""
    evals.home = evals.home.with_name("it's older")
    os.environ["ARMORY_HOME"] = str(evals.home)
    database = database_of(evals)
    database.parent.mkdir(parents=True)
    engine = create_engine(sqlite_uri(database))
    InitialBase.metadata.create_all(engine)
    engine.dispose()
    command.upgrade(_get_alembic_config(sqlite_uri(database)), previous())
    evals.write(EVALUATIONS)
    refused = evals.run()
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = reported(refused.stderr.str())
    assert f"its version is {previous()}, not {_get_latest_schema_revision()}" in line
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for advised in re.findall(r"`(.*?)`", line):
        subprocess.run(
            advised, shell=True, check=True, timeout=300, env=os.environ | {"PATH": path}
        )
    assert "older" in fault_of(database.with_name(f"{database.name}.{previous()}"))
    result = evals.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["2 evaluations: 1 passed, 1 failed, tracked to *"])
    result.stdout.no_fnmatch_line("warning: *")


def test_a_database_named_by_its_uri_is_looked_at_too(evals: Evals, tmp_path: Path) -> None:
    mine = tmp_path / "mine.db"
    make_foreign(Path(shutil.copy(database_of(evals), mine)))
    evals.write(EVALUATIONS)
    result = evals.run("--armory-tracking-uri", f"sqlite:///{mine}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    with closing(sqlite3.connect(mine)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (5,)


def test_an_empty_file_is_made_a_database(evals: Evals) -> None:
    database_of(evals).write_bytes(b"")
    evals.write(EVALUATIONS)
    result = evals.run("-n2")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("warning: *")
    assert set(evals.runs()) == {"test_good", "test_bad"}


def test_the_journal_of_a_removed_database_is_not_brought_into_the_new_one(evals: Evals) -> None:
    """SQLite would, and a session that was killed leaves one."""
    database = database_of(evals)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE late AS SELECT name FROM sqlite_master")
        connection.commit()
        journal = Path(f"{database}-wal").read_bytes()
    assert journal
    database.unlink()
    Path(f"{database}-wal").write_bytes(journal)
    evals.write(EVALUATIONS)
    evals.run().stdout.no_fnmatch_line("warning: *")
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert ("late",) not in tables


def test_the_version_is_found_without_importing_mlflow(evals: Evals) -> None:
    found = _revisions()
    assert found is not None
    assert found.head == _get_latest_schema_revision()
    script = ScriptDirectory.from_config(_get_alembic_config(""))
    assert found.known == {revision.revision for revision in script.walk_revisions()}
    done = run(
        "-c",
        "import sys; from pytest_armory.store import destination as d; "
        "from pytest_armory.store.database import check_usable; check_usable(d.resolve(None));"
        "raise SystemExit(bool({'mlflow', 'sqlalchemy', 'alembic'} & set(sys.modules)))",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in database_of(evals).parent.iterdir()] == ["mlflow.db"]


# --- Disks ---------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Mount something, where we are root and may."""
    mounted: list[Path] = []

    def mount(folder: Path, *options: str) -> None:
        words = ["mount", *options, str(folder)]
        done = subprocess.run(words, capture_output=True, timeout=20, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr!r}")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], timeout=20, check=False)
    assert tmp_path.exists()


def test_a_full_disk_is_refused(evals: Evals, mount: Callable[..., None]) -> None:
    mount(evals.home, "-t", "tmpfs", "-o", "size=1m", "none")
    evals.write(EVALUATIONS)
    result = evals.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = reported(result.stderr.str())
    assert "cannot be written (No space left on device); set ARMORY_HOME to a folder" in line
    assert list(evals.home.iterdir()) == []


@pytest.mark.parametrize("what", ["home", "database", "given"])
def test_what_is_read_only_is_refused(evals: Evals, mount: Callable[..., None], what: str) -> None:
    path = evals.home if what == "home" else database_of(evals)
    mount(path, "--bind", str(path))
    mount(path, "-o", "remount,ro,bind")
    evals.write(EVALUATIONS)
    args = ("--armory-tracking-uri", sqlite_uri(path)) if what == "given" else ()
    result = evals.run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = reported(result.stderr.str())
    says = "cannot be written (Read-only file system)" if what == "home" else "is read-only"
    instead = "make it writable" if what == "given" else "set ARMORY_HOME to a folder"
    assert f"{says}; {instead}" in line


SPOILED = """
    import os, pytest, random
    from pathlib import Path
    from pytest_armory import track_metrics
    HOME = Path(os.environ["ARMORY_HOME"])
    DATABASE = HOME / "mlruns" / "mlflow.db"
    pytestmark = pytest.mark.evaluation
    def test_before(): track_metrics({"a": 1})
    def test_spoils(): SPOIL()
    def test_after(evaluation_run): evaluation_run.log_metrics({"a": 1})
    def test_fails():
        track_metrics({"a": 1})
        assert False
    def fill():
        with (HOME / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)): pass
            except OSError: pass
    def damage():
        with DATABASE.open("r+b") as file:
            file.write(random.Random(1).randbytes(DATABASE.stat().st_size))
"""


@pytest.mark.parametrize(
    ("spoil", "says", "how"),
    [
        ("fill", "its disk is full; make room", "-n0"),
        ("damage", "it is damaged; put a copy in its place", "-n0"),
    ],
)
def test_verdicts_stand_when_it_happens_meanwhile(
    evals: Evals, mount: Callable[..., None], spoil: str, says: str, how: str
) -> None:
    ready = database_of(evals).read_bytes()
    mount(evals.home, "-t", "tmpfs", "-o", "size=12m", "none")
    database_of(evals).parent.mkdir()
    database_of(evals).write_bytes(ready)
    evals.write(SPOILED.replace("SPOIL", spoil))
    result = evals.run(how, subprocess=True)
    assert verdicts(result) == {"passed": 3, "failed": 1}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["4 evaluations: *", "not stored: * evaluations", "warning: *"])
    lines = [line for line in result.outlines if line.startswith("warning: ")]
    assert any(f"{database_of(evals)}: {says}" in line for line in lines), lines
    assert len(lines) <= 4, lines
    assert not re.search(r"Traceback|SELECT|sqlalche|no MLflow server", result.stdout.str())


def test_a_database_that_cannot_be_made_leaves_nothing(evals: Evals) -> None:
    """Its disk full while it is made: the next try finds none of it."""
    database = database_of(evals)
    database.unlink()
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (400_000, 400_000))
    script = (
        "from pytest_armory.store import destination\n"
        "from pytest_armory import errors, store\n"
        "try: store.open_store(destination.resolve(None))\n"
        "except errors.TrackingError as error: raise SystemExit(str(error))"
    )
    done = run("-c", script, preexec_fn=limit)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(database) in line
    assert "disk" in line
    assert {path.name for path in database.parent.iterdir()} <= {"mlflow.db.lock"}


def test_an_older_local_database_where_a_server_is_out_of_reach(evals: Evals) -> None:
    """It was no destination, so nobody had looked at it: the tests run and are reported as lost."""
    make_older(database_of(evals))
    before = content(database_of(evals))
    evals.write(EVALUATIONS)
    result = evals.run("--armory-tracking-uri", "http://127.0.0.1:9")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["not stored: 2 evaluations", "warning: the local database * by an older MLflow *"]
    )
    assert content(database_of(evals)) == before
