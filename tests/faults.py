"""pytest sessions in processes of their own, to be interrupted, terminated and killed."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import UNASKED, printed_verdicts
from forked import Command

PATIENCE = 300.0
"""Seconds until what should have happened is taken to have failed, on a busy machine."""


class Session:
    """A pytest process with its workers, as a process group of its own like a CI job's."""

    number = 1
    """Which of its test's sessions it is."""

    def __init__(self, fork_server: str, folder: Path, *args: str, track: bool = True) -> None:
        self.folder = folder
        self.log = folder / f"log-{time.monotonic_ns()}.txt"
        self.marks = folder / "marks"
        self.marks.mkdir(exist_ok=True)
        for mark in self.marks.iterdir():
            mark.unlink()
        # Hypothesis would be imported by each session, and by each of its workers.
        own = ("pytest", "-v", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *UNASKED)
        argv = [*own, *args, *["--armory-track"] * track]
        with self.log.open("w") as log:
            files = (log.fileno(), log.fileno())
            self.process = Command(fork_server, *argv, folder=folder, files=files)

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that the session does; it is an error if it ends without it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            has_ended = self.process.poll() is not None  # before: it may do it and end
            if is_so():
                return
            assert not has_ended, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def wait_for(self, *marks: str) -> None:
        """Wait until tests have said that they got somewhere, with ``mark(name)``."""
        self.wait_until(lambda: all((self.marks / mark).exists() for mark in marks))

    def wait_for_setup(self, *tests: str) -> None:
        """Wait until the process that reports has dealt with it: with workers that is later."""
        self.wait_for(*(f"set-up-{test}" for test in tests))

    def wait_for_verdicts(self, *tests: str) -> None:
        """Wait until the verdicts of tests are printed: with workers that is later than they end.

        What a signal ends prints no more of them.
        """
        ids = {f"test_it.py::{test}" for test in tests}
        self.wait_until(lambda: ids <= {test for test, _ in printed_verdicts(self.output)})

    def send(self, number: int, group: bool = True) -> None:
        """Send a signal to the whole group, as a terminal and a CI runner do, or to one process."""
        (os.killpg if group else os.kill)(self.process.pid, number)

    def end_late(self) -> None:
        """Let the time be over in which a signal waits for a server; see :data:`SILENT`."""
        (self.marks / "late").touch()

    def wait(self) -> int:
        """The exit status; negative for the signal that killed it."""
        return self.process.wait(PATIENCE)

    @property
    def end(self) -> tuple[int, set[tuple[str, str]], str]:
        """What it is compared with another one by: exit status, verdicts, pytest's last line."""
        status, output = self.wait(), self.output
        last = re.findall(r"^=+ (\d[^=]*) in [\d.]+s.*=$", output, re.MULTILINE)
        return status, printed_verdicts(output), " ".join(last)

    def gone(self) -> None:
        """Wait until no process of the group is left."""
        self.process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
        pytest.fail(f"processes are left of:\n{self.output}")


CONFTEST = """
    import time
    from pathlib import Path
    import pytest
    from pytest_armory.plugin import ending
    from pytest_armory.session import signals, stored_session
    # However busy the machine is, what a signal ends is closed by then.
    signals.GRACE = ending.SOON = stored_session.WAIT = 600.0
    MARKS = Path(__file__).parent / "marks"
    @pytest.fixture(scope="session")
    def mark():
        return lambda name: (MARKS / name).touch()
    @pytest.fixture(scope="session")
    def stay():
        def stay(seconds=600):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(0.02)
        return stay
    class Reports:
        @pytest.hookimpl(trylast=True)
        def pytest_runtest_logreport(self, report):
            if report.when == "setup":
                (MARKS / f"set-up-{report.location[2]}").touch()
    def pytest_sessionstart(session):
        if not hasattr(session.config, "workerinput"):
            session.config.pluginmanager.register(Reports())
"""

SILENT = """
    import os
    ending.SOON = 1.0
    def end_late(number):
        while not (MARKS / "late").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)
    signals._end_late = end_late
"""
"""For a server that does not answer: a signal gives up closing what is open with :meth:`end_late`.
"""


@pytest.fixture
def start(
    pytester: pytest.Pytester,
    armory_home: Path,  # noqa: ARG001 - its environment
    fork_server: Callable[[], str],
) -> Iterator[Callable[..., Session]]:
    """Start a session of ``test_it.py``; what is left of it is killed at the end."""
    pytester.makeconftest(CONFTEST)
    pytester.mkdir("marks")
    sessions: list[Session] = []

    def start(*args: str, track: bool = True) -> Session:
        sessions.append(Session(fork_server(), pytester.path, *args, track=track))
        sessions[-1].number = len(sessions)
        return sessions[-1]

    yield start
    for session in sessions:
        try:
            os.killpg(session.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        session.process.wait(PATIENCE)
