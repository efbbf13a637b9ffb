"""The page of a session, from what its store holds, and the file that it is written to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_armory.report.files import write_text_file
from pytest_armory.report.page import session_page
from pytest_armory.report.summary import Summary
from pytest_armory.session.details import read_details
from pytest_armory.session.ledger import Ledger
from pytest_armory.store.client import open_store

if TYPE_CHECKING:
    from pytest_armory.store import Store

ARTIFACT = "report.html"


def write_page(store: Store, summary: Summary, path: Path) -> str:
    """Write a session's page to a file, and return it. Raises OSError or TrackingError."""
    text = session_page(read_details(store, summary))
    write_text_file(path, text)
    return text


def write_and_store_page(ledger: Ledger, summary: Summary, path: Path) -> None:
    """The same at the end of a session, which also gets it as an artifact of its session runs."""
    where = ledger.local if ledger.out_of_reach else ledger.where
    text = write_page(open_store(where), summary.of_all_jobs(), path)
    for runs in ledger.everywhere():
        runs.attach({ARTIFACT: text})
