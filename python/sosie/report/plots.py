# SPDX-License-Identifier: Apache-2.0
"""Plots as inline SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["curve", "distribution", "loss_curve"]

#: Colours that stand for the page's colour variables until `_inline` puts these in their place.
_VARIABLES = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--accent)",
    "#050505": "var(--warm)",
}
_INK, _MUTED, _LINE, _ACCENT, _WARM = _VARIABLES

#: CSS pixels of an inch, at most: text of 9 points is 16 pixels high then.
_MOST_WIDTH = 128
#: Up to so many points of a curve are marked.
_MARKED = 40

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


def distribution(
    values: Sequence[float] | np.ndarray[Any, np.dtype[Any]],
    *,
    label: str,
    counted: str,
    mark: float | None = None,
    mark_label: str = "",
) -> Markup:
    """Histogram of finite values.

    Parameters
    ----------
    values : sequence of float
        Non-finite ones are left out, and their number is stated.
    label : str
        What the values are, with unit.
    counted : str
        What is counted, in the plural: "pairs".
    mark : float, optional
        Where a vertical line is drawn, with ``mark_label`` beside it.

    Returns
    -------
    Markup
        An ``<svg>`` element.
    """
    everything = np.asarray(values, dtype=np.float64).ravel()
    finite = everything[np.isfinite(everything)]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(width=3.6, height=2.1)
        if finite.size:
            _bars(axes, finite)
        if mark is not None and np.isfinite(mark):
            axes.axvline(mark, color=_WARM, linewidth=1.4)
            right = finite.size > 0 and mark > (finite.min() + finite.max()) / 2
            axes.annotate(
                mark_label,
                (mark, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(2 if right else -2, 3),
                textcoords="offset points",
                horizontalalignment="right" if right else "left",
                color=_WARM,
            )
        missing = everything.size - finite.size
        axes.set_xlabel(label + (f"   ({missing} not finite, left out)" if missing else ""))
        axes.set_ylabel(counted)
        axes.grid(axis="y")
        return _inline(figure, f"Distribution of {label} over {finite.size} {counted}")


def loss_curve(losses: Sequence[float]) -> Markup:
    """Training loss of every step and its moving average, on a logarithmic scale.

    Returns
    -------
    Markup
        An ``<svg>`` element.
    """
    steps = np.arange(1, len(losses) + 1)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(width=4.2, height=2.5)
        axes.plot(steps, losses, color=_ACCENT, linewidth=0.6, alpha=0.35)
        window = max(1, len(losses) // 40)
        smooth = np.convolve(losses, np.full(window, 1.0 / window), "valid")
        axes.plot(steps[window - 1 :], smooth, color=_ACCENT, linewidth=2.0)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        axes.tick_params(axis="y", which="minor", length=0)
        axes.set_xlim(1, max(2, len(losses)))
        # Single batches can be ten times off; they need not be seen whole.
        low, high = np.quantile(losses, (0.01, 0.995))
        # The wider the scale, the fewer of its lines are named.
        subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high < 8 * low else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(
            mpl.ticker.LogLocator(subs=subs if high < 300 * low else (1.0,), numticks=12)
        )
        axes.set_ylim(0.9 * low, 1.1 * high)
        axes.set_xlabel("training step")
        axes.set_ylabel("loss (lower is better)")
        axes.grid(axis="y")
        return _inline(figure, f"Training loss over {len(losses)} steps, down to {smooth[-1]:.3f}")


def curve(steps: Sequence[float], values: Sequence[float], *, label: str) -> Markup:
    """Something over the steps of a training; values that are not finite are left out.

    Parameters
    ----------
    steps, values : sequence of float
    label : str
        What the values are, with unit.

    Returns
    -------
    Markup
        An ``<svg>`` element.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(width=3.6, height=2.1)
        is_few = len(values) <= _MARKED
        axes.plot(
            steps, values, color=_ACCENT, linewidth=1.4, marker="o" if is_few else "", markersize=3
        )
        axes.set_xlabel("training step")
        axes.set_ylabel(label)
        axes.grid(axis="y")
        return _inline(figure, f"{label} over {len(values)} points of a training")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Figure of this many inches and its one pair of axes; no window, no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _bars(axes: Axes, values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    bins = int(np.clip(2 * np.sqrt(values.size), 8, 48))
    counts, edges = np.histogram(values, bins=bins)
    axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.9, align="edge", color=_ACCENT)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(nbins=6, integer=True))
    if counts.max() >= 1000:
        axes.yaxis.set_major_formatter(mpl.ticker.EngFormatter(sep=""))


def _inline(figure: Figure, description: str) -> Markup:
    """The figure's ``<svg>`` element, without what only a file of its own needs."""
    buffer = io.StringIO()
    # Names inside are hashes: the same in every run, and different from the page's other plots'.
    with mpl.rc_context({"svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| version="1.1"', "", svg)
    svg = re.sub(r' id="(?:figure|axes|patch|line2d|text|matplotlib\.axis|\w+tick)_\d+"', "", svg)
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    # Enlarged beyond this, its text would be larger than the page's.
    style = f"max-width: {_MOST_WIDTH * figure.get_figwidth():.0f}px"
    opening = Markup('<svg class="plot" role="img" aria-label="{}" style="{}" ')
    opening = opening.format(description, style)
    return opening + Markup(svg.removeprefix("<svg "))
