"""Measures of temporal action segmentation: how well the class of each moment is predicted over whole videos.

Edit score and segmental F1 as in Lea et al., Temporal Convolutional Networks for Action Segmentation and Detection
(CVPR 2017), and in the code of Abu Farha and Gall, MS-TCN (CVPR 2019), but as fractions of 1: consecutive moments of
one class form a segment, and segments of the background do not count.
"""

# T moments of a video, N moments of all videos, S segments of a video.

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Class number of moments that lie in no segment.
BACKGROUND = 0


class Run(NamedTuple):
    """Consecutive moments of one class."""

    label: int
    start: int
    end: int  # the first moment after the run


def runs_of(labels_T: np.ndarray) -> list[Run]:
    """The segments formed by the classes of moments (T,), in order, without those of the background.

    0 2 2 2 0 1  ->  2 from 1 to 4, 1 from 5 to 6
    """
    starts = np.flatnonzero(np.diff(labels_T, prepend=labels_T[:1] - 1))
    ends = [*starts[1:].tolist(), len(labels_T)]
    found = zip(labels_T[starts].tolist(), starts.tolist(), ends, strict=True)
    return [Run(label, start, end) for label, start, end in found if label != BACKGROUND]


def frame_accuracy(predicted_N: np.ndarray, true_N: np.ndarray) -> float:
    """Fraction of the moments (N,) whose class was predicted, background included."""
    return float((predicted_N == true_N).mean())


def edit_score(predicted_T: np.ndarray, true_T: np.ndarray) -> float:
    """How well the order of a video's segments was predicted, regardless of their boundaries.

    One minus the edit distance of the two orders divided by the length of the longer one; 1 if both are empty. For
    several videos, the mean is reported.

    predicted 1 1 2 1, true 1 2 2 2  ->  orders 1 2 1 and 1 2, distance 1  ->  1 - 1/3

    Args:
        predicted_T: class of each moment of a video.
        true_T: the same, as annotated.

    """
    predicted, true = ([run.label for run in runs_of(labels)] for labels in (predicted_T, true_T))
    above = list(range(len(true) + 1))
    for row, label in enumerate(predicted, start=1):
        distances = [row]
        for column, other in enumerate(true, start=1):
            distances.append(min(above[column] + 1, distances[-1] + 1, above[column - 1] + (label != other)))
        above = distances
    return 1 - above[-1] / max(len(predicted), len(true), 1)


class Hits(NamedTuple):
    """Number of segments of a video that were found."""

    num_hit: int
    num_predicted: int
    num_true: int


def segment_hits(predicted_T: np.ndarray, true_T: np.ndarray, overlap: float) -> Hits:
    """Match segments: in temporal order, each predicted one with the true one that it overlaps most.

    It is a hit if the two have one class, their intersection over union is at least `overlap`, and the true segment has
    not been hit before.

    Args:
        predicted_T: class of each moment of a video.
        true_T: the same, as annotated.
        overlap: smallest intersection over union of a hit, 0 to 1.

    """
    predicted, true = runs_of(predicted_T), runs_of(true_T)
    hit = [False] * len(true)
    for run in predicted:
        overlaps = [_overlap(run, other) for other in true]
        best = max(range(len(true)), key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= overlap:
            hit[best] = True
    return Hits(sum(hit), len(predicted), len(true))


def _overlap(one: Run, other: Run) -> float:
    """Intersection over union; 0 for different classes."""
    intersection = min(one.end, other.end) - max(one.start, other.start)
    union = max(one.end, other.end) - min(one.start, other.start)
    return max(intersection, 0) / union * (one.label == other.label)


def segmental_f1(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], overlap: float) -> float:
    """F1 over the segments of all videos: twice the hits over predicted plus true segments; 0 if there are none.

    Args:
        predicted: class of each moment (T,) of each video.
        true: the same, as annotated.
        overlap: smallest intersection over union of a hit; 0.1, 0.25 and 0.5 are reported.

    """
    hits = [segment_hits(one, other, overlap) for one, other in zip(predicted, true, strict=True)]
    num_segments = sum(found.num_predicted + found.num_true for found in hits)
    return 2 * sum(found.num_hit for found in hits) / max(num_segments, 1)


def average_precision(scores_N: np.ndarray, relevant_N: np.ndarray) -> float:
    """Mean, over the relevant moments, of the precision among all that score at least as high; 0 if none is relevant.

    Moments with equal scores are ranked together, so that a constant score gives the fraction that is relevant.

    scores 3 2 2 1, relevant 1 0 1 0  ->  (1/1 + 2/3) / 2

    Args:
        scores_N: of each moment, for one class.
        relevant_N: bool: whether it is of that class.

    """
    order_N = np.argsort(-scores_N, kind="stable")
    last_N = np.searchsorted(-scores_N[order_N], -scores_N[order_N], side="right")  # number that score at least as high
    precision_N = np.cumsum(relevant_N[order_N])[last_N - 1] / last_N
    return float((precision_N * relevant_N[order_N]).sum() / max(relevant_N.sum(), 1))
