"""What all tests share: one prepared database per session, an Armory home per test, real pytest."""

from __future__ import annotations

import gc
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester", "servers", "faults", "mantik", "tracked_runs"]

# The sessions that tests start would compile a hundred rewritten modules anew, each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Hypothesis fails an example that takes 0.2 s, and inputs that are slow to make: on a busy machine
# any may be.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# pytest drops the modules that an in-process inner session imported; these are slow to import
# and some cannot be imported twice.
import execnet.gateway_io  # noqa: E402
import mlflow  # noqa: E402
from forked import Command, forking, worker  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Run  # noqa: E402
from mlflow.tracking import fluent as mlflow_fluent  # noqa: E402
from once import (  # noqa: E402
    compile_statements_once,
    find_plugins_once,
    import_for_sessions,
    parse_files_once,
    remember_revision,
    search_plugins_once,
)

import pytest_armory.engine  # noqa: E402, F401
from pytest_armory.store import active_run, open_store  # noqa: E402
from pytest_armory.store.circuit import _circuits  # noqa: E402
from pytest_armory.store.database import (  # noqa: E402
    ensure_database,
    import_database_store,
    sqlite_uri,
)
from pytest_armory.store.in_force import in_force  # noqa: E402
from pytest_armory.track import context  # noqa: E402

import_database_store()
import_for_sessions()
remember_revision()
compile_statements_once()
find_plugins_once()
search_plugins_once()
parse_files_once()
gc.freeze()  # inner sessions collect garbage at their ends, and would look at all of MLflow

# Plugins that are here to be tested with: each is on where a test asks for it.
_PLUGINS = ("randomly", "rerunfailures", "cov", "flaky", "flakefinder", "pytest-retry")
UNASKED = tuple(word for name in _PLUGINS for word in ("-p", f"no:{name}"))

FOREIGN = (
    *("MLFLOW_", "GITHUB_", "GITLAB_", "CI_", "ARMORY_", "MANTIK_"),
    *("SLURM_", "JOB_COMPLETION_", "BUILDKITE", "CIRCLE", "CUDA_VISIBLE"),
)


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ready database, made once for all workers of this test session."""
    root = tmp_path_factory.getbasetemp()
    folder = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    path = folder / "template" / "mlflow.db"
    ensure_database(path, folder / "template" / "artifacts")
    return path


@pytest.fixture(scope="session")
def fork_server(database_template: Path) -> Iterator[Callable[[], str]]:
    """The address of the process that forks sessions and their workers, one for all workers."""
    yield from forking(database_template.parent, database_template)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the machine's that we or MLflow read; MLflow's own state as it was."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name in ("CI", "JENKINS_URL", "TF_BUILD"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    contexts = list(context._open)
    yield
    # A test that breaks our own hooks leaves contexts open; that of this fixture's setup is closed.
    context._open[:] = [scope for scope in contexts if scope.is_open]
    mlflow_fluent._active_run_stack.get().clear()  # what a test's own fluent calls left open
    mlflow_fluent._last_active_run_id.set(None)
    mlflow_fluent._active_experiment_id = None
    in_force.__init__()
    active_run._active.clear()
    mlflow.set_tracking_uri(None)
    open_store.cache_clear()
    _circuits.clear()


@pytest.fixture
def armory_home(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database_template: Path,
    clean_environment: None,  # noqa: ARG001 - it works by being there
) -> Path:
    """An Armory home whose database is ready."""
    home = tmp_path / "armory"
    (home / "mlruns").mkdir(parents=True)
    shutil.copy(database_template, home / "mlruns" / "mlflow.db")
    monkeypatch.setenv("ARMORY_HOME", str(home))
    return home


@pytest.fixture
def read_runs(armory_home: Path) -> Callable[..., list[Run]]:
    """Read back every run of the home's database, or of another store, through MlflowClient."""

    database = armory_home / "mlruns" / "mlflow.db"
    last: list[Any] = [[], []]  # a test reads the same runs several times

    def read(uri: str | None = None) -> list[Run]:
        files = _written(database)
        if uri is None and files == last[0]:
            return list(last[1])
        client = MlflowClient(uri or sqlite_uri(database))
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = list(client.search_runs(ids, max_results=5000, order_by=["start_time ASC"]))
        if uri is None and files == _written(database):
            last[:] = [files, runs]
        return list(runs)

    return read


def _written(database: Path) -> list[tuple[int, int]]:
    """When a database and its journal were last written, and their sizes."""
    files = (database, database.with_name(f"{database.name}-wal"))
    found = [path.stat() for path in files if path.exists()]
    return [(state.st_mtime_ns, state.st_size) for state in found]


class Evals:
    """A pytest session of its own, and what it left in the store."""

    def __init__(
        self,
        pytester: pytest.Pytester,
        read: Callable[..., list[Run]],
        fork_server: Callable[[], str],
    ) -> None:
        self.pytester = pytester
        self.read = read
        self._fork_server = fork_server
        self.home = Path(os.environ["ARMORY_HOME"])

    def write(self, source: str, **files: str) -> None:
        """Write ``test_it.py`` and other Python files."""
        self.pytester.makepyfile(test_it=source, **files)

    def run(self, *args: str, track: bool = True, subprocess: bool = False) -> pytest.RunResult:
        """Run pytest; tracked and in this process by default, its workers forked."""
        # In a process of its own none has ended; an untracked session would look for it in a store
        # in its folder, which MLflow makes in a second.
        mlflow_fluent._last_active_run_id.set(None)
        args = self.arguments(*args, track=track)
        if subprocess:
            return self._fork(*args)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execnet.gateway_io, "popen_args", lambda _: worker(self._fork_server()))
            return self.pytester.runpytest_inprocess(*args, no_reraise_ctrlc=True)

    def _fork(self, *args: str) -> pytest.RunResult:
        address, path, start = self._fork_server(), self.pytester.path, time.monotonic()
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            files = (out.fileno(), err.fileno())
            status = Command(address, "pytest", *args, folder=path, files=files).wait(300)
            out.seek(0)
            err.seek(0)
            lines = out.read().splitlines(), err.read().splitlines()
        return pytest.RunResult(status, *lines, time.monotonic() - start)

    @staticmethod
    def arguments(*args: str, track: bool = True) -> tuple[str, ...]:
        """The command line of a session."""
        # Hypothesis imports itself anew in each inner session, which takes seconds.
        without = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *UNASKED)
        ignored = ("PytestDeprecationWarning", "PytestAssertRewriteWarning")
        quiet = (*without, *(word for name in ignored for word in ("-W", f"ignore::pytest.{name}")))
        return (*(("--armory-track",) if track else ()), *quiet, *args)

    def runs(self, kind: str = "evaluation") -> dict[str, Run]:
        """The runs of a kind by name; a second one of the same name is an error."""
        found = [run for run in self.read() if run.data.tags.get("armory.kind") == kind]
        names = [str(run.info.run_name) for run in found]
        assert len(names) == len(set(names)), names
        return dict(zip(names, found, strict=True))

    def run_of(self, name: str) -> Run:
        """The one evaluation of that name."""
        return self.runs()[name]

    def sessions(self) -> list[Run]:
        """The session runs."""
        return [run for run in self.read() if run.data.tags.get("armory.kind") == "session"]

    def check_accounted(self, attempts: int, lost: int = 0, there: Sequence[Run] = ()) -> None:
        """Every attempt is stored (waiting ones too) or reported lost, and no run is open.

        ``there`` are the runs at a server.
        """
        every = [*self.read(), *there]
        stored = [run for run in every if run.data.tags.get("armory.kind") == "evaluation"]
        assert len(stored) + lost == attempts
        assert [run.info.run_name for run in every if run.info.status == "RUNNING"] == []

    def check_invariant(
        self,
        result: pytest.RunResult,
        attempts: int,
        *args: str,
        lost: int = 0,
        there: Sequence[Run] = (),
        subprocess: bool = False,
    ) -> None:
        """The verdicts are those with the plugin off, and every attempt is accounted for."""
        self.check_accounted(attempts, lost, there)
        copy = self.pytester.path / "off.db"
        shutil.copy(self.home / "mlruns" / "mlflow.db", copy)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(copy))  # for what tests log themselves
            off = self.run(*args, track=False, subprocess=subprocess)
        assert off.ret == result.ret
        assert verdicts(off) == verdicts(result)
        assert printed_verdicts(off.stdout.str()) == printed_verdicts(result.stdout.str())


def printed_verdicts(output: str) -> set[tuple[str, str]]:
    """Which verdict pytest has printed of which test so far; of a session with ``-v``."""
    word = r"(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)"
    in_process = re.findall(rf"^(\S+::\S+) {word}", output, re.MULTILINE)
    of_workers = re.findall(rf"^\[gw\d+\] \[ *\d+%\] {word} (\S+)", output, re.MULTILINE)
    return {*in_process, *((test, verdict) for verdict, test in of_workers)}


def verdicts(result: pytest.RunResult) -> dict[str, int]:
    """How many tests had which outcome."""
    counts = result.parseoutcomes()
    return {name: counts[name] for name in counts if name not in ("warnings", "warning")}


@pytest.fixture
def evals(
    pytester: pytest.Pytester,
    read_runs: Callable[..., list[Run]],
    monkeypatch: pytest.MonkeyPatch,
    fork_server: Callable[[], str],
) -> Evals:
    """Write evaluations, run them with pytest, read their runs."""
    for name in [name for name in sys.modules if name.startswith("test_")]:
        monkeypatch.delitem(sys.modules, name)  # an inner session's file may have its name
    return Evals(pytester, read_runs, fork_server)


@pytest.fixture(params=[("-p", "no:xdist"), ("-n0",), ("-n1",)], ids=["no-xdist", "n0", "n1"])
def each_way(request: pytest.FixtureRequest) -> Sequence[str]:
    """The arguments for each way of running: one process without and with xdist, a worker."""
    arguments: Sequence[str] = request.param
    return arguments


def artifacts_of(run: Run) -> dict[str, Path]:
    """A local run's artifacts by their path in the run."""
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    return {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}


def counts_of(session: Run) -> dict[str, float]:
    """A session run's counts of its experiment that are not 0."""
    counts = session.data.metrics.items()
    return {name: count for name, count in counts if count and "/" not in name}


def text_of(run: Run, path: str) -> str:
    """A local text artifact."""
    return artifacts_of(run)[path].read_text(encoding="utf-8")


TOGETHER = {
    "logins": ("test_credentials",),
    "postgres": ("test_http",),
    "examples": ("test_example_evals",),
    "libraries": ("test_docs", "test_engine_libraries", "test_engine_models"),
    "suites": ("test_own_mlflow",),
}
"""Files that share what is slow to start; one worker runs them, so that it is started once.

Tests that wait for servers are in none: every worker has an MLflow server by its first minutes,
and those of all files would keep one worker busy when the others are long done.
"""


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what test files have imported out of what is looked at whenever garbage is collected."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Any test for any worker, but for those; xdist's own groups are lost with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")
            groups = (name for name, files in TOGETHER.items() if file in files)
            return next(groups, nodeid)

    return Scheduling(config, log)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Three workers for two cores: tests wait for processes and servers half of their time."""
    if config.option.numprocesses != "auto" or "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return (len(os.sched_getaffinity(0)) * 3 + 1) // 2 if hasattr(os, "sched_getaffinity") else None


def pytest_make_parametrize_id(val: Any) -> str | None:
    """Readable ids for classes and functions in tables."""
    return getattr(val, "__name__", None)
