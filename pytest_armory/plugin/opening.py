"""Where the run of an attempt opens: its tags, its server, and the local database instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from secrets import token_hex

import pytest

from pytest_armory import __version__
from pytest_armory.environment import value_of
from pytest_armory.errors import StoreUnreachableError, TrackingError
from pytest_armory.plugin import user_hooks
from pytest_armory.plugin.guard import unexpected_error
from pytest_armory.plugin.marker import Mark, merged_mark
from pytest_armory.plugin.options import Settings
from pytest_armory.records import EvaluationRecord, fields, local_name
from pytest_armory.records.judging_tag import VERSION
from pytest_armory.session import fingerprint
from pytest_armory.session.identity import process_tags
from pytest_armory.session.reproduce import command_of
from pytest_armory.store.destination import Destination
from pytest_armory.store.translation import GoneError, MockedError
from pytest_armory.track.connection import RunConnection
from pytest_armory.track.evaluation import open_run
from pytest_armory.track.location import LocalFallback, unknown_experiment
from pytest_armory.track.run import EvaluationRun, tag_strings
from pytest_armory.values import TAG_LIMIT, clip_name, redact_text


class RunOpener:
    """Opens the runs of one process: at its destination, or in memory where it has none.

    ``local`` is the local database as it was before the first test: fixtures may have replaced the
    Armory home since. ``parent_of`` gives the session run of an experiment, by its id and whether
    it waits in the local database; ``reproduce`` are the parts of its command.
    """

    def __init__(
        self,
        settings: Settings,
        destination: Destination | None,
        *,
        rootpath: Path,
        tags: Mapping[str, str],
        local: Destination | None,
        parent_of: Callable[[str, bool], str | None],
        reproduce: Sequence[str],
        fingerprint_of: Callable[[pytest.Item], Mapping[str, str]] | None,
    ) -> None:
        self._settings = settings
        self._destination = destination
        self._rootpath = rootpath
        self._session_tags = tags
        self._local = local
        self._parent_of = parent_of
        self._reproduce = reproduce
        self._fingerprint_of = fingerprint_of
        self._outages: dict[str, None] = {}

    def open(
        self, item: pytest.Item, record: EvaluationRecord, problems: list[str]
    ) -> EvaluationRun:
        """Open the run of an attempt; in memory, with a problem more, if the store fails."""
        if self._destination is None:
            run = EvaluationRun()
            own = tag_strings(merged_mark(item).tags)
            run.connection.tags.update({"mlflow.runName": item.name, **own})
        else:
            try:
                run = self._open(self._destination, item, record, problems)
            except Exception as error:  # noqa: BLE001 - see `unexpected_error`
                run = EvaluationRun()
                problems.append(unexpected_error(error))
        run.connection.collect_problems(problems)
        if self._destination is not None:
            run.connection.experiment = self._experiment_of(item)
        return run

    def _experiment_of(self, item: pytest.Item) -> str:
        """The name of its experiment; of one that is given by its id, the local fallback's."""
        given = local_name(self._settings.experiment, self._settings.experiment_id)
        try:
            return merged_mark(item).name or given
        except Exception:  # noqa: BLE001 - a mark that was added late; opening the run has said so
            return given

    def _open(
        self,
        destination: Destination,
        item: pytest.Item,
        record: EvaluationRecord,
        problems: list[str],
    ) -> EvaluationRun:
        mark = merged_mark(item)
        tags = {
            **_context_tags(problems),
            **tag_strings(mark.tags),
            **user_hooks.tags_of(item, problems),
            **self._tags(item, mark, record),
            **self._fingerprint_tag(item, problems),
        }
        name = tags.pop("mlflow.runName", item.name)
        experiment = mark.name or self._settings.experiment
        if not destination.is_remote:
            return self._open_at(destination, name, tags, experiment, problems)
        tags["armory.key"] = token_hex(16)
        fallback = self._fallback(destination, name, tags, experiment)
        try:
            return self._open_at(destination, name, tags, experiment, problems, fallback)
        except StoreUnreachableError as error:
            is_put_off = isinstance(error, MockedError)
            if not is_put_off:
                self._outages.setdefault(str(error))
            problems.extend([str(error)] if is_put_off else self._outages)
            return self._open_locally(fallback, problems, is_put_off)

    def _open_at(
        self,
        destination: Destination,
        name: str,
        tags: Mapping[str, str],
        experiment: str,
        problems: list[str],
        fallback: LocalFallback | None = None,
    ) -> EvaluationRun:
        from pytest_armory.store import open_store

        opened = partial(self._open_in, destination, name, tags, problems, fallback)
        experiments = open_store(destination).experiments
        experiment_id = self._settings.experiment_id if not experiment else None
        if experiment_id is not None:
            if experiments.generation:
                raise unknown_experiment(experiment_id, destination.display_uri)
            return opened(experiment_id)
        try:
            return opened(experiments.id_of(experiment))
        except GoneError:  # a server restarted with another database
            experiments.forget()
        return opened(experiments.id_of(experiment))

    def _open_in(
        self,
        destination: Destination,
        name: str,
        tags: Mapping[str, str],
        problems: list[str],
        fallback: LocalFallback | None,
        experiment_id: str,
    ) -> EvaluationRun:
        return open_run(
            destination,
            name=name,
            tags={**tags, **self._parent_tag(experiment_id, False, problems)},
            experiment_id=experiment_id,
            fallback=fallback,
        )

    def _open_locally(
        self, fallback: LocalFallback, problems: list[str], is_put_off: bool
    ) -> EvaluationRun:
        parent = self._parent_tag(fallback.local_experiment_id(), True, problems)
        local = fallback.open(parent)
        return EvaluationRun(RunConnection(local, is_waiting=True, is_put_off=is_put_off))

    def _parent_tag(self, experiment_id: str, waiting: bool, problems: list[str]) -> dict[str, str]:
        """The tag with its session run; after an unexpected error a run is opened without one."""
        try:
            parent = self._parent_of(experiment_id, waiting)
        except TrackingError:
            raise
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            problems.append(f"its run is under no session run: {unexpected_error(error)}")
            return {}
        return {"mlflow.parentRunId": parent} if parent else {}

    def _fallback(
        self, destination: Destination, name: str, tags: Mapping[str, str], experiment: str
    ) -> LocalFallback:
        """The local run to open where the destination is unreachable, now or later."""
        waiting = {**tags, "armory.destination": destination.display_uri}
        if not experiment:
            waiting["armory.experiment_id"] = str(self._settings.experiment_id)
        return LocalFallback(
            local=self._local or destination,
            name=name,
            tags=waiting,
            experiment=local_name(experiment, self._settings.experiment_id),
        )

    def _tags(self, item: pytest.Item, mark: Mark, record: EvaluationRecord) -> dict[str, str]:
        tags = {
            **self._session_tags,
            **process_tags(),
            "armory.kind": "evaluation",
            "armory.version": __version__,
            "armory.nodeid": clip_name(record.nodeid, TAG_LIMIT),
            "armory.attempt": str(record.attempt),
            "armory.worker": record.worker,
            "mlflow.source.name": _relative(item.path, self._rootpath),
            "mlflow.source.type": "LOCAL",
        }
        if self._settings.jobs.devices and value_of("CUDA_VISIBLE_DEVICES"):
            tags["armory.device"] = os.environ["CUDA_VISIBLE_DEVICES"]
        if self._reproduce:
            tags["armory.reproduce"] = command_of(self._reproduce, record.nodeid)
        if mark.version is not None:
            tags[VERSION] = str(mark.version)
        if mark.description:
            tags["mlflow.note.content"] = redact_text(mark.description)
        return tags

    def _fingerprint_tag(self, item: pytest.Item, problems: list[str]) -> dict[str, str]:
        """What a resumed session compares; without it, it runs the evaluation again."""
        if self._fingerprint_of is None:
            return {}
        try:
            return {fingerprint.TAG: fingerprint.to_text(self._fingerprint_of(item))}
        except Exception as error:  # noqa: BLE001 - see `unexpected_error`
            problems.append(f"its fingerprint is not stored: {unexpected_error(error)}")
            return {}


def _context_tags(problems: list[str]) -> dict[str, str]:
    """The tags of ``MLFLOW_RUN_CONTEXT``, which MLflow gives to each run it opens."""
    text = value_of("MLFLOW_RUN_CONTEXT")
    if not text:
        return {}
    found, _ = fields.read_text(fields.mapping_of(fields.anything), text)
    if found is None:
        problems.append("MLFLOW_RUN_CONTEXT is no JSON object, so its tags are left out")
        return {}
    return tag_strings(found)


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)
