"""Sizes of detectors: sequences that their pyramid can be cut from, batches that small sets can fill."""

import pytest

from hico_core.base.choices import DetectionPreset
from hico_core.transfer.localisation.recipes import RECIPES, batch_videos, num_epochs, row_multiple, training_rows


@pytest.mark.parametrize(("preset", "expected"), [("anet", 96), ("hacs", 192), ("thumos", 576)])
def test_rows_that_every_level_can_be_cut_from(preset: DetectionPreset, expected: int) -> None:
    """The smallest number that is whole windows of each level, tried out."""
    windows = RECIPES[preset].attention_windows
    steps = [2**level * ((w // 2) * 2 if w > 1 else 1) for level, w in enumerate(windows)]
    assert next(n for n in range(1, 10_000) if all(n % step == 0 for step in steps)) == expected
    assert row_multiple(windows) == expected


@pytest.mark.parametrize(
    ("preset", "longest_rows", "sliding", "expected"),
    [
        ("anet", 1, False, 96),
        ("anet", 96, False, 96),
        ("anet", 97, False, 192),
        ("anet", 100_000, False, 2304),  # longer videos are cropped
        ("hacs", 225, False, 384),
        ("thumos", 2304, False, 2304),
        ("thumos", 12_700, False, 2304),
        ("anet", 10, True, 288),  # a window has no fewer rows where videos are short
        ("thumos", 12_700, True, 576),
    ],
)
def test_rows_of_a_training_sequence(preset: DetectionPreset, longest_rows: int, sliding: bool, expected: int) -> None:
    assert training_rows(RECIPES[preset], longest_rows=longest_rows, sliding=sliding) == expected


@pytest.mark.parametrize(("num_train", "expected"), [(1, 1), (15, 1), (16, 2), (100, 12), (10_000, 16)])
def test_a_batch_is_never_more_than_there_is(num_train: int, expected: int) -> None:
    """Both toolkits leave out a last batch that is not full."""
    assert batch_videos(RECIPES["anet"], num_train=num_train) == expected <= num_train


@pytest.mark.parametrize(
    ("preset", "num_train", "expected"),
    [("anet", 10_000, 15), ("thumos", 200, 35), ("anet", 16, 250), ("anet", 1, 2000), ("anet", 31, 200)],
)
def test_small_sets_are_trained_for_as_many_steps(preset: DetectionPreset, num_train: int, expected: int) -> None:
    assert num_epochs(RECIPES[preset], num_train=num_train) == expected
