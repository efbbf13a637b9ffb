"""One evaluation as a table row: its title, its chief metrics, and their changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from pytest_armory.records import EvaluationRecord, is_one_of_each_test
from pytest_armory.report.text import number, printable

ROWS = 40
"""The default number of a table's rows, which fit on a screen."""

CHIEF = 3
"""How many metrics of an evaluation a table shows."""

Part = tuple[str, str | None]
"""A piece of a line, and its colour, if any."""

_SIDE_METRICS = ("duration_seconds", "samples", "samples_per_second")
_SIDE_FOLDERS = ("time/", "progress/", "system/")
_INTERVAL = ("/ci_low", "/ci_high")
_STATES = ("failed", "unjudged", "passed")
_NO_GATES: Mapping[str, Sequence[str]] = MappingProxyType({})

# Titles


def title(record: EvaluationRecord, on_several_workers: Set[str] = frozenset()) -> str:
    """An attempt's name in a table: its node id, and the attempt of a rerun test.

    The worker is named of the node ids that ran ``on_several_workers``.
    """
    attempt = f" (attempt {record.attempt})" if record.attempt > 1 else ""
    worker = f" ({printable(record.worker)})" if record.nodeid in on_several_workers else ""
    return printable(record.nodeid) + worker + attempt


def file_of(record: EvaluationRecord) -> str:
    """The test file in the node id."""
    return record.nodeid.partition("::")[0]


RUNNING = "running"
"""What stands for the outcome of an attempt that is under way."""


def outcome_text(record: EvaluationRecord) -> str:
    """The outcome, or :data:`RUNNING`."""
    return record.outcome.value if record.outcome else RUNNING


def run_on_several_workers(records: Sequence[EvaluationRecord]) -> Set[str]:
    """The node ids that several workers ran, as ``--dist=each`` makes them."""
    if is_one_of_each_test(records):
        return frozenset()
    workers: dict[str, set[str]] = {}
    for record in records:
        workers.setdefault(record.nodeid, set()).add(record.worker)
    return {nodeid for nodeid, names in workers.items() if len(names) > 1}


# Metrics


def chief_metrics(metrics: Mapping[str, float], most: int = CHIEF) -> dict[str, float]:
    """The metrics a table shows by default: the simplest names, timings only if need be."""
    return {name: metrics[name] for name in _chief_names(tuple(metrics))[:most]}


@lru_cache(maxsize=64)
def _chief_names(names: tuple[str, ...]) -> list[str]:
    """The names in the order in which a table shows them; most tests of a session share them."""
    shown = [name for name in names if not _is_side_metric(name)]
    return sorted(shown, key=lambda name: (name.count("/"), _natural(name)))


def _is_side_metric(name: str) -> bool:
    """Whether it is an engine's own number, of a second evaluation in a test too."""
    if name.endswith(_INTERVAL):
        return True
    inner = name.partition("/")[2]
    return any(n in _SIDE_METRICS or n.startswith(_SIDE_FOLDERS) for n in (name, inner))


def _natural(name: str) -> list[str | int]:
    """A key to sort names by that has ``m2`` before ``m10``."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


Gated = Mapping[str, Sequence[str]]
"""The metrics with a gate, by the node id of their test without its parameters."""


def gated_metrics(records: Sequence[EvaluationRecord]) -> Gated:
    """The metrics that a session's evaluations have gates on.

    Of a test whose body failed no gate is judged, so that its record does not say its gates.
    """
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for verdict in record.verdicts:
            found.setdefault(_test_of(record), {})[verdict.metric] = None
    return {test: tuple(names) for test, names in found.items()}


def _test_of(record: EvaluationRecord) -> str:
    return record.nodeid.partition("[")[0]


def chief_of(
    record: EvaluationRecord, most: int = CHIEF, gated: Gated = _NO_GATES
) -> dict[str, float]:
    """The metrics a table shows of an evaluation: those of the hook, else those with a gate.

    Of these what failed comes first, then what could not be judged; one without verdicts has those
    that are ``gated`` of its test's other parameters.
    """
    by_state = sorted(record.verdicts, key=lambda verdict: _STATES.index(verdict.state))
    own = [verdict.metric for verdict in by_state] or gated.get(_test_of(record), ())
    chosen = record.chief or (*dict.fromkeys(own), *chief_metrics(record.metrics, most))
    names = [name for name in dict.fromkeys(chosen) if name in record.metrics]
    return {name: record.metrics[name] for name in names[:most]}


@dataclass(frozen=True)
class ShownMetric:
    """One metric in a table; ``change`` is what has changed against the baseline, or is empty.

    ``interval`` is half the width of its confidence interval, or is empty.
    """

    name: str
    value: str
    change: str = ""
    colour: str | None = None
    interval: str = ""

    @property
    def parts(self) -> list[Part]:
        """The metric with its change, which has the colour that a gate gives it."""
        parts: list[Part] = [(f"{self.name} {self.value}{self.interval}", None)]
        if self.change:
            parts += [(" (", None), (self.change, self.colour), (")", None)]
        return parts

    @property
    def text(self) -> str:
        """The same without colours."""
        return "".join(text for text, _ in self.parts)


def shown_metrics(
    record: EvaluationRecord, most: int = CHIEF, gated: Gated = _NO_GATES
) -> list[ShownMetric]:
    """An evaluation's chief metrics."""
    return _shown(record, chief_of(record, most, gated))


def other_metrics(record: EvaluationRecord, gated: Gated = _NO_GATES) -> list[ShownMetric]:
    """The metrics that a table does not show: the simplest names, then timings and the like."""
    shown = {*chief_of(record, gated=gated), *record.chief, "duration_seconds"}
    names = (*_chief_names(tuple(record.metrics)), *record.metrics)
    others = [n for n in dict.fromkeys(names) if n not in shown and not n.endswith(_INTERVAL)]
    return _shown(record, {name: record.metrics[name] for name in others})


def _shown(record: EvaluationRecord, metrics: Mapping[str, float]) -> list[ShownMetric]:
    higher_is_worse, verdicts = _directions(record), verdicts_of(record)
    shown = []
    for name, value in metrics.items():
        difference = change(value, record.baseline[name]) if name in record.baseline else ""
        colour = _change_colour(difference, higher_is_worse.get(name)) if difference else None
        if difference and verdicts.get(name) in ("worse", "unclear"):
            difference += f" {verdicts[name]}"
            colour = colour if verdicts[name] == "worse" else None
        spread = interval_text(record.metrics, name)
        shown.append(ShownMetric(printable(name), number(value), difference, colour, spread))
    return shown


def verdicts_of(record: EvaluationRecord) -> dict[str, str]:
    """What evidence says of each metric's change: ``worse``, ``not worse`` or ``unclear``."""
    return {verdict.metric: verdict.verdict for verdict in record.verdicts if verdict.verdict}


def interval_of(metrics: Mapping[str, float], name: str) -> tuple[float, float] | None:
    """The confidence interval of a metric, if it is a mean over samples."""
    low, high = (metrics.get(f"{name}{end}") for end in _INTERVAL)
    return None if low is None or high is None else (low, high)


def interval_text(metrics: Mapping[str, float], name: str) -> str:
    """Half the width of a confidence interval: `` ±0.017``; empty without one, or a width."""
    low, high = interval_of(metrics, name) or (0.0, 0.0)
    return f" ±{(high - low) / 2:.2g}" if high > low else ""


def change(value: float, base: float) -> str:
    """A metric's change from the baseline's: ``↑0.02``, ``↓0.02``, ``=``; empty for NaN."""
    if value != value or base != base:
        return ""
    if value == base:
        return "="
    return f"{'↑' if value > base else '↓'}{number(float(f'{abs(value - base):.9g}'))}"


def _directions(record: EvaluationRecord) -> dict[str, bool | None]:
    """Whether higher is worse, for each metric whose gates agree."""
    known = {(verdict.metric, verdict.higher_is_worse) for verdict in record.verdicts}
    return {name: higher for name, higher in known if (name, not higher) not in known}


def _change_colour(difference: str, higher_is_worse: bool | None) -> str | None:
    if higher_is_worse is None or difference[0] not in "↑↓":
        return None
    return "red" if higher_is_worse == difference.startswith("↑") else "green"
