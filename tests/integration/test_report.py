"""``pytest-armory report`` and ``durations``: a session over all its jobs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import Evals
from faults import Session
from hosts import FakeHost
from loopback import listening

from pytest_armory.cli import report
from pytest_armory.cli.main import main

SUITE = """
    import pytest
    @pytest.mark.evaluation
    @pytest.mark.parametrize("i", range(4))
    def test_a(i): pass
    @pytest.mark.evaluation
    @pytest.mark.skip
    def test_never(): pass
    def test_plain(): pass
"""


@pytest.fixture
def reported(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command: its exit status, and what it prints."""

    def run(*args: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main(["report", *args])
        return status, "".join(capsys.readouterr())

    return run


Reported = Callable[..., tuple[int, str]]


def test_shards(
    evals: Evals,
    reported: Reported,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evals.write(SUITE)
    assert reported("s", "--wait", "0.1")[0] == 2
    evals.run("--armory-session=s", "--armory-shard=1/3")
    evals.run("--armory-session=s", "--armory-shard=2/3")
    status, text = reported("s", "--summary", "part.md", "--html", "part.html")
    assert status == 1
    assert "4 evaluations: 4 passed" in text
    assert "warning: shard 3 of 3 never came" in text
    part = evals.pytester.path / "part"  # what has come has passed, and the session has not
    assert part.with_suffix(".md").read_text("utf-8").startswith("## ⚠️ 4 evaluations: 4 passed")
    assert '<span class="badge incomplete">' in part.with_suffix(".html").read_text("utf-8")

    def sleep(seconds: float) -> None:
        assert seconds == 5.0
        evals.run("--armory-session=s", "--armory-shard=3/3")

    monkeypatch.setattr(report, "sleep", sleep)
    assert reported("s", "--wait", "600", "--summary", "whole.md")[0] == 0
    path = evals.pytester.path / "whole.md"
    assert path.read_text().startswith("## ✅ 4 evaluations: 4 passed")
    capsys.readouterr()
    assert main(["durations"]) == 0
    durations = json.loads(capsys.readouterr().out)
    assert list(durations) == [f"test_it.py::test_a[{i}]" for i in range(4)]
    assert all(0 <= seconds < 60 for seconds in durations.values())
    assert main(["durations", "--from", "s"]) == 0
    assert json.loads(capsys.readouterr().out) == durations
    assert main(["durations", "--from", "nowhere"]) == 2


def test_durations_are_of_what_passed(evals: Evals, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that failed at once does not say how long the evaluation takes, if there is another."""
    evals.write("""
        import time, pytest
        from pathlib import Path
        @pytest.mark.evaluation
        def test_a():
            assert not Path("bad").exists()
            time.sleep(0.5)
        @pytest.mark.evaluation
        def test_b(): assert 0
    """)
    evals.run().assert_outcomes(passed=1, failed=1)
    (evals.pytester.path / "bad").touch()
    evals.run().assert_outcomes(failed=2)
    capsys.readouterr()
    assert main(["durations"]) == 0
    durations = json.loads(capsys.readouterr().out)
    assert durations["test_it.py::test_a"] >= 0.5
    assert "test_it.py::test_b" in durations


def test_shards_of_different_collections(evals: Evals, reported: Reported) -> None:
    evals.write(SUITE)
    evals.run("--armory-session=s", "--armory-shard=1/2")
    evals.run("--armory-session=s", "--armory-shard=2/2", "-k", "test_a")
    status, text = reported("s")
    assert status == 1
    assert "the 2 shards have collected different tests: 6 tests (" in text
    assert "has run twice" not in text


def test_a_job_that_was_killed(
    evals: Evals, start: Callable[..., Session], reported: Reported
) -> None:
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        @pytest.mark.parametrize("i", range(3))
        def test_a(i, mark, stay):
            if i == 1:
                mark("there")
                stay()
    """)
    job = start("--armory-session=s", "--armory-shard=1/1", "-p", "no:randomly")
    job.wait_for("there")
    status, text = reported("s")
    assert status == 1
    assert "test_a[1] is still running: it began just now on " in text
    assert "shard 1/1 has not ended: it began just now on " in text
    assert "and 1 evaluation of it never began" in text
    job.send(signal.SIGTERM)
    job.gone()
    status, text = reported("s")
    assert status == 1
    assert "3 evaluations: 1 passed, 1 interrupted, 1 not run" in text
    assert "still running" not in text
    assert "shard 1/1 has ended, and 1 evaluation of it never ran" in text


@pytest.mark.parametrize("shard", [(), ("--armory-shard=1/1",)], ids=["job", "shard"])
def test_what_a_killed_process_left_open(
    evals: Evals,
    start: Callable[..., Session],
    reported: Reported,
    monkeypatch: pytest.MonkeyPatch,
    shard: Sequence[str],
) -> None:
    """Nothing more comes of it, so it is not waited for; one command closes it."""
    evals.write("""
        import pytest
        @pytest.mark.evaluation
        def test_a(mark, stay):
            mark("there")
            stay()
    """)
    job = start("--armory-session=s", *shard)
    job.wait_for("there")
    at_work = "test_a is still running: it began just now on "
    assert at_work in reported("s")[1]
    job.send(signal.SIGKILL)
    job.gone()
    monkeypatch.setattr(report, "sleep", lambda _: pytest.fail("it waits"))
    status, text = reported("s", "--wait", "1000", "--armory-tracking-uri", "local")
    assert status == 1
    assert "test_a was killed: it began just now on " in text
    assert "2 runs left open by a process that was killed on this machine: " in text
    assert "`pytest-armory recover --armory-tracking-uri local` closes what it left" in text
    assert "is still" not in text
    assert main(["recover"]) == 0
    status, text = reported("s", "--wait", "1000")
    assert status == 1
    assert "1 evaluation: 1 interrupted" in text
    assert "was killed" not in text


def test_two_legs_of_a_matrix_at_once(
    evals: Evals, start: Callable[..., Session], reported: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both resume, as in the documented workflow: one skips what the other has passed."""
    evals.write("""
        import os, pytest
        pytestmark = pytest.mark.evaluation
        def test_a(): pass
        def test_b(mark, stay):
            if "LEG" in os.environ:
                mark("there")
                stay()
    """)
    monkeypatch.setenv("GITHUB_RUN_ID", "s")
    monkeypatch.setenv("GITHUB_RUN_ATTEMPT", "1")
    args = ("--armory-resume", "--armory-shard=1/1", "-p", "no:randomly")
    with monkeypatch.context() as patch:
        patch.setenv("LEG", "1")
        leg = start(*args)
        leg.wait_for("there")
    evals.run(*args).assert_outcomes(passed=1, skipped=1)
    leg.send(signal.SIGTERM)
    leg.gone()
    status, text = reported("s")
    assert status == 1
    assert "shard 1/1 has run twice in this session, on " in text
    assert "give each its own --armory-session" in text


def test_a_failure_in_one_of_two_jobs_at_once(
    evals: Evals, start: Callable[..., Session], reported: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The legs of a matrix without shards: the other one's verdict is not that of a retry."""
    evals.write("""
        import os, pytest, time
        from pathlib import Path
        @pytest.mark.evaluation
        def test_a(mark):
            if "LEG" in os.environ:
                mark("there")
                while not Path("on").exists():
                    time.sleep(0.02)
                assert 0
    """)
    with monkeypatch.context() as patch:
        patch.setenv("LEG", "1")
        leg = start("--armory-session=s")
        leg.wait_for("there")
    evals.run("--armory-session=s").assert_outcomes(passed=1)
    (evals.pytester.path / "on").touch()
    assert leg.wait() == 1
    status, text = reported("s")
    assert status == 1
    assert "failed in a job that ran at the same time as the one whose verdict counts" in text
    assert "give each its own --armory-session (test_a)" in text


@pytest.mark.parametrize(
    ("args", "source", "status"),
    [
        ((), "def test_a(): pass", 0),
        ((), "def test_a(): assert 0", 1),
        (("-x", "-p", "no:randomly"), "def test_a(): assert 0\n    def test_b(): pass", 1),
        (("-n1",), "@pytest.mark.xfail\n    def test_a(): assert 0", 0),
    ],
)
def test_one_job(
    evals: Evals, reported: Reported, args: tuple[str, ...], source: str, status: int
) -> None:
    evals.write(f"    import pytest\n    pytestmark = pytest.mark.evaluation\n    {source}\n")
    evals.run(*args)
    found, text = reported()
    assert found == status
    assert ("1 evaluation never ran" in text) is ("-x" in args)


def test_a_comment_fails_no_job_unless_strict(
    evals: Evals, reported: Reported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    evals.write(SUITE)
    evals.run("--armory-session=s")
    host = FakeHost("github")
    event = tmp_path / "event.json"
    event.write_text('{"pull_request": {"number": 7}}')
    with listening(host.respond) as url:
        for name, value in {
            "ACTIONS": "true", "API_URL": url, "REPOSITORY": "a/b", "EVENT_PATH": str(event),
        }.items():  # fmt: skip
            monkeypatch.setenv(f"GITHUB_{name}", value)
        for strict, status in ((False, 0), (True, 1)):
            found, text = reported("s", "--comment", *["--strict"] * strict)
            assert found == status
            assert "no comment: GITHUB_TOKEN is not set: add `env: GITHUB_TOKEN:" in text
        monkeypatch.setenv("GITHUB_TOKEN", host.token)
        assert reported("s", "--comment", "--strict")[0] == 0
        status, text = reported("s", "--comment")
    assert (status, len(host.comments)) == (0, 1)
    assert "updated the comment: https://h/pull/7#100" in text
    assert "4 evaluations: 4 passed" in host.comments[0]["body"]
