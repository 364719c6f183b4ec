"""A picture of confusions has the counts in its cells, readable, and says of how many videos it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from hico_core.transfer.evaluation.confusion import draw_confusion, write_counts


def written(counts: np.ndarray, colours: str) -> list[Any]:
    axes = Figure().add_subplot()
    image = axes.imshow(counts / counts.max(), cmap=colours, vmin=0, vmax=1)
    write_counts(axes, image, counts)
    places = [(round(row), round(column)) for column, row in (text.get_position() for text in axes.texts)]
    return [(text, image.cmap(counts[at] / counts.max())[:3]) for text, at in zip(axes.texts, places, strict=True)]


def luminance(rgb: tuple[float, ...]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", ["viridis", "cividis"])
def test_counts_are_in_their_cells_and_can_be_read(colours: str) -> None:
    counts = np.arange(16).reshape(4, 4)
    texts = written(counts, colours)
    assert sorted((text.get_position(), text.get_text()) for text, _ in texts) == sorted(
        ((column, row), str(counts[row, column])) for row in range(4) for column in range(4) if counts[row, column]
    )
    for text, cell in texts:
        light, dark = sorted((luminance(to_rgb(text.get_color())), luminance(cell)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_small_cells_have_no_counts() -> None:
    assert written(np.eye(21), "viridis") == []


def test_names_of_classes_are_text(tmp_path: Path) -> None:
    """Between two dollars, matplotlib expects a formula, and fails if it is none."""
    draw_confusion(np.eye(2, dtype=int), ["$x_$", "_won $5 of $10"], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size


@pytest.mark.parametrize("num_classes", [2, 70])
def test_the_picture_is_drawn(tmp_path: Path, num_classes: int) -> None:
    draw_confusion(np.eye(num_classes, dtype=int), [f"class {n}" for n in range(num_classes)], tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width == picture.height
