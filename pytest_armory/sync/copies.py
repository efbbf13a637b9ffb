"""A run's copy at a server: found if there is one, else created."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_armory.errors import TrackingError
from pytest_armory.records.tags import KEY, REMOTE_RUN
from pytest_armory.store import StoredRun
from pytest_armory.store.transfer import RunWithInputs, TransferEnd
from pytest_armory.sync.tags import SHARD, waits_for


def find_or_create_copy(
    target: TransferEnd,
    destination: str,
    run: StoredRun,
    experiment_id: str,
    tags: Mapping[str, str],
    notes: list[str],
) -> tuple[RunWithInputs, bool]:
    """The copy of a run, and whether it is new, so empty; ``tags`` are the copy's.

    ``destination`` is the target's URI without user info. Messages for the user are added to
    ``notes``.
    """
    found = (
        _first_half(target, destination, run)
        or _by_key(target, experiment_id, tags[KEY], notes)
        or _session_run(target, experiment_id, tags)
    )
    if found:
        return found, False
    first_half = run.tags.get(REMOTE_RUN)
    if first_half and waits_for(run, destination) and not session_of(tags):
        notes.append(
            f"the run {first_half} that it went on from is gone there, with what it had of the "
            "evaluation; what was recorded here is uploaded"
        )
    try:
        return target.create_run(experiment_id, run.name, run.start, tags), True
    except TrackingError:
        found = _by_key(target, experiment_id, tags[KEY], notes)  # only the response was lost
        if not found:
            raise
        return found, False


def _first_half(target: TransferEnd, destination: str, run: StoredRun) -> RunWithInputs | None:
    """The run that the recording session opened at this server before it lost the connection."""
    copy_id = run.tags.get(REMOTE_RUN)
    if not copy_id or not waits_for(run, destination):
        return None
    return target.find_run(copy_id)


def _by_key(
    target: TransferEnd, experiment_id: str, key: str, notes: list[str]
) -> RunWithInputs | None:
    found = target.search(experiment_id, f"tags.`{KEY}` = '{key}'")
    found.sort(key=lambda run: (run.status == "RUNNING", run.run_id))
    for duplicate in found[1:]:  # by a request whose response was lost
        if duplicate.status == "RUNNING":
            target.delete_duplicate(duplicate.run_id)
            notes.append(f"a second copy, {duplicate.run_id}, was begun and is deleted")
    return found[0] if found else None


def _session_run(
    target: TransferEnd, experiment_id: str, tags: Mapping[str, str]
) -> RunWithInputs | None:
    """The session run at the server: that which the same process opened, else another job's."""
    session = session_of(tags)
    if not session:
        return None
    condition = f"tags.`armory.kind` = 'session' AND tags.`armory.session` = '{session}'"
    found = target.search(experiment_id, condition)
    found.sort(key=lambda run: (run.tags.get(SHARD) != tags.get(SHARD), run.start, run.run_id))
    return found[0] if found else None


def is_of_another_job(run: StoredRun, copy: StoredRun) -> bool:
    """Whether the copy of a session run is the one that another job of the session has opened."""
    return bool(session_of(run.tags)) and run.tags.get(SHARD) != copy.tags.get(SHARD)


def session_of(tags: Mapping[str, str]) -> str:
    """The session that a run with these tags is the session run of, or an empty string."""
    session = tags.get("armory.session", "")
    is_session_run = tags.get("armory.kind") == "session" and "'" not in session
    return session if is_session_run else ""
