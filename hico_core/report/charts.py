"""Charts as SVG that follows the page's colours, light or dark."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hico_core.report.facts import Curve
from hico_core.transfer.evaluation.confusion import plain, write_counts

# A placeholder in the SVG for the page's text colour; no line of a chart uses it.
_INK = "#0a0b0c"

# Distinguishable on white and on black, and with red-green colour blindness (Okabe & Ito, 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, and as large as the page's
    "svg.hashsalt": "hico",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', {list(_COLOURS)})",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 10,
}

# Curves with at most this many points have markers, without which a single point would be invisible.
_FEW_POINTS = 20

_SIZE = (5.4, 3.2)  # inches, at 72 points each


def lines(curves: Mapping[str, Curve], *, x: str, y: str) -> Markup:
    """Named curves on the same axes."""
    with rc_context(_STYLE):
        figure, axes = _begin(x, y)
        for place, (name, curve) in enumerate(curves.items()):
            style = ("-", "--", "-.", ":")[place // len(_COLOURS) % 4]
            colour = _COLOURS[place % len(_COLOURS)]
            marker = "o" if len(curve.steps) <= _FEW_POINTS else ""
            smooth = smoothed(curve.values)
            if smooth is not curve.values:
                axes.plot(curve.steps, curve.values, color=colour, linewidth=0.8, alpha=0.35)
            axes.plot(curve.steps, smooth, style, color=colour, marker=marker, label=plain(name), linewidth=1.6)
        if len(curves) > 1:
            axes.legend()
        return _svg(figure)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Smooth a long curve by a moving mean over a twentieth of its length; leave a short one as it is.

    At the ends, the mean is over the points that exist.
    """
    half = len(values) // 40
    if len(values) <= _FEW_POINTS or not half:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    end = np.minimum(np.arange(len(values)) + half + 1, len(values))
    means: np.ndarray = (sums[end] - sums[first]) / (end - first)
    return means


def histogram(values: np.ndarray, *, x: str, y: str) -> Markup:
    """A histogram of values."""
    with rc_context(_STYLE):
        figure, axes = _begin(x, y)
        # Equal values would make a bin of width 0.
        low, high = float(values.min()), float(values.max())
        if high - low < 1e-6 * max(abs(high), 1):
            low, high = low - 0.5, high + 0.5
        axes.hist(values, bins=min(30, max(len(values) // 4, 5)), range=(low, high), color=_COLOURS[0])
        axes.locator_params(axis="y", integer=True)
        return _svg(figure)


def bars(counts: Sequence[tuple[str, int]], *, x: str) -> Markup:
    """Counts by name, the first one on top."""
    with rc_context(_STYLE):
        figure, axes = _begin(x, "")
        names = [plain(name) for name, _ in counts][::-1]
        axes.barh(range(len(names)), [count for _, count in counts][::-1], color=_COLOURS[0])
        axes.set_yticks(range(len(names)), names)
        axes.locator_params(axis="x", integer=True)
        return _svg(figure)


def scatter(places: np.ndarray, groups: Sequence[str], *, x: str, y: str) -> Markup:
    """Points (N, 2) coloured by group, with a legend if there are few groups."""
    with rc_context(_STYLE):
        figure, axes = _begin(x, y)
        names = list(dict.fromkeys(groups))
        markers = "os^Dv<>PX*"
        for number, name in enumerate(names):
            chosen = [group == name for group in groups]
            axes.scatter(
                places[chosen, 0],
                places[chosen, 1],
                s=26,
                color=_COLOURS[number % len(_COLOURS)],
                marker=markers[number // len(_COLOURS) % len(markers)],
                label=plain(name),
            )
        if len(names) <= len(_COLOURS):
            axes.legend()
        return _svg(figure)


def confusion(counts: np.ndarray) -> Markup:
    """Confusion matrix, true classes as rows, normalised by row; with counts if there are few classes."""
    with rc_context(_STYLE):
        figure, axes = _begin("predicted class", "true class")
        parts = counts / counts.sum(axis=1, keepdims=True).clip(1)
        image = axes.imshow(parts, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        figure.colorbar(image, ax=axes, label="fraction of the true class")
        write_counts(axes, image, counts)
        return _svg(figure)


def intervals(
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    names: Sequence[str],
    *,
    lines_at: Mapping[str, float],
    x: str,
) -> str:
    """Values with their intervals, one row per name, the first one on top.

    Args:
        series: quantity -> value, low and high end for each name.
        names: of the rows.
        lines_at: reference values, drawn as lines.
        x: label of the axis.

    """
    with rc_context(_STYLE):
        figure, axes = _begin(x, "", height=1.5 + 0.22 * len(names) * len(series))
        for number, (what, values) in enumerate(series.items()):
            middle, low, high = np.array(values).T
            places = np.arange(len(names)) + (number - (len(series) - 1) / 2) * 0.3
            ends = np.stack([middle - low, high - middle]).clip(0)
            axes.errorbar(middle, places, xerr=ends, fmt="os^Dv"[number % 5], capsize=3, label=what)
        for number, (what, value) in enumerate(lines_at.items()):
            axes.axvline(value, color=_COLOURS[-1], linestyle=("--", ":")[number % 2], label=what)
        axes.set_yticks(range(len(names)), [plain(name) for name in names])
        axes.invert_yaxis()
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
        return _svg(figure)


def _begin(x: str, y: str, *, height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    """Convert a figure to an element of a page, without the parts that only a standalone file needs."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :].replace(_INK, "currentColor"))  # noqa: S704 - matplotlib escapes
