"""Pictures of confusion matrices."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from hico_core.base.errors import counted

# With more classes than this, cells are too small for numbers, or names overlap.
_MOST_WITH_COUNTS, _MOST_WITH_NAMES = 20, 60

# Relative luminance (WCAG 2) above which black text is easier to read than white.
_LIGHT = 0.18


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix (C, C); colours show each row's fractions, so that rare classes are visible, too."""
    parts = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    side = min(5 + 0.18 * len(classes), 20)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(parts, cmap="viridis", vmin=0, vmax=1)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    # Also spans the colour bar, which a title of the axes alone would run into.
    figure.suptitle(f"Predictions for {counted(int(matrix.sum()), 'test video')} of {len(classes)} classes")
    figure.colorbar(image, ax=axes, shrink=0.8, label="fraction of the true class")
    if len(classes) <= _MOST_WITH_NAMES:
        names = [plain(name) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    write_counts(axes, image, matrix)
    figure.savefig(path, format="png", dpi=100)


def plain(name: str) -> str:
    """Escape a name so that dollars start no formula and a leading underscore does not hide it from a legend."""
    return name.replace("$", r"\$") if not name.startswith("_") else " " + name.replace("$", r"\$")


def write_counts(axes: Axes, image: AxesImage, counts: np.ndarray) -> None:
    """Write counts (C, C) into the cells of a picture if the cells are large enough; omit zeros."""
    if max(counts.shape) > _MOST_WITH_COUNTS:
        return
    values = np.asarray(image.get_array())
    for (row, column), count in np.ndenumerate(counts):
        if count:
            rgb = np.array(image.cmap(image.norm(values[row, column]))[:3])
            linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
            colour = "black" if linear @ (0.2126, 0.7152, 0.0722) > _LIGHT else "white"
            axes.text(column, row, str(int(count)), ha="center", va="center", color=colour, fontsize=9)
