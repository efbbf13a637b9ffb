"""Suites that use MLflow themselves, run with tracking off and on, and what they left compared.

A :class:`Situation` is a folder with a test module; a :class:`Group` are those that run in one
session. What is the user's is described without ids and times, so that two sessions can be compared
by ``==``:

- *outcomes*, and what the code noted by ``note(value)``;
- *own*: everything in the stores that the code has chosen itself, files named ``own*.db``;
- *around*: in the stores where MLflow's calls go without us (``mlflow.db`` where pytest was
  started, ``mlruns`` with older MLflow, ``env.db``, ``import.db``), and in ours: runs, traces,
  experiments and models whose names begin with the situation's. A run or trace named
  ``… outside`` must not be in ours; one named ``… wide`` has the parent that it has without us.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from xml.etree import ElementTree

import mlflow
import pytest
from conftest import FOREIGN, Evals
from forked import Command, preload
from mlflow import MlflowClient
from mlflow.entities import ViewType

from pytest_armory.store.database import sqlite_uri

HEADER = """
import os, mlflow, pytest
from pathlib import Path
HERE = Path(__file__).parent
ME = HERE.name
OWN = f"sqlite:///{HERE}/own.db"
OTHER = f"sqlite:///{HERE}/own-other.db"
evaluation = pytest.mark.evaluation
def note(value):
    test = os.environ.get("PYTEST_CURRENT_TEST", "import").split("::")[-1]
    with (HERE / "notes.txt").open("a") as file:
        file.write(f"{test}: {value}\\n")
"""

BETWEEN = """
import contextlib, mlflow
_before = []
def pytest_runtest_logstart(nodeid, location):
    # What a file leaves open is no matter of the next one's.
    if _before and _before[-1] != location[0]:
        while mlflow.active_run():
            with contextlib.suppress(Exception):  # it may be at another URI
                mlflow.end_run()
        {reset}
    _before.append(location[0])
"""

Described = dict[str, Any]


@dataclass(frozen=True)
class Ours:
    """What an evaluation's run holds: what its code has logged by ``mlflow.*``, and by us."""

    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    traces: Sequence[str] = ()
    tracked: Mapping[str, float] = field(default_factory=dict)
    """Metrics by ``track_metrics`` and ``evaluation_run``: there without activation too."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Parameters of parametrization."""
    status: str = "FINISHED"


@dataclass(frozen=True)
class Situation:
    """One folder of tests that use MLflow."""

    name: str
    module: str
    ours: Mapping[str, Ours] = field(default_factory=dict)
    """By test; those that are not named are not looked at."""
    conftest: str = ""
    package: bool = False
    moved: Sequence[str] = ()
    """Parameters, metrics and traces that belong to an evaluation's run where there is one."""
    http: bool = False
    """Whether it runs over HTTP too; it names no experiment, for others use the server too."""

    def expected(self, way: str) -> dict[str, Described]:
        """What the evaluations are to hold that are named."""
        active = way != "inactive"
        return {
            test: {
                "params": {**ours.given, **(ours.params if active else {})},
                "metrics": {**ours.tracked, **(ours.metrics if active else {})},
                "tags": dict(ours.tags) if active else {},
                "traces": sorted(ours.traces) if active else [],
                "status": ours.status,
            }
            for test, ours in self.ours.items()
        }

    def write(self, root: Path, template: Path) -> None:
        folder = root / self.name
        folder.mkdir()
        texts = {f"test_{self.name}.py": self.module, "conftest.py": self.conftest}
        for name, text in texts.items():
            if text:
                (folder / name).write_text(HEADER + textwrap.dedent(text))
        if self.package:
            (folder / "__init__.py").touch()
        for word, name in (("OWN", "own.db"), ("OTHER", "own-other.db")):
            if word in self.module + self.conftest or name in self.module:
                shutil.copy(template, folder / name)


@dataclass(frozen=True)
class Group:
    """Situations of one session; ``environment`` and ``args`` may name its folder ``{root}``."""

    name: str
    situations: Sequence[Situation]
    conftest: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] = ()
    ways: Sequence[str] = ("alone", "n2")
    apart: bool = False
    """Whether a tracking URI that a file has left in force is no matter of the next one's."""
    preloaded: Sequence[str] = ()
    """Modules that take seconds to import, for all its sessions once."""
    needs: str = ""
    """The name in ``mlflow`` that it uses and older releases have not."""

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """Skips it where MLflow lacks what it needs."""
        lacks = bool(self.needs) and not hasattr(mlflow, self.needs)
        return [pytest.mark.skipif(lacks, reason=f"this MLflow has no mlflow.{self.needs}")]


WAYS: dict[str, Sequence[str]] = {
    "off": ("-p", "no:xdist"),
    "alone": ("-p", "no:xdist"),
    "n2": ("-n2", "--dist=loadfile"),
    "http": ("-p", "no:xdist"),
    "inactive": ("-p", "no:xdist", "-o", "armory_activate=false"),
}


@dataclass
class Outcome:
    """What a session left."""

    status: int
    lines: list[str]
    tests: dict[str, list[str]]
    """Of each test, by node id: what is not a pass."""
    messages: dict[str, list[str]]
    notes: dict[str, list[str]]
    own: dict[str, Described]
    """The stores that the code chose itself, by ``situation/file``."""
    around: list[Described]
    """Of the stores around: each entity with its ``kind`` and ``name``."""
    unnamed: list[Described]
    """Runs there that nobody named: those that MLflow opens unasked."""
    ours: dict[str, Described]
    """The evaluations' runs, by node id."""
    running: list[str]

    def status_of(self, group: Group, way: str) -> int:
        """The exit status of a session with those of its situations that run in that way."""
        ran = [s.name for s in group.situations if s.http or not way.startswith("http")]
        failed = any(
            {"failure", "error"} & set(found)
            for name, found in self.tests.items()
            if name.partition("/")[0] in ran
        )
        return self.status if len(ran) == len(group.situations) else int(failed)

    def of(self, situation: Situation) -> dict[str, Any]:
        """What is to be the same with tracking off and on."""
        prefix = f"{situation.name}/"
        moved = set(situation.moved)
        around = [one for one in self.around if one["name"].partition(" ")[0] == situation.name]
        return {
            "tests": {name: v for name, v in self.tests.items() if name.startswith(prefix)},
            "notes": self.notes.get(situation.name, []),
            "own": {name: v for name, v in self.own.items() if name.startswith(prefix)},
            "around": [_without(one, moved) for one in around if one["name"] not in moved],
        }


class Suites:
    """Runs groups, each in each way once."""

    def __init__(
        self,
        folder: Path,
        template: Path,
        fork_server: Callable[[], str],
        server: Callable[[], str],
    ) -> None:
        self._folder = folder
        self._template = template
        self._fork_server = fork_server
        self._server = server
        self._left: dict[tuple[str, str], Outcome] = {}

    def run(self, group: Group, way: str) -> Outcome:
        """What a session leaves."""
        if (group.name, way) not in self._left:
            self._left[group.name, way] = self._run(group, way)
        return self._left[group.name, way]

    def untracked(self, group: Group) -> Outcome:
        """The session that the others are compared with."""
        return self.run(group, "off")

    def _run(self, group: Group, way: str) -> Outcome:
        off = way == "off"
        root = self._folder / group.name / way
        home = root / "home"
        (home / "mlruns").mkdir(parents=True)
        for path in (home / "mlruns" / "mlflow.db", *(root / name for name in AROUND)):
            shutil.copy(self._template, path)
        for situation in group.situations:
            if situation.http or off or not way.startswith("http"):
                situation.write(root, self._template)
        reset = "mlflow.set_tracking_uri(None)" if group.apart else "pass"
        conftest = BETWEEN.replace("{reset}", reset) + HEADER + textwrap.dedent(group.conftest)
        (root / "conftest.py").write_text(conftest)
        (root / "pytest.ini").write_text("[pytest]\n")
        if group.preloaded:
            preload(self._fork_server(), *group.preloaded)
        # In the other modes each folder is a place more where Python looks for missing modules.
        args = [*WAYS[way], "--import-mode=importlib", "--junitxml=report.xml"]
        args += [*group.args, f"--basetemp={root}/tmp"]
        uri = sqlite_uri(home / "mlruns" / "mlflow.db")
        if way.startswith("http") and not off:
            uri = self._server()
            args += ["--armory-tracking-uri", uri, "--armory-experiment", str(root)]
        elif not off and "MLFLOW_TRACKING_URI" in group.environment:
            uri = ""
        given = {
            name: value.replace("{root}", str(root)) for name, value in group.environment.items()
        }
        if name := given.get("MLFLOW_EXPERIMENT_NAME"):
            # MLflow raises where two processes create it at once: a test's own code, and a worker.
            files = f"{root}/mlruns/1"
            MlflowClient(sqlite_uri(root / "env.db")).create_experiment(name, files)
        with _environment({"ARMORY_HOME": str(home), **given}):
            status, lines = self._session(root, Evals.arguments(*args, track=not off))
            return _harvest(root, status, lines, uri if not off else "")

    def _session(self, root: Path, args: Sequence[str]) -> tuple[int, list[str]]:
        with TemporaryFile("w+") as out:
            files = (out.fileno(), out.fileno())
            command = Command(self._fork_server(), "pytest", *args, folder=root, files=files)
            status = command.wait(1200)
            out.seek(0)
            lines = out.read().splitlines()
        (root / "output.txt").write_text("\n".join(lines))
        return status, lines


AROUND = ("mlflow.db", "env.db", "import.db")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FOREIGN) or name in ("CI", "JENKINS_URL", "TF_BUILD"):
                patch.delenv(name)
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def _harvest(root: Path, status: int, lines: list[str], ours: str) -> Outcome:
    tests, messages = _tests_of(root)
    stores = {name: _read(sqlite_uri(root / name)) for name in AROUND}
    if (root / "mlruns" / "0" / "meta.yaml").exists():
        stores["mlflow.db"] += _read((root / "mlruns").as_uri())
    server = ours.startswith("http")
    if ours:
        stores["ours"] = _read(ours, str(root) if server else None)
    evaluations: dict[str, Described] = {}
    around, unnamed = [], []
    for name, entities in stores.items():
        own_ids = {e["id"] for e in entities if e["kind"] == "run" and e["armory"] is not None}
        by_id = {e["id"]: e for e in entities if e["kind"] == "run"}
        for one in entities:
            if one["kind"] == "run" and one["armory"] == "evaluation":
                evaluations[one["nodeid"]] = {**one, "traces": [], "store": name}
        for one in entities:
            if one["kind"] == "trace" and one["run"] in own_ids:
                nodeid = by_id[one["run"]]["nodeid"]
                if nodeid in evaluations:
                    evaluations[nodeid]["traces"].append(one["name"])
            if one["kind"] == "run" and one["id"] in own_ids:
                continue
            has_ours = name == "ours" or bool(own_ids)  # ours may be theirs
            described = _around(one, by_id, own_ids, name, has_ours)
            (unnamed if one["name"] == "(unnamed)" else around).append(described)
    own = {}
    for path in sorted(root.rglob("own*.db")):
        situation = path.relative_to(root).parts[0]
        if situation == "tmp":
            situation = path.stem.removeprefix("own-")
        own[f"{situation}/{path.name}"] = _own(_read(sqlite_uri(path)))
    notes = {
        path.parent.name: sorted(set(path.read_text().replace(str(root), "ROOT").splitlines()))
        for path in root.glob("*/notes.txt")
    }
    everything = [one for store in stores.values() for one in store]
    running = [
        one["name"] for one in everything if one["kind"] == "run" and one["status"] == "RUNNING"
    ]
    return Outcome(
        status=status,
        lines=lines,
        tests=tests,
        messages=messages,
        notes=notes,
        own=own,
        around=sorted(around, key=repr),
        unnamed=sorted(unnamed, key=repr),
        ours=evaluations,
        running=running,
    )


def _tests_of(root: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    tests: dict[str, list[str]] = {}
    messages: dict[str, list[str]] = {}
    if not (root / "report.xml").exists():
        return tests, messages
    for case in ElementTree.parse(root / "report.xml").iterfind(".//testcase"):
        place = (case.get("classname") or "").replace(".", "/")
        name = f"{place}::{case.get('name')}"
        found = [child for child in case if child.tag in ("failure", "error", "skipped")]
        tests.setdefault(name, []).extend(child.tag for child in found)
        for child in found:
            last = [line for line in (child.text or "").splitlines() if line.startswith("E ")]
            text = (last or [child.get("message") or ""])[0]
            messages.setdefault(name, []).append(" ".join(text.split())[:300])
    return tests, messages


def _read(uri: str, experiment: str | None = None) -> list[Described]:
    """Everything in a store, or in one experiment of it."""
    client = MlflowClient(uri)
    try:
        with _environment({"MLFLOW_TRACKING_URI": uri}):  # older MLflow looks for artifacts there
            return _everything(client, experiment)
    finally:
        engine = getattr(client._tracking_client.store, "engine", None)
        if engine is not None:  # its files stay open
            engine.dispose()
            client._get_registry_client().store.engine.dispose()


def _everything(client: MlflowClient, experiment: str | None) -> list[Described]:
    experiments = client.search_experiments(view_type=ViewType.ALL)
    if experiment is not None:
        experiments = [e for e in experiments if e.name == experiment]
    names = {e.experiment_id: e.name for e in experiments}
    ids = list(names)
    found: list[Described] = [
        {"kind": "experiment", "name": name} for name in names.values() if name != "Default"
    ]
    if not ids:
        return found
    for run in client.search_runs(ids, max_results=5000):
        found.append(_run(run, names))
    for trace in client.search_traces(**{_LOCATIONS: ids}, max_results=500):
        found.append(_trace(trace, names))
    for model in client.search_logged_models(ids):
        metrics = sorted({metric.key for metric in model.metrics or []})
        found.append({"kind": "model", "name": model.name, "metrics": metrics})
    for registered in client.search_registered_models():
        found.append({"kind": "registered model", "name": registered.name})
    return found


_LOCATIONS = "locations"
if "locations" not in inspect.signature(MlflowClient.search_traces).parameters:  # MLflow 3.4
    _LOCATIONS = "experiment_ids"

_GIVEN_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
_SYSTEM = ("mlflow.source.", "mlflow.user", "mlflow.runName", "mlflow.parentRunId")
_TRACE = ("mlflow.", "service.")


def _run(run: Any, experiments: Mapping[str, str]) -> Described:
    tags = run.data.tags
    name = run.info.run_name or ""
    if tags.get("mlflow.runType") == "test":
        name = "(test run)"
    elif _GIVEN_NAME.fullmatch(name):
        name = "(unnamed)"
    return {
        "kind": "run",
        "id": run.info.run_id,
        "name": name,
        "experiment": experiments[run.info.experiment_id],
        "status": run.info.status,
        "params": dict(run.data.params),
        "metrics": dict(run.data.metrics),
        "tags": {k: v for k, v in sorted(tags.items()) if not k.startswith(_SYSTEM)},
        "parent": tags.get("mlflow.parentRunId"),
        "armory": tags.get("armory.kind"),
        "nodeid": tags.get("armory.nodeid", ""),
    }


def _trace(trace: Any, experiments: Mapping[str, str]) -> Described:
    spans = {span.span_id: span for span in trace.data.spans}
    roots = [span.name for span in spans.values() if span.parent_id not in spans]
    return {
        "kind": "trace",
        "name": roots[0] if roots else "(no spans)",
        "experiment": experiments[trace.info.experiment_id],
        "state": str(trace.info.state.value),
        "run": trace.info.request_metadata.get("mlflow.sourceRun"),
        "tags": {k: v for k, v in sorted(trace.info.tags.items()) if not k.startswith(_TRACE)},
        "spans": sorted(
            repr((s.name, getattr(spans.get(s.parent_id), "name", None), s.inputs, s.outputs))
            for s in spans.values()
        ),
    }


def _own(entities: list[Described]) -> list[Described]:
    """All of a store of the user's own, ids replaced by names."""
    names = {one["id"]: one["name"] for one in entities if one["kind"] == "run"}
    described = []
    for one in entities:
        reported = {k: v for k, v in one.items() if k not in ("id", "armory", "nodeid")}
        for key in ("parent", "run"):
            if reported.get(key) is not None:
                reported[key] = names.get(reported[key], "(elsewhere)")
        described.append(reported)
    return sorted(described, key=repr)


def _around(
    one: Described, by_id: Mapping[str, Described], ours: set[str], where: str, has_ours: bool
) -> Described:
    """An entity in a store that may be ours: without what it owes to our run being active."""
    reported = {k: v for k, v in one.items() if k not in ("id", "armory", "nodeid", "run")}
    if "metrics" in reported and one["kind"] == "run":
        reported["metrics"] = {
            k: v for k, v in one["metrics"].items() if not k.startswith("system/")
        }
    outside = one["name"].endswith(" outside")
    if outside:
        reported["where"] = where
    if one["kind"] == "run":
        wide = outside or one["name"].endswith((" wide", "(test run)"))
        reported["tags"] = {
            k: v
            for k, v in one["tags"].items()
            if not has_ours or not k.startswith("armory.") or (wide and "left" in k)
        }
        if not wide:
            del reported["parent"]
        elif one["parent"] is not None:
            parent = by_id.get(one["parent"], {}).get("name", "(elsewhere)")
            reported["parent"] = "(ours)" if one["parent"] in ours else parent
    if "experiment" in one and not one["experiment"].startswith(one["name"].partition(" ")[0]):
        del reported["experiment"]  # the default one, or that of ours
    return reported


def _without(one: Described, moved: set[str]) -> Described:
    held = {
        key: {name: v for name, v in one[key].items() if name not in moved}
        for key in ("params", "metrics", "tags")
        if isinstance(one.get(key), dict)
    }
    left = {k: v for k, v in one.items() if (one["kind"], k) != ("model", "metrics")}
    return {**left, **held}


def differences(off: Described, on: Described) -> list[str]:
    """What is there in one session only, a line for each; ``off`` is without us."""
    found = []
    for key in sorted({*off, *on}):
        before, after = off.get(key), on.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += [f"{key}: {line}" for line in differences(before, after)]
        elif isinstance(before, list) and isinstance(after, list):
            lost = [one for one in before if before.count(one) > after.count(one)]
            new = [one for one in after if after.count(one) > before.count(one)]
            found += [f"{key}: only off: {one}" for one in lost]
            found += [f"{key}: only on: {one}" for one in new]
        elif before != after:
            found.append(f"{key}: off {before!r}, on {after!r}")
    return found


def evaluations_of(on: Outcome, situation: Situation) -> dict[str, Described]:
    """What the evaluations that the situation names hold of what it says."""
    held = {}
    for test, ours in situation.ours.items():
        run = on.ours.get(f"{situation.name}/test_{situation.name}.py::{test}")
        if run is None:
            continue
        metrics = {
            name: v
            for name, v in run["metrics"].items()
            if name != "duration_seconds" and not name.startswith("system/")
        }
        held[test] = {
            "params": run["params"],
            "metrics": metrics,
            "tags": {name: v for name, v in run["tags"].items() if name in ours.tags},
            "traces": sorted(run["traces"]),
            "status": run["status"],
        }
    return held
