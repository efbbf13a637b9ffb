"""The process that all workers of a test session have their processes forked from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Evals
from forked import preload


def test_what_cannot_be_imported_fails_who_asked_alone(
    evals: Evals, fork_server: Callable[[], str]
) -> None:
    with pytest.raises(ImportError, match="No module named 'no_such_module'"):
        preload(fork_server(), "json", "no_such_module")
    preload(fork_server(), "json")
    evals.write("def test_a(): pass")
    evals.run(subprocess=True, track=False).assert_outcomes(passed=1)
