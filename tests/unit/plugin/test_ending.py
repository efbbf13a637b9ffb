"""The summary of a session that is cut off, written before its store has answered and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_armory.plugin.ending import SessionEnd, _agree
from pytest_armory.plugin.guard import Guard
from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.report.summary import Summary


class CutOff:
    """The ledger of a session whose store fails, with one evaluation."""

    store_option = ""
    planned = reported = frozenset({"a"})
    under_way: frozenset[str] = frozenset()
    crashes: dict[str, int] = {}  # noqa: RUF012 - nobody writes to it
    is_complete = is_behind = False

    def __init__(self) -> None:
        self.problems: list[str] = []

    def known(self, *_: object) -> Summary:
        records = [EvaluationRecord("a", outcome=Outcome.INTERRUPTED)]
        return Summary("s", "here", records=records, text="## known\n")

    def finish(self, *_: object) -> Summary:
        raise ValueError("unexpected")


def test_the_step_summary_is_appended_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the end fails after what is known was printed, and without a terminal."""
    step = tmp_path / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    plugins = SimpleNamespace(get_plugin=lambda _: None)
    config: Any = SimpleNamespace(pluginmanager=plugins, option=SimpleNamespace())
    process: Any = SimpleNamespace(
        guard=Guard(), problems=[], notes=[], begin=lambda _: None, end=lambda _: None
    )
    settings: Any = SimpleNamespace(summary=None, html=None, strict=False)
    ledger: Any = CutOff()
    ending = SessionEnd(config, settings, ledger, process)
    ending._print_known(ledger.known())
    ending.finish(interrupted=True)
    assert ending.summary is not None
    assert step.read_text() == "## known\n"


def test_what_is_recorded_locally_after_all_is_printed_again() -> None:
    """With the command that uploads it: the server did not answer."""
    (known,) = CutOff().known().records
    sent, kept = (
        Summary("s", "here", records=[replace(known, waiting=waiting)]) for waiting in (False, True)
    )
    assert _agree(sent, sent)
    assert not _agree(kept, sent)
    assert not _agree(sent, None)
