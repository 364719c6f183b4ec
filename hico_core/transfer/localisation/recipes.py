"""ActionFormer's settings for well-known datasets: sizes and training as in the toolkits' own configurations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hico_core.base.choices import DetectionPreset

# ActionFormer's pyramid: each level has half as many rows as the one below it.
_NUM_LEVELS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a detector is built, trained, evaluated and suppressed, whatever the features are."""

    width: int  # channels of the detector
    attention_windows: tuple[int, ...]  # one per level; -1: all rows
    position_encoding: bool
    batch_videos: int
    learning_rate: float
    weight_decay: float
    num_epochs: int  # with a dataset of the original size, the warm-up included
    label_smoothing: float
    regression_weight: float
    first_loss_norm: int
    input_dropout: float
    nms_sigma: float
    nms_voting: float
    most_segments: int  # per video, after non-maximum suppression
    evaluated_as: Literal["anet", "thumos"]  # ActionFormer's name for the set of overlaps


NUM_WARMUP_EPOCHS = 5

# Both toolkits evaluate weights averaged over some thousand steps; after few steps, the average is still the random
# start.
_FEWEST_STEPS = 2000

# Rows that a detector sees at once in training; longer videos are cropped, as both toolkits do for THUMOS.
_MOST_ROWS = 2304

# Rows of a sliding window, about as many as OpenTAD's.
_SLIDING_ROWS = 256

TIOU_THRESHOLDS = {
    "anet": [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
    "thumos": [0.3, 0.4, 0.5, 0.6, 0.7],
}

RECIPES: dict[DetectionPreset, Recipe] = {
    "anet": Recipe(
        width=256,
        attention_windows=(7, 7, 7, 7, 7, -1),
        position_encoding=True,
        batch_videos=16,
        learning_rate=1e-3,
        weight_decay=0.05,
        num_epochs=15,
        label_smoothing=0.1,
        regression_weight=2.0,
        first_loss_norm=200,
        input_dropout=0.2,
        nms_sigma=0.75,
        nms_voting=0.9,
        most_segments=100,
        evaluated_as="anet",
    ),
    "hacs": Recipe(
        width=256,
        attention_windows=(13, 13, 13, 13, 13, -1),
        position_encoding=True,
        batch_videos=16,
        learning_rate=1e-3,
        weight_decay=0.03,
        num_epochs=15,
        label_smoothing=0.1,
        regression_weight=1.0,
        first_loss_norm=400,
        input_dropout=0.1,
        nms_sigma=0.75,
        nms_voting=0.7,
        most_segments=100,
        evaluated_as="anet",
    ),
    "thumos": Recipe(
        width=512,
        attention_windows=(19, 19, 19, 19, 19, 19),
        position_encoding=False,
        batch_videos=2,
        learning_rate=1e-4,
        weight_decay=0.05,
        num_epochs=35,
        label_smoothing=0.0,
        regression_weight=1.0,
        first_loss_norm=100,
        input_dropout=0.2,
        nms_sigma=0.5,
        nms_voting=0.7,
        most_segments=200,
        evaluated_as="thumos",
    ),
}


def row_multiple(attention_windows: Sequence[int]) -> int:
    """The number that must divide the rows of a training sequence, so that each level consists of whole windows.

    A level of stride s with attention over w rows needs a multiple of s * (w // 2) * 2; over all rows, of s.
    """
    strides = (2**level for level in range(_NUM_LEVELS))
    return math.lcm(*(s * (w // 2) * 2 if w > 1 else s for s, w in zip(strides, attention_windows, strict=True)))


def training_rows(recipe: Recipe, *, longest_rows: int, sliding: bool) -> int:
    """Rows of a training sequence: all of the longest video if possible, or those of a sliding window."""
    multiple = row_multiple(recipe.attention_windows)
    wanted = _SLIDING_ROWS if sliding else min(longest_rows, _MOST_ROWS)
    return rounded_up(wanted, multiple)


def batch_videos(recipe: Recipe, *, num_train: int) -> int:
    """Batch size: at most an eighth of the training videos, so that an epoch of a small set has several steps."""
    return max(min(recipe.batch_videos, num_train // 8), 1)


def num_epochs(recipe: Recipe, *, num_train: int) -> int:
    """Epochs, the warm-up included: those of the recipe, or more if a small set has few steps per epoch."""
    steps_per_epoch = num_train // batch_videos(recipe, num_train=num_train)  # an incomplete last batch is left out
    return max(recipe.num_epochs, -(-_FEWEST_STEPS // steps_per_epoch))


def checkpoint_interval(epochs: int) -> int:
    """Epochs between checkpoints, so that there are about five checkpoints."""
    return -(-epochs // 5)


def rounded_up(number: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `number`."""
    return -(-number // multiple) * multiple
