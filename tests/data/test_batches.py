"""A batch is of one set of clips, or is not made."""

import pickle
from typing import Any

import pytest
import torch

from hico_core.data.augment import AugmentDraw, ColourDraw, Crop
from hico_core.data.batches import Batch


def draw(height: int, width: int) -> AugmentDraw:
    return AugmentDraw(Crop(0, 0, height, width), ColourDraw([], None, grey=False), flip=False)


# Two videos of one clip of 2 frames: crops of 3 x 4 and 5 x 6.
GOOD: dict[str, Any] = {
    "pixels": torch.zeros(2 * (3 * 4 + 5 * 6) * 3, dtype=torch.uint8),
    "num_frames": 2,
    "draws": [draw(3, 4), draw(5, 6)],
    "video_ids": ["a", "b"],
    "windows": [[(0.0, 1.0)], [(0.0, 1.0)]],
    "unusable": [],
}


def test_a_sound_batch_crosses_processes() -> None:
    batch = pickle.loads(pickle.dumps(Batch(**GOOD)))
    assert [crop.shape for crop in batch.crops_on(torch.device("cpu"))] == [(2, 3, 4, 3), (2, 5, 6, 3)]
    assert Batch(**{**GOOD, "pixels": None}).pixels is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pixels": GOOD["pixels"][:-1]}, r"are \(252,\) torch.uint8, not \(251,\) torch.uint8"),
        ({"pixels": GOOD["pixels"].float()}, r"not \(252,\) torch.float32"),
        ({"num_frames": 3}, r"are \(378,\)"),
        ({"video_ids": ["a"]}, "1 videos and 2 draws cannot have 2 windows of 2 videos"),
        ({"windows": [[(0.0, 1.0)], []]}, "2 videos and 2 draws cannot have 1 windows of 2 videos"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Batch(**{**GOOD, **changes})
