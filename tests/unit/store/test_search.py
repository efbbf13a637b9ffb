"""Pages of what a store is searched for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_armory.store import search
from pytest_armory.store.connection import Connection
from pytest_armory.store.search import RunSearch


class Page(list[str]):
    """A page of MLflow's, whose token is that of the next one."""

    token: str | None = None


class Pages(Connection):
    """A connection to a store with three pages, of two runs each."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self._client = SimpleNamespace(search_runs=self._page)

    @property
    def client(self) -> Any:
        return self._client

    def call(self, _: str, work: Any, *__: Any, **___: Any) -> Any:
        return work()

    def _page(self, *_: Any, page_token: str | None, **__: Any) -> Page:
        self.asked.append(page_token)
        number = int(page_token or 0)
        page = Page(f"run {number * 2 + i}" for i in range(2))
        page.token = str(number + 1) if number < 2 else None
        return page


@pytest.mark.parametrize(
    ("most", "found", "pages"), [(None, 6, 3), (1, 1, 1), (2, 2, 1), (3, 3, 2), (9, 6, 3)]
)
def test_no_page_is_requested_of_which_no_run_is_wanted(
    monkeypatch: pytest.MonkeyPatch, most: int | None, found: int, pages: int
) -> None:
    monkeypatch.setattr(search, "stored_run", str)
    connection = Pages()
    runs = RunSearch(connection, experiments=None).runs(["1"], "", most=most)  # type: ignore[arg-type] # asked for nothing
    assert runs == [f"run {i}" for i in range(found)]
    assert connection.asked == [None, "1", "2"][:pages]


def test_a_page_is_requested_when_a_run_of_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "stored_run", str)
    connection = Pages()
    runs = RunSearch(connection, experiments=None).each(["1"], "")  # type: ignore[arg-type] # asked for nothing
    assert connection.asked == []
    assert [next(runs), next(runs)] == ["run 0", "run 1"]
    assert connection.asked == [None]


def test_no_experiment_is_no_request() -> None:
    connection = Pages()
    assert RunSearch(connection, experiments=None).runs([], "") == []  # type: ignore[arg-type] # asked for nothing
    assert connection.asked == []
