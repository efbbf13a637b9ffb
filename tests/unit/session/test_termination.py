"""What ends a process by a signal, also beside handlers of others."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest
from faults import PATIENCE

SCRIPT = """
import signal, threading
from pytest_armory.session import signals

answered = threading.Event()
answered.set()

def closes():
    answered.wait()
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

NO_ANSWER = """
answered.clear()
signals.GRACE = 0.2
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
        (NO_ANSWER, False),
    ],
    ids=["alone", "ctrl-c", "raises", "chained", "both", "no-thread", "chained-no-thread",
         "no-answer"],
)  # fmt: skip
def test_a_process_ends_by_the_signal(before: str, closed: bool) -> None:
    """Hooks wait for that: it would go on for good, and take no later signal."""
    command = [sys.executable, "-c", SCRIPT.format(before=before)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == -signal.SIGTERM, ended.stderr
    assert ("closed" in ended.stdout) == closed


EVERYWHERE = """
import os, signal, sys, threading
from pytest_armory.session import signals

signals.TWICE = 0.01

def child(chosen, pipe):
    # Send Ctrl-C at the chosen one of the calls and returns while the handler is at work.
    goes_on = threading.Event()
    def closes():
        goes_on.wait()
        os.write(pipe, b"closed")

    signals.before_termination(closes)
    handler = signal.getsignal(signal.SIGTERM).__code__
    number = 0
    def trace(frame, event, _):
        nonlocal number
        caller = frame
        while caller is not None and caller.f_code is not handler:
            caller = caller.f_back
        if caller is None:
            return None
        number += event in ("call", "return")
        if number == chosen:
            sys.settrace(None)
            number += 1
            os.write(pipe, f"{{frame.f_code.co_name}} {{event}} ".encode())
            signal.raise_signal(signal.SIGINT)
        return trace
    try:
        sys.settrace(trace)
        signal.raise_signal(signal.SIGTERM)
        sys.settrace(None)
    except KeyboardInterrupt as interrupt:
        signals.send_again(interrupt)
    goes_on.set()
    threading.Event().wait()

def send(chosen):
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm({patience})
        child(chosen, writer)
    os.close(writer)
    return pid, reader

def ended(pid, reader):
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, os.read(reader, 1000).decode()

for begin in range(1, 2000, 50):
    ends = [ended(*one) for one in [send(begin + more) for more in range(50)]]
    for status, said in ends:
        print(status, said)
    if not ends[-1][1].strip().count(" "):
        break
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_ctrl_c_at_any_call_of_the_handler_loses_no_signal() -> None:
    """Supervisors send both: the process closes what is open, and ends by the other signal."""
    script = EVERYWHERE.format(patience=int(PATIENCE))
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    ends = ended.stdout.splitlines()
    interrupted = [end.split(maxsplit=1)[1] for end in ends if end.count(" ") > 1]
    assert {"handle call closed", "handle return closed"} <= {*interrupted}
    assert len(interrupted) > 50, ended.stderr
    assert [end for end in ends if not re.fullmatch(r"-15 (\S+ (call|return) )?closed", end)] == []
