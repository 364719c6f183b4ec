"""Folds keep groups together, are of like size, and leave something of each class to train on."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hico_core.base.errors import UsageError
from hico_core.transfer.evaluation.folds import choosing_parts, folds_by_group, remarks_on_groups

CLIPS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 11)), min_size=2, max_size=60)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(clips=CLIPS, num_folds=st.integers(2, 5))
def test_no_group_is_on_both_sides_and_folds_are_of_like_size(clips: list[tuple[str, int]], num_folds: int) -> None:
    labels, groups = [label for label, _ in clips], [f"g{group}" for _, group in clips]
    if len(set(groups)) < num_folds:
        with pytest.raises(UsageError, match="one group" if len(set(groups)) == 1 else "--folds"):
            folds_by_group(labels, groups, num_folds)
        return
    folds = folds_by_group(labels, groups, num_folds)
    assert set(folds.tolist()) <= set(range(num_folds))
    for group in set(groups):
        assert len({int(fold) for fold, own in zip(folds, groups, strict=True) if own == group}) == 1
    np.testing.assert_array_equal(folds, folds_by_group(labels, groups, num_folds))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 9), min_size=5, max_size=30), num_folds=st.integers(2, 5))
def test_sizes_differ_by_no_more_than_the_largest_group(sizes: list[int], num_folds: int) -> None:
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    counts = Counter(folds_by_group(["x"] * len(groups), groups, num_folds).tolist())
    assert len(counts) == num_folds
    assert max(counts.values()) - min(counts.values()) <= max(sizes)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(groups_of=st.lists(st.integers(2, 6), min_size=2, max_size=8), num_folds=st.integers(2, 5))
def test_each_class_with_two_groups_of_its_own_is_trained_on(groups_of: list[int], num_folds: int) -> None:
    labels = [f"class{number}" for number, count in enumerate(groups_of) for _ in range(count)]
    groups = [f"g{number}" for number in range(len(labels))]
    if len(groups) < num_folds:
        return
    folds = folds_by_group(labels, groups, num_folds)
    for fold in range(num_folds):
        trained = {label for label, own in zip(labels, folds, strict=True) if own != fold}
        assert trained == set(labels)


def test_classes_are_spread_over_folds() -> None:
    """Ten groups of one size, half of them of each class: each of five folds gets one of each."""
    labels = ["a"] * 10 + ["b"] * 10
    groups = [f"g{number // 2}" for number in range(20)]
    folds = folds_by_group(labels, groups, 5)
    assert Counter(zip(folds.tolist(), labels, strict=True)) == {(f, label): 2 for f in range(5) for label in "ab"}


def test_order_of_the_list_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.choice(list("abc"), 80), rng.choice([f"g{n}" for n in range(12)], 80)
    folds, order = folds_by_group(list(labels), list(groups), 4), rng.permutation(80)
    np.testing.assert_array_equal(folds_by_group(list(labels[order]), list(groups[order]), 4), folds[order])


@pytest.mark.parametrize(
    ("labels", "groups", "tested_in", "said"),
    [
        ("abab", "xxyy", [0, 0, 1, 1], []),
        ("aabb", "wxyz", [0, 1, 0, 1], []),  # each clip is its own group: of course it has one class
        ("aaabbb", "wwxxyy", [0, 0, 1, 1, 2, 2], ["in 2 of 3 groups all clips have one class, so .*; add groups"]),
        ("ababc", "xxyyy", [0, 0, 1, 1, 1], ["class c: no clips to train on.* 1 test clip must"]),
        ("abac", "wxyz", [-1, -1, 0, 0], ["class c: "]),  # a list to train on and one to test on
    ],
)
def test_what_is_said_of_groups(labels: str, groups: str, tested_in: list[int], said: list[str]) -> None:
    remarks = remarks_on_groups(list(labels), list(groups), np.array(tested_in))
    assert len(remarks) == len(said)
    for remark, part in zip(remarks, said, strict=True):
        assert re.search(part, remark)


def test_groups_that_are_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="each class needs at least two groups"):
        remarks_on_groups(list("aabb"), list("xxyy"), np.array([0, 0, 1, 1]))


@pytest.mark.parametrize(("groups", "num_parts"), [("aabbcc", 3), ("abcdefg", 5), ("aaaa", 0)])
def test_each_group_chooses_in_one_part(groups: str, num_parts: int) -> None:
    parts = choosing_parts(["x"] * len(groups), list(groups))
    assert len(parts) == num_parts
    for group in set(groups):
        chooses = [[one for one, own in zip(part, groups, strict=True) if own == group] for part in parts]
        assert sum(all(own) for own in chooses) == (num_parts > 0)
        assert sum(any(own) for own in chooses) == (num_parts > 0)
