"""A clip is the size that its source and the options make it; test_damage.py has all that can be wrong."""

import pytest

from hico_core.corpus.clips.verify import clip_sides


@pytest.mark.parametrize(
    ("width", "height", "short_side", "expected"),
    [
        (1920, 1080, 256, (256, 256 * 1920 / 1080)),
        (1080, 1920, 256, (256, 256 * 1920 / 1080)),  # on its side
        (320, 240, 256, (240, 320)),  # never larger than it is
        (321, 241, None, (240, 321)),  # even
        (321, 241, 256, (240, 240 * 321 / 241)),
        (640, 480, 97, (96, 128)),
        (100, 100, 64, (64, 64)),
    ],
)
def test_sides_of_a_clip(width: int, height: int, short_side: int | None, expected: tuple[int, float]) -> None:
    assert clip_sides(width, height, short_side=short_side) == pytest.approx(expected)
