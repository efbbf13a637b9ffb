"""The order of attempts at one test.

It is that in which the test's processes counted them and their session received them. Runs have the
time at which they began too, by the clock of their machine, which may be set back at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from pytest_armory.records import EvaluationRecord, is_one_of_each_test
from pytest_armory.records.tags import attempt_number, origin_of

if TYPE_CHECKING:
    from pytest_armory.store import StoredRun

T = TypeVar("T")


def in_order_of_attempts(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """Records as they come, those of each test by their number."""
    if is_one_of_each_test(records):
        return [*records]

    def in_order(attempts: list[EvaluationRecord]) -> list[EvaluationRecord]:
        return sorted(attempts, key=lambda record: record.attempt)

    return _by_test(records, lambda record: record.nodeid, in_order)


def _by_test(
    items: Iterable[T], test_of: Callable[[T], str], in_order: Callable[[list[T]], Iterable[T]]
) -> list[T]:
    """The items with those of each test in their order, in the places that these have in all."""
    items = list(items)
    tests: dict[str, list[T]] = {}
    for item in items:
        tests.setdefault(test_of(item), []).append(item)
    ordered = {test: iter(in_order(its_items)) for test, its_items in tests.items()}
    return [next(ordered[test_of(item)]) for item in items]


def attempts_in_order(
    runs: Iterable[StoredRun], received: Mapping[str, int] | None = None, shard: str = ""
) -> list[StoredRun]:
    """Attempts by start, those at each test in their order.

    ``received`` numbers the runs of which the job ``shard`` has received a report. One of its runs
    that is not among them was cut off before its first report, and run again by another process.
    """
    by_start = sorted(runs, key=lambda run: run.start)

    def in_order(attempts: list[StoredRun]) -> list[StoredRun]:
        return _in_order(attempts, received or {}, shard)

    return _by_test(by_start, test_of, in_order)


def test_of(run: StoredRun) -> str:
    """The node id of the test that an attempt's run is of."""
    return run.tags.get("armory.nodeid", run.name)


def _in_order(
    attempts: Sequence[StoredRun], received: Mapping[str, int], shard: str
) -> list[StoredRun]:
    """One test's attempts, given by start: process by process, each as it has counted."""
    numbers = [attempt_number(run.tags) for run in attempts]
    if not received and len(set(numbers)) == len(numbers):  # by the end of their session
        return sorted(attempts, key=lambda run: attempt_number(run.tags))
    processes: dict[str, list[StoredRun]] = {}
    for run in attempts:
        origin = origin_of(run.tags)
        # One process may run several jobs of a session, one after the other.
        process = f"{origin.shard} {origin.process} {run.tags.get('armory.worker')}"
        processes.setdefault(process, []).append(run)
    for runs in processes.values():
        runs.sort(key=lambda run: attempt_number(run.tags))
    groups = list(processes.values())
    own = [i for i, runs in enumerate(groups) if shard and origin_of(runs[0].tags).shard == shard]
    by_report = sorted(
        (groups[i] for i in own), key=lambda runs: min(received.get(r.run_id, 0) for r in runs)
    )
    for place, runs in zip(own, by_report, strict=True):
        groups[place] = runs
    return [run for runs in groups for run in runs]
