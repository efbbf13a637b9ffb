"""The tags of a run's destination and copies, and those that both share."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping

from pytest_armory.records.tags import KEY, REMOTE_RUN
from pytest_armory.store import StoredRun
from pytest_armory.store.waiting_files import WAITING_FILES

WAITS_FOR = "armory.destination"
"""The tag of a run that waits for a server: its URI without secrets."""

SYNCED = "armory.synced"
"""The tag of an uploaded run: its copy's id. With :func:`synced_tag`, for one server."""

EXPERIMENT = "armory.experiment_id"
"""The tag of a run that waits, if its experiment was given by id."""

RECOVERED = "armory.recovered"
"""The tag of a run that was closed because its process was dead; its copy has it as the run has."""

SHARD = "armory.shard"
"""The tag of a run with the job that it is of."""

PARENT = "mlflow.parentRunId"
LINKS = (PARENT, "armory.opened_in", "armory.left_open_in")
"""Tags that hold the id of another run."""

_OWN_STATE = (WAITS_FOR, REMOTE_RUN, SYNCED, EXPERIMENT, "mlflow.runName")


def without_user_info(uri: str) -> str:
    """A destination's URI for comparison: without user info and trailing slashes."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri).rstrip("/")


def sync_command(display_uri: str = "") -> str:
    """The command that uploads what waits, with the credentials for a tracking URI if it is given.

    Of a server's URI the user is left out; a database's stands as a place to fill in.
    """
    return f"pytest-armory sync{store_option(display_uri)}"


def waiting_text(error: Exception, display_uri: str) -> str:
    """The sentence for artifacts that wait for a destination's storage, which failed so."""
    return f"{error}; recorded locally, `{sync_command(display_uri)}` uploads it"


def store_option(display_uri: str) -> str:
    """The option of a command that names a store, after a space; "" for no URI."""
    if display_uri.startswith(("http://", "https://")):
        display_uri = without_user_info(display_uri)
    return f" --armory-tracking-uri {shlex.quote(display_uri)}" if display_uri else ""


def synced_tag(display_uri: str) -> str:
    """The tag of a run that was uploaded to a destination: its copy's id there."""
    digest = hashlib.sha256(without_user_info(display_uri).encode()).hexdigest()
    return f"{SYNCED}.{digest[:12]}"


def key_of(run_id: str, tags: Mapping[str, str]) -> str:
    """A run's key; by default derived from its id."""
    key = tags.get(KEY, "")
    if re.fullmatch(r"[\w.-]{8,250}", key):
        return key
    return hashlib.sha256(f"pytest-armory run {run_id}".encode()).hexdigest()[:32]


def waits_for(run: StoredRun, destination: str) -> bool:
    """Whether a run was recorded for a destination, which is given without user info."""
    return without_user_info(run.tags.get(WAITS_FOR, "")) == destination


def waiting_for(runs: Iterable[StoredRun], display_uri: str) -> list[StoredRun]:
    """Those of the runs that were recorded for a destination; for "" those for no other."""
    destination = without_user_info(display_uri)
    return [run for run in runs if waits_for(run, destination)]


def is_only_files(run: StoredRun) -> bool:
    """Whether a run only holds artifacts that another one at its destination lacks."""
    return run.tags.get("armory.kind") == WAITING_FILES


def links_of(run: StoredRun) -> list[str]:
    """The ids of the runs that a run is inside."""
    return list(dict.fromkeys(run.tags[name] for name in LINKS if run.tags.get(name)))


def copied_tags(run: StoredRun, copy_ids: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run's copy; its links lead to copies, whose ids are given by the runs' own."""
    tags = {
        name: value
        for name, value in run.tags.items()
        if name not in _OWN_STATE and not name.startswith(f"{SYNCED}.")
    }
    tags.update({name: copy_ids.get(tags[name], tags[name]) for name in LINKS if name in tags})
    return {**tags, KEY: key_of(run.run_id, tags)}
