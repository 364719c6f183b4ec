"""The measures of temporal action segmentation are those of the published code, by hand and by slow twins."""

import itertools
from functools import cache

import numpy as np
import pytest

from hico_core.transfer.evaluation.localisation import (
    Run,
    average_precision,
    edit_score,
    frame_accuracy,
    runs_of,
    segment_hits,
    segmental_f1,
)


def moments(text: str) -> np.ndarray:
    """'0112' -> the classes of four moments; 0 is the background."""
    return np.array([int(digit) for digit in text], dtype=np.int64)


@pytest.mark.parametrize(
    ("labels", "runs"),
    [
        ("022201", [(2, 1, 4), (1, 5, 6)]),
        ("1", [(1, 0, 1)]),
        ("1122", [(1, 0, 2), (2, 2, 4)]),
        ("1011", [(1, 0, 1), (1, 2, 4)]),  # background between them parts two segments
        ("000", []),
    ],
)
def test_runs(labels: str, runs: list[tuple[int, int, int]]) -> None:
    assert runs_of(moments(labels)) == [Run(*run) for run in runs]


# Worked out with the formulas of the papers. F1 is that at an overlap of 0.1, 0.25 and 0.5.
PUBLISHED = [
    # predicted, true, accuracy, edit, F1
    ("11112222", "11112222", 1.0, 1.0, (1.0, 1.0, 1.0)),
    # One late by two of four moments: its overlap is 4 of 6, the other's 2 of 4.
    ("11111122", "11112222", 6 / 8, 1.0, (1.0, 1.0, 1.0)),
    # 7 of 8 moments of 1: overlaps 4 of 7 and 1 of 4.
    ("11111112", "11112222", 5 / 8, 1.0, (1.0, 1.0, 1 / 2)),
    # One segment in three parts: orders 1 2 1 and 1; one part is a hit, 2 / (3 + 1).
    ("11112111", "11111111", 7 / 8, 1 - 2 / 3, (1 / 2, 1 / 2, 1 / 2)),
    # The same order, other moments: the two 2s do not touch.
    ("12000000", "00000012", 4 / 8, 1.0, (0.0, 0.0, 0.0)),
    # Wrong classes at the right times.
    ("22221111", "11112222", 0.0, 0.0, (0.0, 0.0, 0.0)),
    # Only background is predicted: an order that is empty, and no hit.
    ("00000000", "11110000", 1 / 2, 0.0, (0.0, 0.0, 0.0)),
    # Nothing happens, and nothing is said to happen.
    ("0000", "0000", 1.0, 1.0, (0.0, 0.0, 0.0)),
]


@pytest.mark.parametrize(("predicted", "true", "accuracy", "edit", "f1"), PUBLISHED)
def test_by_hand(predicted: str, true: str, accuracy: float, edit: float, f1: tuple[float, ...]) -> None:
    one, other = moments(predicted), moments(true)
    assert frame_accuracy(one, other) == pytest.approx(accuracy)
    assert edit_score(one, other) == pytest.approx(edit)
    assert [segmental_f1([one], [other], overlap) for overlap in (0.1, 0.25, 0.5)] == pytest.approx(list(f1))


def drawn(rng: np.random.Generator, length: int) -> np.ndarray:
    """Classes that last for some moments."""
    changes = np.cumsum(rng.random(length) < 0.3)
    found: np.ndarray = rng.integers(0, 4, length + 1)[changes]
    return found


def slow_distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """By its definition: the fewest deletions, insertions and replacements."""

    @cache
    def fewest(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        kept_or_replaced = fewest(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(fewest(i - 1, j) + 1, fewest(i, j - 1) + 1, kept_or_replaced)

    return fewest(len(one), len(other))


def slow_segments(labels: np.ndarray) -> list[tuple[int, frozenset[int]]]:
    """The class and the moments of each segment."""
    groups = itertools.groupby(range(len(labels)), key=lambda moment: int(labels[moment]))
    return [(label, frozenset(moments)) for label, moments in groups if label]


def slow_counts(predicted: np.ndarray, true: np.ndarray, overlap: float) -> tuple[int, int, int]:
    """True positives, false positives and false negatives, as the published code counts them."""
    found, wanted = slow_segments(predicted), slow_segments(true)
    taken: set[int] = set()
    wrong = 0
    for label, at in found:
        parts = [len(at & other) / len(at | other) if label == name else 0.0 for name, other in wanted]
        best = parts.index(max(parts)) if parts else None
        if best is not None and parts[best] >= overlap and best not in taken:
            taken.add(best)
        else:
            wrong += 1
    return len(taken), wrong, len(wanted) - len(taken)


def test_slow_twins_of_segments() -> None:
    rng = np.random.default_rng(0)
    videos = [(drawn(rng, length), drawn(rng, length)) for length in rng.integers(1, 40, 60).tolist()]
    for predicted, true in videos:
        orders = [tuple(label for label, _ in slow_segments(labels)) for labels in (predicted, true)]
        longest = max(map(len, orders))
        expected = 1 - slow_distance(*orders) / longest if longest else 1.0
        assert edit_score(predicted, true) == pytest.approx(expected)
    for overlap in (0.1, 0.25, 0.5):
        counts = [slow_counts(predicted, true, overlap) for predicted, true in videos]
        for (predicted, true), (hits, wrong, missed) in zip(videos, counts, strict=True):
            assert segment_hits(predicted, true, overlap) == (hits, hits + wrong, hits + missed)
        hits, wrong, missed = (sum(column) for column in zip(*counts, strict=True))
        precision, recall = hits / (hits + wrong), hits / (hits + missed)
        f1 = segmental_f1([one for one, _ in videos], [other for _, other in videos], overlap)
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize(
    ("scores", "relevant", "expected"),
    [
        ([3, 2, 2, 1], [1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([4, 3, 2, 1], [1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([1, 1, 1, 1], [1, 0, 0, 0], 1 / 4),
        ([1, 2, 3], [0, 0, 1], 1.0),
        ([3, 2, 1], [0, 0, 1], 1 / 3),
        ([1, 2], [0, 0], 0.0),
    ],
)
def test_average_precision(scores: list[float], relevant: list[int], expected: float) -> None:
    assert average_precision(np.array(scores), np.array(relevant, dtype=bool)) == pytest.approx(expected)


def test_average_precision_is_the_area_under_the_steps() -> None:
    """The slow twin: recall and precision at each threshold."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        scores, relevant = rng.integers(0, 6, 20), rng.random(20) < 0.3
        relevant[0] = True
        area, recall_before = 0.0, 0.0
        for threshold in sorted(set(scores.tolist()), reverse=True):
            found = scores >= threshold
            recall = float((found & relevant).sum() / relevant.sum())
            area += (recall - recall_before) * float((found & relevant).sum() / found.sum())
            recall_before = recall
        assert average_precision(scores, relevant) == pytest.approx(area)
