"""How sure a measured accuracy is: bootstrap over groups, whose clips are too alike to count as single observations."""

# N clips, G groups, K kinds of groups, R resamples.

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hico_core.base.errors import UsageError

_RESAMPLES = 10_000

# Resamples that are drawn at once.
_AT_ONCE = 500

# What of the resamples lies between the ends of an interval, in percent.
_PERCENTILES = (2.5, 97.5)


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
