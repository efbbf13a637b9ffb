"""A session to be reported on a page, of any size; with hostile texts if asked for."""

from __future__ import annotations

import math
import random
from typing import Any

from pytest_armory.records import EvaluationRecord, Outcome, Verdict
from pytest_armory.report.details import Changed, Details, Entry, Matrix, Picture
from pytest_armory.report.summary import Summary
from pytest_armory.report.trend import Point, Trend

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "javascript:document.title='owned'",
    "</style><script>document.title='owned'</script>",
    "{{ 7 * 7 }}{% raw %}",
    "]]>--></title></svg><svg onload=document.title='owned'>",
    "$\\frac{$ \x1b[31m \u202e",
)
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='90' height='60'><script>x</script></svg>"
NOW = 1_795_000_000_000


def details(count: int = 12, hostile: bool = False, sessions: int = 20) -> Details:
    """A session of so many evaluations."""
    numbers = random.Random(1)
    bad = HOSTILE if hostile else ()

    def text(plain: str, i: int = 0) -> str:
        return f"{plain}{bad[i % len(bad)]}" if bad else plain

    entries = [_entry(i, text, numbers) for i in range(count)]
    gated = [entry for entry in entries if entry.record.verdicts]
    trends = [_trend(entry, sessions, numbers, text) for entry in gated[:12]]
    summary = Summary(
        session=text("20261127-042156-1f3a9c", 1),
        where=text("https://mlflow.example.org", 2),
        records=[entry.record for entry in entries],
        commit=text("1f3a9c0d22b7e4b1f09c", 3),
        branch=text("feature/robust", 4),
        baseline=text("baseline: session 20261126-221050-b93c1e on main", 5),
        problems=[text("2 evaluations wait for the server", 6)] if hostile else [],
    )
    return Details(
        summary=summary,
        entries=entries,
        trends=trends,
        more_trends=3,
        changed=[Changed(text("evals/test_a.py::test_x"), text("train.C", 1), text("1.0"), "2.0")],
        pictures=[Picture(text("evals/test_a.py::t"), text("roc.svg"), "image/svg+xml", SVG)],
        matrices=[Matrix(text("evals/test_a.py::t", 1), "metrics/confusion.json",
                         [[50, 2, 0], [1, 44, 5], [0, 3, math.nan]])],
        began=NOW,
        command=text("pytest --armory-track -n auto evals"),
        job=text("https://github.com/a/b/actions/runs/5", 1) if not hostile else bad[2],
        environment=text("python: CPython 3.12.3\nplatform: Linux\ncpu: Some CPU, 16 logical\n", 3),
    )  # fmt: skip


def _entry(i: int, text: Any, numbers: random.Random) -> Entry:
    attack, eps = ("pgd", "square", "fgsm")[i // 4 % 3], (0.0, 0.05, 0.1, 0.2)[i % 4]
    name = f"evals/test_{'digits' if i < 60 else f'more_{i // 60}'}.py::test_robust_{i // 12}"
    accuracy = 0.97 - eps * (2 + i // 4 % 3) + numbers.gauss(0, 0.005)
    verdicts: tuple[Verdict, ...] = ()
    outcome = Outcome.FAILED if i in (2, 5) else Outcome.PASSED
    page = f"https://mlflow.example.org/#/experiments/1/runs/{i:032x}"
    command = f"git checkout 1f3a9c0d22b7 && pytest '{name}[{attack}-{eps}]' --armory-track"
    sentence = 'fell 2.6 % below the baseline\'s 0.9649; "-2%" allows 0.9456'
    samples = "of 797 samples 24 got worse, 4 better (p 0.00005); the fall is 1.5 to 3.7 points"
    if i in (2, 5, 7, 9) or i % 10 == 0:
        state = "failed" if i in (2, 5) else "passed"
        word = {2: "worse", 7: "unclear", 9: "unclear"}.get(i, "")
        verdicts = (
            Verdict(
                text("accuracy", i), "baseline -2%", state, accuracy, accuracy + 0.01,
                accuracy + 0.03, text(sentence), False, word,
                evidence=text(samples) if word else "",
                flips=(text("1043  7 -> 9  target 7"),) if word == "worse" else (),
            ),
        )  # fmt: skip
    metrics = {"accuracy": accuracy, "loss": 1 - accuracy, text("accuracy", i): accuracy}
    return Entry(
        EvaluationRecord(
            nodeid=text(f"{name}[{attack}-{eps}]", i),
            run_id=f"{i:032x}",
            url=page if i % 2 else text("javascript:", i),
            outcome=outcome,
            duration=0.3 + i / 100,
            metrics=metrics,
            baseline={"accuracy": accuracy - 0.01 + 0.02 * (i % 3 == 0)},
            verdicts=verdicts,
        ),
        params={"attack": attack, "eps": str(eps), "train.C": text("1.0", i), "load.seed": "0"},
        reproduce=text(command, i),
        description=text("PGD on logistic regression", i),
        failure=f"call:\n> assert 0\nE  ValueError: {text('refused', i)}" if i == 2 else "",
    )  # fmt: skip


def _trend(entry: Entry, sessions: int, numbers: random.Random, text: Any) -> Trend:
    record = entry.record
    metric = record.verdicts[0].metric
    base = record.verdicts[0].value or 0.0
    points = [
        Point(
            session=text(f"session {i}"), start=NOW - (sessions - i) * 3_600_000,
            value=base + numbers.gauss(0.01, 0.004) if i < sessions - 1 else base,
            low=base - 0.012, high=base + 0.016, limit=record.verdicts[0].limit,
            verdict=record.verdicts[0].verdict if i == sessions - 1 else "", outcome="passed",
            commit="1f3a9c0d", branch=text("main"), url=text("javascript:alert(1)"),
        )
        for i in range(sessions)
    ]  # fmt: skip
    return Trend(record.nodeid, metric, points)
