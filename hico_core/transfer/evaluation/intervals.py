"""Confidence intervals of accuracies: bootstrap over groups, whose clips are too alike to count as independent."""

# N clips, G groups, K distinct groups, R resamples.

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hico_core.base.errors import UsageError, counted

_RESAMPLES = 10_000

# Number of resamples drawn at once.
_AT_ONCE = 500

# Percentiles of the resamples at the ends of an interval.
_PERCENTILES = (2.5, 97.5)

# Number of standard deviations from the mean at which a normal distribution has those percentiles.
_NORMAL_QUANTILE = 1.959964


class Estimate(NamedTuple):
    """A mean over clips, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_interval(values: np.ndarray, groups: Sequence[str], *, seed: int) -> Estimate:
    """The mean over clips, with its percentile interval from resampling whole groups with replacement.

    Args:
        values: (N,) of each clip: 1 if it was classified correctly, 0 if not.
        groups: group of each clip.
        seed: of the draws.

    Raises:
        UsageError: all clips are in one group, which says nothing about other groups.

    """
    return ratio_interval(np.asarray(values), np.ones(len(values)), groups, seed=seed)


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray, groups: Sequence[str], *, seed: int) -> Estimate:
    """The same for a ratio of two sums, such as correct over all seconds, with videos of different length.

    Args:
        numerators: (N,) contribution of each clip or video to the numerator.
        denominators: (N,) contribution of each to the denominator.
        groups: group of each.
        seed: of the draws.

    Raises:
        UsageError: see `bootstrap_interval`.

    """
    names, group_N = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise UsageError(
            f"all test clips are in one group, {str(names[0])!r}; a confidence interval needs at least two"
        )
    sums_and_counts_G2 = np.stack(
        [np.bincount(group_N, weights=column) for column in (numerators, denominators)], axis=1
    )
    # Groups with the same sum and number of clips are interchangeable, and single clips are of two or three kinds.
    kinds_K2, num_groups_K = np.unique(sums_and_counts_G2, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(_RESAMPLES // _AT_ONCE):
        drawn_R2 = rng.multinomial(len(names), num_groups_K / len(names), size=_AT_ONCE) @ kinds_K2
        means.append(drawn_R2[:, 0] / drawn_R2[:, 1].clip(1e-12))
    low, high = np.percentile(np.concatenate(means), _PERCENTILES)
    return Estimate(float(numerators.sum() / max(denominators.sum(), 1e-12)), float(low), float(high))


def paired_difference(correct: np.ndarray, reference: np.ndarray, groups: Sequence[str], *, seed: int) -> Estimate:
    """How much more accurate one classifier is than another on the same clips; clips that both find hard cancel out.

    Args:
        correct: (N,) 0 or 1.
        reference: (N,) the same for the other classifier.
        groups: group of each clip.
        seed: of the draws.

    Raises:
        UsageError: see `bootstrap_interval`.

    """
    return bootstrap_interval(correct.astype(np.float64) - reference, groups, seed=seed)


def wilson_interval(part: float, total: int) -> Estimate:
    """A fraction of `total` videos, each right or wrong, with its 95 % interval (Wilson, JASA 1927).

    Unlike the bootstrap, it is meaningful even for three videos.
    """
    z = _NORMAL_QUANTILE
    centre = (part + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(part * (1 - part) / total + z**2 / (4 * total**2))
    return Estimate(part, max(centre - half, 0.0), min(centre + half, 1.0))


def percent(part: float) -> str:
    """0.3333 -> 33.3 %."""
    return f"{100 * part:.1f} %"


def in_context(part: float, total: int, *, chance: float, noun: str = "test video") -> str:
    """An accuracy with its context: 33.3 % (1 of 3 test videos; chance 33.3 %; ...).

    Args:
        part: fraction of correct videos, or the mean of several measurements.
        total: number of videos.
        chance: fraction that guessing gets right.
        noun: name of what is counted.

    """
    right = part * total
    number = f"{right:.0f}" if abs(right - round(right)) < 1e-6 else f"{right:.1f}"
    _, low, high = wilson_interval(part, total)
    of = f"{number} of {counted(total, noun)}"
    return f"{percent(part)} ({of}; chance {percent(chance)}; 95 % interval {100 * low:.1f} to {percent(high)})"
