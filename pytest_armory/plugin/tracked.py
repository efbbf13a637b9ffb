"""Registration of the plugin objects that a session needs, by the role of its process."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from time import strftime

import pytest

from pytest_armory import provenance
from pytest_armory.environment import value_of
from pytest_armory.errors import TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.plugin import interruption, xdist
from pytest_armory.plugin.attempts import Attempts
from pytest_armory.plugin.connect import Connection, connect, session_environment
from pytest_armory.plugin.guard import guard_of
from pytest_armory.plugin.judging import wanted_judging
from pytest_armory.plugin.options import Settings
from pytest_armory.plugin.process import Process
from pytest_armory.plugin.reporting import ReportingHooks
from pytest_armory.plugin.resuming import Fingerprints, Resuming
from pytest_armory.plugin.running import RunningHooks
from pytest_armory.plugin.wire import WorkerInput
from pytest_armory.records import EvaluationRecord, to_wire
from pytest_armory.records.tags import PART
from pytest_armory.session import leases
from pytest_armory.session.identity import Identity
from pytest_armory.session.ledger import Ledger
from pytest_armory.session.reproduce import command_parts, describe_with
from pytest_armory.session.session_runs import ParentRuns
from pytest_armory.session.signals import GRACE, before_termination, in_parallel
from pytest_armory.store.background import drain_all
from pytest_armory.values import redact_argv, redacting

HOOK = 0.5
"""Seconds that a hook may take until its session is closed before it is done."""


def register(config: pytest.Config, settings: Settings) -> None:
    """Register what this process needs for its role. Raises ``pytest.UsageError``."""
    cleanup = ExitStack()
    config.add_cleanup(partial(guard_of(config).close, cleanup))
    given = xdist.given_by_controller(config)
    if given is None and xdist.is_worker(config):
        raise TrackingError("a worker got no session from its controller, and tracks nothing")
    connection = connect(config, settings, cleanup, given.out_of_reach if given else "")
    cleanup.enter_context(redacting(settings.secret_names, settings.redaction))
    identity = given.identity if given else _described(config, settings, _identity(settings))
    cleanup.enter_context(session_environment())
    ledger = None if given else _ledger(config, settings, connection, identity)
    process = _process(config, settings, connection, ledger)
    reporting = ReportingHooks(config, settings, ledger, process) if ledger else None
    running = None
    if _runs_tests(config):
        resuming = _resuming(settings, connection, identity, given)
        attempts = _attempts(config, settings, connection, identity, ledger, resuming, process)
        attempts.baseline = (given and given.baseline) or Baseline("none")
        if given is not None:
            process.judging, process.is_agreed = given.judging, given.is_agreed
        running = RunningHooks(config, attempts, process, resuming)
    with process.guard.step():
        shut_down = partial(_shut_down, process, reporting, running)
        # Else what is known may change meanwhile: a test would end as interrupted, and then pass.
        cleanup.callback(before_termination(shut_down, process.guard.let_none_begin))
    for hooks, name in ((reporting, "armory-reports"), (running, "armory-runs-tests")):
        if hooks is not None:
            config.pluginmanager.register(hooks, name)
    cleanup.callback(_end, reporting, running)
    process.guard.holds_signals = True


def _identity(settings: Settings) -> Identity:
    """The identity of a new session, or of the one that this process contributes to."""
    session = settings.session
    part = {PART: str(settings.jobs.shard.shard)} if settings.jobs.shard else {}
    name = session or f"{strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    shard = f"{leases.process_name()}:{secrets.token_hex(2)}"
    return Identity(
        session=name,
        shard=shard,
        shared=session is not None,
        tags={**part, "armory.session": name, "armory.shard": shard},
        job_run=value_of("MLFLOW_RUN_ID") or None,
    )


def _described(config: pytest.Config, settings: Settings, identity: Identity) -> Identity:
    """An identity with what is known of checkout, CI and command, each of it by itself."""
    step, given = guard_of(config).step, config.invocation_params
    with step():
        source = provenance.source_tags(folder=config.rootpath)
        tags = {key: value for key, value in source.items() if value}
        identity = replace(identity, tags={**tags, **identity.tags})
    with step():
        identity = replace(identity, command=redact_argv(["pytest", *given.args]))
    with step():
        identity = replace(identity, checkout=provenance.checkout_parts(config.rootpath))
    with step():
        paths = getattr(config.option, "file_or_dir", None) or ()
        parts = command_parts(given.args, paths, config.rootpath, settings.patch, start=given.dir)
        identity = replace(identity, reproduce=parts)
    return identity


def _ledger(
    config: pytest.Config, settings: Settings, connection: Connection, identity: Identity
) -> Ledger:
    each = xdist.runs_each_test_everywhere(config)
    return Ledger(
        connection.where,
        identity,
        each=each,
        local=connection.local,
        sync_command=connection.sync_command,
        store_option=connection.store_option,
        describe=describe_with(config.rootpath, settings.patch),
    )


def _process(
    config: pytest.Config, settings: Settings, connection: Connection, ledger: Ledger | None
) -> Process:
    process = Process(
        guard_of(config),
        connection.where,
        ledger,
        wanted_judging(settings),
        settings.jobs.resume,
    )
    process.problems += connection.problems
    process.notes += connection.notes
    return process


def _runs_tests(config: pytest.Config) -> bool:
    # --setup-plan and --setup-only run no test, so there is no evaluation.
    return not xdist.is_controller(config) and not getattr(config.option, "setuponly", False)


def _resuming(
    settings: Settings, connection: Connection, identity: Identity, given: WorkerInput | None
) -> Resuming:
    return Resuming(
        Fingerprints(identity.checkout, settings),
        places=list(dict.fromkeys((connection.where, connection.local))),
        done=given.done if given else None,
        ignore_changes=settings.jobs.resume_any,
    )


def _attempts(
    config: pytest.Config,
    settings: Settings,
    connection: Connection,
    identity: Identity,
    ledger: Ledger | None,
    resuming: Resuming,
    process: Process,
) -> Attempts:
    return Attempts(
        settings,
        connection.where,
        open_tags=identity.tags,
        reproduce=identity.reproduce,
        fingerprint_of=resuming.fingerprints.of,
        local=connection.local,
        worker=xdist.worker_name(config),
        parent_of=(ledger or ParentRuns(connection.where, identity.session)).parent_of,
        rootpath=config.rootpath,
        guard=guard_of(config),
        opened=lambda record: process.write_journal(to_wire(record)),
        finished=ledger.attempts.add if ledger is not None else lambda _: None,
    )


def _end(reporting: ReportingHooks | None, running: RunningHooks | None) -> None:
    """End what a second Ctrl-C has kept from ending: then pytest may not call our hooks."""
    if running is not None:
        running.end()
    if reporting is None:
        return
    if not reporting.ending.has_ended:
        reporting.ending.finish_again()
    if not getattr(reporting.config.option, "no_summary", False):
        reporting.ending.print()


def _shut_down(
    process: Process, reporting: ReportingHooks | None, running: RunningHooks | None
) -> None:
    """Close what is open. The main thread may continue, but not into a hook of the plugin."""
    is_at_rest = process.guard.busy.acquire(timeout=HOOK)
    # A hook that opens the local database may be importing MLflow.
    if process.where is not None and (process.where.is_remote or not is_at_rest):
        with process.guard.step():
            _close_at_once(reporting, running)
    if not is_at_rest:
        process.guard.busy.acquire()
    if reporting is not None:
        with process.guard.step():
            in_parallel(reporting.ending.close_opened_since(), GRACE)
    record, current = None, running.attempts.current if running is not None else None
    with process.guard.step():
        record = interruption.interrupt(current) if current is not None else None
    if reporting is not None:
        with process.guard.step():
            reporting.interrupt(record)
    elif running is not None:  # a worker: the controller reads what it has stored
        with process.guard.step():
            drain_all()
        with process.guard.step():
            process.end(running.attempts.is_complete)


def _close_at_once(reporting: ReportingHooks | None, running: RunningHooks | None) -> None:
    """Sum up what is known, and close known runs in parallel: a server may take seconds for each.

    A hook that is at work holds what else is to be closed; all is closed in order after that.
    """
    record: EvaluationRecord | None = None
    requests: list[Callable[[], object]] = []
    current = running.attempts.current if running is not None else None
    if current is not None:
        record, requests = interruption.closing_requests(current)
    if reporting is not None:
        requests += reporting.ending.interrupt_early(record)
    in_parallel(requests, GRACE)
