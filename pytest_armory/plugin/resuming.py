"""``--armory-resume``: evaluations that passed already in a session are skipped, the rest runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_armory import __version__
from pytest_armory.errors import TrackingError
from pytest_armory.plugin.judging import has_gates, terms_of, wanted_judging
from pytest_armory.plugin.marker import Mark, is_evaluation, merged_mark
from pytest_armory.plugin.options import Settings
from pytest_armory.plugin.redacted import display_id
from pytest_armory.plugin.repeating import number_of_repeats
from pytest_armory.session.fingerprint import Fingerprint, changes
from pytest_armory.session.resume import DoneBefore, PassedRun, close_interrupted
from pytest_armory.store.destination import Destination
from pytest_armory.values.stable import stable_digest

_NOT_MARKED = "it is not marked when it is collected"
"""Why what a fixture marks runs again: by what, and how it is judged, is not known before."""


@dataclass(frozen=True)
class Resumed:
    """The evaluations that are skipped, by node id, and why others that passed run again."""

    skipped: Sequence[str] = ()
    again: Sequence[tuple[str, str]] = ()


class Fingerprints:
    """Fingerprints of the evaluations of one session; files are read once, when it has collected.

    ``checkout`` has the parts that are the session's; ``judging`` is what verdicts depend on, as
    the session's jobs have agreed on it.
    """

    def __init__(self, checkout: Mapping[str, str], settings: Settings) -> None:
        self.judging = wanted_judging(settings)
        self._checkout = checkout
        self._settings = settings
        self._files: dict[Path, bytes] = {}
        self._conftests: dict[Path, tuple[Path, ...]] = {}

    def read_files(self, items: Sequence[pytest.Item]) -> None:
        """Read the files of all evaluations, as they are now: somebody may edit them later."""
        for item in filter(is_evaluation, items):
            self._digest((item.path, *self._conftests_of(item)))

    def of(self, item: pytest.Item) -> Fingerprint:
        """What an evaluation is made of."""
        callspec, mark = getattr(item, "callspec", None), merged_mark(item)
        params = stable_digest(dict(callspec.params)) if callspec is not None else "none"
        return {
            "file": self._digest((item.path,)),
            "conftest": self._digest(self._conftests_of(item)),
            "marker": stable_digest(mark) or "",
            "params": params or "",
            "repeats": str(number_of_repeats(mark, self._settings.jobs)),
            "judging": self._judging_of(mark),
            "version": __version__,
            **self._checkout,
        }

    def _judging_of(self, mark: Mark) -> str:
        """What decides on an evaluation's gates besides its markers; "none" without any.

        Not how many gates there are, nor which sessions the baseline was found to be: these are
        the session's first job's.
        """
        settings, judging = self._settings, self.judging
        if not has_gates(mark, settings):
            return "none"
        terms = (judging.reference, judging.pooled, judging.confidence)
        tolerances = {name: str(one) for name, one in settings.tolerances.items()}
        return stable_digest([*terms, terms_of(judging, mark).unclear, tolerances]) or ""

    def _conftests_of(self, item: pytest.Item) -> tuple[Path, ...]:
        """The conftest files that pytest has loaded from the test's folders."""
        folder = item.path.parent
        if folder not in self._conftests:
            plugins = item.config.pluginmanager.get_plugins()
            files = (getattr(plugin, "__file__", None) for plugin in plugins)
            paths = [Path(file) for file in files if isinstance(file, str)]
            ours = {path for path in paths if path.name == "conftest.py"}
            on_the_way = (path for path in ours if path.parent in item.path.parents)
            self._conftests[folder] = tuple(sorted(on_the_way))
        return self._conftests[folder]

    def _digest(self, paths: Sequence[Path]) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for path in paths:
            if path not in self._files:
                self._files[path] = _content(path)
            digest.update(self._files[path])
        return digest.hexdigest()


def _content(path: Path) -> bytes:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=8).digest()
    except OSError:  # a test that is no file's
        return b"none"


class Resuming:
    """What a process that runs tests needs to resume a session, or to be resumed later.

    ``places`` are the stores its runs may be in; ``done`` is None unless the session is resumed.
    """

    def __init__(
        self,
        fingerprints: Fingerprints,
        places: Sequence[Destination] = (),
        done: DoneBefore | None = None,
        ignore_changes: bool = False,
    ) -> None:
        self.fingerprints = fingerprints
        self.done = done
        self._places = places
        self._ignore_changes = ignore_changes

    def skip_passed(self, items: Sequence[pytest.Item]) -> Resumed:
        """Mark the evaluations that passed already as skipped."""
        done = self.done or DoneBefore("")
        skipped, again = [], []
        for item in items if done.passed else ():
            nodeid = display_id(item.nodeid)
            passed = done.passed.get(nodeid)
            if passed is None:
                continue
            why = self._changes(item, passed) if is_evaluation(item) else [_NOT_MARKED]
            if why:
                again.append((f"passed before, and runs again: {', '.join(why)}", nodeid))
                continue
            skipped.append(nodeid)
            reason = f"passed already in session {done.session}, run {passed.run_id}"
            item.add_marker(pytest.mark.skip(reason=reason))
        return Resumed(skipped, again)

    def _changes(self, item: pytest.Item, passed: PassedRun) -> list[str]:
        if self._ignore_changes:
            return []
        return changes(passed.fingerprint, self.fingerprints.of(item))

    def close_left_open(self, item: pytest.Item) -> list[str]:
        """Close what a killed job has left open of an evaluation that runs now; the problems."""
        run_ids = self.done.left_open.get(display_id(item.nodeid)) if self.done else None
        if not run_ids:
            return []
        try:
            close_interrupted(self._places, run_ids)
        except TrackingError as error:
            return [str(error)]
        return []
