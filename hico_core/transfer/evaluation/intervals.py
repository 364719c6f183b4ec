"""How sure a measured accuracy is: bootstrap over groups, whose clips are too alike to count as single observations."""

# N clips, G groups, K kinds of groups, R resamples.

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hico_core.base.errors import UsageError, counted

_RESAMPLES = 10_000

# Resamples that are drawn at once.
_AT_ONCE = 500

# What of the resamples lies between the ends of an interval, in percent.
_PERCENTILES = (2.5, 97.5)

# So many standard deviations around its mean lies what those percentiles cut off of a normal distribution.
_NORMAL_QUANTILE = 1.959964


class Estimate(NamedTuple):
    """A mean over clips, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_interval(values: np.ndarray, groups: Sequence[str], *, seed: int) -> Estimate:
    """The mean over clips, with its percentile interval where whole groups are drawn with replacement.

    Args:
        values: (N,) of each clip: 1 where it was classified correctly, 0 where not.
        groups: group of each clip.
        seed: of the draws.

    Raises:
        UsageError: all clips are in one group, which tells nothing of others.

    """
    return ratio_interval(np.asarray(values), np.ones(len(values)), groups, seed=seed)


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray, groups: Sequence[str], *, seed: int) -> Estimate:
    """The same of a ratio of two sums, such as seconds predicted correctly and seconds, where videos differ in length.

    Args:
        numerators: (N,) what each clip or video adds above.
        denominators: (N,) and below.
        groups: group of each.
        seed: of the draws.

    Raises:
        UsageError: see `bootstrap_interval`.

    """
    names, group_N = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise UsageError(f"all test clips are in one group, {str(names[0])!r}; an interval takes two groups or more")
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
    """How much more accurate one classifier is than another on the same clips; what both find hard cancels out.

    Args:
        correct: (N,) 0 or 1.
        reference: (N,) the same, of the other.
        groups: group of each clip.
        seed: of the draws.

    Raises:
        UsageError: see `bootstrap_interval`.

    """
    return bootstrap_interval(correct.astype(np.float64) - reference, groups, seed=seed)


def wilson_interval(part: float, total: int) -> Estimate:
    """A part of `total` videos, each right or wrong, with its 95 % interval (Wilson, JASA 1927).

    Other than the bootstrap, it says something of three videos, too.
    """
    z = _NORMAL_QUANTILE
    centre = (part + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(part * (1 - part) / total + z**2 / (4 * total**2))
    return Estimate(part, max(centre - half, 0.0), min(centre + half, 1.0))


def percent(part: float) -> str:
    """0.3333 -> 33.3 %."""
    return f"{100 * part:.1f} %"


def in_context(part: float, total: int, *, chance: float, noun: str = "test video") -> str:
    """An accuracy with what it should be read beside: 33.3 % (1 of 3 test videos; chance 33.3 %; ...).

    Args:
        part: of the videos that are right, or the mean of several measurements.
        total: how many there are.
        chance: part that guessing gets right.
        noun: what they are.

    """
    right = part * total
    number = f"{right:.0f}" if abs(right - round(right)) < 1e-6 else f"{right:.1f}"
    _, low, high = wilson_interval(part, total)
    of = f"{number} of {counted(total, noun)}"
    return f"{percent(part)} ({of}; chance {percent(chance)}; 95 % interval {100 * low:.1f} to {percent(high)})"
