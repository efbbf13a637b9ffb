"""How often verdicts are wrong: python benchmarks/evidence.py [--trials N] [--only WORD]

Each row simulates sessions and judges them by the product's own functions, as pytest does; the data
are drawn by NumPy, seeded. A row prints what was measured beside its goal, and the standard error.
The last column is what the rule without evidence does: two numbers against the tolerance; for
groups, a test that does not know of them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_armory.gates.evidence import Known, Terms, weigh_noise
from pytest_armory.gates.parse import parse_tolerance
from pytest_armory.gates.verdicts import judge
from pytest_armory.records import Verdict
from pytest_armory.statistics.bootstrap import bootstrap
from pytest_armory.statistics.comparison import Comparison, Sample, compare, of_resamples

TRIALS = 10_000
"""The default number of trials of the cheapest rows; those of docs/evidence.md."""

ACCURACY = 0.9
TOLERANCE = parse_tolerance("-2%")
ONE_GATE = Terms()

Answers = Any
"""0 and 1 by trial and sample: an array of shape (trials, n)."""


@dataclass(frozen=True)
class Row:
    """One measured share beside its goal, both in percent; ``at_least`` says which way is good.

    ``scatter`` is the standard deviation of ``trials`` that are shares themselves.
    """

    name: str
    goal: float
    at_least: bool
    share: float
    trials: int
    today: float | None = None
    scatter: float | None = None

    @property
    def error(self) -> float:
        """The standard error in percent: that of the goal's share too, where none was seen."""
        if self.scatter:
            return 100 * self.scatter / math.sqrt(self.trials)
        share = min(max(self.share, 1 / self.trials), 1 - 1 / self.trials)
        return 100 * math.sqrt(share * (1 - share) / self.trials)

    @property
    def is_met(self) -> bool:
        """Whether the measured share is no worse than the goal."""
        measured = 100 * self.share
        return measured >= self.goal if self.at_least else measured <= self.goal

    def is_met_within(self, errors: float) -> bool:
        """Whether it could be the goal, but for so many standard errors."""
        sign = 1 if self.at_least else -1
        return sign * (100 * self.share - self.goal) >= -errors * self.error

    def text(self) -> str:
        """The row of the table."""
        goal = f"{'≥' if self.at_least else '≤'} {self.goal:g}"
        today = "" if self.today is None else f"{100 * self.today:.1f}"
        sign = "" if self.is_met else "  MISSED"
        measured = f"{100 * self.share:>7.1f} ±{self.error:.1f}"
        return f"{self.name:<62} {goal:>7} {measured} {today:>8}{sign}"


# Sessions


def judged(value: float, base: float, known: Known, terms: Terms = ONE_GATE) -> Verdict:
    """One gate, judged as in a test."""
    (verdict,) = judge(
        {"accuracy": value},
        tolerances={"accuracy": TOLERANCE},
        baseline={"accuracy": base},
        known={"accuracy": known},
        terms=terms,
    )
    return verdict


def judged_samples(
    new: Answers,
    old: Sequence[Answers],
    paired: bool = True,
    terms: Terms = ONE_GATE,
    groups: Any = None,
    **known: Any,
) -> Verdict:
    """A gate on answers; ``old`` are those of the sessions that the baseline is pooled from.

    Answers of two dimensions are repeats, of shape (repeats, n).
    """
    run, *bases = (_sample(answers, groups) for answers in (new, *old))
    comparison = compare(run, bases, paired=paired)
    base = float(np.mean([np.mean(answers) for answers in old]))
    found = Known(comparison, sessions=len(old), **known)
    return judged(float(np.mean(new)), base, found, terms)


def _sample(answers: Answers, groups: Any = None) -> Sample:
    n = answers.shape[-1]
    if answers.ndim == 1:
        return Sample(np.arange(n), answers, groups)
    return Sample(np.tile(np.arange(n), len(answers)), answers.reshape(-1), repeats=True)


def fails_today(value: float, base: float) -> bool:
    """Whether the rule without evidence fails."""
    return judged(value, base, Known()).state == "failed"


class Model:
    """A stochastic model: each sample has a chance of its own of a right answer.

    Of two runs 9 % of the answers differ. ``worse`` takes that share of all answers away.
    """

    def __init__(self, random: np.random.Generator, n: int) -> None:
        self.random = random
        self.chances = random.beta(ACCURACY, 1 - ACCURACY, n)

    def answers(self, worse: float = 0.0, repeats: int | None = None) -> Answers:
        """Right answers as 1, wrong ones as 0."""
        shape = self.chances.shape if repeats is None else (repeats, *self.chances.shape)
        right = self.random.random(shape) < self.chances * (1 - worse / ACCURACY)
        return right.astype(float)


def pairs(random: np.random.Generator, trials: int, n: int, worse: float) -> Iterator[Any]:
    """This run's and the baseline's answers on the same samples."""
    for _ in range(trials):
        model = Model(random, n)
        yield model.answers(worse), model.answers()


def others(random: np.random.Generator, trials: int, n: int, worse: float) -> Iterator[Any]:
    """The same on other samples."""
    for _ in range(trials):
        yield Model(random, n).answers(worse), Model(random, n).answers()


# The rows


def samples(random: np.random.Generator, trials: int) -> Iterator[Row]:
    """Gates on 0 and 1 with the same samples and with others."""
    for name, drawn, paired in (("paired", pairs, True), ("unpaired", others, False)):
        for text, n, worse, goal in (
            ("identical, n = 200: fails", 200, 0.0, 6),
            ("2 points worse, n = 200: said not worse", 200, 0.02, 5),
            ("2 points worse, n = 1,000: said not worse", 1000, 0.02, 5),
            ("4 points worse, n = 1,000: found", 1000, 0.04, 95 if paired else 85),
            ("6 points worse, n = 200: found", 200, 0.06, 70 if paired else 55),
        ):
            verdicts, today = [], 0
            for new, old in drawn(random, trials, n, worse):
                verdicts.append(judged_samples(new, [old], paired).verdict)
                today += fails_today(new.mean(), old.mean())
            word = "not worse" if "said" in text else "worse"
            share = verdicts.count(word) / trials
            at_least = "found" in text
            measured = 1 - today / trials if word == "not worse" else today / trials
            yield Row(f"{name}: {text}", goal, at_least, share, trials, measured)


def repeats(random: np.random.Generator, trials: int) -> Iterator[Row]:
    """Five repeats against five sessions."""
    trials //= 5
    for text, worse, goal in (("identical: fails", 0.0, 5), ("4 points worse: found", 0.04, 95)):
        found = 0
        for _ in range(trials):
            model = Model(random, 200)
            old = [model.answers(repeats=5) for _ in range(5)]
            found += judged_samples(model.answers(worse, repeats=5), old).verdict == "worse"
        name = f"5 repeats, 5 baseline sessions, n = 200, {text}"
        yield Row(name, goal, worse > 0, found / trials, trials)


def sparse(random: np.random.Generator, trials: int) -> Iterator[Row]:
    """A model that answers alike each time, and now fails on some samples more, or groups of 4."""
    for text, n, size, times, points in (
        ("5 repeats, n = 200", 200, 1, 5, 1),
        ("5 repeats, n = 1,000", 1000, 1, 5, 1),
        ("groups of 4, n = 2,000", 2000, 4, 1, 1),
        ("scores 0 or 100, n = 200", 200, 1, 1, 100),
    ):
        groups = np.arange(n) // size if size > 1 else None
        verdicts, today = [], 0
        for _ in range(trials):
            old = points * (random.random(n) < ACCURACY).astype(float)
            hit = np.repeat(random.random(n // size) < 0.02, size)
            new = np.where(hit, 0.0, old)
            bases = [np.tile(old, (times, 1))] if times > 1 else [old]
            run = np.tile(new, (times, 1)) if times > 1 else new
            verdicts.append(judged_samples(run, bases, groups=groups).verdict)
            today += fails_today(new.mean(), old.mean())
        share = verdicts.count("not worse") / trials
        name = f"{text}: 2 % of them fail now: said not worse"
        yield Row(name, 5, False, share, trials, 1 - today / trials)


def many_gates(random: np.random.Generator, trials: int) -> Iterator[Row]:
    """Sessions of 40 gates."""
    trials //= 20
    terms, red, today = Terms(gates=40), 0, 0
    for _ in range(trials):
        both = list(pairs(random, 40, 200, 0.0))
        red += any(judged_samples(n, [o], terms=terms).state == "failed" for n, o in both)
        today += any(fails_today(n.mean(), o.mean()) for n, o in both)
    yield Row(
        "40 gates, nothing worse: sessions red", 6, False, red / trials, trials, today / trials
    )


def ratchet(random: np.random.Generator, trials: int) -> Iterator[Row]:
    """30 sessions in a row against ``latest``: the last ones that passed."""
    trials //= 20
    for text, pooled, goal in (("latest", 1, 9), ("pooled over 5", 5, 6)):
        red, red_today = [], []
        for _ in range(trials):
            model = Model(random, 200)
            runs = [model.answers() for _ in range(30)]
            red.append(_red(runs, pooled) / 29)
            red_today.append(_red(runs, 1, today=True) / 29)
        name = f"30 sessions of one stochastic model, {text}: red"
        today, scatter = float(np.mean(red_today)), float(np.std(red, ddof=1))
        yield Row(name, goal, False, float(np.mean(red)), trials, today, scatter)


def _red(runs: Sequence[Answers], pooled: int, today: bool = False) -> int:
    """How many of the sessions after the first fail."""
    passed, history, red = [runs[0]], [float(runs[0].mean())], 0
    for run in runs[1:]:
        bases = passed[: -pooled - 1 : -1]
        if today:
            failed = fails_today(run.mean(), bases[0].mean())
            worse = failed
        else:
            verdict = judged_samples(run, bases, history=history[::-1])
            failed, worse = verdict.state == "failed", verdict.verdict == "worse"
        red += failed
        if not failed:
            passed.append(run)
        if not worse:
            history.append(float(run.mean()))
    return red


def noise(random: np.random.Generator, trials: int) -> Iterator[Row]:
    """``-noise`` on a normal metric."""
    for sessions, most in ((5, 10), (10, 4), (20, 2)):
        history = random.normal(0.9, 0.01, (trials, sessions))
        same, fallen = random.normal(0.9, 0.01, trials), random.normal(0.86, 0.01, trials)
        for text, values, goal in (
            ("false alarm", same, 6),
            ("misses of a fall by 4 sd", fallen, most),
        ):
            worse = sum(
                weigh_noise("accuracy", value, list(past), 0.05, False)[0].verdict == "worse"
                for value, past in zip(values, history, strict=True)
            )
            share = worse / trials if text == "false alarm" else 1 - worse / trials
            yield Row(f"-noise, {sessions} sessions: {text}", goal, False, share, trials)


def latency(random: np.random.Generator, trials: int) -> Iterator[Row]:
    """Mean times of machines whose mood varies by 10 %, against ten sessions."""
    moods = np.exp(random.normal(0, 0.1, (trials, 11)))
    seconds = moods * (1 + random.normal(0, 0.3 / math.sqrt(1000), (trials, 11)))
    found = [
        weigh_noise("time/predict_seconds", row[0], list(row[1:]), 0.05, True)[0].verdict
        for row in seconds
    ]
    today = float(np.mean(seconds[:, 0] > 1.1 * seconds[:, 1]))
    share = found.count("worse") / trials
    yield Row("latency, mood 10 %, 10 sessions: false alarm", 7, False, share, trials, today)


def clusters(random: np.random.Generator, trials: int) -> Iterator[Row]:
    """Gains that belong together by groups of 20, the intraclass correlation 0.3."""
    trials //= 2
    for count in (10, 30, 100):
        groups = np.repeat(np.arange(count), 20)
        ids = np.arange(len(groups))
        alarms = naive = 0
        for _ in range(trials):
            gains = random.normal(0, math.sqrt(0.3), count)[groups]
            gains = gains + random.normal(0, math.sqrt(0.7), len(groups))
            base = Sample(ids, np.zeros(len(ids)))
            alarms += compare(Sample(ids, gains, groups), [base], paired=True).p <= 0.05
            naive += compare(Sample(ids, gains), [base], paired=True).p <= 0.05
        name = f"{count} groups of 20, nothing worse: a fall said by chance"
        yield Row(name, 6, False, alarms / trials, trials, naive / trials)


def retrained(random: np.random.Generator, trials: int) -> Iterator[Row]:
    """Random forests on wine, alike but for the seed, against one of 20 earlier ones."""
    from sklearn.datasets import load_wine
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import train_test_split

    x, y = load_wine(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=128, random_state=0, stratify=y)
    forests = [RandomForestClassifier(10, random_state=seed).fit(x, y) for seed in range(400)]
    right = np.array([forest.predict(x_test) == y_test for forest in forests]).astype(float)
    counts = dict.fromkeys(("today", "paired alone", "history alone", "both"), 0)
    trials = max(trials // 5, 1)
    for _ in range(trials):
        new, *past = right[random.choice(len(right), 21, replace=False)]
        history = [float(answers.mean()) for answers in past]
        missed = fails_today(new.mean(), history[0])
        counts["today"] += missed
        counts["paired alone"] += judged_samples(new, [past[0]]).verdict == "worse"
        by_history = weigh_noise("accuracy", float(new.mean()), history, 0.05, False)[0]
        counts["history alone"] += missed and by_history.verdict == "worse"
        counts["both"] += judged_samples(new, [past[0]], history=history).verdict == "worse"
    name = "forests on wine, n = 128, 20 sessions known: fails"
    yield Row(name, 6, False, counts["both"] / trials, trials, counts["today"] / trials)
    print(
        f"  of the forests: { {name: f'{100 * n / trials:.1f} %' for name, n in counts.items()} }"
    )


def functions(
    name: str, metric: Callable[..., float], random: np.random.Generator, trials: int
) -> Iterator[Row]:
    """A function of all predictions: the bootstrap, of the same samples and of others."""
    trials //= 20
    for n in (200, 500):
        alarms = 0
        for _ in range(trials):
            targets, hard = _drawn(random, n)
            new, old = (_scores(random, targets, hard) for _ in range(2))
            alarms += _bootstrapped(metric, targets, new, old).p <= 0.05
        text = f"bootstrap of {name}, n = {n}: a fall by chance"
        yield Row(text, 7.5, False, alarms / trials, trials)
    alarms, n = 0, 200
    for _ in range(trials):
        sides = [(targets, _scores(random, targets, hard)) for targets, hard in
                 (_drawn(random, n), _drawn(random, n))]  # fmt: skip
        alarms += _bootstrapped_apart(metric, sides).p <= 0.05
    text = f"bootstrap of {name}, n = {n}, other samples: a fall by chance"
    yield Row(text, 7.5, False, alarms / trials, trials)


def _drawn(random: np.random.Generator, n: int) -> tuple[Any, Any]:
    """Targets, and what all models see of each sample."""
    return (random.random(n) < 0.5).astype(int), random.normal(0, 1, n)


def _scores(random: np.random.Generator, targets: Any, hard: Any) -> Any:
    return 1.3 * (targets - 0.5) + hard + random.normal(0, 0.5, len(targets))


def _bootstrapped(metric: Callable[..., float], targets: Any, new: Any, old: Any) -> Comparison:
    def change(rows: Any) -> float:
        return metric(targets[rows], new[rows]) - metric(targets[rows], old[rows])

    n = len(targets)
    return of_resamples(change(np.arange(n)), bootstrap(change, n, resamples=500), n)


def _bootstrapped_apart(metric: Callable[..., float], sides: Sequence[Any]) -> Comparison:
    def change(*rows: Any) -> float:
        new, old = (metric(t[which], s[which]) for (t, s), which in zip(sides, rows, strict=True))
        return new - old

    sizes = [len(targets) for targets, _ in sides]
    found = bootstrap(change, sizes[0], others=(sizes[1], None), resamples=500)
    return of_resamples(change(*map(np.arange, sizes)), found, sizes[0], paired=False)


def f1(targets: Any, scores: Any) -> float:
    """F1 of the class 1, predicted where the score is above 0."""
    predicted = scores > 0
    hits = float((predicted & (targets == 1)).sum())
    return 2 * hits / float(predicted.sum() + targets.sum())


def auc(targets: Any, scores: Any) -> float:
    """The area under the ROC curve, by ranks; resampled rows are ties of each other."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    _, codes, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.bincount(codes, weights=ranks) / counts)[codes]
    positive = targets == 1
    count = int(positive.sum())
    rest = len(targets) - count
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * rest))


PARTS = {
    "samples": samples,
    "repeats": repeats,
    "sparse": sparse,
    "gates": many_gates,
    "ratchet": ratchet,
    "noise": noise,
    "latency": latency,
    "clusters": clusters,
    "retrained": retrained,
    "f1": partial(functions, "F1", f1),
    "auc": partial(functions, "AUC", auc),
}


def rows(trials: int, only: str = "") -> Iterator[Row]:
    """All rows, each part seeded by itself."""
    for name, part in PARTS.items():
        if only in name:
            yield from part(np.random.default_rng([17, *name.encode()]), trials)


# Time


def seconds_to_judge(count: int = 1_000_000) -> float:
    """The CPU seconds that judging so many pairs takes, at best of five."""
    random = np.random.default_rng(17)
    ids = np.arange(count)
    new, old = ((random.random(count) < ACCURACY).astype(float) for _ in range(2))
    judged_samples(new[:9], [old[:9]])  # imports
    best = math.inf
    for _ in range(5):
        began = time.process_time()
        comparison = compare(Sample(ids, new), [Sample(ids.copy(), old)], paired=True)
        judged(float(new.mean()), float(old.mean()), Known(comparison))
        best = min(best, time.process_time() - began)
    return best


def main() -> None:
    """Print the table; exit status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials of the cheapest rows")
    parser.add_argument("--only", default="", metavar="WORD", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows, too")
    arguments = parser.parse_args()
    print(f"{'in percent of all trials':<62} {'goal':>7} {'measured':>12} {'without':>8}")
    found = []
    for row in rows(arguments.trials, arguments.only):
        found.append(row)
        print(row.text(), flush=True)
    if not arguments.only:
        milliseconds = 1000 * seconds_to_judge()
        print(f"judging 1,000,000 pairs: {milliseconds:.0f} ms of CPU (goal: ≤ 50)")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(row) for row in found], indent=1))
    if not all(row.is_met for row in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
