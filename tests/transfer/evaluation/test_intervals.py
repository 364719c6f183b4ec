"""Intervals agree with a bootstrap that draws groups one by one, and pairs cancel what clips have in common."""

import random

import numpy as np
import pytest

from hico_core.base.errors import UsageError
from hico_core.transfer.evaluation.intervals import (
    bootstrap_interval,
    in_context,
    paired_difference,
    wilson_interval,
)


def slow_bootstrap(values: list[float], groups: list[str], *, resamples: int, seed: int) -> tuple[float, float]:
    """The textbook's, with lists."""
    rng = random.Random(seed)
    names = sorted(set(groups))
    means = []
    for _ in range(resamples):
        drawn = [
            value
            for name in rng.choices(names, k=len(names))
            for value, group in zip(values, groups, strict=True)
            if group == name
        ]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[round(0.025 * resamples)], means[round(0.975 * resamples) - 1]


def made(seed: int, *, clips: int = 60, groups: int = 12) -> tuple[np.ndarray, list[str]]:
    """Answers of groups that differ in size and in how hard they are."""
    rng = np.random.default_rng(seed)
    group_N = np.concatenate([np.arange(groups), rng.integers(0, groups, clips - groups) ** 2 // groups])
    hard_G = rng.random(groups)
    return (rng.random(clips) < hard_G[group_N]).astype(float), [f"g{group}" for group in group_N]


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_is_the_slow_bootstraps(seed: int) -> None:
    correct, groups = made(seed)
    found = bootstrap_interval(correct, groups, seed=1)
    low, high = slow_bootstrap(correct.tolist(), groups, resamples=3000, seed=2)
    assert found.value == correct.mean()
    # Ends of intervals from 3,000 and 10,000 draws differ by chance, by less than a fifth of the half width.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert found == bootstrap_interval(correct, groups, seed=1) != bootstrap_interval(correct, groups, seed=2)


def test_a_difference_is_the_slow_bootstraps_of_differences() -> None:
    (correct, groups), (reference, _) = made(0), made(0)
    reference[::5] = 1 - reference[::5]
    found = paired_difference(correct, reference, groups, seed=1)
    low, high = slow_bootstrap((correct - reference).tolist(), groups, resamples=3000, seed=2)
    assert found.value == pytest.approx(correct.mean() - reference.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert found.high - found.low < (lambda one: one.high - one.low)(bootstrap_interval(correct, groups, seed=1))
    assert paired_difference(correct, correct, groups, seed=1) == (0, 0, 0)


def test_clips_of_a_group_count_less_than_single_ones() -> None:
    """Ten alike clips in each of ten groups are as unsure as ten clips, not as a hundred."""
    correct = np.repeat([1.0, 0.0] * 5, 10)
    together = bootstrap_interval(correct, [f"g{place // 10}" for place in range(100)], seed=0)
    apart = bootstrap_interval(correct, [f"g{place}" for place in range(100)], seed=0)
    assert together.high - together.low > 2.5 * (apart.high - apart.low)


def test_one_group_has_no_interval() -> None:
    with pytest.raises(UsageError, match="one group, 'g'"):
        bootstrap_interval(np.ones(4), ["g"] * 4, seed=0)


@pytest.mark.parametrize(("right", "total"), [(0, 3), (1, 3), (3, 3), (7, 20), (250, 1000)])
def test_wilsons_interval_holds_what_is_not_refuted(right: int, total: int) -> None:
    """Its ends are the two chances from which what was seen lies 1.96 standard deviations away."""
    value, low, high = wilson_interval(right / total, total)
    assert value == right / total
    for end in (low, high):
        away = abs(value - end) / max(np.sqrt(end * (1 - end) / total), 1e-12)
        assert min(end, 1 - end) < 1e-12 or away == pytest.approx(1.96, abs=1e-3)
    assert low - 1e-12 <= value <= high + 1e-12 and low < high


@pytest.mark.parametrize(
    ("part", "total", "said"),
    [
        (1 / 3, 3, "33.3 % (1 of 3 test videos; chance 25.0 %; 95 % interval 6.1 to 79.2 %)"),
        (0.85, 10, "85.0 % (8.5 of 10 test videos; chance 25.0 %; 95 % interval 54.1 to 96.5 %)"),
        (1.0, 1, "100.0 % (1 of 1 test video; chance 25.0 %; 95 % interval 20.7 to 100.0 %)"),
    ],
)
def test_an_accuracy_in_context(part: float, total: int, said: str) -> None:
    assert in_context(part, total, chance=0.25) == said
