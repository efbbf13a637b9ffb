"""What marked tests need in a session that is not tracked: their runs are kept in memory.

Apart from what a tracked session needs, so that nothing of that is imported.
"""

from __future__ import annotations

import pytest

from pytest_armory.plugin.attempts import Attempts
from pytest_armory.plugin.guard import guard_of
from pytest_armory.plugin.options import Settings
from pytest_armory.plugin.process import Process
from pytest_armory.plugin.running import RunningHooks


def register(config: pytest.Config, settings: Settings) -> RunningHooks:
    """Register the hooks that keep runs in memory and judge gates."""
    attempts = Attempts(settings, None, rootpath=config.rootpath, guard=guard_of(config))
    process = Process(guard_of(config), wanted=attempts.judging)
    hooks = RunningHooks(config, attempts, process)
    config.pluginmanager.register(hooks, "armory-runs-tests")
    return hooks
