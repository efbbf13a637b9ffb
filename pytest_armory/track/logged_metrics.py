"""The metrics of a run that were logged by this process."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from pytest_armory.values import legal_key, legal_keys, one_name


class LoggedMetrics:
    """The value of each metric that MLflow shows: the last at the highest step."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.sequences: set[str] = set()
        """The metrics that a list or an array was logged as: no single value is theirs."""
        self.unknown: dict[str, str] = {}
        """The metrics whose values are not known, and why: no gate judges them."""
        self.usage: dict[str, float] = {}
        """What ``track_usage`` has logged."""
        self._steps: dict[str, int] = {}
        self._infinite: set[str] = set()
        self._names: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._left_out: set[str] = set()
        self._evaluations: dict[str, list[str]] = {}
        self._replaced: set[str] = set()

    def note_source(self, metrics: Iterable[str], *, is_evaluation: bool) -> None:
        """Note whether an evaluation, or the test itself, has logged metrics last."""
        if is_evaluation:
            self._replaced.difference_update(metrics)
        else:
            self._replaced.update(metrics)

    def is_replaced(self, metric: str) -> bool:
        """Whether the test itself has logged a metric since an evaluation measured it."""
        return metric in self._replaced

    def measured_by(self, metric: str) -> list[str]:
        """The evaluations that measured a metric, the first one first: it has that one's value."""
        return self._evaluations.get(metric, [])

    def taken(self, metrics: Iterable[str], evaluation: str) -> dict[str, str]:
        """Which metrics of an evaluation another one has measured already, and which one."""
        taken = {}
        for metric in metrics:
            known = self._evaluations.setdefault(metric, [evaluation])
            if evaluation not in known:
                known.append(evaluation)
            if known[0] != evaluation:
                taken[metric] = known[0]
        return taken

    def own_names(self, taken: Iterable[str], evaluation: str) -> dict[str, str]:
        """What metrics of an evaluation are stored as whose names another one has."""
        own = {}
        for metric in taken:
            own[metric] = legal_key(f"{evaluation}/{metric}")
            while self.taken([own[metric]], evaluation):  # another one's metric has that name
                own[metric] = legal_key(f"{evaluation}/{own[metric]}")
        return own

    def without_evaluation(self, metric: str) -> str:
        """A metric's name without that of its evaluation, where :meth:`own_names` has put it."""
        for evaluation in self.measured_by(metric)[:1]:
            return metric.removeprefix(f"{legal_key(evaluation)}/")
        return metric

    def key_of(self, name: str) -> str:
        """The name in MLflow of a metric by the name that it was logged, or is asked for, with.

        That of one which was left out for another's name is no metric's: none was logged. Nor is
        that of a name which only becomes the one that another was logged with.
        """
        if name in self._keys:
            return self._keys[name]
        key = f"{name} (left out)" if name in self._left_out else legal_key(name)
        is_anothers = self._names.get(key, key) != key and name != key
        return name if is_anothers else key

    def stored_name(self, legal: str, given: str) -> str:
        """What a metric, by its legal name and that given, is stored as: as in this run before."""
        return self._keys.get(given, legal)

    def refused(self, name: str, given: str) -> str:
        """Why a metric cannot be stored as a name, which is another's; "" if it can."""
        first = self._names.setdefault(name, given)
        if first != given:
            self._left_out.add(given)
            return one_name(name, first, given)
        self._keys.setdefault(given, name)
        return ""

    def kept_histories(
        self, histories: Mapping[str, Sequence[float]]
    ) -> tuple[dict[str, Sequence[float]], dict[str, str]]:
        """Metrics with a value for each step, by legal names; and by name why one is left out."""
        kept, refused = {}, {}
        names = list(map(str, histories))
        new = dict(zip(legal_keys(names), names, strict=True))
        for (legal, name), values in zip(new.items(), histories.values(), strict=True):
            stored = self.stored_name(legal, name)
            if problem := self.refused(stored, name):
                refused[name] = problem
            else:
                kept[stored] = values
        return kept, refused

    def note(self, numbers: Mapping[str, float], step: int) -> None:
        """Add the values of several metrics at one step."""
        for name, value in numbers.items():
            if step >= self._steps.get(name, step):
                self._steps[name], self.values[name] = step, value
                self.sequences.discard(name)
                self.unknown.pop(name, None)

    def after(self, steps: Mapping[str, int]) -> dict[str, float]:
        """The values that are at a higher step than others of the same name, by their steps."""
        ours = {name for name, at in self._steps.items() if name not in steps or at > steps[name]}
        return {name: value for name, value in self.values.items() if name in ours}

    def note_history(self, name: str, values: Sequence[float]) -> None:
        """Add one value for each step, counted from 0."""
        last = len(values) - 1
        if last >= self._steps.get(name, last):
            self.note({name: values[-1]}, last)
            self.sequences.add(name)

    def note_arrays(self, names: Iterable[str]) -> None:
        """Add metrics that are artifacts, and have no value."""
        self.sequences.update(name for name in names if name not in self.values)

    def new_tags(self, metrics: Iterable[tuple[str, float, int]]) -> dict[str, str]:
        """The tag that names infinite metrics, if one of these is new to it.

        A database stores the largest float for an infinity.
        """
        infinite = {f"{name}={value}" for name, value, _ in metrics if math.isinf(value)}
        if infinite <= self._infinite:
            return {}
        self._infinite |= infinite
        return {"armory.infinite_metrics": ", ".join(sorted(self._infinite))}
