"""``--armory-resume``: what has passed is skipped, the rest runs and joins the session."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest
from conftest import Evals, text_of
from faults import Session
from loopback import Handler
from mlflow import MlflowClient
from mlflow.entities import Run
from outages import reset
from servers import Proxy

from pytest_armory.cli.main import main
from pytest_armory.session.session_runs import SessionRuns
from pytest_armory.store import open_store
from pytest_armory.store.circuit import _circuits
from pytest_armory.store.database import sqlite_uri
from pytest_armory.store.search import RunSearch

TEN = """
    import pytest
    from pathlib import Path
    pytestmark = pytest.mark.evaluation(name="ten")
    @pytest.mark.parametrize("i", range(10))
    def test_a(i, mark, stay):
        with open("bodies", "a") as bodies:
            print(i, file=bodies)
        if i == 7 and not Path("go").exists():
            mark("seven")
            stay()
"""


def bodies(evals: Evals) -> list[int]:
    return [int(line) for line in (evals.pytester.path / "bodies").read_text().split()]


def outcomes(evals: Evals) -> list[tuple[str, str]]:
    runs = [run for run in evals.read() if "armory.nodeid" in run.data.tags]
    return [(str(r.info.run_name), r.data.tags.get("armory.outcome", "open")) for r in runs]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_was_killed_costs_only_what_was_left(
    evals: Evals, start: Callable[..., Session], number: int
) -> None:
    """Killed at 70 %, it costs 30 % again; twice, and with another number of workers."""
    evals.write(TEN)
    args = ("--armory-session=s", "--armory-resume", "-p", "no:randomly")
    job = start(*args)
    job.wait_for("seven")
    job.send(number)
    job.gone()
    assert bodies(evals) == list(range(8))
    job = start(*args)  # which is killed at the same place
    job.wait_for("seven")
    job.send(number)
    job.gone()
    assert bodies(evals) == [*range(8), 7]
    (evals.pytester.path / "go").touch()
    result = evals.run("--armory-resume=s", "-n1", "-rs")
    result.assert_outcomes(passed=3, skipped=7)
    assert bodies(evals) == [*range(8), 7, 7, 8, 9]
    result.stdout.fnmatch_lines([
        "3 evaluations: 3 passed, tracked to *",
        "resumed: 7 evaluations passed before in this session",
        "session s over all its jobs: 10 evaluations: 10 passed (2 earlier attempts)",
        "SKIPPED * passed already in session s, run *",
    ])  # fmt: skip
    (session,) = evals.sessions()
    assert session.info.status == "FINISHED"
    assert session.data.metrics["passed"] == session.data.metrics["evaluations"] == 10
    assert "armory.recovered" not in session.data.tags
    assert text_of(session, "summary.md").startswith("## ✅ 10 evaluations: 10 passed")
    assert sorted(outcomes(evals)) == sorted([
        *((f"test_a[{i}]", "passed") for i in range(10)), *[("test_a[7]", "interrupted")] * 2
    ])  # fmt: skip
    attempts = [r for r in evals.read() if r.info.run_name == "test_a[7]"]
    assert [run.data.tags["armory.attempt"] for run in attempts] == ["1", "2", "3"]
    assert main(["report", "s"]) == 0
    result = evals.run("--armory-resume=s")  # nothing is left
    result.assert_outcomes(skipped=10)
    result.stdout.fnmatch_lines(["0 evaluations, tracked to *", "resumed: 10 evaluations *"])
    assert evals.sessions()[0].data.metrics["passed"] == 10


def test_what_has_not_passed_runs_again(evals: Evals, each_way: Sequence[str]) -> None:
    evals.write("""
        import pytest
        from pathlib import Path
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation
        def test_good(): pass
        @pytest.mark.xfail
        def test_expected(): assert 0
        @pytest.mark.xfail
        def test_unexpected(): pass
        def test_bad(): assert Path("go").exists()
        @pytest.mark.evaluation(at_least={"a": 1})
        def test_gate(): track_metrics({"a": Path("go").exists()})
        @pytest.fixture
        def broken(): assert Path("go").exists()
        def test_error(broken): pass
        def test_skips():
            if not Path("go").exists(): pytest.skip("not now")
        @pytest.mark.skip
        def test_never(): pass
    """)
    args = ("--armory-session=s", "--armory-resume", *each_way)
    evals.run(*args).assert_outcomes(passed=1, failed=2, errors=1, skipped=2, xfailed=1, xpassed=1)
    (evals.pytester.path / "go").touch()
    result = evals.run(*args)
    result.assert_outcomes(passed=4, skipped=4)
    result.stdout.fnmatch_lines(
        ["resumed: 3 evaluations *", "session s * 7 evaluations: 5 passed*"]
    )
    assert main(["report", "s"]) == 0
    evals.run("--armory-resume=other").assert_outcomes(passed=5, skipped=1, xfailed=1, xpassed=1)


CHANGES = [
    ("test_it.py", "pass", "pass  # changed", "its file has changed"),
    ("conftest.py", "1", "2", "a conftest file has changed"),
    ("marked.py", "'a'", "'b'", "its marker has changed"),
    ("values.py", "[1, 2]", "[1, 3]", "its parameters have changed"),
]


def test_what_neither_job_has_run_counts_once(evals: Evals) -> None:
    """The one that resumes stops where the first one did, before the same evaluations."""
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(3))
        def test_a(i): assert i
    """)
    for _ in range(2):
        result = evals.run("-x", "-p", "no:randomly", "--armory-session=s", "--armory-resume")
        (session,) = evals.sessions()
        assert session.data.metrics["session/evaluations"] == 3
        assert session.data.metrics["session/not_run"] == 2
    whole = "session s over all its jobs: 3 evaluations: 1 failed, 2 not run (1 earlier attempt)"
    result.stdout.fnmatch_lines([whole])


def test_what_has_changed_runs_again(evals: Evals) -> None:
    """And says what it is; a parameter without a stable form always runs again."""
    evals.write(
        """
        import numpy, pytest, marked, values
        pytestmark = pytest.mark.evaluation(description=marked.TEXT)
        @pytest.mark.parametrize("x", [numpy.array(values.XS)], ids=["x"])
        def test_a(x): pass
        @pytest.mark.parametrize("x", [object()], ids=["o"])
        def test_b(x): pass
        """,
        conftest="VALUE = 1",
        marked="TEXT = 'a'",
        values="XS = [1, 2]",
    )
    args = ("--armory-session=s", "--armory-resume", "-p", "no:randomly")
    evals.run(*args, subprocess=True).assert_outcomes(passed=2)
    for name, old, new, expected in CHANGES:
        evals.run(*args, subprocess=True).assert_outcomes(passed=1, skipped=1)
        path = evals.pytester.path / name
        path.write_text(path.read_text().replace(old, new))
        result = evals.run(*args, subprocess=True)
        result.assert_outcomes(passed=2)
        assert f"passed before, and runs again: {expected} (test_a[x])" in result.stdout.str()
    result.stdout.fnmatch_lines(["*runs again: its parameters have no stable form (test_b[[]o])"])
    path.write_text("XS = [5]")
    evals.run(*args, "--armory-resume-any", subprocess=True).assert_outcomes(skipped=2)


JUDGED = """
    import pytest
    from pathlib import Path
    from pytest_armory import track_metrics
    def test_plain(): pass
    @pytest.mark.evaluation
    def test_free(): pass
    @pytest.mark.evaluation(at_least={"a": 1})
    def test_gated():
        with open("bodies", "a") as bodies:
            print(1, file=bodies)
        track_metrics({"a": 1})
"""
OF_VERDICTS = [
    (("--armory-repeats=2",), "the number of its repeats has changed", 2),
    (("-o", "armory_tolerances=a: -1%"), "what its gates are judged by has changed", 2),
    (("-o", "armory_confidence=90"), "the session's first job decides: armory_confidence 95", 0),
]


@pytest.mark.parametrize(("given", "said", "again"), OF_VERDICTS)
def test_what_a_verdict_depends_on_has_changed(
    evals: Evals, given: Sequence[str], said: str, again: int
) -> None:
    """Of what the session's first job has recorded for all of its jobs, nothing can change."""
    evals.write(JUDGED)
    args = ("--armory-session=s", "--armory-resume")
    evals.run(*args).assert_outcomes(passed=3)
    evals.run(*args).assert_outcomes(passed=1, skipped=2)
    for way in ("-n0", "-n1"):
        result = evals.run(*args, *given, way)
        result.assert_outcomes(passed=1 + again, skipped=2 - again)
        assert f"{'passed before, and runs again: ' * bool(again)}{said}" in result.stdout.str()
        evals.run(*args).assert_outcomes(passed=1 + again, skipped=2 - again)


def test_another_commit_or_uncommitted_changes(evals: Evals) -> None:
    def git(*args: str) -> None:
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *author, *args], cwd=evals.pytester.path, check=True, timeout=30)

    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    model = Path(evals.pytester.path, "model.py")
    model.write_text("x = 1\n")
    git("init", "-q")
    git("add", "test_it.py", "model.py")
    git("commit", "-qm", "one")
    args = ("--armory-session=s", "--armory-resume")
    expected = [
        lambda: None,
        lambda: model.write_text("x = 2\n"),
        lambda: model.write_text("x = 3\n"),
        lambda: git("commit", "-qam", "two"),
    ]
    said = [
        "",
        "uncommitted changes have changed",
        "uncommitted changes have changed",
        "git commit",
    ]
    evals.run(*args, subprocess=True).assert_outcomes(passed=1)
    for change, text in zip(expected, said, strict=True):
        change()
        result = evals.run(*args, subprocess=True)
        result.assert_outcomes(**({"passed": 1} if text else {"skipped": 1}))
        assert text in result.stdout.str()


@pytest.mark.parametrize("is_ended", [False, True])
def test_what_other_jobs_are_doing_is_left_alone(
    evals: Evals, start: Callable[..., Session], capsys: pytest.CaptureFixture[str], is_ended: bool
) -> None:
    """Runs of another machine's: only those of this shard that are about to run are closed.

    Also one that its test has ended in MLflow, without an outcome.
    """
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(4))
        def test_a(i, mark, stay):
            if i == 1:
                mark("there")
                stay()
    """)
    client = MlflowClient(sqlite_uri(evals.home / "mlruns" / "mlflow.db"))
    experiment = client.create_experiment("x")

    def elsewhere(i: int, part: str) -> str:
        tags = {
            "armory.kind": "evaluation", "armory.session": "s", "armory.host": "far",
            "armory.process": "far:1:a", "armory.shard": "far:1:a:b", "armory.part": part,
            "armory.nodeid": f"test_it.py::test_a[{i}]",
        }  # fmt: skip
        run = client.create_run(experiment, run_name=f"far-{i}-{part}", tags=tags)
        return str(run.info.run_id)

    mine, others, later = elsewhere(0, "1/2"), elsewhere(0, "2/2"), elsewhere(3, "2/2")
    if is_ended:
        client.set_terminated(mine)
    job = start("--armory-session=s", "--armory-resume", "--armory-shard=1/2", "-p", "no:randomly")
    job.wait_for("there")  # a job at work on this machine
    (evals.pytester.path / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef mark(): return lambda name: None\n"
        "@pytest.fixture\ndef stay(): return lambda: None\n"
    )
    evals.run("--armory-session=s", "--armory-resume", "--armory-shard=1/2", subprocess=True)
    statuses = {run.info.run_id: run.info.status for run in evals.read()}
    assert statuses[mine] == "KILLED"
    assert (statuses[others], statuses[later]) == ("RUNNING", "RUNNING")
    assert client.get_run(mine).data.tags["armory.outcome"] == "interrupted"
    assert list(statuses.values()).count("RUNNING") >= 3  # the living job's too
    assert main(["report", "s"]) == 1
    assert "test_a[3] is still running: it began just now on far" in capsys.readouterr().out
    job.send(signal.SIGKILL)


def down(_: Proxy, handler: Handler) -> bool:
    handler.give(503, b"")
    return True


def forget_outage() -> None:
    """As another process has not seen it."""
    open_store.cache_clear()
    _circuits.clear()


def at(server: str, session: str) -> list[Run]:
    client = MlflowClient(server)
    ids = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(ids, f"tags.`armory.session` = '{session}'"))


def check_whole(server: str, session: str, passed: int) -> None:
    """One session at the server, of which nothing is open, and `report` says that all is well."""
    assert main(["report", session, "--armory-tracking-uri", server]) == 0
    runs = at(server, session)
    assert "RUNNING" not in {run.info.status for run in runs}
    (parent,) = [run for run in runs if run.data.tags["armory.kind"] == "session"]
    assert parent.data.metrics["passed"] == parent.data.metrics["evaluations"] == passed
    others = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in others} == {parent.info.run_id}


@pytest.mark.parametrize(
    ("shard", "expected"),
    [
        ("1/1", "shard 1/1 has ended, and 1 evaluation of it never ran"),
        ("", "1 run of this session waited on * to be uploaded, *; run `pytest-armory sync` there"),
    ],
    ids=["shard", "job"],
)
def test_what_waits_locally_counts(
    evals: Evals,
    proxy: Proxy,
    mlflow_server: str,
    capsys: pytest.CaptureFixture[str],
    shard: str,
    expected: str,
) -> None:
    """A later job skips it; `report` does not, for as long as only that machine has it."""
    evals.write(f"""
        import pytest
        pytestmark = pytest.mark.evaluation(name="resumed {shard}")
        def test_a(): pass
        def test_b(): pass
    """)
    where, session = ("--armory-tracking-uri", proxy.url), f"outage{bool(shard)}"
    args = (*where, f"--armory-session={session}", "--armory-resume")
    args = (*args, *([f"--armory-shard={shard}"] * bool(shard)))
    proxy.fault = down
    result = evals.run(*args, "-k", "test_a", "-o", "armory_budget=1")
    result.stdout.fnmatch_lines(["waiting for *"])
    proxy.fault = None
    forget_outage()
    result = evals.run(*args)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*over all its jobs: 2 evaluations: 2 passed"])
    assert main(["report", session, *where]) == 1  # the server does not have all of it yet
    assert fnmatch(capsys.readouterr().out, f"*{expected}*")
    assert main(["sync"]) == 0
    check_whole(mlflow_server, session, 2)


def test_a_server_that_goes_away_in_the_middle(
    evals: Evals,
    proxy: Proxy,
    mlflow_server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The evaluation that began at the server and passed locally is not run again."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    evals.write("""
        import os, pytest
        from pathlib import Path
        from pytest_armory import track_metrics
        pytestmark = pytest.mark.evaluation(name="middle")
        def test_a(): pass
        def test_b(evaluation_run):
            os.environ["SICK"] = "1"
            evaluation_run.log_metrics({"x": 1})
        def test_c(): assert Path("go").exists()
    """)
    proxy.fault = lambda proxy, handler: "SICK" in os.environ and reset(proxy, handler)
    args = ("--armory-tracking-uri", proxy.url, "--armory-session=middle", "--armory-resume")
    args = (*args, "-p", "no:randomly")
    evals.run(*args).assert_outcomes(passed=2, failed=1)
    os.environ.pop("SICK")
    assert "RUNNING" in {run.info.status for run in at(mlflow_server, "middle")}
    forget_outage()
    capsys.readouterr()
    assert main(["report", "middle", "--armory-tracking-uri", proxy.url]) == 1
    told = capsys.readouterr().out
    assert "test_b waits here to be uploaded: it began " in told
    assert f"`pytest-armory sync --armory-tracking-uri {proxy.url}` uploads them" in told
    assert "killed" not in told
    (evals.pytester.path / "go").touch()
    result = evals.run(*args)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*over all its jobs: 3 evaluations: 3 passed"])
    assert main(["report", "middle", "--armory-tracking-uri", mlflow_server]) == 1
    assert main(["sync"]) == 0
    check_whole(mlflow_server, "middle", 3)


def test_a_worker_that_crashes_as_its_server_goes_away(
    evals: Evals, proxy: Proxy, mlflow_server: str
) -> None:
    """What it had passed at the server is not run again, though its end is known here only."""
    evals.write("""
        import os, pytest
        from pathlib import Path
        pytestmark = pytest.mark.evaluation(name="crashed away")
        def test_a(): pass
        def test_b():
            if not Path("gone").exists():
                Path("gone").touch()
                os._exit(3)
    """)
    gone = evals.pytester.path / "gone"
    proxy.fault = lambda proxy, handler: gone.exists() and reset(proxy, handler)
    args = ("--armory-tracking-uri", proxy.url, "--armory-session=away", "--armory-resume")
    args = (*args, "-p", "no:randomly", "-o", "armory_budget=3")
    evals.run(*args, "-n1").assert_outcomes(passed=1, failed=1)
    proxy.fault = None
    forget_outage()
    result = evals.run(*args)
    result.assert_outcomes(passed=1, skipped=1)
    assert main(["sync"]) == 0
    check_whole(mlflow_server, "away", 2)


@pytest.mark.parametrize("shard", ["1/1", ""], ids=["shard", "job"])
def test_a_server_that_is_away_at_the_end_of_a_job(
    evals: Evals, proxy: Proxy, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, shard: str
) -> None:
    """All is stored but that the job has ended, which `sync` uploads."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    evals.write(f"""
        import pytest
        @pytest.mark.evaluation(name="the end {shard}")
        def test_a(): pass
    """)
    evals.pytester.makeconftest(f"""
        import os, pytest, time
        from mlflow import MlflowClient
        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish():
            client = MlflowClient("{mlflow_server}")
            found = client.get_experiment_by_name("the end {shard}").experiment_id
            while not client.search_runs([found], "attributes.status = 'FINISHED'"):
                time.sleep(0.05)
            os.environ["SICK"] = "1"
    """)
    proxy.fault = lambda proxy, handler: "SICK" in os.environ and reset(proxy, handler)
    session = f"the-end{bool(shard)}"
    args = ("--armory-tracking-uri", proxy.url, f"--armory-session={session}")
    result = evals.run(*args, *([f"--armory-shard={shard}"] * bool(shard)))
    os.environ.pop("SICK")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*the end of this job is recorded locally, `pytest-armory sync*"])
    proxy.fault = None
    forget_outage()
    assert main(["report", session, "--armory-tracking-uri", mlflow_server]) == 1
    assert main(["sync"]) == 0
    check_whole(mlflow_server, session, 1)


def test_killed_while_the_server_is_out_of_reach(
    evals: Evals, start: Callable[..., Session], proxy: Proxy, mlflow_server: str
) -> None:
    """What a killed job has left open in the local database is closed without the server."""
    evals.write(TEN.replace('"ten"', '"dark"'))
    proxy.fault = down
    args = ("--armory-tracking-uri", proxy.url, "--armory-session=dark", "--armory-resume")
    args = (*args, "-o", "armory_budget=1", "-p", "no:randomly")
    job = start(*args)
    job.wait_for("seven")
    job.send(signal.SIGKILL)
    job.gone()
    assert ("test_a[7]", "open") in outcomes(evals)
    (evals.pytester.path / "go").touch()
    result = evals.run(*args)
    result.assert_outcomes(passed=3, skipped=7)
    assert bodies(evals) == [*range(8), 7, 8, 9]
    found = [outcome for name, outcome in outcomes(evals) if name == "test_a[7]"]
    assert sorted(found) == ["interrupted", "passed"]
    assert "RUNNING" not in {run.info.status for run in evals.read()}
    proxy.fault = None
    forget_outage()
    assert main(["sync"]) == 0
    check_whole(mlflow_server, "dark", 10)


def test_recover_knows_what_waits_for_a_server(
    evals: Evals, start: Callable[..., Session], proxy: Proxy
) -> None:
    """Its processes' leases are those of sessions at the server."""
    evals.write(TEN.replace('"ten"', '"dark too"'))
    proxy.fault = down
    args = ("--armory-tracking-uri", proxy.url, "-o", "armory_budget=1", "-p", "no:randomly")
    job = start(*args)
    job.wait_for("seven")
    assert main(["recover"]) == 0
    assert ("test_a[7]", "open") in outcomes(evals)  # it is alive
    job.send(signal.SIGKILL)
    job.gone()
    assert main(["recover"]) == 0
    assert ("test_a[7]", "interrupted") in outcomes(evals)
    assert "RUNNING" not in {run.info.status for run in evals.read()}


@pytest.mark.parametrize("way", [("-n1",), ("-n2",)], ids=["n1", "n2"])
def test_after_a_workers_crash(evals: Evals, way: Sequence[str]) -> None:
    evals.write("""
        import os, pytest
        from pathlib import Path
        pytestmark = pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(5))
        def test_a(i):
            with open("bodies", "a") as bodies:
                print(i, file=bodies)
            if i == 2 and not Path("go").exists():
                os._exit(1)
    """)
    args = ("--armory-session=s", "--armory-resume")
    result = evals.run(*args, *way, "-p", "no:randomly", subprocess=True)
    result.assert_outcomes(passed=4, failed=1)
    (evals.pytester.path / "go").touch()
    evals.run(*args).assert_outcomes(passed=1, skipped=4)
    assert sorted(bodies(evals)) == [0, 1, 2, 2, 3, 4]
    assert sorted(outcomes(evals)) == sorted([
        *((f"test_a[{i}]", "passed") for i in range(5)), ("test_a[2]", "crashed")
    ])  # fmt: skip
    assert main(["report", "s"]) == 0


REFUSED = [
    (("--armory-resume",), "*needs a session: give its ID*"),
    (("--armory-resume=",), "*gives no session's ID; give one*"),
    (("--armory-repeats=",), "*must be a whole number from 1 to 1,000, got ''*"),
    (("--armory-devices=",), "*must be auto or a list of GPUs, got ''*"),
    (("--armory-resume", "test_it.py"), "*has taken 'test_it.py' for a session's ID*"),
    (("--armory-resume", "a.py::test_b"), "*has taken 'a.py::test_b' for a session's ID*"),
    (("--armory-resume=a", "--armory-session=b"), "*=a and the session b * differ*"),
    (("--armory-resume=a b",), "*a session's ID must be*got 'a b'*"),
]


@pytest.mark.parametrize(("args", "expected"), REFUSED)
def test_what_cannot_be_resumed(
    evals: Evals, args: Sequence[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # which has got its device
    evals.write("def test_a(): pass")
    result = evals.run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: armory: {expected}"])


def test_resuming_needs_tracking(evals: Evals) -> None:
    evals.write("def test_a(): pass")
    result = evals.run("--armory-resume=a", track=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*add --armory-track*"])


def test_what_waits_for_no_server_is_not_done_there(evals: Evals, proxy: Proxy) -> None:
    """The local database may have a session of the same ID, which was tracked to it."""
    evals.write("""
        import pytest
        pytestmark = pytest.mark.evaluation(name="of another store")
        def test_a(): pass
        def test_b(): pass
    """)
    evals.run("--armory-session=two-stores").assert_outcomes(passed=2)
    (local,) = evals.sessions()
    there = ("--armory-tracking-uri", proxy.url, "--armory-session=two-stores", "--armory-resume")
    proxy.fault = down
    result = evals.run(*there, "-o", "armory_budget=1", "-k", "test_a")
    result.assert_outcomes(passed=1, deselected=1)
    assert "over all its jobs" not in result.stdout.str()
    forget_outage()
    proxy.fault = None
    evals.run(*there).assert_outcomes(passed=1, skipped=1)
    assert main(["sync"]) == 0
    check_whole(proxy.url, "two-stores", passed=2)
    (after,) = [run for run in evals.sessions() if run.info.run_id == local.info.run_id]
    assert after.data.metrics == local.data.metrics
    assert "armory.ended" not in " ".join(after.data.tags.keys() - local.data.tags.keys())


def test_what_a_mark_skips_is_nothing_that_never_ran(
    evals: Evals,
    start: Callable[..., Session],
    each_way: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The killed job has not come to it; the one that resumes has skipped it."""
    evals.write("""
        import pytest
        from pathlib import Path
        pytestmark = pytest.mark.evaluation
        def test_a(mark, stay):
            if not Path("go").exists():
                mark("there")
                stay()
        @pytest.mark.skip
        def test_never(): pass
    """)
    args = ("--armory-session=s", "--armory-resume", "-p", "no:randomly")
    job = start(*args)
    job.wait_for("there")
    job.send(signal.SIGTERM)
    job.gone()
    (session,) = evals.sessions()
    assert (session.info.status, session.data.metrics["session/not_run"]) == ("KILLED", 1)
    (evals.pytester.path / "go").touch()
    result = evals.run(*args, *each_way)
    result.stdout.fnmatch_lines(["session s over all its jobs: 1 evaluation: 1 passed (1 earlier*"])
    (session,) = evals.sessions()
    assert (session.info.status, session.data.metrics["session/not_run"]) == ("FINISHED", 0)
    assert main(["report", "s"]) == 0
    assert "1 evaluation: 1 passed (1 earlier attempt)" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["-n0", "-n1"])
def test_the_mark_of_recover_is_gone_once_the_session_is_complete(
    evals: Evals, start: Callable[..., Session], way: str
) -> None:
    """With a failure too; the attempt that was killed keeps it."""
    evals.write(TEN.replace("if i == 7", "assert i != 8\n        if i == 7"))
    args = ("--armory-session=s", "--armory-resume", "-p", "no:randomly")
    job = start(*args)
    job.wait_for("seven")
    job.send(signal.SIGKILL)
    job.gone()
    (evals.pytester.path / "go").touch()
    evals.run(*args, way, "-k", "not 7").assert_outcomes(failed=1, passed=1, skipped=7)
    (session,) = evals.sessions()
    assert session.data.tags["armory.recovered"] == "true"
    evals.run(*args, way).assert_outcomes(failed=1, passed=1, skipped=8)
    (session,) = evals.sessions()
    assert (session.info.status, session.data.tags.get("armory.recovered")) == ("FAILED", None)
    marked = [run for run in evals.read() if "armory.recovered" in run.data.tags]
    assert [run.info.run_name for run in marked] == ["test_a[7]"]


def test_a_resumed_shard_reads_the_session_runs_once_at_its_end(
    evals: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(4))
        def test_a(i): pass
    """)
    args = ("--armory-session=s", "--armory-resume", "--armory-shard=1/2")
    evals.run(*args).assert_outcomes(passed=2)
    done: list[str] = []

    def noting(what: str, method: Callable[..., object]) -> Callable[..., object]:
        return lambda *given: (done.append(what), method(*given))[1]

    for kind, name in ((RunSearch, "session_runs"), (SessionRuns, "close")):
        monkeypatch.setattr(kind, name, noting(name, getattr(kind, name)))
    evals.run(*args).assert_outcomes(skipped=2)
    assert done[done.index("close") :] == ["close", "session_runs"]


@pytest.mark.parametrize("way", ["-n0", "-n1"])
def test_a_job_that_is_killed_during_an_outage_and_resumed(
    evals: Evals, proxy: Proxy, mlflow_server: str, start: Callable[..., Session], way: str
) -> None:
    """What `sync` uploads of the killed job later does not undo the resumed one's end."""
    evals.write(f"""
        import pytest
        from pathlib import Path
        pytestmark = pytest.mark.evaluation(name="killed in an outage {way}")
        def test_a(): pass
        def test_b():
            if not Path("go").exists():
                Path("sick").touch()
        def test_c(mark, stay):
            if not Path("go").exists():
                mark("there")
                stay()
    """)
    sick = evals.pytester.path / "sick"
    proxy.fault = lambda proxy, handler: sick.exists() and down(proxy, handler)
    args = ("--armory-tracking-uri", proxy.url, f"--armory-session=away{way}", "--armory-resume")
    args = (*args, "-p", "no:randomly")
    job = start(*args, "-o", "armory_budget=1")
    job.wait_for("there")
    job.send(signal.SIGKILL)
    job.gone()
    sick.unlink()
    (evals.pytester.path / "go").touch()
    result = evals.run(*args, way)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*over all its jobs: 3 evaluations: 3 passed*"])
    assert main(["sync"]) == 0
    check_whole(mlflow_server, f"away{way}", 3)


def test_what_failed_on_one_worker_of_all_runs_again(evals: Evals) -> None:
    evals.write("""
        import os, pytest
        from pathlib import Path
        pytestmark = pytest.mark.evaluation
        def test_a(): assert os.environ["PYTEST_XDIST_WORKER"] == "gw1" or Path("go").exists()
        def test_b(): pass
    """)
    args = ("--armory-session=s", "--armory-resume", "-n2", "--dist=each")
    evals.run(*args).assert_outcomes(passed=3, failed=1)
    (evals.pytester.path / "go").touch()
    evals.run(*args).assert_outcomes(passed=2, skipped=2)
    (session,) = evals.sessions()
    assert session.data.metrics["passed"] == session.data.metrics["evaluations"] == 4
    assert main(["report", "s"]) == 0


def test_what_waits_is_uploaded_while_the_job_that_resumes_it_runs(
    evals: Evals, proxy: Proxy
) -> None:
    evals.write("""
        import subprocess, sys, pytest
        from pathlib import Path
        pytestmark = pytest.mark.evaluation(name="uploaded meanwhile")
        def test_a(): pass
        def test_b():
            sync = [sys.executable, "-m", "pytest_armory.cli.main", "sync"]
            subprocess.run(sync, check=True, timeout=120)
    """)
    args = ("--armory-tracking-uri", proxy.url, "--armory-session=meanwhile", "--armory-resume")
    proxy.fault = down
    evals.run(*args, "-k", "test_a", "-o", "armory_budget=1").assert_outcomes(
        passed=1, deselected=1
    )
    proxy.fault = None
    forget_outage()
    result = evals.run(*args)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*over all its jobs: 2 evaluations: 2 passed"])
    check_whole(proxy.url, "meanwhile", 2)


def test_what_waits_for_a_server_is_none_of_a_local_session(
    evals: Evals, proxy: Proxy, each_way: Sequence[str]
) -> None:
    """Nor does a local session of the same ID go to the server with it."""
    name = f"stays-here{each_way[-1].replace(':', '-')}"
    evals.write(f"""
        import pytest
        pytestmark = pytest.mark.evaluation(name={name!r})
        def test_a(): pass
        def test_b(): pass
    """)
    session = ("--armory-session", name, "--armory-resume")
    proxy.fault = down
    where = ("--armory-tracking-uri", proxy.url, "-o", "armory_budget=1")
    evals.run(*session, *where, "-k", "test_a").assert_outcomes(passed=1, deselected=1)
    result = evals.run(*session, *each_way)
    result.assert_outcomes(passed=2)
    assert "over all its jobs" not in result.stdout.str()
    proxy.fault = None
    forget_outage()
    assert main(["sync"]) == 0
    check_whole(proxy.url, name, 1)


def test_a_fingerprint_that_cannot_be_read_is_named(evals: Evals) -> None:
    evals.write("import pytest\n@pytest.mark.evaluation\ndef test_a(): pass")
    evals.run("--armory-session=s")
    client = MlflowClient(sqlite_uri(evals.home / "mlruns" / "mlflow.db"))
    client.set_tag(evals.run_of("test_a").info.run_id, "armory.fingerprint", "[1]")
    result = evals.run("--armory-resume=s")
    result.assert_outcomes(passed=1)
    what = "warning: the tag armory.fingerprint cannot be read: it is not an object (test_a)"
    result.stdout.fnmatch_lines([what])
