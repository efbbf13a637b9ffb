"""``--armory-devices``: each worker gets its GPU, before anything can start CUDA in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from pytest_armory import environment
from pytest_armory.errors import ArmoryUsageError
from pytest_armory.plugin.guard import guard_of, guarded
from pytest_armory.session.devices import VARIABLE, find_devices, place_of, share_of


class Devices:
    """Divides the GPUs of this machine among the workers of a session."""

    def __init__(self, config: pytest.Config, given: str, found: Sequence[str]) -> None:
        self.config = config
        self._given = given
        self._found = found

    @guarded
    def pytest_report_header(self) -> str:
        """Say which there are."""
        if not self._found:
            return f"armory: no GPU is found, so --armory-devices {self._given} does nothing"
        return f"armory: GPUs {', '.join(self._found)}"

    @pytest.hookimpl(optionalhook=True)
    @guarded
    def pytest_xdist_setupnodes(self, specs: Sequence[Any]) -> None:
        """Give each worker its device: execnet sets it before the worker imports pytest."""
        place = place_of(os.environ)
        for index, spec in enumerate(specs if self._found else ()):
            spec.env[VARIABLE] = share_of(self._found, index, len(specs), place)


def find(given: str) -> list[str]:
    """The GPUs that the option gives. Raises ``pytest.UsageError``."""
    try:
        return find_devices(given, os.environ)
    except ArmoryUsageError as error:
        raise pytest.UsageError(f"armory: {error}") from None


def restrict(config: pytest.Config, given: str, has_workers: bool) -> None:
    """Find the devices before a conftest is imported; without workers this process gets its own.

    One whose environment does not tell its place gets all of them.
    """
    found = find(given)
    config.pluginmanager.register(Devices(config, given, found), "armory-devices")
    if has_workers or not found:
        return
    place = place_of(os.environ)
    own = ",".join(found) if place is None else share_of(found, 0, 1, place)
    cleanup = ExitStack()
    config.add_cleanup(partial(guard_of(config).close, cleanup))
    cleanup.enter_context(environment.changed({VARIABLE: own}))
