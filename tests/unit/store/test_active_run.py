"""Our run on MLflow's stack, and the tracking URI in force, as MLflow's own functions see them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from pytest_armory.plugin.mlflow_fixtures import used_by_ending_fixture
from pytest_armory.store.active_run import ActiveRun, activate, restore
from pytest_armory.store.database import sqlite_uri
from pytest_armory.store.exported import VARIABLE, exported
from pytest_armory.store.in_force import InForce, in_force
from pytest_armory.store.inherited import ContextProvider, ExperimentProvider

Open = Callable[[], ActiveRun]


@pytest.fixture
def ours(armory_home: Path) -> str:
    return sqlite_uri(armory_home / "mlruns" / "mlflow.db")


@pytest.fixture
def own(armory_home: Path, tmp_path: Path) -> str:
    """The tracking URI of another store."""
    (tmp_path / "own.db").write_bytes((armory_home / "mlruns" / "mlflow.db").read_bytes())
    return sqlite_uri(tmp_path / "own.db")


@pytest.fixture
def opened(ours: str) -> Iterator[Open]:
    """Open runs of ours; those a test has not closed are closed after it."""
    active: list[ActiveRun] = []
    client = MlflowClient(ours)
    experiment = client.create_experiment("ours")

    def open_run() -> ActiveRun:
        run = client.create_run(experiment)
        active.append(activate(run, ours, {"armory.opened_in": run.info.run_id}, []))
        return active[-1]

    yield open_run
    for one in reversed(active):
        if one in _still_open():
            one.close()


def _still_open() -> list[ActiveRun]:
    from pytest_armory.store import active_run

    return active_run._active


def current() -> str | None:
    run = mlflow.active_run()
    return run.info.run_id if run is not None else None


def tags(run: Any) -> dict[str, str]:
    return dict(run.data.tags)


def test_it_is_the_active_run_while_its_uri_is_in_force(opened: Open, ours: str, own: str) -> None:
    active = opened()
    assert (current(), mlflow.get_tracking_uri()) == (active.run_id, ours)
    mlflow.set_tracking_uri(own)
    assert current() is None
    with mlflow.start_run() as plain:
        assert "armory.opened_in" not in tags(plain)
        assert plain.info.experiment_id == "0"
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(ours)
    assert current() == active.run_id
    assert active.close() == []
    assert (current(), in_force.uri()) == (None, None)


def test_a_uri_of_the_environment_is_the_users_too(
    opened: Open, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    active = opened()
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", own)
        assert (current(), mlflow.get_tracking_uri()) == (None, own)
    assert current() == active.run_id
    active.close()
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert VARIABLE not in os.environ


def test_none_ends_a_store_of_ones_own(opened: Open, own: str) -> None:
    active = opened()
    mlflow.set_tracking_uri(own)
    mlflow.set_tracking_uri(None)
    assert current() == active.run_id


def test_what_is_set_before_is_put_back_and_what_is_set_inside_stays(
    opened: Open, own: str
) -> None:
    mlflow.set_tracking_uri(own)
    opened().close()
    assert mlflow.get_tracking_uri() == own
    active = opened()
    mlflow.set_tracking_uri(f"{own}.other")
    active.close()
    assert mlflow.get_tracking_uri() == f"{own}.other"


def test_ours_that_code_puts_back_late_is_replaced(opened: Open, own: str, ours: str) -> None:
    active = opened()
    found = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(own)
    active.close()
    mlflow.set_tracking_uri(found)
    restore()
    assert in_force.uri() is None
    mlflow.set_tracking_uri(ours)  # of the user's own will
    restore()
    assert in_force.uri() == ours


def test_a_run_of_wider_code_is_its_own(opened: Open, ours: str) -> None:
    active = opened()
    active.set_wider(True)
    mlflow.log_metric("before", 1)  # where it has no run of its own
    wide = mlflow.start_run()
    assert not {"mlflow.parentRunId", "armory.opened_in"} & tags(wide).keys()
    assert current() == wide.info.run_id
    active.set_wider(False)
    assert current() == active.run_id
    with pytest.raises(Exception, match="already active"):  # as without us
        mlflow.start_run()
    assert active.close() == []
    assert (current(), mlflow.get_tracking_uri()) == (wide.info.run_id, ours)
    second = opened()
    assert current() == second.run_id
    with used_by_ending_fixture(ours):
        mlflow.end_run()
    assert current() == second.run_id
    second.close()
    assert (current(), in_force.uri()) == (None, None)


def test_wider_code_goes_on_where_it_has_a_run_open(opened: Open, own: str, ours: str) -> None:
    mlflow.set_tracking_uri(own)
    wide = mlflow.start_run()
    active = opened()
    active.set_wider(True)
    assert (current(), mlflow.get_tracking_uri()) == (wide.info.run_id, own)
    with active.used_by(wider=False):
        assert (current(), mlflow.get_tracking_uri()) == (active.run_id, ours)
        mlflow.end_run()
    assert current() == wide.info.run_id
    mlflow.log_metric("by_hook", 1)
    mlflow.end_run()
    active.close()
    assert (current(), in_force.uri()) == (None, own)
    assert MlflowClient(own).get_run(wide.info.run_id).data.metrics == {"by_hook": 1}


def test_a_uri_that_wider_code_sets_beside_its_run_stands(
    opened: Open, own: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    wide = mlflow.start_run()  # in MLflow's default store, a file of the working directory
    active = opened()
    with active.used_by(wider=True):
        mlflow.set_tracking_uri(own)
    as_without_us = (wide.info.run_id, own)
    assert (current(), mlflow.get_tracking_uri()) == as_without_us
    active.close()
    assert (current(), mlflow.get_tracking_uri()) == as_without_us
    mlflow.set_tracking_uri(None)
    mlflow.end_run()


def test_a_run_that_is_open_in_our_store_is_wider_code_s(opened: Open, ours: str) -> None:
    mlflow.set_tracking_uri(ours)
    wide = mlflow.start_run()
    active = opened()
    assert current() == active.run_id
    with active.used_by(wider=True):
        assert current() == wide.info.run_id
        mlflow.end_run()
    assert current() == active.run_id
    assert active.close() == []
    assert current() is None


def test_runs_of_the_tests_own_code_are_children_and_left_ones_are_named(opened: Open) -> None:
    active = opened()
    with mlflow.start_run() as child:
        assert tags(child)["mlflow.parentRunId"] == active.run_id
        assert tags(child)["armory.opened_in"] == active.run_id
    left = mlflow.start_run()
    assert active.close() == [left.info.run_id]
    mlflow.end_run()


def test_an_experiment_is_one_of_its_store(opened: Open, own: str) -> None:
    mlflow.set_tracking_uri(own)
    theirs = mlflow.set_experiment("theirs").experiment_id
    active = opened()
    with mlflow.start_run() as child:
        assert child.info.experiment_id == active.entry.info.experiment_id
    mine = mlflow.set_experiment("mine").experiment_id
    with mlflow.start_run() as child:
        assert child.info.experiment_id == mine
    active.close()
    with mlflow.start_run() as run:
        assert run.info.experiment_id == theirs
    again = opened()
    with mlflow.start_run() as child:
        assert child.info.experiment_id == mine
    again.close()


def test_tracing_is_as_the_user_set_it(opened: Open) -> None:
    from mlflow.tracing import config, provider

    def mask(span: Any) -> None:
        del span

    mlflow.tracing.configure(span_processors=[mask])
    mlflow.tracing.disable()
    try:
        for _ in range(2):
            active = opened()
            assert provider.is_tracing_enabled() is False
            assert config.get_config().span_processors == [mask]
            active.close()
    finally:
        mlflow.tracing.reset()


# What a process inherits


ANYTHING = [
    "", "{", "[" * 100_000, "null", "3", "[]", '{"instead_of": "x"}', '{"uri": 3}',
    '{"uri": "x", "tags": {"a": 1}}', '{"uri": "x", "instead_of": []}',
]  # fmt: skip


@pytest.mark.parametrize("text", ANYTHING, ids=lambda text: text[:20])
def test_a_variable_that_anyone_has_set_is_no_evaluation(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(VARIABLE, text)
    assert exported() == {}
    assert InForce().environment() == os.environ.get("MLFLOW_TRACKING_URI")
    assert not ExperimentProvider().in_context()
    assert ContextProvider().tags() == {}
