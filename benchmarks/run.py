"""What tracking costs, compared with the alternatives: python benchmarks/run.py [--json FILE]

Each case runs its variants interleaved, several rounds, as complete pytest processes on generated
tests; figures are medians of wall time, with the processor time of the processes beside them. The
time per evaluation is the difference between a long and a short session, so that start-up, MLflow's
import and the opening of the store are not included. A ratio is the median of each round's. One
variant runs twice in each round: the ratio of the two says how noisy the machine was. ``--quick``
takes some two minutes: one round of shorter sessions, and only the variants that ours has goals
against.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

SHORT, LONG = 10, 110
"""Evaluations of the two sessions whose difference is measured."""

QUICK_LONG = 60
QUICK = ("(b) fluent", "(c) fewest client calls, our database", "pytest-armory")
"""What the names of the variants of a single round begin with."""

OURS, AGAIN = "pytest-armory", "pytest-armory, again"
DEAD = "server dead"

COMMON = """
import os, pytest
N = int(os.environ["N"])
KEYS = "abcdefghij"
METRICS = {f"m{k}": float(k) for k in range(10)}
cases = pytest.mark.parametrize(",".join(KEYS), [tuple(range(10))] * N)
@pytest.fixture(scope="session")
def experiment():
    from mlflow import MlflowClient
    client = MlflowClient()
    found = client.get_experiment_by_name("bench")
    return client, found.experiment_id if found else client.create_experiment("bench")
"""
SOURCES = {
    "(a) untracked": """
@cases
def test_it(a, b, c, d, e, f, g, h, i, j): dict(METRICS)
""",
    "(b) fluent": """
@cases
def test_it(experiment, a, b, c, d, e, f, g, h, i, j):
    import mlflow
    mlflow.set_experiment("bench")
    mlflow.start_run(run_name=f"test_it[{i}]")
    mlflow.log_params(dict(zip(KEYS, (a, b, c, d, e, f, g, h, i, j))))
    mlflow.log_metrics(METRICS)
    mlflow.end_run()
""",
    "(c) fewest client calls": """
@cases
def test_it(experiment, a, b, c, d, e, f, g, h, i, j):
    from mlflow.entities import Metric, Param
    client, experiment_id = experiment
    tags = {f"tag{k}": "value" for k in range(15)}
    run = client.create_run(experiment_id, tags=tags, run_name=f"test_it[{i}]")
    client.log_batch(
        run.info.run_id,
        [Metric(name, value, 1, 0) for name, value in METRICS.items()],
        [Param(key, str(v)) for key, v in zip(KEYS, (a, b, c, d, e, f, g, h, i, j))],
    )
    client.set_terminated(run.info.run_id)
""",
    "(d) mlflow.pytest.plugin": """
import mlflow
@mlflow.test
@cases
def test_it(experiment, a, b, c, d, e, f, g, h, i, j):
    mlflow.log_metrics(METRICS, step=i)
""",
    "pytest-armory": """
from pytest_armory import track_metrics
@pytest.mark.evaluation(name="bench")
@cases
def test_it(a, b, c, d, e, f, g, h, i, j): track_metrics(METRICS)
""",
}
ARGUMENTS = {
    "(d) mlflow.pytest.plugin": ("-p", "mlflow.pytest.plugin"),
    "pytest-armory": ("--armory-track",),
}
ENVIRONMENT = {
    # It costs a request for each run that ends.
    "(c) fewest client calls": {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"},
}
PLAIN = "import pytest\n@pytest.mark.parametrize('i', range(1000))\ndef test_it(i): pass\n"

Rows = list[dict[str, object]]


class Taken(NamedTuple):
    """What a measurement took, in seconds: wall time, and processor time of its processes."""

    wall: float
    cpu: float


Measure = Callable[[], Taken]


def run_pytest(folder: Path, *args: str, **variables: str) -> Taken:
    """What a pytest process takes, with its workers."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # pytest caches the plugin's modules
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args, str(folder)]
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true", **variables},
        capture_output=True,
        text=True,
    )
    seconds, after = time.perf_counter() - started, os.times()
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    own, system = "children_user", "children_system"
    return Taken(seconds, sum(getattr(after, k) - getattr(before, k) for k in (own, system)))


def interleaved(variants: Mapping[str, Measure], rounds: int) -> dict[str, list[Taken]]:
    """Each variant once a round, so that the machine's speed affects all alike.

    A single round says nothing of how noisy the machine was.
    """
    if rounds == 1:
        variants = {k: variant for k, variant in variants.items() if not k.endswith(", again")}
    found: dict[str, list[Taken]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: 1 if number % 2 else -1]:
            found[name].append(variants[name]())
    return found


def per_evaluation(
    folder: Path, uris: Mapping[str, str], rounds: int, *args: str
) -> dict[str, list[Taken]]:
    """Seconds per evaluation of each variant, tracked to its URI.

    The variant is what the name begins with.
    """
    count = LONG if rounds > 1 else QUICK_LONG

    def measured(name: str, uri: str) -> Measure:
        variant = next(one for one in SOURCES if name.startswith(one))
        test = written(folder, variant)

        def difference() -> Taken:
            variables = {"ARMORY_HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": uri}
            variables |= ENVIRONMENT.get(variant, {})
            arguments = (*ARGUMENTS.get(variant, ()), *args)
            long, short = (
                run_pytest(test, *arguments, N=str(n), **variables) for n in (count, SHORT)
            )
            return Taken(*((a - b) / (count - SHORT) for a, b in zip(long, short, strict=True)))

        return difference

    return interleaved({name: measured(name, uri) for name, uri in uris.items()}, rounds)


def written(folder: Path, variant: str) -> Path:
    """The folder of a variant's tests."""
    place = folder / f"{list(SOURCES).index(variant)}"
    place.mkdir(exist_ok=True)
    (place / "test_bench.py").write_text(COMMON + SOURCES[variant])
    return place


def rows(
    case: str,
    found: Mapping[str, Sequence[Taken]],
    unit: str,
    factor: float = 1e3,
    ours: str = OURS,
) -> Rows:
    """A case's figures; ours with its ratios to every alternative, and to itself."""
    result: Rows = []
    for name, every in found.items():
        wall, cpu = (statistics.median(taken[i] for taken in every) * factor for i in (0, 1))
        row: dict[str, object] = {"case": case, "variant": name, "value": round(wall, 2)}
        row |= {"unit": unit, "cpu": round(cpu, 2)}
        if name == ours:
            row["ratios"] = {
                other: [_ratio(every, others, i) for i in (0, 1)]
                for other, others in found.items()
                if other != ours and statistics.median(taken.wall for taken in others) > 1e-4
            }
        result.append(row)
    return result


def _ratio(ours: Sequence[Taken], others: Sequence[Taken], part: int) -> float:
    pairs = zip(ours, others, strict=True)
    return round(statistics.median(own[part] / max(other[part], 1e-9) for own, other in pairs), 2)


def off(folder: Path, rounds: int) -> Rows:
    """The plugin installed but off, on 1,000 plain tests."""
    (folder / "test_plain.py").write_text(PLAIN)
    variants: dict[str, Measure] = {
        "without the plugin": lambda: run_pytest(folder, "-p", "no:armory"),
        OURS: lambda: run_pytest(folder),
        AGAIN: lambda: run_pytest(folder),
    }
    return rows("off, 1,000 plain tests", interleaved(variants, rounds), "s", 1)


def local(folder: Path, rounds: int) -> Rows:
    """A local database: 10 parameters and 10 metrics each.

    Ours is the one under the Armory home; the others' is one that MLflow made by itself, and for
    the fewest calls ours as well.
    """
    from pytest_armory.store.database import ensure_database, sqlite_uri

    ours = folder / "home" / "mlruns" / "mlflow.db"
    ensure_database(ours, ours.parent / "artifacts")
    uris = dict.fromkeys(
        [name for name in SOURCES if name != OURS], f"sqlite:///{folder}/mlflow.db"
    )
    uris["(c) fewest client calls, our database"] = sqlite_uri(ours)
    uris |= {OURS: "", AGAIN: ""}  # its own default
    if rounds == 1:
        chosen = {name: uri for name, uri in uris.items() if name.startswith(QUICK)}
        return rows("local", per_evaluation(folder, chosen, rounds), "ms")
    found = per_evaluation(folder, uris, rounds)
    workers = per_evaluation(folder, {name: uris[name] for name in list(uris)[-3:]}, rounds, "-n2")
    return rows("local", found, "ms") + rows("local, -n 2", workers, "ms")


def over_http(folder: Path, rounds: int) -> Rows:
    """A server on loopback, and the same 20 ms away in each direction; and requests."""
    result: Rows = []
    names = [*SOURCES, AGAIN]
    with server(folder) as port:
        if rounds == 1:
            with proxy(port, 0) as (url, seen):
                names = ["(c) fewest client calls", OURS]
                return requests(folder, names, url, seen, SHORT + 10)
        for latency in (0.0, 0.02):
            with proxy(port, latency) as (url, seen):
                case = f"HTTP{', 20 ms each way' if latency else ''}"
                found = per_evaluation(folder, dict.fromkeys(names, url), rounds)
                result += rows(case, found, "ms")
                if not latency:
                    result += requests(folder, list(SOURCES), url, seen)
    return result


def requests(
    folder: Path, names: Sequence[str], url: str, seen: list[str], most: int = LONG
) -> Rows:
    """Requests per evaluation."""
    result: Rows = []
    for name in names:
        counts = []
        for n in (SHORT, most):
            seen.clear()
            variables = {"ARMORY_HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": url}
            variables |= ENVIRONMENT.get(name, {})
            run_pytest(written(folder, name), *ARGUMENTS.get(name, ()), N=str(n), **variables)
            counts.append(len(seen))
        each = round((counts[1] - counts[0]) / (most - SHORT), 2)
        result.append({"case": "HTTP", "variant": name, "value": each, "unit": "requests"})
    return result


def first_use(folder: Path, rounds: int) -> Rows:
    """An empty home to the first finished evaluation."""
    homes = iter(range(1000))

    def once(name: str) -> Measure:
        test = written(folder, name)

        def measured() -> Taken:
            home = folder / f"home{next(homes)}"
            home.mkdir()
            uri = "" if name == OURS else f"sqlite:///{home}/mlflow.db"
            variables = {"ARMORY_HOME": str(home), "MLFLOW_TRACKING_URI": uri, "N": "1"}
            return run_pytest(test, *ARGUMENTS.get(name, ()), **variables)

        return measured

    variants = {"(b) fluent": once("(b) fluent"), OURS: once(OURS), AGAIN: once(OURS)}
    return rows("first use", interleaved(variants, rounds), "s", 1)


def scale(folder: Path, sizes: Sequence[int]) -> Rows:
    """Time per evaluation, memory of the processes, and time of the session's end, by its size."""
    test = folder / "scale" / "test_bench.py"
    test.parent.mkdir()
    test.write_text(COMMON + SOURCES["pytest-armory"])
    test.with_name("conftest.py").write_text(
        "import resource, time\nlast = [0.0]\n"
        "def pytest_runtest_logreport(report): last[0] = time.perf_counter()\n"
        "def pytest_unconfigure(config):\n"
        "    kind = 'worker' if hasattr(config, 'workerinput') else 'controller'\n"
        "    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "    end = time.perf_counter() - last[0]\n"
        f"    open({str(folder / 'memory')!r}, 'a').write(f'{{kind}} {{peak}} {{end}}\\n')\n"
    )
    # Else the end is that of others too: Hypothesis is imported for the terminal summary, and
    # pytest removes what earlier sessions have left.
    alone = ("-n2", "-p", "no:hypothesispytest", f"--basetemp={folder / 'tmp'}")
    result: Rows = []
    names = ("untracked", OURS) if len(sizes) > 1 else (OURS,)
    for name, n in [(name, n) for n in sizes for name in names]:
        (folder / "memory").write_text("")
        variables = {"ARMORY_HOME": str(folder / "scale-home"), "MLFLOW_TRACKING_URI": ""}
        tracked = ARGUMENTS.get(name, ())
        taken = run_pytest(test.parent, *tracked, *alone, N=str(n), **variables)
        peaks: dict[str, int] = {}
        ends: dict[str, float] = {}
        for line in (folder / "memory").read_text().splitlines():
            kind, peak, end = line.split()
            peaks[kind] = max(peaks.get(kind, 0), int(peak))
            ends[kind] = float(end)
        memory = ", ".join(f"{kind} {peak} MB" for kind, peak in sorted(peaks.items()))
        result.append(
            {
                "case": f"{n:,} evaluations, -n 2 ({memory})",
                "variant": name,
                "value": round(taken.wall / n * 1e3, 1),
                "cpu": round(taken.cpu / n * 1e3, 1),
                "unit": "ms each, start-up included",
            }
        )
        result.append(
            {
                "case": f"{n:,} evaluations, -n 2, from the last report to the summary's end",
                "variant": name,
                "value": round(ends["controller"], 2),
                "unit": "s",
            }
        )
    return result


def session_end(folder: Path, rounds: int) -> Rows:
    """The end of large sessions, simulated: the fewest seconds of the processor, and memory."""
    if rounds == 1:
        return []
    script = str(Path(__file__).with_name("session_end.py"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}

    def measured(*args: str) -> dict[str, float]:
        command = [sys.executable, script, *args]
        done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    result: Rows = []
    for n in (5_000, 50_000):
        case = f"{n:,} simulated records"
        end = min(measured(str(n))["end"] for _ in range(min(rounds, 3)))
        result.append({"case": case, "variant": "the end", "value": end, "unit": "s"})
        peak = measured(str(n), "--memory")["peak"]
        result.append({"case": case, "variant": "at the peak", "value": peak, "unit": "kB each"})
    return result


def dead_server(folder: Path, rounds: int) -> Rows:
    """A session of 20 evaluations, -n 2, with a server that is down and with one that is up."""
    if rounds == 1:
        return []
    test = folder / "dead" / "test_bench.py"
    test.parent.mkdir()
    test.write_text(COMMON + SOURCES["pytest-armory"])
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    home = str(folder / "dead-home")

    def measured(uri: str) -> Measure:
        variables = {"ARMORY_HOME": home, "MLFLOW_TRACKING_URI": uri, "N": "20"}
        return lambda: run_pytest(test.parent, "--armory-track", "-n2", **variables)

    with server(folder) as port:
        alive = f"http://127.0.0.1:{port}"
        variants = {"server alive": measured(alive), DEAD: measured(nobody)}
        found = interleaved({**variants, f"{DEAD}, again": measured(nobody)}, rounds)
    return rows("20 evaluations, -n 2", found, "s", 1, DEAD)


def engine(folder: Path, rounds: int) -> Rows:  # noqa: ARG001 - as the others
    """The engine compared with a plain loop: tiny batches, and large ones.

    Of tiny ones the fewest seconds of the processor, of large ones the wall time.
    """
    import numpy as np

    from pytest_armory import Engine, Evaluation

    class Count:
        def reset(self) -> None: ...
        def update(self, predicted: object, target: object) -> None: ...
        def compute(self) -> float:
            return 0.0

    def compared(
        batches: list[tuple[object, object]], model: Callable[..., object], times: int
    ) -> dict[str, list[Taken]]:
        metric = Count()

        def loop() -> None:
            for inputs, target in batches:
                metric.update(model(inputs), target)

        def ours() -> None:
            evaluation = Evaluation(name="b", dataset=batches, model=model, metrics={"m": metric})
            Engine(evaluation, progress=False).run()

        def seconds(work: Callable[[], None]) -> Taken:
            started, before = time.perf_counter(), time.process_time()
            work()
            return Taken(time.perf_counter() - started, time.process_time() - before)

        variants = {"ours": lambda: seconds(ours), "loop": lambda: seconds(loop)}
        return interleaved(variants, times)

    tiny = [(np.ones((4, 3)), np.ones(4))] * 10_000
    found = compared(tiny, lambda x: x, rounds * 5)
    ours, loop = (min(taken.cpu for taken in found[name]) for name in ("ours", "loop"))
    rng = np.random.default_rng(0)
    weights = rng.random((1024, 1024), dtype="float32")
    large = [(rng.random((2000, 1024), dtype="float32"), np.ones(2000)) for _ in range(100)]
    found = compared(large, lambda x: x @ weights, rounds)
    big, plain = (statistics.median(one.wall for one in found[name]) for name in ("ours", "loop"))
    return [
        {
            "case": "engine, 10,000 tiny batches",
            "variant": "its own",
            "value": round((ours - loop) / 10_000 * 1e6, 2),
            "unit": "µs of the processor a batch",
        },
        {
            "case": "engine, 100 large batches",
            "variant": "beside a plain loop",
            "value": round(big / plain, 3),
            "unit": "times",
        },
    ]


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """A real MLflow server on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "pytest_armory.cli.server", "--port", str(port)]
    environment = {**os.environ, "ARMORY_HOME": str(folder / f"server{port}")}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            time.sleep(0.1)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        time.sleep(2)
        yield port
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def proxy(port: int, latency: float) -> Iterator[tuple[str, list[str]]]:
    """A proxy that counts requests, and adds latency in both directions."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        open_until = 0.0

        def setup(self) -> None:
            super().setup()
            self.upstream = http.client.HTTPConnection("127.0.0.1", port)

        def forward(self) -> None:
            seen.append(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(latency)
            if time.monotonic() > self.open_until:  # the server closes idle connections
                self.upstream.close()
            self.open_until = time.monotonic() + 2
            self.upstream.request(self.command, self.path, body, dict(self.headers))
            response = self.upstream.getresponse()
            content = response.read()
            time.sleep(latency)
            head = f"HTTP/1.1 {response.status} OK\r\nContent-Type: application/json\r\n"
            self.wfile.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815 - http.server's

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", seen
    finally:
        listening.shutdown()
        listening.server_close()


CASES: dict[str, Callable[[Path, int], Rows]] = {
    "off": off,
    "local": local,
    "http": over_http,
    "first-use": first_use,
    "scale": lambda folder, rounds: scale(folder, (100, 1000, 5000) if rounds > 1 else (100,)),
    "session-end": session_end,
    "engine": engine,
    "dead-server": dead_server,
}


def _line(row: Mapping[str, object]) -> str:
    shown = f"{row['case']:<40} {row['variant']:<38} {row['value']:>9} {row['unit']}"
    cpu = f"  ({row['cpu']} of the processor)" if "cpu" in row else ""
    ratios: Mapping[str, Sequence[float]] = row.get("ratios") or {}  # type: ignore[assignment] # rows()
    told = "".join(f"  {wall} ({cpu}) x {other}" for other, (wall, cpu) in ratios.items())
    return f"{shown}{cpu}{told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of shorter sessions")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"no case is named {sorted(unknown)[0]!r}; give some of {list(CASES)}")
    rounds = 1 if arguments.quick else arguments.rounds
    found: Rows = []
    system = f"{platform.system()} {platform.machine()}"
    machine = f"{system}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(machine)
    for name in arguments.cases:
        folder = Path(tempfile.mkdtemp(prefix="armory-bench-"))
        try:
            for row in CASES[name](folder, rounds):
                found.append(row)
                print(_line(row), flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": found}, indent=2))


if __name__ == "__main__":
    main()
