"""The end of a session of so many evaluations, simulated: python benchmarks/session_end.py 50000

Each evaluation has 10 parameters and 10 metrics; its records come on reports as from a worker, and
are of a session whose run is in a real local database. Prints one line of JSON: the seconds of the
processor from the last record to the summary's lines; with ``--memory`` instead, since tracing
makes it slower, the kB that an evaluation occupies in the controller at the peak.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import execnet
import pytest

from pytest_armory.plugin import wire
from pytest_armory.plugin.redacted import display_id
from pytest_armory.records import EvaluationRecord, Outcome, from_wire, to_wire
from pytest_armory.report.junit import junit_properties
from pytest_armory.report.terminal import terminal_lines
from pytest_armory.session.identity import Identity
from pytest_armory.session.ledger import Ledger
from pytest_armory.session.plan import Plan
from pytest_armory.store import destination, freeze_garbage_collector, open_store
from pytest_armory.store.destination import Destination

KEYS = "abcdefghij"

Properties = list[tuple[str, object]]


def messages(count: int, experiment_id: str, parent_id: str) -> Iterator[bytes]:
    """What two workers send of each evaluation: attributes of its reports of setup and teardown."""
    for i in range(count):
        begun = EvaluationRecord(
            nodeid=nodeid(i),
            worker=f"gw{i % 2}",
            run_id=secrets.token_hex(16),
            experiment_id=experiment_id,
            parent_id=parent_id,
            params={key: str(i) for key in KEYS},
            experiment="bench",
        )
        metrics = {**{f"m{k}": float(k + i) for k in range(10)}, "duration_seconds": 0.1}
        ended = replace(begun, params={}, outcome=Outcome.PASSED, duration=0.1, metrics=metrics)
        for record in (begun, replace(ended, confirmed=True)):
            properties = junit_properties(record) if record.outcome else []
            yield execnet.dumps((record.nodeid, to_wire(record), properties))


def nodeid(number: int) -> str:
    return f"test_bench.py::test_it[0-1-2-3-4-5-6-7-8-9{number}]"


def take_in(ledger: Ledger, name: str, text: str, properties: Properties) -> Properties:
    """Take in a report, as the controller does; returns what pytest keeps of it for us."""
    report = pytest.TestReport(name, (name, 1, name), {}, "passed", None, "teardown")
    report.user_properties = properties
    wire.attach_record(report, from_wire(text))
    ledger.reported.add(display_id(report.nodeid))
    _, record = wire.detach(report)
    if record is not None:
        ledger.take(record)
    return report.user_properties


def session(where: Destination) -> tuple[Ledger, str, str]:
    """A session whose run is open: its ledger, its experiment and its run."""
    store = open_store(where)
    experiment_id = store.experiments.id_of("bench")
    freeze_garbage_collector()
    name = f"s{time.time_ns()}"
    tags = {"armory.session": name, "armory.shard": "x:1"}
    ledger = Ledger(where, Identity(name, "x:1", False, tags, "pytest"))
    return ledger, experiment_id, str(ledger.parent_of(experiment_id, waiting=False))


def main() -> None:
    count, is_traced = int(sys.argv[1]), "--memory" in sys.argv
    with tempfile.TemporaryDirectory() as home:
        os.environ["ARMORY_HOME"] = home
        where = destination.resolve(None)
        ledger, experiment_id, parent_id = session(where)
        sent = Path(home) / "sent"
        with sent.open("w") as file:
            file.writelines(f"{one.hex()}\n" for one in messages(count, experiment_id, parent_id))
        plan = wire.plan_to_wire(Plan([nodeid(i) for i in range(count)]))
        kept = []  # as pytest keeps the properties of reports
        if is_traced:
            tracemalloc.start()
        ledger.take_plan(wire.plan_from_wire(plan))
        with sent.open() as file:
            for line in file:
                kept.append(take_in(ledger, *execnet.loads(bytes.fromhex(line))))
        last = time.process_time()
        summary = ledger.finish(interrupted=False)
        if summary is None or summary.problems or len(summary.records) != count or summary.lost:
            sys.exit(f"not as simulated: {summary}")
        terminal_lines(summary, 120, 0)
        ended = time.process_time()
        peak = tracemalloc.get_traced_memory()[1] / count / 1000
    print(json.dumps({"peak": round(peak, 2)} if is_traced else {"end": round(ended - last, 2)}))


if __name__ == "__main__":
    main()
