"""Folds for cross-validation by group: clips of one scene, person or camera are never on both sides.

Pure functions of labels and groups without randomness, so that a comparison can be repeated and extended.
"""

# N clips, G groups, K folds, C classes.

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hico_core.base.errors import UsageError, counted
from hico_core.corpus.sources.grouped_lists import GroupedClip, GroupedList

# Number of parts of the training rows that choose the settings.
_CHOOSING_FOLDS = 5


def folds_by_group(
    labels: Sequence[str] | np.ndarray, groups: Sequence[str] | np.ndarray, num_folds: int
) -> np.ndarray:
    """The fold in which each clip is tested, 0 to K - 1: (N,) int64.

    The largest groups are placed first, each into the smallest fold; ties go to the fold with the fewest clips of the
    group's classes. A fold that would then hold all groups of a class is avoided, as no clips of that class would be
    left to train on.

    Args:
        labels: class of each clip.
        groups: group of each clip.
        num_folds: at least 2.

    Raises:
        UsageError: there are fewer groups than folds.

    """
    names, group_N = np.unique(np.asarray(groups), return_inverse=True)
    classes, label_N = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        raise UsageError(f"all clips are in one group, {str(names[0])!r}; at least two groups are needed")
    if len(names) < num_folds:
        raise UsageError(f"--folds {num_folds}: there are only {len(names)} groups; use --folds {len(names)}")
    clips_GC = np.zeros((len(names), len(classes)), dtype=np.int64)
    np.add.at(clips_GC, (group_N, label_N), 1)
    placed_KC = np.zeros((num_folds, len(classes)), dtype=np.int64)
    totals_C = clips_GC.sum(axis=0)
    fold_G = np.zeros(len(names), dtype=np.int64)
    for group in np.argsort(-clips_GC.sum(axis=1), kind="stable"):
        new_KC = placed_KC + clips_GC[group]
        whole_classes_K = ((new_KC == totals_C) & (clips_GC[group] > 0)).sum(axis=1)
        alike_K = (placed_KC * (clips_GC[group] / totals_C)).sum(axis=1)
        # The last key takes precedence.
        fold = np.lexsort((alike_K, placed_KC.sum(axis=1), whole_classes_K))[0]
        placed_KC[fold] += clips_GC[group]
        fold_G[group] = fold
    found: np.ndarray = fold_G[group_N]
    return found


def choosing_parts(labels: Sequence[str] | np.ndarray, groups: Sequence[str] | np.ndarray) -> list[np.ndarray]:
    """Up to five parts of the training rows by group, each (N,) bool, for choosing settings; empty with a single group.

    Args:
        labels: class of each row.
        groups: group of each row.

    """
    num_folds = min(_CHOOSING_FOLDS, len(np.unique(groups)))
    if num_folds < 2:
        return []
    fold_N = folds_by_group(labels, groups, num_folds)
    return [fold_N == fold for fold in range(num_folds)]


def remarks_on_groups(
    labels: Sequence[str], groups: Sequence[str], tested_in: np.ndarray, *, unit: str = "clip"
) -> list[str]:
    """Remarks on classes and groups that a reader of the results should know, one sentence each.

    Args:
        labels: class of each clip.
        groups: group of each clip.
        tested_in: the fold in which each clip is tested; it is trained on in all others, and -1 is never tested.
        unit: noun for a clip.

    Raises:
        UsageError: there is only one class, or no class is both trained on and tested.

    """
    if len(set(labels)) < 2:
        raise UsageError(f"all clips have the label {labels[0]!r}; at least two classes are needed")
    label_N = np.asarray(labels)
    untrained = [
        (label, fold)
        for fold in np.unique(tested_in[tested_in >= 0])
        for label in np.unique(label_N[tested_in == fold])
        if label not in label_N[tested_in != fold]
    ]
    strangers = sorted({str(label) for label, _ in untrained})
    num_lost = sum(((label_N == label) & (tested_in == fold)).sum() for label, fold in untrained)
    if num_lost == (tested_in >= 0).sum():
        raise UsageError(f"no class has {unit}s for both training and testing; each class needs at least two groups")
    remarks = []
    if strangers:
        remarks.append(
            f"class {_some(strangers)}: no {unit}s to train on, because all are tested together, so "
            f"{counted(int(num_lost), f'test {unit}')} must be wrong; add {unit}s in other groups"
        )
    classes_of = Counter(group for group, _ in set(zip(groups, labels, strict=True)))
    num_pure = sum(count == 1 for count in classes_of.values())
    if num_pure and len(classes_of) < len(label_N):
        remarks.append(
            f"in {num_pure} of {counted(len(classes_of), 'group')} all {unit}s have one class, so an encoder that "
            f"recognises the group seems to recognise the class; add groups with {unit}s of several classes"
        )
    return remarks


def _some(names: Sequence[str], most: int = 3) -> str:
    """List some names: a, b, c and 2 more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


class SplitClips(NamedTuple):
    """Clips with the fold in which each is tested."""

    clips: list[GroupedClip]
    tested_in: np.ndarray  # (N,) int64: the fold that tests each clip; all others train on it; -1: never tested
    remarks: list[str]  # what a reader of the results should know

    def only(self, chosen: np.ndarray) -> "SplitClips":
        """The split limited to some clips, (N,) bool."""
        clips = [clip for clip, is_chosen in zip(self.clips, chosen, strict=True) if is_chosen]
        return SplitClips(clips, self.tested_in[chosen], self.remarks)

    @property
    def labels(self) -> list[str]:
        """Class of each clip."""
        return [clip.label for clip in self.clips]

    @property
    def groups(self) -> list[str]:
        """Group of each clip."""
        return [clip.group for clip in self.clips]


def split_into_folds(listed: GroupedList, *, num_folds: int) -> SplitClips:
    """Assign each clip to the one fold in which it is tested; a group is never divided.

    Raises:
        UsageError: there are too few groups, or each class lies in a single group.

    """
    labels, groups = [clip.label for clip in listed.clips], [clip.group for clip in listed.clips]
    tested_in = folds_by_group(labels, groups, num_folds)
    return SplitClips(listed.clips, tested_in, _remarks(labels, groups, tested_in, listed.has_groups))


def split_as_listed(train: GroupedList, test: GroupedList) -> SplitClips:
    """Train on the clips of one list, and test on those of another.

    Raises:
        UsageError: a group is in both lists, the test clips form a single group, or no class is in both lists.

    """
    both = sorted({clip.group for clip in train.clips} & {clip.group for clip in test.clips})
    if both:
        what = "group" if train.has_groups or test.has_groups else "clip"
        raise UsageError(f"--train and --test: share {counted(len(both), what)}, such as {both[0]!r}")
    if len({clip.group for clip in test.clips}) < 2:
        raise UsageError(
            f"--test: all its clips are in one group, {test.clips[0].group!r}; a confidence interval needs at least two"
        )
    clips = [*train.clips, *test.clips]
    labels, groups = [clip.label for clip in clips], [clip.group for clip in clips]
    tested_in = np.repeat([-1, 0], [len(train.clips), len(test.clips)])
    return SplitClips(clips, tested_in, _remarks(labels, groups, tested_in, train.has_groups and test.has_groups))


def _remarks(labels: Sequence[str], groups: Sequence[str], tested_in: np.ndarray, has_groups: bool) -> list[str]:
    alone = (
        "the list has no groups, so each clip is its own group; if clips share a scene, camera or person, accuracies "
        "are too high, and intervals too narrow: add a third column with the group"
    )
    return [*([] if has_groups else [alone]), *remarks_on_groups(labels, groups, tested_in)]
