"""The samples that two runs answered differently, the worst first."""

from __future__ import annotations

from typing import Any

from pytest_armory.tables import Score, changes
from pytest_armory.values import clip

WIDTH = 60
"""The most characters of one value in a line."""


def flips(run: Score, base: Score, higher_is_worse: bool = False, most: int = 10) -> list[str]:
    """A line for each sample of which the score changed: ``1043  7 → 9  target 7``.

    Those that lost most come first, ``most`` at most. Predictions are shown where both have them,
    else the scores; of repeats the means.
    """
    ids, gains = changes(run, base)
    order = (-gains if higher_is_worse else gains).argsort(kind="stable")[:most]
    new, old = (_by_id(score.valid, ids[order]) for score in (run, base))
    return [_line(key, old[key], new[key]) for key in ids[order].tolist()]


_Answer = tuple[float, Any, Any]
"""The score of a sample, its prediction and its target; None where they are not known."""


def _by_id(every: Score, wanted: Any) -> dict[object, _Answer]:
    score = every.of_ids(wanted)
    ids, values = score.ids.tolist(), score.values.tolist()
    if score.repeats is not None:
        sums: dict[object, list[float]] = {}
        for key, value in zip(ids, values, strict=True):
            sums.setdefault(key, []).append(value)
        return {key: (sum(found) / len(found), None, None) for key, found in sums.items()}
    columns = [
        [None] * len(ids) if column is None else column.tolist()
        for column in (score.predictions, score.targets)
    ]
    return dict(zip(ids, zip(values, *columns, strict=True), strict=True))


def _line(key: object, old: _Answer, new: _Answer) -> str:
    answers = (old[0], new[0])
    if old[1] is not None and new[1] is not None and old[1] != new[1]:
        answers = (old[1], new[1])
    before, after = map(_text, answers)
    target = "" if new[2] is None else f"  target {_text(new[2])}"
    return f"{_text(key)}  {before} → {after}{target}"


def _text(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return clip(" ".join(text.split()), WIDTH)
