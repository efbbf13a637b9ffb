"""One session over all its processes: who is who, and what they tell each other.

Three roles. *Local* runs the tests and reports. A *worker* of pytest-xdist runs tests, and puts
each record on its reports as one JSON string. The *controller* runs none: it opens the session
run when the first record arrives, links runs to it, and reports. This is the only file that says
``workerinput``.
"""

from __future__ import annotations

import json
import os
import secrets
from base64 import b64encode
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from time import strftime, time_ns
from typing import Any

import pytest

from pytest_armory import environment, provenance
from pytest_armory.errors import ArmoryUsageError, TrackingError
from pytest_armory.gates.baselines import Baseline
from pytest_armory.plugin.options import Settings
from pytest_armory.report.files import write_markdown
from pytest_armory.report.summary import Summary
from pytest_armory.session import leases
from pytest_armory.session.identity import Identity
from pytest_armory.store import destination
from pytest_armory.values import conceal

_WIRE = "armory"
_REFUSED = "armory_refused"
_PROBLEMS = "armory_problems"
_LATE = "armory_late"
_BASELINE = "armory_baseline"
_OUT_OF_REACH = "armory_out_of_reach"


_LOGIN = ("USERNAME", "PASSWORD", "TOKEN")


# Roles


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Whether this process hands its tests to workers of pytest-xdist."""
    # `--dist` alone, as in an ini file, distributes nothing: xdist asks for both as well.
    option = config.option
    return not is_worker(config) and getattr(option, "dist", "no") != "no" and bool(option.tx)


def runs_each_test_everywhere(config: pytest.Config) -> bool:
    """Whether every worker runs every test."""
    return getattr(config.option, "dist", "no") == "each"


def worker_name(config: pytest.Config) -> str:
    """``gw0`` and so on; ``main`` in the one process of a session without workers."""
    return str(config.workerinput["workerid"]) if hasattr(config, "workerinput") else "main"


def identify(config: pytest.Config, given: str | None = None) -> Identity:
    """A fresh identity, with the ID that was given; in a worker that of its session."""
    if hasattr(config, "workerinput"):
        return Identity(**json.loads(config.workerinput[_WIRE]))
    session = given or f"{strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    shard = f"{leases.process_name()}:{secrets.token_hex(2)}"
    source = provenance.source_tags(name="", folder=config.rootpath)
    tags = {key: value for key, value in source.items() if value}
    return Identity(
        session=session,
        shard=shard,
        shared=given is not None,
        tags={**tags, "armory.session": session, "armory.shard": shard},
        command=provenance.command_line(["pytest", *config.invocation_params.args]),
        job_run=os.environ.get("MLFLOW_RUN_ID") or None,
    )


def configure_worker(
    identity: Identity, baseline: Baseline | None, out_of_reach: str, node: Any
) -> None:
    """Give a worker what it needs, as strings of JSON; and that the server need not be tried."""
    node.workerinput[_WIRE] = json.dumps(asdict(identity))
    node.workerinput[_OUT_OF_REACH] = out_of_reach
    if baseline is not None:
        node.workerinput[_BASELINE] = json.dumps(asdict(baseline))


def prepare_circuit(
    config: pytest.Config, where: destination.Destination, budget: float | None
) -> None:
    """Set the budget of calls; open where the controller has found the server out of reach."""
    from pytest_armory.store.circuit import BUDGET, Circuit, circuit_of

    Circuit.budget = budget or BUDGET
    config.add_cleanup(lambda: setattr(Circuit, "budget", BUDGET))
    reason = getattr(config, "workerinput", {}).get(_OUT_OF_REACH)
    if reason:
        circuit_of(where.display_uri).trip(reason)


def given_baseline(config: pytest.Config) -> Baseline | None:
    """What the controller found, in a worker of a session that is compared with an earlier one."""
    text = getattr(config, "workerinput", {}).get(_BASELINE)
    return Baseline(**json.loads(text)) if text else None


def refuse(config: pytest.Config, items: list[pytest.Item], errors: Sequence[str]) -> None:
    """Refuse a collection before its first test.

    A usage error that a worker raised would be an internal error of the controller's; so a worker
    runs nothing and hands the text over, and the controller raises it.
    """
    text = "\n".join(f"armory: {error}" for error in errors)
    if not is_worker(config):
        raise pytest.UsageError(text)
    config.workeroutput[_REFUSED] = text  # type: ignore[attr-defined] # xdist's
    items.clear()


def raise_refused(node: Any) -> None:
    """Raise what a worker refused, in the controller."""
    text = getattr(node, "workeroutput", {}).get(_REFUSED)
    if text:
        raise pytest.UsageError(text)


def report_to_controller(config: pytest.Config, problems: list[str], wires: list[str]) -> None:
    """Hand what a worker has to say at its end over; nothing in a session without workers."""
    if is_worker(config):
        config.workeroutput[_PROBLEMS] = problems  # type: ignore[attr-defined] # xdist's
        config.workeroutput[_LATE] = wires  # type: ignore[attr-defined] # xdist's


def died_at(node: Any) -> tuple[str, int]:
    """A worker's name, and now in milliseconds since the epoch."""
    return str(node.gateway.id), time_ns() // 1_000_000


def received_from_worker(node: Any) -> tuple[list[str], list[str]]:
    """What a worker said at its end: problems, and records as strings."""
    told = getattr(node, "workeroutput", {})
    return told.get(_PROBLEMS, []), told.get(_LATE, [])


def checked_destination(settings: Settings) -> destination.Destination:
    """The session's destination, or a usage error before anything is opened or written."""
    try:
        where = destination.resolve(settings.uri)
        if where.database is not None:
            from pytest_armory.store.database import check_usable

            check_usable(where)
    except ArmoryUsageError as error:
        raise pytest.UsageError(f"armory: {error}") from None
    return where


def local_destination() -> destination.Destination:
    """The local database, whatever the session's destination is, or a usage error."""
    try:
        return destination.resolve(None)
    except ArmoryUsageError as error:
        raise pytest.UsageError(f"armory: {error}") from None


def logged_in(
    config: pytest.Config, where: destination.Destination
) -> tuple[destination.Destination, list[str]]:
    """Log in where a platform or a hook asks for it; where to track to, and what is to be told.

    The controller logs in once: its workers inherit the token by their environment.
    """
    if not where.is_server:
        return where, []
    from pytest_armory.store import login

    stack = ExitStack()
    config.add_cleanup(stack.close)
    where, named = destination.without_login(where)
    if named is not None:  # else it is in MLflow's exceptions, in the tests' tracebacks
        user, password = named
        variables = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        stack.enter_context(environment.changed(variables))
    user, *secrets = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in _LOGIN)
    basic = b64encode(f"{user}:{secrets[0]}".encode()).decode() if secrets[0] else ""
    conceal(*secrets, basic)
    uri = str(where.uri)
    try:
        given = config.hook.pytest_armory_login(uri=uri)
        entered = stack.enter_context(login.logged_in(uri, given))
        return destination.resolve(entered), []
    except ArmoryUsageError as error:
        raise pytest.UsageError(f"armory: {error}") from None
    except TrackingError as error:
        from pytest_armory.store.circuit import circuit_of

        if login.needed(uri):  # what waits shall wait for where it would have gone
            where = destination.resolve(login.tracking_uri(uri))
        circuit_of(where.display_uri).trip(str(error), for_good=True)
        return where, [str(error)]


def password_in_uri(where: destination.Destination) -> list[str]:
    """A word of advice for who writes the password into the tracking URI."""
    if not where.is_server or "@" not in str(where.uri):
        return []
    return [
        "the tracking URI holds a password, which others may read where it is written; set "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
    ]


def write_summary(summary: Summary, settings: Settings) -> Summary:
    """Write the Markdown where it was asked for; the summary, with what could not be written."""
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    problems = list(summary.problems)
    for path, append in ((settings.summary, False), (Path(step) if step else None, True)):
        if path is None:
            continue
        try:
            write_markdown(path, summary.text, append)
        except OSError as error:
            problems.append(f"the summary could not be written to {path}: {error.strerror}")
    return replace(summary, problems=problems)
