"""What ends a process by a signal, also beside handlers of others."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from faults import PATIENCE

SCRIPT = """
import signal, threading
from pytest_armory.session import signals

def closes():
    print("closed", flush=True)

signals.before_termination(closes)
{before}
try:
    signal.raise_signal(signal.SIGTERM)
    print("goes on", flush=True)
finally:
    threading.Event().wait()  # as a hook of the plugin does
"""

CTRL_C = """
from time import sleep
def interrupted(seconds):
    signal.raise_signal(signal.SIGINT)
    sleep(seconds)
signals.sleep = interrupted
"""

RAISES = """
def raises(seconds):
    raise RuntimeError("of another signal's handler")
signals.sleep = raises
"""

CHAINED = """
ours = signal.getsignal(signal.SIGTERM)
signal.signal(signal.SIGTERM, lambda number, frame: ours(number, frame))
"""

NO_THREAD = """
def start(*args):
    raise RuntimeError("can't start new thread")
signals.start_new_thread = start
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(
    ("before", "closed"),
    [
        ("", True),
        (CTRL_C, True),
        (RAISES, True),
        (CHAINED, True),
        (CHAINED + CTRL_C, True),
        (NO_THREAD, False),
        (CHAINED + NO_THREAD, False),
    ],
    ids=["alone", "ctrl-c", "raises", "chained", "both", "no-thread", "chained-no-thread"],
)
def test_a_process_ends_by_the_signal(before: str, closed: bool) -> None:
    """Hooks wait for that: it would go on for good, and take no later signal."""
    command = [sys.executable, "-c", SCRIPT.format(before=before)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == -signal.SIGTERM, ended.stderr
    assert ("closed" in ended.stdout) == closed
