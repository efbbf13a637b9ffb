"""``--armory-shard``: this job runs one part of the collection, tracked or not."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from pytest_armory.plugin.guard import guard_of, guarded, guarded_wrapper
from pytest_armory.plugin.marker import is_evaluation, merged_mark
from pytest_armory.plugin.options import Settings
from pytest_armory.plugin.redacted import display_id
from pytest_armory.records.shard_note import ShardNote
from pytest_armory.session.durations import weights
from pytest_armory.session.shards import ShardJob, digest, part_of
from pytest_armory.values import short_hash

NAME = "armory-shard"
"""The name of the plugin that selects this job's part."""


def register(config: pytest.Config, settings: Settings, job: ShardJob) -> None:
    """Register the selection of this job's part of the collection."""
    config.pluginmanager.register(Sharding(config, settings, job), NAME)


class Sharding:
    """Selects this job's part of the collection; ``note`` says what was collected and taken.

    ``experiment`` is that of the first evaluation of the whole collection, where all shards leave
    their notes; None if there is no evaluation.
    """

    def __init__(self, config: pytest.Config, settings: Settings, job: ShardJob) -> None:
        self.config = config
        self.job = job
        self.note: ShardNote | None = None
        self.experiment: str | None = None
        self.is_empty = False
        """Whether other shards have tests, and this one has none."""
        self._settings = settings
        self._began = time.time_ns() // 1_000_000
        self._collected: list[tuple[pytest.Item, str]] = []

    @guarded
    def pytest_report_header(self) -> str:
        """Say which part runs, and where that and the session's ID come from."""
        given = f" from {self.job.index_from}" if self.job.index_from else ""
        text = f"armory: shard {self.job.shard}{given}"
        uses = self._settings.track and self._settings.session == self.job.session
        if uses and self.job.session_from:
            text += f", session {self.job.session} from {self.job.session_from}"
        return text

    @guarded
    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note the order of collection, before a plugin changes it."""
        self._collected.append((item, item.nodeid))

    # Outermost: what others deselect is gone by then.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    @guarded_wrapper
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, None]:
        """Keep this job's part, in the order that others gave it."""
        yield
        self._select(items)

    def _select(self, items: list[pytest.Item]) -> None:
        collected, self._collected = self._collected, []
        ordered = in_order_of_collection(self.config, collected, items)
        tests = [(display_id(nodeid), is_evaluation(item)) for item, nodeid in ordered]
        durations = self._settings.jobs.durations
        part = part_of(weights(tests, durations), self.job.shard)
        mine = {id(item) for item, _ in ordered[part.start : part.stop]}
        evaluations = [nodeid for nodeid, is_one in tests[part.start : part.stop] if is_one]
        self._note(tests, part, evaluations)
        marked = (item for (item, _), (_, is_one) in zip(ordered, tests, strict=True) if is_one)
        self.experiment = next((self._experiment_of(item) for item in marked), None)
        others = [item for item in items if id(item) not in mine]
        items[:] = [item for item in items if id(item) in mine]
        self.is_empty = bool(others) and not items
        if others:
            self.config.hook.pytest_deselected(items=others)

    def _experiment_of(self, item: pytest.Item) -> str:
        return merged_mark(item).name or self._settings.experiment

    def _note(
        self, tests: Sequence[tuple[str, bool]], part: range, evaluations: Sequence[str]
    ) -> None:
        from pytest_armory.session.leases import host_name

        self.note = ShardNote(
            index=self.job.shard.index,
            number=self.job.shard.number,
            digest=digest(nodeid for nodeid, _ in tests),
            collected=len(tests),
            took=len(part),
            first=part.start + 1,
            evaluations=len(evaluations),
            hashes="".join(map(short_hash, evaluations)),
            host=host_name(),
            began=self._began,
            attempt=self.job.attempt,
            leg=self.job.leg,
            resumed=self._settings.jobs.resume,
        )

    @guarded
    def pytest_report_collectionfinish(self) -> str | None:
        """Say how large this part is."""
        if self.note is None:
            return None
        counts = f"{self.note.took:,} of {self.note.collected:,} tests"
        return f"armory: shard {self.job.shard} has {counts}"

    @pytest.hookimpl(optionalhook=True)
    @guarded
    def pytest_configure_node(self, node: Any) -> None:
        """Let a worker run this job's part."""
        from pytest_armory.plugin import xdist

        xdist.send_shard(node, self.job, self._settings.jobs.durations)

    @pytest.hookimpl(optionalhook=True)
    @guarded
    def pytest_testnodedown(self, node: Any) -> None:
        """Learn from a worker whether this part is empty."""
        from pytest_armory.plugin import xdist

        self.is_empty = self.is_empty or xdist.has_empty_shard(node)

    # Outermost: an empty part of a collection is no mistake, as an empty collection may be.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    @guarded_wrapper
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, None]:
        """End well where other shards have tests, and this one has none."""
        from pytest_armory.plugin import xdist

        with guard_of(self.config).step():
            xdist.share_empty_shard(self.config, self.is_empty)
        yield
        if self.is_empty and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK


def in_order_of_collection(
    config: pytest.Config,
    collected: Sequence[tuple[pytest.Item, str]],
    items: Sequence[pytest.Item],
) -> list[tuple[pytest.Item, str]]:
    """What is left of a collection, with node ids, in the order of pytest without other plugins.

    That is the order of collection, in which tests of one parameter of a wide fixture are put
    together. What a plugin has added comes after the test whose node id it shares or begins with.
    """
    known = {id(item): nodeid for item, nodeid in collected}
    ordered = [item for item, _ in collected]
    fixtures = config.pluginmanager.get_plugin("funcmanage")
    if fixtures is not None:
        fixtures.pytest_collection_modifyitems(items=ordered)
    position = {id(item): i for i, item in enumerate(ordered)}
    functions = {known[id(item)].split("[")[0]: i for i, item in enumerate(ordered)}

    def key(pair: tuple[pytest.Item, str]) -> tuple[int, int, str]:
        item, nodeid = pair
        if id(item) in position:
            return position[id(item)], 0, ""
        return functions.get(nodeid.split("[")[0], len(ordered)), 1, nodeid

    return sorted(((item, known.get(id(item), item.nodeid)) for item in items), key=key)
