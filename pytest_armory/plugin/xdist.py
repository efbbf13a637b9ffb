"""The roles of pytest-xdist, and what a controller and its workers send each other.

Three roles. *Local* runs the tests and reports. A *worker* runs tests, and attaches each record to
a report. The *controller* runs none: it opens the session run when the first record arrives, links
runs to it, and reports. This is the only module that uses ``workerinput``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import time_ns
from typing import TYPE_CHECKING, Any

import pytest

from pytest_armory.plugin.remarks import remarks_of

if TYPE_CHECKING:
    from pytest_armory.plugin.wire import WorkerInput
    from pytest_armory.records import EvaluationRecord
    from pytest_armory.session.plan import Plan
    from pytest_armory.session.shards import ShardJob

_REFUSED = "armory_refused"
_PROBLEMS = "armory_problems"
_LATE = "armory_late"
_PLAN = "armory_plan"
_UNEXPECTED = "armory_unexpected"
_REMARKS = "armory_remarks"
_EMPTY_SHARD = "armory_empty_shard"
_SHARD = "armory_shard"


# Roles


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Whether this process distributes its tests to workers of pytest-xdist."""
    # `--dist` alone, as in an ini file, distributes nothing: xdist requires both as well.
    option = config.option
    return not is_worker(config) and getattr(option, "dist", "no") != "no" and bool(option.tx)


def runs_each_test_everywhere(config: pytest.Config) -> bool:
    """Whether every worker runs every test."""
    return getattr(config.option, "dist", "no") == "each"


def worker_name(config: pytest.Config) -> str:
    """``gw0`` and so on; ``main`` in the one process of a session without workers."""
    return str(config.workerinput["workerid"]) if hasattr(config, "workerinput") else "main"


# What the controller sends a worker


def configure_worker(node: Any, given: WorkerInput) -> None:
    """Send a worker its input, in the controller."""
    node.workerinput.update(given.to_wire())


def given_by_controller(config: pytest.Config) -> WorkerInput | None:
    """The input of a worker in a tracked session; None in any other process."""
    from pytest_armory.plugin.wire import WorkerInput

    return WorkerInput.from_wire(getattr(config, "workerinput", {}))


def send_shard(node: Any, job: ShardJob, durations: Mapping[str, float]) -> None:
    """Send a worker this job's shard: the worker's environment and folder may be others."""
    node.workerinput[_SHARD] = [asdict(job), {**durations}]


def given_shard(config: pytest.Config) -> tuple[ShardJob, Mapping[str, float]] | None:
    """The shard and the durations that a worker was sent; None in any other process."""
    given = getattr(config, "workerinput", {}).get(_SHARD)
    if given is None:
        return None
    from pytest_armory.session.shards import Shard, ShardJob

    job, durations = given
    return ShardJob(**{**job, "shard": Shard(**job["shard"])}), durations


# What a worker sends the controller


def refuse(config: pytest.Config, items: list[pytest.Item], errors: Sequence[str]) -> None:
    """Raise a usage error for a collection, before its first test.

    A usage error in a worker would be an internal error in the controller; so a worker runs
    nothing and sends the text, and the controller raises it.
    """
    text = "\n".join(f"armory: {error}" for error in errors)
    if not is_worker(config):
        raise pytest.UsageError(text)
    _output(config)[_REFUSED] = text
    items.clear()


def raise_refused(node: Any) -> None:
    """Raise a worker's usage error, in the controller."""
    text = _output(node).get(_REFUSED)
    if text:
        raise pytest.UsageError(text)


@dataclass(frozen=True)
class LastOfWorker:
    """What a worker sends at its end; ``plan`` is its plan if no report of a test has it."""

    problems: list[str] = field(default_factory=list)
    records: Sequence[EvaluationRecord] = ()
    plan: Plan | None = None


def report_to_controller(config: pytest.Config, last: LastOfWorker) -> None:
    """Send what a worker has left to say; nothing in a session without workers."""
    from pytest_armory.plugin.wire import plan_to_wire
    from pytest_armory.records import to_wire

    if is_worker(config):
        _output(config)[_PROBLEMS] = last.problems
        _output(config)[_LATE] = [to_wire(record) for record in last.records]
        _output(config)[_PLAN] = plan_to_wire(last.plan) if last.plan is not None else ""


def received_from_worker(node: Any) -> LastOfWorker:
    """What a worker has sent at its end."""
    from pytest_armory.plugin.wire import plan_from_wire
    from pytest_armory.records import from_wire

    output = _output(node)
    plan = output.get(_PLAN)
    return LastOfWorker(
        output.get(_PROBLEMS, []),
        [from_wire(text) for text in output.get(_LATE, [])],
        plan_from_wire(plan) if plan else None,
    )


def share_unexpected(config: pytest.Config, problems: list[str]) -> None:
    """Send a worker's list of unexpected errors, with those that are appended before it ends."""
    if is_worker(config):
        _output(config)[_UNEXPECTED] = problems


def share_remarks(config: pytest.Config) -> None:
    """Send a worker's remarks, when its session finishes."""
    if is_worker(config):
        _output(config)[_REMARKS] = [list(one) for one in remarks_of(config)]


def remarks_of_worker(node: Any) -> list[list[str]]:
    """The remarks of a worker, each a sentence and a node id."""
    remarks: list[list[str]] = _output(node).get(_REMARKS, [])
    return remarks


def unexpected_in_worker(node: Any) -> list[str]:
    """The unexpected errors of a worker."""
    problems: list[str] = _output(node).get(_UNEXPECTED, [])
    return problems


def share_empty_shard(config: pytest.Config, is_empty: bool) -> None:
    """Say, in a worker, whether this job's part of the collection is empty."""
    if is_worker(config):
        _output(config)[_EMPTY_SHARD] = is_empty


def has_empty_shard(node: Any) -> bool:
    """Whether a worker has found its job's part of the collection empty."""
    return bool(_output(node).get(_EMPTY_SHARD))


def crash_of(node: Any) -> tuple[str, int]:
    """The name of a crashed worker, and the time in milliseconds since the epoch."""
    return str(node.gateway.id), time_ns() // 1_000_000


def crashed_worker(report: pytest.TestReport) -> list[str]:
    """The worker, if it is the report by which a crash fails the test that it was running."""
    node = getattr(report, "node", None)
    return [str(node.gateway.id)] if str(report.when) == "???" and node is not None else []


def _output(process: Any) -> dict[str, Any]:
    """``workeroutput``, of the worker's config or of the controller's node."""
    output: dict[str, Any] = getattr(process, "workeroutput", {})
    return output
