"""The command ``pytest-armory``: what is done about sessions outside of pytest."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from time import time

from pytest_armory.errors import ArmoryError, ArmoryUsageError, TrackingError
from pytest_armory.gates import baselines
from pytest_armory.gates.baselines import Baseline
from pytest_armory.gates.judge import judge, parse_reference, parse_tolerance
from pytest_armory.records import EvaluationRecord, Outcome
from pytest_armory.records.tags import decode_counts
from pytest_armory.report.reports import (
    Summary,
    age,
    columns,
    markdown,
    missed_lines,
    printable,
    shorten,
    table,
    terminal_lines,
    write_markdown,
)
from pytest_armory.session import recovery
from pytest_armory.session.stored_records import is_attempt, is_session, summary_of
from pytest_armory.store import Store, StoredRun, destination, login, open_store
from pytest_armory.store.destination import Destination
from pytest_armory.sync import sync
from pytest_armory.sync.sync import Step, UploadPlan

NAME = "pytest-armory"

_URI_HELP = (
    "the store: `local`, the database under the Armory home (the default), or any MLflow tracking "
    "URI (environment: MLFLOW_TRACKING_URI)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; its exit status is 0, or 2 with an error on stderr.

    That of ``sync`` is 1 if something is left to upload.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # an arrow that its encoding lacks shall not fail
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    is_sync = arguments.run is _sync
    uri = arguments.armory_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    try:
        where = destination.resolve(uri)
        with _logged_in(where) as there:
            for line in arguments.run(there, arguments):
                print(printable(line), flush=True)  # noqa: T201 - a command talks on stdout
    except ArmoryError as error:
        text = printable(str(error))
        print(f"{NAME}: {text}", file=sys.stderr)  # noqa: T201 - a command's own error
        return 1 if is_sync and not isinstance(error, ArmoryUsageError) else 2
    except KeyboardInterrupt:
        print(f"{NAME}: interrupted", file=sys.stderr)  # noqa: T201 - a command's own error
        return 130
    except BrokenPipeError:  # `| head` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if is_sync else 0
    return 0


@contextmanager
def _logged_in(where: Destination) -> Iterator[Destination]:
    """The destination, logged in where a platform asks for it."""
    if not where.is_server:
        yield where
        return
    with login.logged_in(str(where.uri)) as uri:
        yield destination.resolve(uri)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(NAME, description="Sessions of tracked evaluations.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("sessions", _sessions, "list the latest sessions"),
        ("recover", _recover, "close the runs that a killed process left RUNNING"),
    ):
        command = commands.add_parser(name, help=text, description=run.__doc__)
        command.add_argument("--armory-tracking-uri", metavar="URI", help=_URI_HELP)
        command.set_defaults(run=run)
        if name == "recover":
            command.add_argument(
                "--session",
                metavar="ID",
                help="also close every run of this session that was opened elsewhere, on another "
                "machine say: you know that it is over",
            )
        else:
            command.add_argument(
                "-n", "--most", type=_positive, default=20, help="how many (default: 20)"
            )
    command = commands.add_parser(
        "compare", help="compare two sessions", description=_compare.__doc__
    )
    command.add_argument("A", help="the baseline: latest, branch:NAME, commit:SHA or a session")
    command.add_argument("B", help="the session that is compared with it: latest, or its ID")
    command.add_argument("--summary", metavar="PATH", type=Path, help="write it as Markdown, too")
    command.add_argument("--armory-tracking-uri", metavar="URI", help=_URI_HELP)
    command.set_defaults(run=_compare)
    command = commands.add_parser(
        "sync", help="upload what was recorded locally", description=_sync.__doc__
    )
    command.add_argument(
        "--to",
        metavar="URI",
        help="upload every session's runs that are not there yet to this MLflow tracking URI, "
        "not only what was meant for a server and waits for it",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="list what would be uploaded; no server is asked"
    )
    command.set_defaults(run=_sync, armory_tracking_uri=destination.LOCAL)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def _sessions(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """List the latest sessions: verdict, counts, commit, branch, and how long ago they began."""
    if not _exists(where):
        return [_nothing(where)]
    # A session has a run in each of its experiments, with the same counts in all.
    runs = open_store(where).latest_sessions(arguments.most * 10)
    sessions: dict[str, list[StoredRun]] = {}
    for run in runs:
        sessions.setdefault(run.tags.get("armory.session", ""), []).append(run)
    if not sessions:
        return [_nothing(where)]
    rows = [_row(session, of_it) for session, of_it in sessions.items()][: arguments.most]
    return table([("session", "verdict", "evaluations", "commit", "branch", "began"), *rows])


def _compare(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """Print the table of session B, with its changes against A."""
    a, b = parse_reference(arguments.A), parse_reference(arguments.B)
    if b.kind not in ("session", "latest"):
        raise ArmoryUsageError(f"B must be a session's ID or latest, got {arguments.B!r}")
    if not _exists(where):
        raise ArmoryUsageError(_nothing(where))
    store = open_store(where)
    session = b.value or _newest(store)
    every = store.session_runs(session, store.experiment_ids())
    runs = [run for run in every if is_attempt(run)]
    if not runs:
        raise ArmoryUsageError(
            f"no evaluation of the session {session!r} is at {where.display_uri}; "
            f"`{NAME} sessions` lists them"
        )
    if a.kind == "session" and a.value == session:
        raise ArmoryUsageError(
            f"A and B are the same session, {session}; `{NAME} sessions` has more"
        )
    baseline = baselines.find(where, a, own=session)
    own = [run for run in every if is_session(run)]
    summary = _judged_again(summary_of(store, session, runs), baseline, own)
    if arguments.summary is not None:
        try:
            # GitHub's file is everybody's.
            append = str(arguments.summary) == os.environ.get("GITHUB_STEP_SUMMARY")
            write_markdown(arguments.summary, markdown(summary), append)
        except OSError as error:
            raise ArmoryUsageError(
                f"{arguments.summary} cannot be written: {error.strerror}"
            ) from None
    width = shutil.get_terminal_size((100, 24)).columns
    table = [line.text.rstrip() for line in terminal_lines(summary, width, verbosity=1)]
    return [*table, *missed_lines(summary.records)]


def _judged_again(summary: Summary, baseline: Baseline, own: Sequence[StoredRun]) -> Summary:
    """A session against another baseline; ``own`` are its session runs, which know how it ended."""
    records = [
        _compared(record, baseline.of(record.experiment_id, record.nodeid))
        for record in summary.records
    ]
    return replace(
        summary,
        records=records,
        baseline=baseline.describe({record.experiment_id for record in records}),
        judged_again=True,
        interrupted=any(run.status == "KILLED" for run in own),
        not_run=max((decode_counts(r.metrics).numbers.get("not_run", 0) for r in own), default=0),
    )


def _compared(record: EvaluationRecord, baseline: Mapping[str, float] | None) -> EvaluationRecord:
    """With another baseline, its gates on that judged again."""
    rule = "baseline "
    tolerances = {
        verdict.metric: parse_tolerance(verdict.rule.removeprefix(rule))
        for verdict in record.verdicts
        if verdict.rule.startswith(rule)
    }
    bounds = [verdict for verdict in record.verdicts if not verdict.rule.startswith(rule)]
    again = judge(record.metrics, tolerances=tolerances, baseline=baseline)
    return replace(record, baseline=dict(baseline or {}), verdicts=(*bounds, *again))


def _newest(store: Store) -> str:
    newest = store.latest_sessions(1)
    return newest[0].tags.get("armory.session", "") if newest else ""


_VERDICTS = {"FINISHED": "passed", "FAILED": "failed", "KILLED": "interrupted"}


def _row(session: str, runs: Sequence[StoredRun]) -> tuple[str, ...]:
    run = runs[0]
    counted = decode_counts(run.metrics).numbers
    counts = [
        f"{counted[name]:,} {name.replace('_', ' ')}"
        for name in (*(outcome.value for outcome in Outcome), "not_run")
        if counted.get(name)
    ]
    commit = run.tags.get("mlflow.source.git.commit", "")[:8]
    dirty = "+" if run.tags.get("armory.git.dirty") == "true" else ""
    return (
        session,
        "running" if counted.get("running") else _VERDICTS.get(run.status, run.status.lower()),
        ", ".join(counts),
        commit + dirty,
        run.tags.get("mlflow.source.git.branch", ""),
        _began(min(one.start for one in runs)),
    )


def _recover(where: Destination, arguments: argparse.Namespace) -> Iterable[str]:
    """Close the runs that a killed process of this machine left RUNNING.

    A run whose process is alive is never touched. Safe to run at any time, and again.
    """
    found = recovery.recover(where, arguments.session)
    for run in found.closed:
        outcome = run.tags.get("armory.outcome", "")
        yield f"closed {run.run_id} ({run.name}{f', {outcome}' if outcome else ''})"
    yield from (f"note: {problem}" for problem in found.problems)
    if not found.closed:
        of_it = f" of session {arguments.session}" if arguments.session else ""
        yield f"nothing to close{of_it} at {where.display_uri}; see `{NAME} sessions`"
    if found.alive:
        yield f"left alone: {_of_sessions(found.alive)}, at work on this machine"
    if found.unknown:
        session = found.unknown[0].tags["armory.session"]
        yield (
            f"left alone: {_of_sessions(found.unknown)}, opened on another machine or under "
            "another Armory home; recover them there, or if you know that a session is over: "
            f"{NAME} recover --session {session}"
        )


def _of_sessions(runs: Sequence[StoredRun]) -> str:
    sessions = ", ".join(dict.fromkeys(run.tags["armory.session"] for run in runs))
    return f"{len(runs):,} open run{'' if len(runs) == 1 else 's'} of {sessions}"


def _sync(source: Destination, arguments: argparse.Namespace) -> Iterator[str]:
    """Upload the runs of the local database that wait for a server, or with --to all it has.

    What is there already is not uploaded again. Safe to stop at any time, and to run again.
    """
    to = None if arguments.to is None else destination.resolve(arguments.to)
    if arguments.dry_run:
        found = sync.upload_plans(source, to)
        for plan in found:
            yield from _would_upload(plan)
    else:
        with sync.alone(source), ExitStack() as stack:
            if to is not None:
                to = stack.enter_context(_logged_in(to))
            found = sync.upload_plans(source, to)
            problems = []
            for plan in found:
                problems += yield from _upload(source, plan)
        if problems:
            raise TrackingError("; ".join(problems))
    if not found:
        where = (
            f"waits in {source.display_uri}"
            if to is None
            else f"in {source.display_uri} is not there yet"
        )
        yield f"nothing {where}"


def _would_upload(plan: UploadPlan) -> Iterator[str]:
    yield f"{_runs(len(plan.runs))} would be uploaded to {plan.display_uri}"
    if plan.refused:
        yield f"but {plan.refused}"
    if plan.runs:
        rows = [
            (run.name, run.tags.get("armory.session", ""), run.status.lower(), _began(run.start))
            for run in plan.runs
        ]
        yield from table([("run", "session", "status", "began"), *rows])
    if plan.unfinished:
        yield _not_ended(plan)


def _upload(source: Destination, plan: UploadPlan) -> Generator[str, None, list[str]]:
    """Upload to one place; returns what is to be told of what is left, if anything."""
    total, uploaded, reason = len(plan.runs), 0, ""
    line = _ProgressLine()
    try:
        for step in _steps(source, plan):
            which = f"[{step.index:,}/{total:,}] {step.run.name}"
            if step.state == "at":
                line.show(f"{which}: {step.text}")
                continue
            line.clear()
            uploaded += step.state == "done"
            yield from _told(step, which, line.rewrites)
    except TrackingError as error:
        reason = f": {error}"
    finally:
        line.clear()
    if uploaded:
        yield f"uploaded {_runs(uploaded)} to {plan.display_uri}"
    left = total - uploaded
    problems = (
        [f"{_runs(left)} left for {plan.display_uri}, run this again{reason}"] if left else []
    )
    if plan.unfinished:
        problems.append(_not_ended(plan))
    return problems


def _steps(source: Destination, plan: UploadPlan) -> Iterator[Step]:
    """The steps of an upload, logged in where it goes."""
    if plan.target is None:
        yield from sync.upload(source, plan)  # which says why
        return
    with _logged_in(plan.target) as there:
        yield from sync.upload(source, replace(plan, target=there))


def _told(step: Step, which: str, rewrites: bool) -> Iterator[str]:
    """What is said of a run that is over; where a line rewrites itself, only what matters."""
    if step.state == "left":
        yield f"{which}: left: {step.text}"
    elif step.notes or not rewrites or step.run.tags.get("armory.kind") == "session":
        yield f"{which}: uploaded{f', see {step.url}' if step.url else ''}"
    for note in step.notes:
        yield f"  note: {note}"


def _not_ended(plan: UploadPlan) -> str:
    return (
        f"{_runs(len(plan.unfinished))} not ended yet, or inside one that has not; if a "
        f"process was killed, `{NAME} recover --armory-tracking-uri local` and sync again"
    )


class _ProgressLine:
    """A line on a terminal that rewrites itself; nothing elsewhere."""

    def __init__(self) -> None:
        self.rewrites = sys.stdout.isatty()
        self._width = 0

    def show(self, text: str) -> None:
        """Put a text in the place of the one before."""
        if self.rewrites:
            room = shutil.get_terminal_size().columns - 1
            shown = shorten(printable(text), room, keep_start=True)
            self._write(shown + " " * (self._width - columns(shown)))
            self._width = columns(shown)

    def clear(self) -> None:
        """Make room for a line that stays."""
        if self._width:
            self._write(" " * self._width + "\r")
            self._width = 0

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(f"\r{text}")
        sys.stdout.flush()


def _began(start: int) -> str:
    return age(time() - start / 1000)


def _runs(count: int) -> str:
    return f"{count:,} run" if count == 1 else f"{count:,} runs"


def _exists(where: Destination) -> bool:
    return where.database is None or where.database.exists()


def _nothing(where: Destination) -> str:
    return f"no sessions at {where.display_uri}; `pytest --armory-track` makes one"


if __name__ == "__main__":
    sys.exit(main())
