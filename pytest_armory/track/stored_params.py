"""The parameters of a run: their last values, and those that MLflow has stored."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_armory.values import PARAM_LIMIT, Descriptions, clip, param_strings


class StoredParams:
    """The parameters written to MLflow, which never changes one that is stored.

    It refuses a batch that tries to. So only new ones are sent; one that has changed or is too long
    is stored in full in the artifact ``params.json``.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        """The last value of each."""
        self._stored: dict[str, str] = {}
        self._replaced: set[str] = set()
        self._tagged: set[str] = set()
        self._of_earlier_repeats: set[str] = set()
        self._recorded: dict[str, str] = {}
        self._inherited: Mapping[str, object] = {}
        self.descriptions = Descriptions()
        """The values of which the text is known."""

    def describe(self, params: Mapping[str, object]) -> dict[str, str]:
        """Parameters as strings; a value that was described before is not again."""
        return param_strings(params, known=self.descriptions)

    @property
    def need_file(self) -> bool:
        """Whether MLflow has another or a truncated value of one of them."""
        return bool(self._replaced) or any(len(v) > PARAM_LIMIT for v in self.values.values())

    def add(self, params: Mapping[str, str]) -> dict[str, str]:
        """Add parameters; returns those to be stored, clipped to MLflow's limit."""
        new: dict[str, str] = {}
        for key, value in params.items():
            self.values[key] = value
            self._of_earlier_repeats.discard(key)
            if key not in self._stored:
                new[key] = value
            elif self._stored[key] != value:
                self._replaced.add(key)
            else:
                self._replaced.discard(key)
        self._stored.update(new)
        return {key: clip(value, PARAM_LIMIT) for key, value in new.items()}

    def note(self, params: Mapping[str, str]) -> dict[str, str]:
        """Add parameters that are to be stored when the evaluation ends; returns them.

        What it has logged itself under the same name is kept.
        """
        unwritten = self.to_store(params)
        self.values.update(unwritten)
        return unwritten

    def to_store(self, params: Mapping[str, str]) -> dict[str, str]:
        """Those that are not stored yet."""
        return {key: value for key, value in params.items() if key not in self._stored}

    def known(self, recorded: Mapping[str, str]) -> dict[str, str]:
        """The last values, with those of a tracking context that is still open."""
        before = self._recorded or self.describe(self._inherited)
        kept = {k: v for k, v in self.values.items() if k not in before or k in recorded}
        changed = {key: value for key, value in recorded.items() if before.get(key) != value}
        return {**recorded, **kept, **changed}

    def inherit(self, params: Mapping[str, object]) -> None:
        """Keep a tracking context's parameters for a run in memory, to be described when read."""
        self._inherited = dict(params)

    def changed_since_recorded(self, params: Mapping[str, object]) -> dict[str, str]:
        """Those of a tracking context's parameters that have changed since the last call."""
        strings, before = self.describe(params), self._recorded
        for key in before.keys() - strings.keys():
            self.values.pop(key, None)
            self._replaced.add(key)
        self._recorded = strings
        return {key: value for key, value in strings.items() if before.get(key) != value}

    def stored(self) -> dict[str, str]:
        """Those that MLflow has stored, clipped to its limit."""
        return {key: clip(value, PARAM_LIMIT) for key, value in self._stored.items()}

    def conflicts(self, params: Mapping[str, str]) -> list[str]:
        """The names of those that are stored already by this repeat, with another value."""
        found = [key for key, value in params.items() if self._stored.get(key, value) != value]
        return [key for key in found if key not in self._of_earlier_repeats]

    def begin_repeat(self) -> None:
        """Begin another repeat of the body, which may give each parameter a new value."""
        self._of_earlier_repeats = set(self._stored)

    def refuse(self, key: str) -> None:
        """Note that MLflow has refused a parameter, so that ``params.json`` has its value."""
        self._replaced.add(key)

    def new_tags(self) -> dict[str, str]:
        """The tag that names those whose last value is not the stored one, if it has changed."""
        if self._replaced == self._tagged:
            return {}
        self._tagged = set(self._replaced)
        return {"armory.replaced_params": ", ".join(sorted(self._replaced))}
