"""What is to be uploaded: destinations by their tags, and runs in their order."""

from __future__ import annotations

import pytest

from pytest_armory.errors import TrackingError
from pytest_armory.store import StoredRun, credentials
from pytest_armory.store.destination import resolve
from pytest_armory.sync.plan import _in_order, destination_of
from pytest_armory.sync.tags import copied_tags, key_of, sync_command, synced_tag


def a_run(run_id: str, start: int = 0, status: str = "FINISHED", **tags: str) -> StoredRun:
    named = {name.replace("__", "."): value for name, value in tags.items()}
    return StoredRun(run_id, "1", run_id, status, start, None, start, "", {}, {}, named)


def test_a_destination_is_reached_with_what_the_uri_in_force_has() -> None:
    display = "http://[redacted]@127.0.0.1:5000/"
    given = "http://me:pw@127.0.0.1:5000"
    assert synced_tag(display) == synced_tag("http://127.0.0.1:5000")
    assert destination_of(display, resolve(given)).uri == given
    assert destination_of(f"{display}mlflow", resolve(given)).uri == f"{given}/mlflow"
    for other in ("http://me:pw@127.0.0.1:5001", "https://me:pw@127.0.0.1:5000", "local"):
        assert destination_of(display, resolve(other)).uri == "http://127.0.0.1:5000"
    assert destination_of(display, None).uri == "http://127.0.0.1:5000"
    with pytest.raises(TrackingError, match="sync --armory-tracking-uri URI`"):
        destination_of("http://127.0.0.1:5000/?token=[redacted]", None)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql", "mssql"])
def test_a_database_whose_user_is_not_stored_is_refused_at_once(scheme: str) -> None:
    display, given = f"{scheme}://[redacted]@db/mlflow", f"{scheme}://me:pw@db/mlflow"
    for in_force in (None, resolve("local"), resolve(f"{scheme}://me:pw@db/other")):
        with pytest.raises(
            TrackingError, match=r"^what the URI .* sync --armory-tracking-uri URI`"
        ):
            destination_of(display, in_force)
    assert destination_of(display, resolve(given)).uri == given
    assert destination_of(f"{scheme}://db/mlflow", None).uri == f"{scheme}://db/mlflow"


@pytest.mark.parametrize(
    ("target", "in_force", "expected"),
    [
        ("https://a.example/x", "https://A.example:443/y", True),
        ("https://a.example", "https://u:p@a.example", True),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://a.example:8443", False),
        ("https://a.example", "https://b.a.example", False),
        ("https://a.example", "sqlite:////tmp/a.db", False),
        ("https://a.example", "databricks", False),
        ("https://a.example", None, False),
        ("sqlite:////tmp/a.db", "https://a.example", True),
    ],
)
def test_whose_credentials_they_are(target: str, in_force: str | None, expected: bool) -> None:
    known = resolve(in_force) if in_force else None
    assert credentials.are_for(resolve(target), known) is expected


def test_the_command_that_uploads_with_credentials() -> None:
    assert sync_command() == "pytest-armory sync"
    named = "pytest-armory sync --armory-tracking-uri"
    assert sync_command("http://[redacted]@host/x") == f"{named} http://host/x"
    assert sync_command("mysql://[redacted]@h/x") == f"{named} 'mysql://[redacted]@h/x'"


def in_order(*runs: StoredRun) -> tuple[list[str], list[str]]:
    ready, unfinished = _in_order({run.run_id: run for run in runs})
    return [run.run_id for run in ready], [run.run_id for run in unfinished]


def test_parents_come_before_children_else_by_start() -> None:
    child = a_run("child", 1, mlflow__parentRunId="parent")
    inner = a_run("inner", 0, armory__opened_in="child")
    assert in_order(child, inner, a_run("parent", 3), a_run("other", 2)) == (
        ["parent", "child", "inner", "other"],
        [],
    )


def test_what_belongs_to_a_running_run_waits_for_it() -> None:
    running = a_run("session", 0, "RUNNING")
    child = a_run("child", 1, mlflow__parentRunId="session")
    assert in_order(child, running, a_run("other", 2)) == (["other"], ["session", "child"])


def test_links_that_make_a_circle_end() -> None:
    one, two = a_run("a", mlflow__parentRunId="b"), a_run("b", mlflow__parentRunId="a")
    ready, unfinished = in_order(one, two)
    assert (sorted(ready), unfinished) == (["a", "b"], [])


def test_the_tags_of_a_copy_lead_to_copies() -> None:
    run = a_run(
        "r",
        team="vision",
        mlflow__parentRunId="p",
        armory__opened_in="elsewhere",
        armory__destination="http://127.0.0.1:5000",
        armory__synced="x",
        mlflow__runName="r",
        **{synced_tag("http://127.0.0.1:5000"): "x"},
    )
    assert copied_tags(run, {"p": "copy of p"}) == {
        "team": "vision",
        "mlflow.parentRunId": "copy of p",
        "armory.opened_in": "elsewhere",
        "armory.key": key_of("r", {}),
    }


def test_a_key_is_kept_or_always_the_same() -> None:
    assert key_of("r", {"armory.key": "0123456789"}) == "0123456789"
    assert key_of("r", {"armory.key": "'"}) == key_of("r", {}) != key_of("s", {})
