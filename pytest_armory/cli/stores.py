"""The store that a command works on: its option, the login, and whether it exists yet."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.store import Store, destination, login
from pytest_armory.store.destination import Destination
from pytest_armory.sync.tags import store_option


def add_tracking_uri(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--armory-tracking-uri``."""
    parser.add_argument(
        "--armory-tracking-uri",
        metavar="URI",
        help="the store: `local`, the database under the Armory home (the default), or any MLflow "
        "tracking URI (environment: MLFLOW_TRACKING_URI)",
    )


def given_store(where: Destination, arguments: argparse.Namespace) -> str:
    """The option that other commands need to find the store, as it was given here, or ""."""
    is_given = bool(arguments.armory_tracking_uri)
    return store_option(where.display_uri if where.uri else destination.LOCAL) if is_given else ""


@contextmanager
def logged_in(where: Destination) -> Iterator[Destination]:
    """The destination, logged in if its platform requires it."""
    if not where.is_server:
        yield where
        return
    with login.logged_in(str(where.uri)) as uri:
        yield destination.resolve(uri)


def check_exists(where: Destination) -> None:
    """Raise :class:`ArmoryUsageError` for a local database that does not exist."""
    if not where.exists:
        raise ArmoryUsageError(no_sessions(where))


def newest_session(store: Store) -> str:
    """The ID of the session that began last, or ""."""
    newest = store.search.latest_sessions(1)
    return newest[0].tags.get("armory.session", "") if newest else ""


def no_such_session(session: str, where: Destination) -> str:
    """The message for a store that does not have this session, which may be misspelt.

    Of the latest one, also without a name: the store has none.
    """
    if session in ("", "latest"):
        return no_sessions(where)
    is_near = get_close_matches(session.lower(), ["latest"], cutoff=0.8)
    advice = "did you mean latest? " if is_near else ""
    return (
        f"no evaluation of the session {session!r} is at {where.display_uri}; {advice}"
        "`pytest-armory sessions` lists them"
    )


def no_sessions(where: Destination) -> str:
    """The message for a store without a session."""
    return f"no sessions at {where.display_uri}; `pytest --armory-track` makes one"
