"""``pytest-armory sync``: what was recorded locally, brought to a real server, whole and once."""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from conftest import Evals
from forked import Command
from loopback import Handler
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from outages import status
from servers import Proxy, proxied

from pytest_armory.cli import main as commands
from pytest_armory.store import destination
from pytest_armory.store.database import sqlite_uri
from pytest_armory.sync.artifacts import http_name
from pytest_armory.sync.lock import upload_lock
from pytest_armory.sync.tags import synced_tag

RICH = """
    import mlflow, pytest
    from pytest_armory import track_call, track_metrics
    def load(**settings): return settings
    @pytest.fixture(scope="session")
    def data(track_call):
        return track_call(load, **dict.fromkeys(map("s{{}}".format, range(130)), 1))
    pytestmark = pytest.mark.evaluation(name="{name}", tags={{"team": "vision ünï"}})
    @pytest.mark.parametrize("eps", [0.5])
    def test_rich(data, eps, evaluation_run):
        track_metrics({{"loss": [3.0, float("nan"), 1.0, 1.0], "top/inf": float("inf")}})
        for step in (5, 5, 7):
            mlflow.log_metric("again", 2.0, step=step)
        evaluation_run.log_dict({{"a": 1}}, "deep/er/a b.json")
        mlflow.log_text("ü" * 1000, "ünï/日本.txt")
        dataset = mlflow.data.from_numpy(__import__("numpy").arange(4), name="four")
        mlflow.log_input(dataset, context="eval", tags={{"split": "test"}})
        with mlflow.start_run(nested=True, run_name="inner"):
            mlflow.log_param("own", 1)
    def test_bad(data):
        assert False
"""


@pytest.fixture
def local(evals: Evals) -> MlflowClient:
    """The client of the local database."""
    return MlflowClient(sqlite_uri(evals.home / "mlruns" / "mlflow.db"))


@pytest.fixture
def record(evals: Evals, local: MlflowClient) -> Callable[..., list[Run]]:
    """Record a session locally; its runs wait for a server if it is given."""

    def record(waits_for: str | None = None, source: str = RICH) -> list[Run]:
        name = f"sync {secrets.token_hex(4)}"
        evals.write(source.format(name=name))
        evals.run("--armory-tracking-uri", "local")
        experiment = local.get_experiment_by_name(name)
        runs = list(local.search_runs([experiment.experiment_id]))
        ours = [run for run in runs if "armory.kind" in run.data.tags]  # not what ran inside
        for run in ours if waits_for else ():
            local.set_tag(run.info.run_id, "armory.destination", waits_for)
            local.set_tag(run.info.run_id, "armory.key", secrets.token_hex(16))
        return [local.get_run(run.info.run_id) for run in runs]

    return record


def copies(url: str, experiment: str) -> list[Run]:
    client = MlflowClient(url)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    return [client.get_run(run.info.run_id) for run in client.search_runs([found.experiment_id])]


def name_of(local: MlflowClient, runs: list[Run]) -> str:
    return str(local.get_experiment(runs[0].info.experiment_id).name)


def history(client: MlflowClient, run: Run) -> dict[str, list[tuple[str, int, int]]]:
    """Every value of every metric, as text: NaN is not equal to itself."""
    return {
        key: sorted(
            (str(m.value), m.timestamp, m.step)
            for m in client.get_metric_history(run.info.run_id, key)
        )
        for key in run.data.metrics
    }


def artifacts(client: MlflowClient, run: Run, folder: Path) -> dict[str, bytes]:
    if not client.list_artifacts(run.info.run_id):
        return {}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    root = Path(client.download_artifacts(run.info.run_id, "", str(folder)))
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def datasets(run: Run) -> list[tuple[Any, ...]]:
    return [
        (dict(one.dataset), {tag.key: tag.value for tag in one.tags})
        for one in run.inputs.dataset_inputs
    ]


OURS = ("armory.destination", "armory.remote_run_id", "armory.synced", "armory.key")


def check_same(local: MlflowClient, runs: list[Run], url: str, folder: Path) -> dict[str, Run]:
    """Each run has one copy at the server, equal in everything; returns them by their names."""
    server = MlflowClient(url)
    runs = [local.get_run(run.info.run_id) for run in runs]
    found = copies(url, name_of(local, runs))
    by_name = {str(run.info.run_name): run for run in found}
    assert len(found) == len(by_name) == len(runs)
    ids = {run.info.run_id: by_name[str(run.info.run_name)].info.run_id for run in runs}
    for run in runs:
        copy = by_name[str(run.info.run_name)]
        info, copied = run.info, copy.info
        assert (copied.status, copied.end_time) == (info.status, info.end_time)
        assert copied.start_time == info.start_time
        assert copy.data.params == run.data.params
        assert history(server, copy) == history(local, run)
        tags = {k: ids.get(v, v) for k, v in run.data.tags.items() if not k.startswith(OURS)}
        assert {k: v for k, v in copy.data.tags.items() if k != "armory.key"} == tags
        assert datasets(copy) == datasets(run)
        there = artifacts(server, copy, folder / "there")
        assert there == artifacts(local, run, folder / "here")
        assert run.data.tags[synced_tag(url)] == copied.run_id
    return by_name


def test_a_session_is_copied_whole_and_once(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    proxy: Proxy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = record(proxy.url)
    assert len(runs) == 4
    capsys.readouterr()
    assert commands.main(["sync", "--dry-run"]) == 0
    reported = capsys.readouterr().out
    assert f"4 runs would be uploaded to {proxy.url}" in reported
    assert "test_rich[0.5]" in reported
    assert proxy.seen == []

    assert commands.main(["sync"]) == 0
    reported = capsys.readouterr().out
    assert f"uploaded 4 runs to {proxy.url}" in reported
    (first,) = (line for line in reported.splitlines() if line.startswith("[1/4] "))
    assert " session: uploaded" in first  # parents first
    assert "see http" in reported
    by_name = check_same(local, runs, proxy.url, tmp_path)
    rich = by_name["test_rich[0.5]"]
    assert len(rich.data.params) > 130
    assert len(history(MlflowClient(proxy.url), rich)["loss"]) == 4
    assert len(datasets(rich)) == 1
    session = next(run for name, run in by_name.items() if name.endswith(" session"))
    assert rich.data.tags["mlflow.parentRunId"] == session.info.run_id
    assert by_name["inner"].data.tags["mlflow.parentRunId"] == rich.info.run_id
    assert {run.info.status for run in by_name.values()} == {"FINISHED", "FAILED"}
    for run in runs:
        assert local.get_run(run.info.run_id).data.tags["armory.synced"]

    before = len(proxy.seen)
    assert commands.main(["sync"]) == 0
    assert "nothing waits" in capsys.readouterr().out
    assert len(proxy.seen) == before

    # The marks are lost, as by a kill before they are written: nothing is doubled.
    for run in runs:
        local.delete_tag(run.info.run_id, "armory.synced")
        local.delete_tag(run.info.run_id, synced_tag(proxy.url))
    assert commands.main(["sync"]) == 0
    written = [one for one in proxy.seen[before:] if "GET" not in one and "search" not in one]
    assert written == []
    check_same(local, runs, proxy.url, tmp_path)


def test_an_air_gapped_cluster(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tracked to `local`; the home is brought to another machine and uploaded from there."""
    runs = record()
    home = Path(os.environ["ARMORY_HOME"])
    moved = tmp_path / "moved"
    assert commands.main(["sync"]) == 0  # nothing was meant for a server
    assert "nothing waits" in capsys.readouterr().out
    shutil.copytree(home, moved)
    (home / "mlruns" / "artifacts").rename(tmp_path / "aside")
    monkeypatch.setenv("ARMORY_HOME", str(moved))
    assert commands.main(["sync", "--to", f"{mlflow_server}/"]) == 0
    (tmp_path / "aside").rename(home / "mlruns" / "artifacts")
    there = MlflowClient(sqlite_uri(moved / "mlruns" / "mlflow.db"))
    check_same(there, runs, mlflow_server, tmp_path)
    # And from the first machine as well: the same keys, the same copies.
    monkeypatch.setenv("ARMORY_HOME", str(home))
    assert commands.main(["sync", "--to", mlflow_server]) == 0
    check_same(local, runs, mlflow_server, tmp_path)
    capsys.readouterr()
    assert commands.main(["sync", "--to", mlflow_server]) == 0
    assert "is not there yet" in capsys.readouterr().out


KILLS = [(9, True), (17, False)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("k", "arrives"), KILLS)
def test_killed_at_any_request(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    fork_server: Callable[[], str],
    tmp_path: Path,
    k: int,
    arrives: bool,
) -> None:
    """With the request on its way, or lost; every request was tried once, these are some."""
    with proxied(mlflow_server) as proxy:
        runs = record(proxy.url)
        command = (fork_server(), "pytest_armory.cli.main", "sync")
        with TemporaryFile("w+") as log:
            process = Command(*command, folder=tmp_path, files=(log.fileno(), log.fileno()))

        def kill(_: str) -> None:
            if len(proxy.seen) == k:  # its body has come, too
                os.kill(process.pid, signal.SIGKILL)
                process.wait(300)
                if not arrives:
                    raise ConnectionAbortedError

        proxy.before = kill
        assert process.wait(300) == -signal.SIGKILL
        proxy.settle()
        proxy.before = lambda _: None
        assert commands.main(["sync"]) == 0
        check_same(local, runs, proxy.url, tmp_path)
        gc.collect()  # the proxy's connection to nobody


def test_a_first_half_is_completed(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The server was lost in the middle of a test, the session's own run is open there."""
    runs = {str(run.info.run_name): run for run in record(mlflow_server)}
    rich = runs["test_rich[0.5]"]
    session = next(run for name, run in runs.items() if name.endswith(" session"))
    server = MlflowClient(mlflow_server)
    experiment = server.create_experiment(name_of(local, [rich]))
    known = ("armory.kind", "armory.session", "armory.shard")
    tags = {name: session.data.tags[name] for name in known}
    parent = server.create_run(experiment, tags=tags, run_name=session.info.run_name)
    other = server.create_run(experiment, tags={**tags, "armory.shard": "another"}, run_name="x")
    half = server.create_run(
        experiment,
        start_time=1000,
        tags={"mlflow.parentRunId": parent.info.run_id},
        run_name=rich.info.run_name,
    ).info.run_id
    first = local.get_metric_history(rich.info.run_id, "loss")[:2]
    early = Metric("before", 1.0, 1000, 0)
    server.log_batch(half, metrics=[*first, early], params=[Param("eps", "other")])
    server.set_terminated(half, "KILLED")
    for run_id in (half, parent.info.run_id, other.info.run_id):  # `recover` has seen them first
        server.set_tag(run_id, "armory.recovered", "true")
    local.set_tag(runs["test_bad"].info.run_id, "armory.recovered", "true")
    local.set_tag(rich.info.run_id, "armory.remote_run_id", half)
    # A run whose parent was opened at the server has its id already.
    local.set_tag(runs["test_bad"].info.run_id, "mlflow.parentRunId", parent.info.run_id)

    assert commands.main(["sync"]) == 0
    reported = capsys.readouterr().out
    assert "note: the parameter 'eps' is 'other' there and stays so, not '0.5'" in reported
    found = {str(run.info.run_name): run for run in copies(mlflow_server, name_of(local, [rich]))}
    assert found.keys() == {*runs, "x"}
    copy = found["test_rich[0.5]"]
    assert copy.info.run_id == half
    assert (copy.info.status, copy.info.end_time) == (rich.info.status, rich.info.end_time)
    assert copy.info.start_time == 1000
    assert copy.data.params == {**rich.data.params, "eps": "other"}
    recovered = {name for name, run in found.items() if "armory.recovered" in run.data.tags}
    assert recovered == {"test_bad", "x"}  # of what ended by itself there is none left
    assert copy.data.metrics["before"] == 1.0
    expected = history(local, rich)
    assert {k: v for k, v in history(server, copy).items() if k != "before"} == expected
    whole = found[str(session.info.run_name)]
    assert whole.info.run_id == parent.info.run_id
    assert whole.data.metrics == session.data.metrics
    assert whole.info.status == session.info.status
    stored = [one.path for one in server.list_artifacts(parent.info.run_id)]
    assert stored == ["environment.txt", "summary.md"]
    assert copy.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert found["test_bad"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert server.get_run(other.info.run_id).info.status == "RUNNING"


PLAIN = """
    import pytest
    pytestmark = pytest.mark.evaluation(name="{name}")
    @pytest.mark.parametrize("i", range(3))
    def test_a(i): pass
"""


def test_a_first_half_that_is_gone_is_said(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The server was restarted with an empty database: the copy is of the rest alone."""
    runs = {str(run.info.run_name): run for run in record(mlflow_server)}
    rich = runs["test_rich[0.5]"]
    local.set_tag(rich.info.run_id, "armory.remote_run_id", "0" * 32)
    session = next(run for name, run in runs.items() if name.endswith(" session"))
    local.set_tag(session.info.run_id, "armory.remote_run_id", "1" * 32)

    assert commands.main(["sync"]) == 0
    reported = capsys.readouterr().out
    assert f"note: the run {'0' * 32} that it went on from is gone there, with what" in reported
    assert "1" * 32 not in reported  # its end says all of it
    assert commands.main(["sync"]) == 0
    assert "is gone there" not in capsys.readouterr().out
    found = {str(run.info.run_name): run for run in copies(mlflow_server, name_of(local, [rich]))}
    assert found.keys() == {*runs}


def test_a_server_that_is_down_or_goes_down(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    nobody: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with proxied(mlflow_server) as proxy:
        record(f"http://me:secret@{nobody.removeprefix('http://')}", PLAIN)
        runs = record(proxy.url, PLAIN)

        def break_down(_: str) -> None:
            if proxy.count("runs/update") >= 2:
                raise ConnectionAbortedError

        proxy.before = break_down
        capsys.readouterr()
        started = time.monotonic()
        assert commands.main(["sync"]) == 1
        assert time.monotonic() - started < 120  # a server that is tried for long takes 246 s
        reported = capsys.readouterr()
        lines = [x for x in reported.err.splitlines() if x.startswith("pytest-armory: ")]
        left = {f"4 runs left for {nobody}", f"3 runs left for {proxy.url}"}
        assert {line.removeprefix("pytest-armory: ").partition(",")[0] for line in lines} == left
        assert all("run this again: " in line and "cannot be reached" in line for line in lines)
        assert "secret" not in reported.err + reported.out
        assert f"uploaded 1 run to {proxy.url}" in reported.out
        proxy.before = lambda _: None
        assert commands.main(["sync"]) == 1
        reported = capsys.readouterr()
        assert f"uploaded 3 runs to {proxy.url}" in reported.out
        assert proxy.url not in reported.err
        check_same(local, runs, proxy.url, tmp_path)


def test_what_is_refused_stays_and_the_rest_goes_on(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = MlflowClient(mlflow_server)
    kept, refused = record(mlflow_server, PLAIN), record(mlflow_server, PLAIN)
    experiment = server.create_experiment(name_of(local, refused))
    server.delete_experiment(experiment)
    assert commands.main(["sync"]) == 1
    reported = capsys.readouterr()
    assert f"mlflow experiments restore --experiment-id {experiment}" in reported.out
    assert "left: it belongs to a run that is not there yet" in reported.out
    assert "4 runs left" in reported.err
    check_same(local, kept, mlflow_server, tmp_path)
    server.restore_experiment(experiment)
    assert commands.main(["sync"]) == 0
    check_same(local, refused, mlflow_server, tmp_path)


def test_what_ran_inside_is_not_forgotten(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where its parent is there already, and it was refused once."""
    with proxied(mlflow_server) as proxy:
        runs = record(proxy.url)

        def refuse(_: Proxy, handler: Handler) -> bool:
            is_inner = handler.path.endswith("runs/create") and b"inner" in handler.body
            return is_inner and status(413, "{}")(proxy, handler)

        proxy.fault = refuse
        assert commands.main(["sync"]) == 1
        assert "1 run left" in capsys.readouterr().err
        proxy.fault = None
        assert commands.main(["sync"]) == 0
        check_same(local, runs, proxy.url, tmp_path)
        gc.collect()


def test_runs_at_work_wait(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = record(mlflow_server, PLAIN)
    running = next(run for run in runs if run.info.run_name == "test_a[1]")
    end = running.info.end_time
    local.update_run(running.info.run_id, "RUNNING")
    assert commands.main(["sync"]) == 1
    reported = capsys.readouterr()
    assert "uploaded 3 runs" in reported.out
    assert "1 run not ended yet" in reported.err
    assert "pytest-armory recover --armory-tracking-uri local" in reported.err
    local.set_terminated(running.info.run_id, "FINISHED", end)
    assert commands.main(["sync"]) == 0
    check_same(local, runs, mlflow_server, tmp_path)


def test_a_run_waits_for_the_session_that_is_at_work(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = record(mlflow_server, PLAIN)
    session = next(run for run in runs if str(run.info.run_name).endswith(" session"))
    local.update_run(session.info.run_id, "RUNNING")
    assert commands.main(["sync"]) == 1
    assert "4 runs not ended yet" in capsys.readouterr().err
    assert copies(mlflow_server, name_of(local, runs)) == []


def test_two_at_once(
    record: Callable[..., list[Run]],
    mlflow_server: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record(mlflow_server, PLAIN)
    with upload_lock(destination.resolve("local")):
        assert commands.main(["sync"]) == 1
        assert "another sync of " in capsys.readouterr().err
        assert commands.main(["sync", "--dry-run"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert commands.main(["sync"]) == 0
    reported = capsys.readouterr().out
    assert "\r[2/4] test_a[0]: looking for its copy" in reported
    assert "test_a[0]: uploaded" not in reported  # the line rewrites itself
    assert reported.endswith(f"\ruploaded 4 runs to {mlflow_server}\n")


def test_usage_and_nothing(
    armory_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commands.main(["sync", "--to", "local"]) == 2
    assert "--to names the local database itself" in capsys.readouterr().err
    assert commands.main(["sync", "--to", "nonsense://x"]) == 2
    database = armory_home / "mlruns" / "mlflow.db"
    assert commands.main(["sync", "--to", sqlite_uri(database)]) == 2
    monkeypatch.setenv("ARMORY_HOME", str(armory_home / "none"))
    capsys.readouterr()
    assert commands.main(["sync"]) == 0
    assert "nothing waits" in capsys.readouterr().out
    assert not (armory_home / "none").exists()


def test_the_copy_is_made_once_where_an_answer_is_lost(
    record: Callable[..., list[Run]], local: MlflowClient, proxy: Proxy
) -> None:
    """And a second copy, by a request that came late, goes."""
    runs = record(proxy.url, PLAIN)
    server = MlflowClient(proxy.url)
    extra = []

    def twice(request: str) -> None:
        if request.endswith("runs/create") and not extra:
            experiment = server.get_experiment_by_name(name_of(local, runs)).experiment_id
            for _ in range(2):
                extra.append(None)
                keys = [run.data.tags["armory.key"] for run in runs]
                extra[-1] = server.create_run(experiment, tags={"armory.key": keys[0]})
            raise ConnectionAbortedError

    proxy.before = twice
    first = runs[0]
    assert commands.main(["sync"]) in (0, 1)
    proxy.before = lambda _: None
    assert commands.main(["sync"]) == 0
    found = copies(proxy.url, name_of(local, runs))
    keys = [run.data.tags["armory.key"] for run in found]
    assert keys.count(first.data.tags["armory.key"]) == 1
    assert len(found) == len(runs)


HOSTILE = {
    "100%.txt": "100%.txt",
    "what?.txt": "what\uff1f.txt",
    "a&b=c+d;e.txt": "a&b=c+d;e.txt",
    "d%ir?/日本 x.txt": "d\uff05ir\uff1f/日本 x.txt",
    "a#b.txt": "a\uff03b.txt",
    "%41.txt": "\uff0541.txt",
    "end?": "end\uff1f",
    "tab\there": "tab\ufffdhere",
}


def test_names_that_http_cannot_carry(
    record: Callable[..., list[Run]],
    local: MlflowClient,
    mlflow_server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert {name: http_name(name) for name in HOSTILE} == HOSTILE
    runs = record(mlflow_server, PLAIN)
    run = next(run for run in runs if run.info.run_name == "test_a[1]")
    for name in HOSTILE:
        file = Path(run.info.artifact_uri.removeprefix("file://"), name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (file.parent / "empty").touch()
    for _ in range(2):
        assert commands.main(["sync"]) == 0
        reported = capsys.readouterr().out
        assert reported.count("HTTP cannot carry its name") == 6
        (copy,) = [
            one
            for one in copies(mlflow_server, name_of(local, runs))
            if one.info.run_name == "test_a[1]"
        ]
        found = artifacts(MlflowClient(mlflow_server), copy, tmp_path / "there")
        assert found.pop("empty") == b""
        assert found == {kept: name.encode() for name, kept in HOSTILE.items()}
        local.delete_tag(run.info.run_id, "armory.synced")
        local.delete_tag(run.info.run_id, synced_tag(mlflow_server))


def test_large_runs_go_in_batches(local: MlflowClient, proxy: Proxy, tmp_path: Path) -> None:
    experiment = local.create_experiment(f"large {secrets.token_hex(4)}", str(tmp_path / "files"))
    tags = {f"t{i}": "ü" * 4000 for i in range(120)}
    run_id = local.create_run(experiment, tags={**tags, "armory.session": "x"}).info.run_id
    for start in (0, 100):
        params = [Param(f"p{i}", "ü" * 6000) for i in range(start, start + 100)]
        local.log_batch(run_id, params=params)
    local.log_batch(run_id, metrics=[Metric("m", i / 7, 1000 + i, i) for i in range(1000)])
    local.log_batch(run_id, metrics=[Metric("m", i / 7, 2000 + i, i) for i in range(1000)])
    local.set_terminated(run_id)
    assert commands.main(["sync", "--to", proxy.url]) == 0
    check_same(local, [local.get_run(run_id)], proxy.url, tmp_path)
