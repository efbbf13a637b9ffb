"""Charts as SVG in the colours of the page: no text in them is anybody's but ours.

matplotlib is imported when the first is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from pytest_armory.gates.noise import noise_band
from pytest_armory.report.curves import Curve
from pytest_armory.report.trend import Trend, is_drawn

SERIES = 6
"""How many curves a chart has colours for."""

# Colours that nobody draws with, each replaced by a variable of the page's style.
_INK, _QUIET, _BAND, _ACCENT, _BAD = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
_SERIES = [f"#0a0b1{i}" for i in range(SERIES)]
_VARIABLES = {
    _INK: "--ink", _QUIET: "--quiet", _BAND: "--band", _ACCENT: "--accent", _BAD: "--bad",
    **{colour: f"--s{i}" for i, colour in enumerate(_SERIES)},
}  # fmt: skip
_STYLE: Any = {
    "svg.fonttype": "none", "font.size": 8, "axes.edgecolor": _QUIET, "axes.labelcolor": _INK,
    "text.color": _INK, "xtick.color": _QUIET, "ytick.color": _QUIET, "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.formatter.useoffset": False, "axes.unicode_minus": False,
}  # fmt: skip


def trend_chart(trend: Trend, number: int) -> str:
    """The values over sessions with intervals, noise band and the gate's limit."""

    def draw(axes: Any) -> None:
        at = [(i, p) for i, p in enumerate(trend.points) if is_drawn(p.value)]
        band = noise_band(trend.metric, trend.values[:-1])
        if band is not None:
            axes.axhspan(*band, color=_BAND, linewidth=0)
        if at and is_drawn(at[-1][1].limit):
            axes.axhline(at[-1][1].limit, color=_BAD, linewidth=1, linestyle="--")
        for i, point in at:
            if is_drawn(point.low) and is_drawn(point.high):
                axes.plot([i, i], [point.low, point.high], color=_QUIET, linewidth=0.9, alpha=0.55)
        axes.plot([i for i, _ in at], [p.value for _, p in at], color=_ACCENT, linewidth=1.4)
        for i, point in at:
            bad = point.verdict in ("worse", "missed")
            axes.plot(i, point.value, "o", color=_BAD if bad else _ACCENT, markersize=3.5)
        axes.set_xticks([])
        axes.margins(y=0.12)

    return _svg(draw, number)


def curve_chart(curve: Curve, number: int) -> str:
    """The curves, each with a colour of :data:`SERIES`."""

    def draw(axes: Any) -> None:
        for points, colour in zip(curve.series.values(), _SERIES, strict=False):
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, "o-", color=colour, linewidth=1.4, markersize=3.5)

    return _svg(draw, number)


def _svg(draw: Callable[[Any], None], number: int) -> str:
    """A chart drawn on axes, as an element; ``number`` keeps its ids apart from others'."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": str(number)}):
        figure = Figure(figsize=(4, 1.7), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        out = io.StringIO()
        figure.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>c{number}-", text)
    text = re.sub(r"font: [^;\"]*;?", "font-size: 8px;", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
