"""Durations of tests by node id: the file of ``--armory-durations``. Pure but for reading it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.records import fields

PLAIN = 0.1
"""Seconds that a test which is no evaluation is taken to need, if no such test is known."""

_ADVICE = "make one with `pytest-armory durations > FILE`"


def read_durations(path: Path) -> dict[str, float]:
    """Seconds by node id. Raises :class:`ArmoryUsageError` for a file that cannot be used."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArmoryUsageError(
            f"--armory-durations: {path} cannot be read: {error.strerror}; {_ADVICE}"
        ) from None
    found, _ = fields.read_text(fields.mapping_of(fields.number), content)
    if found is None or not all(0 <= seconds < math.inf for seconds in found.values()):
        raise ArmoryUsageError(
            f"--armory-durations: {path} must be a JSON object of node ids and seconds, as "
            f'{{"test_a.py::test_b": 1.5}}; {_ADVICE}'
        )
    return found


def to_text(durations: Mapping[str, float]) -> str:
    """The file's content: sorted, a test a line, so that its changes can be read."""
    rounded = {nodeid: round(seconds, 3) for nodeid, seconds in durations.items()}
    return dumps(rounded, indent=1, sort_keys=True, ensure_ascii=False)


def weights(tests: Sequence[tuple[str, bool]], known: Mapping[str, float]) -> list[float]:
    """The seconds that each test is taken to need; all equal if none is known.

    Tests are node ids with whether they are evaluations. One that is not known gets the mean of
    those of its kind that are: a plain test is not as long as an evaluation.
    """
    found: dict[bool, list[float]] = {True: [], False: []}
    for nodeid, is_evaluation in tests:
        if nodeid in known:
            found[is_evaluation].append(known[nodeid])
    every = found[True] + found[False]
    if not every:
        return [1.0] * len(tests)
    default = {True: _mean(found[True] or every), False: _mean(found[False] or [PLAIN])}
    return [known.get(nodeid, default[is_evaluation]) for nodeid, is_evaluation in tests]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
